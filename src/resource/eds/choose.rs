//! Which of a service's endpoints a client may have at all.

use std::{fmt, sync::Arc};

use serde::Serialize;

use super::member::{Cohort, Exclusions, Member, Members, Origin};
use crate::{
    index::Index,
    model::{
        destination_rule::{ClientTlsMode, Subset},
        endpoint::{Endpoint, Health},
        name::selects_by,
        peer_authentication::MtlsMode,
        service::{Port, Service},
        staleness::Treatment,
        workload::HOSTNAME_LABEL,
    },
    resource::policy::{ClientMode, Policy},
    view::EndpointView,
};

/// Label of services whose clients stick to an endpoint.
const PERSISTENT_SESSION: &str = "istio.io/persistent-session";
/// Label of pods that are to get no new requests.
const DRAINING: &str = "istio.io/draining";

/// Why a client does not get an endpoint. Serializes with its kind as `reason`, for people's scripts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Excluded {
    /// Its labels are not those of the subset.
    NotInSubset {
        /// The subset.
        subset: Arc<str>,
    },
    /// The service stays within each cluster.
    OtherCluster {
        /// The endpoint's.
        cluster: Arc<str>,
    },
    /// Other clusters may have only what is exported, and this is not.
    NotExported {
        /// The endpoint's.
        cluster: Arc<str>,
    },
    /// The service stays within each node.
    OtherNode {
        /// The endpoint's; empty if unknown.
        node: Arc<str>,
    },
    /// The client asked for certain networks only.
    NotInNetworkView {
        /// The endpoint's.
        network: Arc<str>,
    },
    /// Not ready, and behind a gateway (which has no health of its own), or the client must not see such endpoints.
    NotReady,
    /// Going away.
    Terminating,
    /// In another network that has no gateway.
    NoGateway {
        /// The endpoint's.
        network: Arc<str>,
    },
    /// In another network whose gateways are host names that were not resolved.
    GatewayNotResolved {
        /// The endpoint's.
        network: Arc<str>,
        /// The gateways' addresses.
        gateways: Vec<Arc<str>>,
    },
    /// In another network, which is entered by mutual TLS only, and without it.
    NoMtls {
        /// The endpoint's.
        network: Arc<str>,
    },
    /// A gateway forwards mutual TLS only, and this endpoint is without it.
    NotForwardable,
    /// A gateway does not forward to another network's gateway: two of them would pass requests back and forth.
    NoTransit {
        /// The endpoint's.
        network: Arc<str>,
    },
    /// Its cluster has been away for so long that the mesh withdraws it from clients that have a healthy endpoint elsewhere.
    ClusterAway {
        /// The endpoint's.
        cluster: Arc<str>,
    },
    /// `distribute` gives its locality nothing.
    NotDistributed {
        /// The endpoint's.
        locality: Arc<str>,
    },
    /// Another endpoint has the same address and port; Envoy would keep one of them silently.
    DuplicateAddress {
        /// The cluster of the one that is kept.
        kept: Arc<str>,
    },
}

impl fmt::Display for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInSubset { subset } => write!(f, "its labels are not those of subset {subset}"),
            Self::OtherCluster { cluster } => {
                write!(f, "the service stays within each cluster, and this endpoint is in {cluster}")
            }
            Self::NotExported { cluster } => write!(
                f,
                "cluster {cluster} does not export the service to other clusters: it has no ServiceExport of this name, or the \
                 host is not the one that is exported"
            ),
            Self::OtherNode { node } => {
                write!(f, "the service stays within each node, and this endpoint is on {}", known(node))
            }
            Self::NotInNetworkView { network } => {
                write!(f, "the proxy asked for certain networks only, without {network}")
            }
            Self::NotReady => f.write_str("not ready"),
            Self::Terminating => f.write_str("going away"),
            Self::NoGateway { network } => write!(
                f,
                "in network {network}, which has no gateway: label its gateway Service topology.istio.io/network={network} \
                 and give it an external address"
            ),
            Self::GatewayNotResolved { network, gateways } => write!(
                f,
                "in network {network}, whose gateway is the host name {}, which does not resolve: see `landbridge gateways`",
                gateways.join(", ")
            ),
            Self::NoMtls { network } => write!(
                f,
                "plaintext, and network {network} is entered by mutual TLS only: give the pod a sidecar (label \
                 security.istio.io/tlsMode=istio) and leave mutual TLS on for it"
            ),
            Self::NotForwardable => f.write_str("plaintext, and a gateway forwards mutual TLS only"),
            Self::NoTransit { network } => {
                write!(f, "in network {network}, and a gateway does not forward to another network's gateway")
            }
            Self::ClusterAway { cluster } => write!(
                f,
                "cluster {cluster} has been away for longer than --stale-cluster keeps its endpoints, and there are healthy \
                 ones elsewhere: see `landbridge remote-clusters` for the reason"
            ),
            Self::NotDistributed { locality } => {
                write!(f, "the destination rule's `distribute` gives locality {} nothing", known(locality))
            }
            Self::DuplicateAddress { kept } => {
                write!(f, "an endpoint of cluster {kept} has the same address and port")
            }
        }
    }
}

fn known(text: &str) -> &str {
    if text.is_empty() { "(unknown)" } else { text }
}

/// What is asked for.
pub struct Query<'a> {
    /// The registry.
    pub index: &'a Index,
    /// The client's class.
    pub view: &'a EndpointView,
    /// The service.
    pub service: &'a Service,
    /// Its port.
    pub port: &'a Port,
    /// Only endpoints of this subset.
    pub subset: Option<&'a Subset>,
    /// For a gateway that forwards by SNI.
    pub sni_dnat: bool,
}

/// What holds for all endpoints of a workload, whatever their addresses and health.
#[derive(Clone, Debug)]
struct Standing {
    /// The cohort that it made.
    cohort: usize,
    mtls: bool,
    /// It is to get no new requests, ready or not.
    draining: bool,
}

/// Sorts out the endpoints of the port. Those of other ports of the service are not mentioned.
pub fn choose<'a>(query: &Query<'a>, policy: &Policy, excluded: &mut Exclusions<'a>) -> Members<'a> {
    let Query { index, service, .. } = *query;
    let client_mode = policy.client_mode(index, service);
    let by_node = depends_on_node(query, policy);
    // Clients of services whose sessions stick to an endpoint learn that it is going away.
    let sticky = service.labels.contains_key(PERSISTENT_SESSION);
    let unhealthy = policy.sends_unhealthy();
    let mut members = Members::default();
    let mut standings: Vec<Option<Result<Standing, Excluded>>> = Vec::new();
    for (cluster, shard) in index.endpoints(&service.key).shards() {
        // A client in the cluster itself proves that it lives, and is near.
        let treatment =
            if *cluster == query.view.cluster { Treatment::Keep } else { index.treatment(cluster) };
        standings.clear();
        standings.resize(shard.workloads().len(), None);
        members.list.reserve(shard.slice().endpoints.len());
        let mut port = None;
        for endpoint in shard.port(&query.port.name) {
            // A slice may serve one name by several ports, and mutual TLS may depend on the port.
            if port.replace(endpoint.port()).is_some_and(|before| before != endpoint.port()) {
                standings.fill(None);
            }
            let workload = endpoint.workload();
            let mut fresh = || {
                let mtls = judge(query, client_mode, endpoint)?;
                let origin = Origin::Endpoint { workload, node: endpoint.node().filter(|_| by_node) };
                members.cohorts.push(Cohort { locality: &workload.locality, mtls, treatment, origin });
                let draining = workload.label(DRAINING).is_some();
                Ok(Standing { cohort: members.cohorts.len() - 1, mtls, draining })
            };
            let standing = match &mut standings[endpoint.workload_index()] {
                Some(standing) if !by_node => standing,
                unknown => unknown.insert(fresh()),
            };
            let standing = match standing {
                Ok(standing) => standing,
                Err(reason) => {
                    excluded.add(endpoint, || reason.clone());
                    continue;
                }
            };
            let health = match endpoint.health() {
                Health::Terminating => Err(Excluded::Terminating),
                health if health == Health::Draining || standing.draining => {
                    if sticky {
                        Ok(Health::Draining)
                    } else {
                        Err(Excluded::Terminating)
                    }
                }
                Health::Unhealthy if !unhealthy => Err(Excluded::NotReady),
                health => Ok(health),
            };
            match health {
                Err(reason) => excluded.add(endpoint, || reason),
                Ok(_) if query.sni_dnat && !standing.mtls => {
                    excluded.add(endpoint, || Excluded::NotForwardable);
                }
                Ok(health) => members.list.push(Member {
                    target: (endpoint.address(), endpoint.port()),
                    weight: workload.weight.max(1),
                    health,
                    cohort: standing.cohort,
                    endpoint: Some(endpoint),
                }),
            }
        }
    }
    members
}

/// Whether endpoints of one workload may be judged or ordered differently because of their nodes.
fn depends_on_node(query: &Query, policy: &Policy) -> bool {
    let compared = policy.locality.iter().flat_map(|l| &l.failover_priority);
    query.service.node_local
        || query.subset.is_some_and(|s| s.labels.contains_key(HOSTNAME_LABEL))
        || compared.into_iter().any(|entry| entry.split('=').next() == Some(HOSTNAME_LABEL))
}

/// Whether a client may have an endpoint, its health aside, and whether it speaks mutual TLS to it.
fn judge(query: &Query, client_mode: ClientMode, endpoint: Endpoint) -> Result<bool, Excluded> {
    let Query { view, service, .. } = query;
    let workload = endpoint.workload();
    let label = |name: &str| match name {
        HOSTNAME_LABEL => endpoint.node().or_else(|| workload.label(name)),
        _ => workload.label(name),
    };
    if let Some(subset) = query.subset.filter(|s| !selects_by(&s.labels, label)) {
        return Err(Excluded::NotInSubset { subset: subset.name.clone() });
    }
    if workload.cluster != view.cluster {
        let cluster = || workload.cluster.0.clone();
        if service.cluster_local || service.node_local {
            return Err(Excluded::OtherCluster { cluster: cluster() });
        }
        if service.exported_by.as_ref().is_some_and(|by| !by.contains(&workload.cluster)) {
            return Err(Excluded::NotExported { cluster: cluster() });
        }
    }
    if service.node_local && endpoint.node() != view.node.as_ref() {
        return Err(Excluded::OtherNode { node: endpoint.node().cloned().unwrap_or_default() });
    }
    let network = &workload.network;
    if !network.as_str().is_empty() && view.requested_networks.as_ref().is_some_and(|n| !n.contains(network))
    {
        return Err(Excluded::NotInNetworkView { network: network.0.clone() });
    }
    let gateways = || query.index.networks().gateways(network, &workload.cluster);
    if query.sni_dnat && !network.as_str().is_empty() && *network != view.network && !gateways().is_empty() {
        return Err(Excluded::NoTransit { network: network.0.clone() });
    }
    // A rule's TLS mode is for all endpoints; auto mutual TLS needs a proxy in front of the endpoint that accepts it on
    // this port.
    Ok(match client_mode {
        ClientMode::Plain => false,
        ClientMode::Rule(tls) => tls.mode == ClientTlsMode::IstioMutual,
        ClientMode::Auto => {
            workload.accepts_mtls && query.index.workload_mtls(workload, endpoint.port()) != MtlsMode::Disable
        }
    })
}
