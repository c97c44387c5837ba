//! Endpoints: one address and port of a workload that serves a service port.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    locality::Locality,
    name::{ClusterId, Labels, NetworkId},
};

/// What endpoints of the same pod share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The cluster that it runs in.
    pub cluster: ClusterId,
    /// Its network; empty if unknown.
    pub network: NetworkId,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Region, zone, subzone.
    pub locality: Locality,
    /// Pod labels with the topology labels added (`topology.istio.io/cluster`, `/network`, region, zone, subzone,
    /// `kubernetes.io/hostname`).
    pub labels: Labels,
    /// `spiffe://TD/ns/NS/sa/SA`; none when the pod is unknown.
    pub identity: Option<Arc<str>>,
    /// Label `security.istio.io/tlsMode` is `istio`: a proxy in front of it accepts mutual TLS.
    pub accepts_mtls: bool,
    /// The node, for node-local services.
    pub node: Option<Arc<str>>,
    /// The pod's name; the address when the pod is unknown.
    pub name: Arc<str>,
    /// The owning workload, for telemetry.
    pub workload: Arc<str>,
}

/// Whether an endpoint may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Ready.
    Healthy,
    /// Not ready, not going away: sent as UNHEALTHY so that Envoy counts it when it spills to the next priority.
    Unhealthy,
    /// Going away, still serving: gets no new requests.
    Draining,
    /// Going away and not serving: never sent.
    Terminating,
}

/// One address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod's address.
    pub address: IpAddr,
    /// The pod's port.
    pub port: u16,
    /// The service port's name that it serves.
    pub port_name: Arc<str>,
    /// Whether it may be called.
    pub health: Health,
    /// Relative share of requests; at least 1.
    pub weight: u32,
    /// The pod behind it.
    pub workload: Arc<Workload>,
}

/// All endpoints of a service, per cluster, each list ordered by address and port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEndpoints {
    /// A cluster that is away keeps its list.
    pub clusters: BTreeMap<ClusterId, Arc<[Endpoint]>>,
    /// Identities of all endpoints: what a client accepts as the service ("secure naming").
    pub identities: BTreeSet<Arc<str>>,
    /// Localities of all endpoints. More than one means that failover is possible.
    pub localities: BTreeSet<Locality>,
}

impl ServiceEndpoints {
    /// Every endpoint, cluster by cluster.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.clusters.values().flat_map(|list| list.iter())
    }
}

/// A gateway through which a network is reached from outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetworkGateway {
    /// The network behind it.
    pub network: NetworkId,
    /// The cluster whose gateway it is; empty for gateways of `meshNetworks`.
    pub cluster: ClusterId,
    /// IP address, or a host name that was not resolved.
    pub address: Arc<str>,
    /// The port that routes by SNI, 15443 unless said otherwise.
    pub port: u16,
}
