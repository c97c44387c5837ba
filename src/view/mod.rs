//! Views: what a resource may depend on, and nothing else.
//!
//! A view is the equivalence class of proxies that see the same bytes of a type of resource. A builder takes a view and
//! never a proxy, so an attribute that is not part of the view (the cache key) cannot leak into the bytes. A view
//! holds only what some configuration discriminates on: [`derive`] leaves out the rest, so that proxies share.

mod derive;
mod inbound;

use std::{collections::BTreeSet, sync::Arc};

pub use crate::index::Scope;
pub use derive::{KindViews, ProxyViews, derive};
pub use inbound::{InboundPort, InboundView, PassthroughMode};

pub use crate::model::node::VirtualHosts;
use crate::model::{
    ClusterId, Labels, NetworkId,
    gateway::Gateway,
    locality::Locality,
    node::{Extensions, Interception, ProxyKind, SecretSource},
};

/// What outbound clusters depend on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterView {
    /// Sidecars get passthrough clusters; routers get headless services as EDS.
    pub kind: ProxyKind,
    /// Visible services and rules.
    pub scope: Scope,
    /// Where TLS contexts take certificates from.
    pub secrets: SecretSource,
    /// Istio's own filters, if the proxy has them.
    pub extensions: Extensions,
    /// Also `outbound_.PORT_.SUBSET_.HOST` clusters without TLS, for an AUTO_PASSTHROUGH gateway.
    pub sni_dnat: bool,
}

/// What load assignments depend on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointView {
    /// Routers use every gateway, sidecars those with a port.
    pub kind: ProxyKind,
    /// Visible services and rules.
    pub scope: Scope,
    /// For services that stay within a cluster.
    pub cluster: ClusterId,
    /// Endpoints of other networks are reached through gateways. Empty: unknown.
    pub network: NetworkId,
    /// Only endpoints of these networks (and of the unknown one).
    pub requested_networks: Option<BTreeSet<NetworkId>>,
    /// For priorities; empty where no policy asks for it.
    pub locality: Locality,
    /// Those of the proxy's labels that a `failoverPriority` compares.
    pub labels: Labels,
    /// Only where node-local services exist.
    pub node: Option<Arc<str>>,
    /// Also the assignments of `outbound_…` clusters.
    pub sni_dnat: bool,
    /// Endpoints say which workload they belong to: only for proxies in which something reads that.
    pub workloads: bool,
    /// Assignments of more endpoints than this leave them to resources of their own.
    pub one_by_one_above: Option<usize>,
}

/// What outbound listeners depend on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerView {
    /// Visible services.
    pub scope: Scope,
    /// Whose virtual addresses are bound.
    pub cluster: ClusterId,
    /// Captured, or real listeners.
    pub interception: Interception,
    /// Istio's own filters, if the proxy has them.
    pub extensions: Extensions,
    /// The proxy's own addresses, only for a sidecar of a headless service: it does not listen for itself.
    pub own_headless_ips: BTreeSet<std::net::IpAddr>,
}

/// What outbound routes depend on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteView {
    /// Visible services.
    pub scope: Scope,
    /// Short names (`backend`) are those of the proxy's own namespace.
    pub namespace: Arc<str>,
    /// Whose virtual addresses are domains.
    pub cluster: ClusterId,
    /// Where a port's hosts are: in its route configuration, or resources of their own.
    pub virtual_hosts: VirtualHosts,
}

/// What a gateway's listeners depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayView {
    /// Visible services.
    pub scope: Scope,
    /// The Gateways that select the proxy, oldest first.
    pub gateways: Vec<GatewayRef>,
    /// Istio's own filters, if the proxy has them.
    pub extensions: Extensions,
    /// Where TLS contexts take certificates from.
    pub secrets: SecretSource,
}

/// A Gateway as part of a view: equal if it is the same object with the same content.
#[derive(Clone, Debug)]
pub struct GatewayRef(pub Arc<Gateway>);

impl PartialEq for GatewayRef {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for GatewayRef {}

impl std::hash::Hash for GatewayRef {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.meta.namespace.hash(state);
        self.0.meta.name.hash(state);
    }
}
