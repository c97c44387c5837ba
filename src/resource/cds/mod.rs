//! Clusters.

mod balancing;
mod http;
mod inbound;
pub mod outlier;

use landbridge_proto::envoy::config::{
    cluster::v3::{
        CircuitBreakers, Cluster, Filter, UpstreamConnectionOptions,
        circuit_breakers::Thresholds,
        cluster::{
            ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig, LbPolicy,
            TransportSocketMatch,
            common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig},
        },
    },
    core::v3::{Metadata, TcpKeepalive},
};
use prost_types::Struct;

pub use inbound::inbound;

use super::{
    Built, name,
    policy::{self, ClientMode, Policy},
    proto::{ads, boolean, duration, list, metadata, nested, object, string, typed_struct, zero},
    tls,
};
use crate::{
    index::{Index, MergedRule},
    model::{
        destination_rule::{ClientTlsMode, ConnectionPool, LbAlgorithm, Subset},
        mesh::MeshConfig,
        node::{Extensions, ProxyKind},
        port::Protocol,
        service::{Port, Resolution, Service},
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
    view: &'a ClusterView,
    service: &'a Service,
    port: &'a Port,
    subset: Option<&'a Subset>,
    rule: Option<&'a MergedRule>,
    policy: Policy,
}

/// The clusters of a service: for each port, one for all endpoints and one per subset; again for forwarding by SNI if the
/// view is that of an east-west gateway.
pub fn service(index: &Index, view: &ClusterView, service: &Service) -> Vec<Built> {
    let mut built = Vec::new();
    for (port, subset) in ports_and_subsets(index, &view.scope, service) {
        let (policy, rule) = policy::effective(index, &view.scope, service, port, subset);
        let target = Target { index, view, service, port, subset, rule, policy };
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

impl Target<'_> {
    fn outbound(&self) -> Built {
        let name = name::outbound(self.port.number, self.subset_name(), &self.service.key.host);
        let discovery = discovery(self.view.kind, self.service, &self.policy);
        let mut cluster = self.cluster(&name, discovery);
        let http2 = self.http2();
        self.secure(&mut cluster, http2, discovery);
        cluster.typed_extension_protocol_options = self.http_options(http2, self.sni_by_host());
        self.built(&cluster, discovery)
    }

    /// What arrives is mutual TLS between the two sidecars; the gateway only picks an endpoint.
    fn sni_dnat(&self) -> Built {
        let name = name::sni_dnat(self.port.number, self.subset_name(), &self.service.key.host);
        let mut cluster = self.cluster(&name, Discovery::Eds);
        // Says nothing about bytes that are forwarded; istiod has it.
        cluster.typed_extension_protocol_options = self.http_options(self.http2(), None);
        self.built(&cluster, Discovery::Eds)
    }

    fn subset_name(&self) -> &str {
        self.subset.map(|s| &*s.name).unwrap_or_default()
    }

    fn built(&self, cluster: &Cluster, discovery: Discovery) -> Built {
        let sources = policy::sources(self.service, self.rule);
        let mut built = Built::new(cluster.name.as_str(), cluster, sources);
        built.waits_for = (discovery == Discovery::Eds).then(|| built.name.clone());
        built
    }

    /// Everything but TLS and HTTP.
    fn cluster(&self, name: &str, discovery: Discovery) -> Cluster {
        let mesh = self.index.mesh();
        let settings = &self.policy.settings;
        let pool = settings.connection_pool.clone().unwrap_or_default();
        let outlier = settings.outlier_detection.as_ref();
        let keepalive = pool.tcp_keepalive.as_ref().map(|k| TcpKeepalive {
            keepalive_probes: k.probes,
            keepalive_time: k.time.map(whole_seconds),
            keepalive_interval: k.interval.map(whole_seconds),
        });
        let mut cluster = Cluster {
            name: name.to_owned(),
            alt_stat_name: stat_name(name),
            connect_timeout: Some(duration(self.policy.connect_timeout(mesh))),
            circuit_breakers: Some(circuit_breakers(&pool)),
            common_lb_config: Some(self.common_lb(discovery)),
            metadata: Some(self.metadata()),
            filters: filters(self.view.extensions),
            outlier_detection: outlier.map(|od| outlier::detection(od, &self.policy)),
            upstream_connection_options: keepalive
                .map(|k| UpstreamConnectionOptions { tcp_keepalive: Some(k), ..Default::default() }),
            ..Default::default()
        };
        match discovery {
            Discovery::OriginalDst => {
                cluster.cluster_discovery_type = Some(kind(DiscoveryType::OriginalDst));
                cluster.lb_policy = LbPolicy::ClusterProvided.into();
                // Each address stands for itself: taking one out by our default would only fail its callers.
                cluster.outlier_detection =
                    cluster.outlier_detection.filter(|_| !self.policy.default_outlier);
            }
            Discovery::Eds => {
                cluster.cluster_discovery_type = Some(kind(DiscoveryType::Eds));
                cluster.eds_cluster_config =
                    Some(EdsClusterConfig { service_name: name.to_owned(), eds_config: Some(ads()) });
                balancing::apply(&mut cluster, settings.load_balancer.as_ref());
            }
        }
        cluster
    }

    fn common_lb(&self, discovery: Discovery) -> CommonLbConfig {
        let mut common = CommonLbConfig {
            healthy_panic_threshold: Some(outlier::panic_threshold(&self.policy)),
            ..Default::default()
        };
        if discovery == Discovery::Eds {
            let explicit = self.policy.locality.as_ref().is_some_and(|l| {
                let failover = !l.failover.is_empty() || !l.failover_priority.is_empty();
                !l.distribute.is_empty() || (failover && self.policy.fails_over())
            });
            common.locality_config_specifier = explicit.then(|| {
                LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig::default())
            });
            if self.policy.real_failover && self.policy.settings.outlier_detection.is_some() {
                // An endpoint that is let back in and fails again at once would otherwise stay in for the rest of
                // Envoy's merge window, a full second of errors for each try (envoy.md 3: 9 failures instead of 343).
                common.update_merge_window = Some(zero());
            }
        }
        common
    }

    fn metadata(&self) -> Metadata {
        let key = &self.service.key;
        let service = object([
            ("host", string(&key.host)),
            ("name", string(&self.service.name)),
            ("namespace", string(&key.namespace)),
        ]);
        let mut fields = object([("services", list(vec![nested(service)]))]);
        if let Some(source) = self.rule.and_then(|r| r.sources.first()) {
            let path = format!(
                "/apis/networking.istio.io/v1/namespaces/{}/destination-rule/{}",
                source.namespace, source.name
            );
            fields.fields.insert("config".to_owned(), string(&path));
        }
        if let Some(subset) = self.subset {
            fields.fields.insert("subset".to_owned(), string(&subset.name));
        }
        metadata([("istio", fields)])
    }

    fn secure(&self, cluster: &mut Cluster, http2: bool, discovery: Discovery) {
        let mode = self.policy.client_mode(self.index, self.service);
        let by_rule = match mode {
            ClientMode::Plain => return,
            ClientMode::Auto => None,
            ClientMode::Rule(tls) => Some(tls),
        };
        if let Some(tls) = by_rule.filter(|tls| tls.mode != ClientTlsMode::IstioMutual) {
            cluster.transport_socket = Some(tls::upstream_by_rule(tls, http2, self.view.secrets));
            return;
        }
        let sni = name::sni_dnat(self.port.number, self.subset_name(), &self.service.key.host);
        let sni = by_rule.and_then(|tls| tls.sni.clone()).unwrap_or(sni);
        let named: Vec<_> =
            by_rule.into_iter().flat_map(|tls| &tls.subject_alt_names).map(ToString::to_string).collect();
        let identities = if named.is_empty() {
            tls::identities(self.service, self.index.endpoints(&self.service.key), self.index.mesh())
        } else {
            named
        };
        let socket = tls::upstream_mutual(&tls::Upstream {
            sni: &sni,
            identities,
            http2,
            secrets: self.view.secrets,
            extensions: self.view.extensions,
        });
        // Chosen per endpoint by its metadata; a rule means all endpoints, and an original destination has no metadata.
        if by_rule.is_some() || discovery == Discovery::OriginalDst {
            cluster.transport_socket = Some(socket);
        } else {
            cluster.transport_socket_matches = vec![
                TransportSocketMatch {
                    name: "tlsMode-istio".to_owned(),
                    r#match: Some(object([("tlsMode", string("istio"))])),
                    transport_socket: Some(socket),
                },
                TransportSocketMatch {
                    name: "tlsMode-disabled".to_owned(),
                    r#match: Some(Struct::default()),
                    transport_socket: Some(tls::plaintext()),
                },
            ];
        }
    }
}

/// Istio's mark at the end of a name in statistics, so that names with dots can be cut out again.
fn stat_name(name: &str) -> String {
    format!("{name};")
}

fn kind(kind: DiscoveryType) -> ClusterDiscoveryType {
    ClusterDiscoveryType::Type(kind.into())
}

fn whole_seconds(d: std::time::Duration) -> u32 {
    u32::try_from(d.as_secs()).unwrap_or(u32::MAX)
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
