//! What sources tell the pipeline. Files and Kubernetes watchers speak this one language.

use std::{
    fmt,
    sync::Arc,
    time::{Instant, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    destination_rule::DestinationRule,
    gateway::Gateway,
    kubernetes::{EndpointSlice, Namespace, Node, Pod, Service, ServiceAccount},
    mcs::{ServiceExport, ServiceImport},
    mesh::MeshConfig,
    name::ClusterId,
    peer_authentication::PeerAuthentication,
    remote_secret::RemoteSecret,
};

/// One change of the world. A source sends objects as they are now; the pipeline compares and ignores what is equal.
#[derive(Clone, Debug)]
pub enum Change {
    /// The object exists and looks like this.
    Upsert(ObjectKey, Object),
    /// The object is known to be gone. Never sent because it could not be seen.
    Remove(ObjectKey),
    /// What is known about a cluster's source.
    Cluster(ClusterId, ClusterState),
    /// The operator took the cluster away: nothing of it holds any more.
    Forget(ClusterId),
}

/// Changes that belong together, as a source saw them.
#[derive(Clone, Debug)]
pub struct Batch {
    /// In the order in which they hold.
    pub changes: Vec<Change>,
    /// When the source saw the first of them: where propagation times begin.
    pub seen: Instant,
}

/// What is known about a cluster's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// The first full read is under way; nothing may be concluded from absence.
    Syncing,
    /// Everything that exists was sent, and changes are being watched.
    Synced,
    /// The source is away since then; what was known stays in force.
    Stale {
        /// When it was last seen whole.
        since: SystemTime,
        /// What happened, for people.
        reason: Arc<str>,
    },
}

/// The kinds of objects that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// v1
    Namespace,
    /// v1
    Node,
    /// v1
    ServiceAccount,
    /// v1
    Service,
    /// v1
    Pod,
    /// discovery.k8s.io/v1
    EndpointSlice,
    /// v1 ConfigMap `istio` of the root namespace
    MeshConfig,
    /// networking.istio.io
    Gateway,
    /// networking.istio.io
    DestinationRule,
    /// security.istio.io
    PeerAuthentication,
    /// multicluster.x-k8s.io
    ServiceExport,
    /// multicluster.x-k8s.io
    ServiceImport,
    /// v1 Secret with label `istio/multiCluster` of the root namespace; never sent to the pipeline
    RemoteSecret,
}

/// An object's identity over all clusters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Where it was found.
    pub cluster: ClusterId,
    /// What it is.
    pub kind: Kind,
    /// Empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectKey {
    /// `east/production/Service/backend`, as people read it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.cluster)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{:?}/{}", self.kind, self.name)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An object as it is now, shared: comparing and keeping it costs nothing. It is written to disk in this form
/// (`registry::durable`); credentials are not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Object {
    /// A Namespace.
    Namespace(Arc<Namespace>),
    /// A Node.
    Node(Arc<Node>),
    /// A ServiceAccount.
    ServiceAccount(Arc<ServiceAccount>),
    /// A Service.
    Service(Arc<Service>),
    /// A Pod.
    Pod(Arc<Pod>),
    /// An EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
    /// The mesh configuration.
    MeshConfig(Arc<MeshConfig>),
    /// A Gateway.
    Gateway(Arc<Gateway>),
    /// A DestinationRule.
    DestinationRule(Arc<DestinationRule>),
    /// A PeerAuthentication.
    PeerAuthentication(Arc<PeerAuthentication>),
    /// A ServiceExport.
    ServiceExport(Arc<ServiceExport>),
    /// A ServiceImport.
    ServiceImport(Arc<ServiceImport>),
    /// A Secret that registers clusters.
    #[serde(skip)]
    RemoteSecret(Arc<RemoteSecret>),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::ServiceAccount(_) => Kind::ServiceAccount,
            Self::Service(_) => Kind::Service,
            Self::Pod(_) => Kind::Pod,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::MeshConfig(_) => Kind::MeshConfig,
            Self::Gateway(_) => Kind::Gateway,
            Self::DestinationRule(_) => Kind::DestinationRule,
            Self::PeerAuthentication(_) => Kind::PeerAuthentication,
            Self::ServiceExport(_) => Kind::ServiceExport,
            Self::ServiceImport(_) => Kind::ServiceImport,
            Self::RemoteSecret(_) => Kind::RemoteSecret,
        }
    }
}
