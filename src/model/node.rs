//! The proxy on the other end of a stream, as its node message describes it.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{
    locality::Locality,
    name::{ClusterId, Labels, NetworkId},
};

/// What a proxy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProxyKind {
    /// Beside a workload.
    Sidecar,
    /// A gateway (`router` in node ids).
    Router,
}

/// How traffic comes to a sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interception {
    /// Redirected to 15001 and 15006.
    #[default]
    Redirect,
    /// As above, keeping source addresses.
    Tproxy,
    /// Not captured: real listeners.
    None,
}

/// Where a proxy gets its own certificate from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretSource {
    /// From us, over the same ADS stream: plain Envoy.
    Ads,
    /// From Istio's agent beside it, through its bootstrap cluster `sds-grpc`.
    Agent,
}

/// Istio's own Envoy extensions, which a proxy has only if its node lists them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extensions {
    /// `istio.alpn`.
    pub alpn: bool,
    /// `istio.metadata_exchange` and `envoy.filters.http.peer_metadata`.
    pub metadata_exchange: bool,
    /// `istio.stats`.
    pub stats: bool,
}

impl Extensions {
    /// Whether something in the proxy reads which workload an endpoint belongs to: that is for Istio's telemetry.
    pub fn read_workloads(self) -> bool {
        self.stats || self.metadata_exchange
    }
}

/// How a sidecar takes the hosts of an HTTP port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VirtualHosts {
    /// As one route configuration (RDS): any change sends all of it again.
    #[default]
    Together,
    /// Each as a resource of its own (VHDS), which only Delta streams can carry.
    OneByOne,
}

/// A connected proxy. Builders never see it: only views that are derived from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    /// Third part of the node id: `pod.namespace`.
    pub id: Arc<str>,
    /// The whole node id.
    pub node_id: Arc<str>,
    /// What it is for.
    pub kind: ProxyKind,
    /// Its addresses, at least one.
    pub ips: Vec<IpAddr>,
    /// Metadata NAMESPACE, else from the node id.
    pub namespace: Arc<str>,
    /// The pod's name: metadata NAME, else from the node id.
    pub name: Arc<str>,
    /// Metadata SERVICE_ACCOUNT.
    pub service_account: Option<Arc<str>>,
    /// Metadata CLUSTER_ID; empty if unknown.
    pub cluster: ClusterId,
    /// Metadata NETWORK; empty if unknown.
    pub network: NetworkId,
    /// Metadata LABELS; the registry's win when the pod is known.
    pub labels: Labels,
    /// `node.locality`; the registry's wins when the pod is known.
    pub locality: Locality,
    /// The node that it runs on.
    pub node: Option<Arc<str>>,
    /// Metadata REQUESTED_NETWORK_VIEW; none: all networks.
    pub requested_networks: Option<BTreeSet<NetworkId>>,
    /// Metadata INTERCEPTION_MODE.
    pub interception: Interception,
    /// From `node.extensions`.
    pub extensions: Extensions,
    /// Where its certificate comes from.
    pub secrets: SecretSource,
    /// What its stream, its version and its metadata allow.
    pub virtual_hosts: VirtualHosts,
    /// Load assignments of more endpoints than this reach it endpoint by endpoint (LEDS), which only Delta streams can
    /// carry, if its version and its metadata allow it. None: all are whole.
    pub one_by_one_above: Option<usize>,
    /// DNS domain of the node id, e.g. `production.svc.cluster.local`.
    pub dns_domain: Arc<str>,
    /// Metadata ISTIO_VERSION, for display.
    pub istio_version: Option<Arc<str>>,
    /// Envoy's user agent and version, for display.
    pub user_agent: Option<Arc<str>>,
}
