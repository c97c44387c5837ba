//! Which of a service's endpoints a client may have at all.

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::{
    index::Index,
    model::{
        destination_rule::{ClientTlsMode, Subset},
        endpoint::{Endpoint, Health},
        name::selects,
        peer_authentication::MtlsMode,
        service::{Port, Service},
    },
    resource::policy::{ClientMode, Policy},
    view::EndpointView,
};

/// Label of services whose clients stick to an endpoint: those learn that it is going away.
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
                "in network {network}, whose gateway is the host name {}: only IP addresses can be sent to proxies",
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

/// An endpoint that the client may have, if it can be reached.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The endpoint.
    pub endpoint: &'a Endpoint,
    /// Clients speak mutual TLS to it.
    pub mtls: bool,
    /// What the client is told about its health.
    pub health: Health,
}

/// An endpoint that the client does not get.
pub type Exclusion<'a> = (&'a Endpoint, Excluded);

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

/// Sorts out the endpoints of the port. Those of other ports of the service are not mentioned.
pub fn choose<'a>(query: &Query<'a>, policy: &Policy) -> (Vec<Candidate<'a>>, Vec<Exclusion<'a>>) {
    let mut chosen = Vec::new();
    let mut excluded = Vec::new();
    let endpoints = query.index.endpoints(&query.service.key).iter();
    for endpoint in endpoints.filter(|e| e.port_name == query.port.name) {
        match judge(query, policy, endpoint) {
            Ok(candidate) => chosen.push(candidate),
            Err(reason) => excluded.push((endpoint, reason)),
        }
    }
    (chosen, excluded)
}

fn judge<'a>(query: &Query, policy: &Policy, endpoint: &'a Endpoint) -> Result<Candidate<'a>, Excluded> {
    let Query { view, service, .. } = query;
    let workload = &endpoint.workload;
    if let Some(subset) = query.subset.filter(|s| !selects(&s.labels, &workload.labels)) {
        return Err(Excluded::NotInSubset { subset: subset.name.clone() });
    }
    if (service.cluster_local || service.node_local) && workload.cluster != view.cluster {
        return Err(Excluded::OtherCluster { cluster: workload.cluster.0.clone() });
    }
    if service.node_local && workload.node != view.node {
        return Err(Excluded::OtherNode { node: workload.node.clone().unwrap_or_default() });
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
    let health = health(service, endpoint, policy)?;
    let mtls = speaks_mtls(query, policy, endpoint);
    if query.sni_dnat && !mtls {
        return Err(Excluded::NotForwardable);
    }
    Ok(Candidate { endpoint, mtls, health })
}

fn health(service: &Service, endpoint: &Endpoint, policy: &Policy) -> Result<Health, Excluded> {
    let told = service.labels.contains_key(PERSISTENT_SESSION);
    match endpoint.health {
        Health::Terminating => Err(Excluded::Terminating),
        Health::Draining if told => Ok(Health::Draining),
        Health::Draining => Err(Excluded::Terminating),
        _ if endpoint.workload.labels.contains_key(DRAINING) => {
            if told {
                Ok(Health::Draining)
            } else {
                Err(Excluded::Terminating)
            }
        }
        Health::Unhealthy if !policy.sends_unhealthy() => Err(Excluded::NotReady),
        health => Ok(health),
    }
}

/// A rule's TLS mode is for all endpoints; auto mutual TLS needs a proxy in front of the endpoint that accepts it on this
/// port.
fn speaks_mtls(query: &Query, policy: &Policy, endpoint: &Endpoint) -> bool {
    match policy.client_mode(query.index, query.service) {
        ClientMode::Plain => false,
        ClientMode::Rule(tls) => tls.mode == ClientTlsMode::IstioMutual,
        ClientMode::Auto => {
            let workload = &endpoint.workload;
            workload.accepts_mtls && query.index.workload_mtls(workload, endpoint.port) != MtlsMode::Disable
        }
    }
}
