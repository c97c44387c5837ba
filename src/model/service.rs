//! Services as the mesh knows them: one per host name and namespace, over all clusters.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    change::ObjectKey,
    name::{ClusterId, Labels},
    port::Protocol,
};

/// A service's identity in the mesh.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Fully qualified, e.g. `backend.production.svc.cluster.local`.
    pub host: Arc<str>,
    /// The namespace that defines it.
    pub namespace: Arc<str>,
}

impl ServiceKey {
    /// The name within its namespace, where `domain` is the suffix of the hosts of Kubernetes services.
    pub fn short(&self, domain: &str) -> Option<&str> {
        let in_cluster = self.host.strip_suffix(domain)?.strip_suffix(".svc.")?;
        in_cluster.strip_suffix(&*self.namespace)?.strip_suffix('.').filter(|short| !short.is_empty())
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

/// A service, merged from its definitions in all clusters. Changes when any definition does; endpoints are apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its identity.
    pub key: ServiceKey,
    /// The short name.
    pub name: Arc<str>,
    /// Ports, ordered by number. Conflicting definitions are decided per port: the oldest wins.
    pub ports: Vec<Port>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Virtual addresses in each cluster that defines it with some.
    pub vips: BTreeMap<ClusterId, Vec<IpAddr>>,
    /// Only endpoints on the caller's node.
    pub node_local: bool,
    /// Only endpoints of the caller's cluster (mesh config `serviceSettings`, Istio's default hosts).
    pub cluster_local: bool,
    /// The clusters that offer their endpoints to clients of others (`ENABLE_MCS_SERVICE_DISCOVERY`). None: all do.
    pub exported_by: Option<BTreeSet<ClusterId>>,
    /// Namespaces that see it.
    pub export_to: ExportTo,
    /// Labels of the oldest definition.
    pub labels: Labels,
    /// Creation time of the oldest definition, seconds since 1970, 0 if unknown.
    pub created: i64,
    /// SPIFFE identities (and service account annotations) that may serve it beside those of its endpoints.
    pub extra_identities: BTreeSet<Arc<str>>,
    /// The Kubernetes objects that it was merged from.
    pub sources: Vec<ObjectKey>,
    /// Where the definitions contradict each other, for people.
    pub conflicts: Vec<Arc<str>>,
}

impl Service {
    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|p| p.number == number)
    }

    /// The addresses under which a client of `cluster` calls the service: that cluster's own, else those of the
    /// first cluster by name that has some (Istio: a service that exists only remotely still gets a listener on the
    /// remote address).
    pub fn vips_for(&self, cluster: &ClusterId) -> &[IpAddr] {
        self.vips.get(cluster).or_else(|| self.vips.values().next()).map(Vec::as_slice).unwrap_or_default()
    }
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name; matches the endpoints' port name.
    pub name: Arc<str>,
    /// The service port.
    pub number: u16,
    /// What is spoken.
    pub protocol: Protocol,
}

/// How endpoints are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// From the registry; Envoy balances.
    ClientSide,
    /// Headless: the caller picks the address.
    Passthrough,
    /// ExternalName: another host's alias.
    Alias(Arc<str>),
}

/// Which namespaces see an object (`exportTo`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportTo {
    /// `*`, and the default.
    #[default]
    Public,
    /// `~`: nobody.
    Nobody,
    /// These namespaces (`.` is resolved to the object's own).
    Namespaces(BTreeSet<Arc<str>>),
}

impl ExportTo {
    /// Parses Istio's list for an object of `namespace`; an empty list is `default`.
    pub fn parse<'a>(
        values: impl IntoIterator<Item = &'a str>,
        namespace: &Arc<str>,
        default: &ExportTo,
    ) -> Self {
        let mut names = BTreeSet::new();
        let mut any = false;
        for value in values.into_iter().map(str::trim).filter(|v| !v.is_empty()) {
            any = true;
            match value {
                "*" => return Self::Public,
                "~" => {}
                "." => drop(names.insert(namespace.clone())),
                other => drop(names.insert(other.into())),
            }
        }
        match (any, names.is_empty()) {
            (false, _) => default.clone(),
            (true, true) => Self::Nobody,
            (true, false) => Self::Namespaces(names),
        }
    }

    /// Whether `namespace` sees the object.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::Public => true,
            Self::Nobody => false,
            Self::Namespaces(names) => names.contains(namespace),
        }
    }
}
