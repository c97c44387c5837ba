//! Clusters.

mod balancing;
mod http;
mod inbound;
pub mod outlier;
mod shape;

use std::borrow::Cow;

use landbridge_proto::envoy::config::cluster::v3::{
    CircuitBreakers, Cluster, Filter,
    circuit_breakers::Thresholds,
    cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy},
};

pub use inbound::inbound;
use shape::{Shape, Transport};

use super::{
    Built, name,
    policy::{self, Policy},
    proto::{boolean, duration, object, string, typed_struct},
    tls,
};
use crate::{
    index::{Index, MergedRule},
    model::{
        ObjectKey,
        destination_rule::{ConnectionPool, LbAlgorithm, Subset},
        mesh::MeshConfig,
        node::{Extensions, ProxyKind},
        port::Protocol,
        service::{Port, Resolution, Service, ServiceKey},
    },
    view::ClusterView,
};

/// How a cluster's endpoints are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Discovery {
    /// From us.
    Eds,
    /// The address that the caller dialled.
    OriginalDst,
}

/// A gateway has no caller's address to follow, so that headless services are balanced there.
pub(super) fn discovery(kind: ProxyKind, service: &Service, policy: &Policy) -> Discovery {
    let algorithm = policy.settings.load_balancer.as_ref().map(|lb| &lb.algorithm);
    let headless = service.resolution == Resolution::Passthrough && kind == ProxyKind::Sidecar;
    if headless || algorithm == Some(&LbAlgorithm::Passthrough) {
        Discovery::OriginalDst
    } else {
        Discovery::Eds
    }
}

/// What an outbound cluster is built for.
struct Target<'a> {
    index: &'a Index,
    service: &'a Service,
    port: &'a Port,
    subset: Option<&'a Subset>,
    rule: Option<&'a MergedRule>,
    shape: Shape,
}

/// The clusters of a service: for each port, one for all endpoints and one per subset; again for forwarding by SNI if the
/// view is that of an east-west gateway.
pub fn service(index: &Index, view: &ClusterView, service: &Service) -> Vec<Built> {
    let mut built = Vec::new();
    for (port, subset) in ports_and_subsets(index, &view.scope, service) {
        let target = Target::new(index, view, service, port, subset);
        built.push(target.outbound());
        if view.sni_dnat {
            built.push(target.sni_dnat());
        }
    }
    built
}

/// The ports of a service that have clusters, each alone and with every subset. Clusters and load assignments both go
/// by this list, so that neither can lack its counterpart.
pub(super) fn ports_and_subsets<'a>(
    index: &'a Index,
    scope: &crate::index::Scope,
    service: &'a Service,
) -> Vec<(&'a Port, Option<&'a Subset>)> {
    if matches!(service.resolution, Resolution::Alias(_)) {
        return Vec::new();
    }
    let subsets = index.rule(scope, service).map(|r| r.subsets.as_slice()).unwrap_or_default();
    let ports = service.ports.iter().filter(|p| p.protocol != Protocol::Udp);
    ports.flat_map(|p| std::iter::once((p, None)).chain(subsets.iter().map(move |s| (p, Some(s))))).collect()
}

/// The clusters that every proxy has.
pub fn fixed(index: &Index, view: &ClusterView) -> Vec<Built> {
    let mesh = index.mesh();
    let black_hole = Cluster {
        name: name::BLACK_HOLE.to_owned(),
        alt_stat_name: stat_name(name::BLACK_HOLE),
        cluster_discovery_type: Some(kind(DiscoveryType::Static)),
        connect_timeout: Some(duration(mesh.connect_timeout)),
        ..Default::default()
    };
    let mut built = vec![Built::new(name::BLACK_HOLE, &black_hole, Vec::new())];
    if view.kind == ProxyKind::Sidecar {
        let mut passthrough = original_dst(name::PASSTHROUGH, mesh);
        passthrough.filters = filters(view.extensions);
        passthrough.typed_extension_protocol_options = http::passthrough();
        built.push(Built::new(name::PASSTHROUGH, &passthrough, Vec::new()));
    }
    built
}

/// A cluster that follows the caller's address.
fn original_dst(name: &str, mesh: &MeshConfig) -> Cluster {
    Cluster {
        name: name.to_owned(),
        alt_stat_name: stat_name(name),
        cluster_discovery_type: Some(kind(DiscoveryType::OriginalDst)),
        lb_policy: LbPolicy::ClusterProvided.into(),
        connect_timeout: Some(duration(mesh.connect_timeout)),
        circuit_breakers: Some(circuit_breakers(&ConnectionPool::default())),
        ..Default::default()
    }
}

impl<'a> Target<'a> {
    fn new(
        index: &'a Index,
        view: &ClusterView,
        service: &'a Service,
        port: &'a Port,
        subset: Option<&'a Subset>,
    ) -> Self {
        let (policy, rule) = policy::effective(index, &view.scope, service, port, subset);
        let discovery = discovery(view.kind, service, &policy);
        let shape = Shape {
            discovery,
            transport: Transport::new(&policy.client_mode(index, service), discovery),
            http2: http::only_http2(index.mesh(), port.protocol, policy.settings.connection_pool.as_ref()),
            finds_out_protocol: port.protocol == Protocol::Auto && view.kind == ProxyKind::Sidecar,
            connect_timeout: policy.connect_timeout(index.mesh()),
            secrets: view.secrets,
            extensions: view.extensions,
            has_rule: rule.is_some(),
            has_subset: subset.is_some(),
            policy,
        };
        Self { index, service, port, subset, rule, shape }
    }

    fn outbound(&self) -> Built {
        let name = name::outbound(self.port.number, self.subset_name(), &self.service.key.host);
        self.build(&name, &self.shape)
    }

    fn sni_dnat(&self) -> Built {
        let name = name::sni_dnat(self.port.number, self.subset_name(), &self.service.key.host);
        self.build(&name, &self.shape.forwarding())
    }

    fn subset_name(&self) -> &'a str {
        self.subset.map(|s| &*s.name).unwrap_or_default()
    }

    fn build(&self, name: &str, shape: &Shape) -> Built {
        let ServiceKey { host, namespace } = &self.service.key;
        let stat_name = stat_name(name);
        let rule = self.rule.and_then(|rule| rule.sources.first()).map(rule_path);
        let (sni, identities) = match shape.transport {
            Transport::Mutual { .. } => self.peer(),
            Transport::Plaintext | Transport::ByRule => Default::default(),
        };
        let identities: Vec<_> = identities.iter().map(String::as_str).collect();
        let message = shape.fill(&shape::Texts {
            name,
            stat_name: &stat_name,
            host,
            service: &self.service.name,
            namespace,
            rule: rule.as_deref().unwrap_or_default(),
            subset: self.subset_name(),
            sni: &sni,
            identities: &identities,
        });
        let mut built = Built::of_bytes(name, message, policy::sources(self.service, self.rule));
        built.waits_for = (shape.discovery == Discovery::Eds).then(|| built.name.clone());
        built
    }

    /// With mutual TLS: the server name that is asked for, and who may answer. A rule may say both.
    fn peer(&self) -> (Cow<'_, str>, Vec<String>) {
        let key = &self.service.key;
        let tls = self.shape.policy.settings.tls.as_ref();
        let own = || name::sni_dnat(self.port.number, self.subset_name(), &key.host).into();
        let sni = tls.and_then(|tls| tls.sni.as_deref()).map_or_else(own, Cow::Borrowed);
        let named: Vec<_> =
            tls.into_iter().flat_map(|tls| &tls.subject_alt_names).map(ToString::to_string).collect();
        if !named.is_empty() {
            return (sni, named);
        }
        (sni, tls::identities(self.service, self.index.endpoints(key), self.index.mesh()))
    }
}

/// How Istio calls a destination rule in metadata.
fn rule_path(rule: &ObjectKey) -> String {
    let ObjectKey { namespace, name, .. } = rule;
    format!("/apis/networking.istio.io/v1/namespaces/{namespace}/destination-rule/{name}")
}

/// Istio's mark at the end of a name in statistics, so that names with dots can be cut out again.
fn stat_name(name: &str) -> String {
    [name, ";"].concat()
}

fn kind(kind: DiscoveryType) -> ClusterDiscoveryType {
    ClusterDiscoveryType::Type(kind.into())
}

/// No limits but the user's: Envoy's own default of 1,024 connections and 3 retries would fail requests silently.
fn circuit_breakers(pool: &ConnectionPool) -> CircuitBreakers {
    let limit = |set: Option<u32>| Some(set.unwrap_or(u32::MAX));
    CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: limit(pool.max_connections),
            max_pending_requests: limit(pool.max_pending_requests),
            max_requests: limit(pool.max_requests),
            max_retries: limit(pool.max_retries),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn filters(extensions: Extensions) -> Vec<Filter> {
    let exchange = Filter {
        name: "istio.metadata_exchange".to_owned(),
        typed_config: Some(metadata_exchange()),
        config_discovery: None,
    };
    if extensions.metadata_exchange { vec![exchange] } else { Vec::new() }
}

/// Istio's exchange of workload metadata on a connection.
pub(super) fn metadata_exchange() -> prost_types::Any {
    typed_struct(
        "envoy.tcp.metadataexchange.config.MetadataExchange",
        object([("enable_discovery", boolean(true)), ("protocol", string("istio-peer-exchange"))]),
    )
}
