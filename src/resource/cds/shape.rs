//! What outbound clusters have alike: all but the names in them.

use std::time::Duration;

use landbridge_proto::envoy::config::{
    cluster::v3::{
        Cluster, UpstreamConnectionOptions,
        cluster::{
            CommonLbConfig, DiscoveryType, EdsClusterConfig, LbPolicy, TransportSocketMatch,
            common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig},
        },
    },
    core::v3::{Metadata, TcpKeepalive},
};
use prost_types::Struct;

use super::{Discovery, balancing, circuit_breakers, filters, kind, outlier};
use crate::{
    model::{
        destination_rule::ClientTlsMode,
        node::{Extensions, SecretSource},
    },
    resource::{
        policy::{ClientMode, Policy},
        proto::{ads, duration, list, metadata, nested, object, string, zero},
        template::{Templates, place, place_within},
        tls,
    },
};

/// All that a cluster says of its service but names, so that one template does for all services with the same settings.
#[derive(Clone, PartialEq)]
pub struct Shape {
    pub discovery: Discovery,
    pub transport: Transport,
    /// It always speaks HTTP/2.
    pub http2: bool,
    /// It speaks what the caller does, because nobody says what the port speaks.
    pub finds_out_protocol: bool,
    pub connect_timeout: Duration,
    pub secrets: SecretSource,
    pub extensions: Extensions,
    /// A destination rule is named.
    pub has_rule: bool,
    /// A subset is named.
    pub has_subset: bool,
    pub policy: Policy,
}

/// What carries a cluster's bytes.
#[derive(Clone, Copy, PartialEq)]
pub enum Transport {
    /// No TLS.
    Plaintext,
    /// The mesh's mutual TLS: to all endpoints, or to those whose metadata asks for it.
    Mutual { to_all: bool },
    /// TLS as the destination rule has it.
    ByRule,
}

impl Transport {
    /// A rule means all endpoints, and an original destination has no metadata.
    pub fn new(mode: &ClientMode, discovery: Discovery) -> Self {
        match mode {
            ClientMode::Plain => Self::Plaintext,
            ClientMode::Auto => Self::Mutual { to_all: discovery == Discovery::OriginalDst },
            ClientMode::Rule(tls) if tls.mode == ClientTlsMode::IstioMutual => Self::Mutual { to_all: true },
            ClientMode::Rule(_) => Self::ByRule,
        }
    }
}

/// The texts that are filled in; what a shape does not have is not looked at.
pub struct Texts<'a> {
    pub name: &'a str,
    pub stat_name: &'a str,
    pub host: &'a str,
    pub service: &'a str,
    pub namespace: &'a str,
    pub rule: &'a str,
    pub subset: &'a str,
    pub sni: &'a str,
    pub identities: &'a [&'a str],
}

/// Their places.
const NAME: u8 = 0;
const STAT_NAME: u8 = 1;
const HOST: u8 = 2;
const SERVICE: u8 = 3;
const NAMESPACE: u8 = 4;
const RULE: u8 = 5;
const SUBSET: u8 = 6;
const SNI: u8 = 7;
const IDENTITIES: u8 = 8;

thread_local! {
    static TEMPLATES: Templates<Shape> = const { Templates::new() };
}

impl Shape {
    /// The encoded cluster.
    pub fn fill(&self, texts: &Texts) -> Vec<u8> {
        let one = [
            texts.name,
            texts.stat_name,
            texts.host,
            texts.service,
            texts.namespace,
            texts.rule,
            texts.subset,
            texts.sni,
        ];
        let [name, stat_name, host, service, namespace, rule, subset, sni] =
            one.each_ref().map(std::slice::from_ref);
        let texts = [name, stat_name, host, service, namespace, rule, subset, sni, texts.identities];
        TEMPLATES.with(|templates| templates.fill(self, Self::cluster, &texts))
    }

    /// What arrives is mutual TLS between the two sidecars; the gateway only picks an endpoint.
    pub fn forwarding(&self) -> Self {
        Self { discovery: Discovery::Eds, transport: Transport::Plaintext, ..self.clone() }
    }

    /// With places for names.
    fn cluster(&self) -> Cluster {
        let settings = &self.policy.settings;
        let pool = settings.connection_pool.clone().unwrap_or_default();
        let outlier = settings.outlier_detection.as_ref();
        let keepalive = pool.tcp_keepalive.as_ref().map(|k| TcpKeepalive {
            keepalive_probes: k.probes,
            keepalive_time: k.time.map(whole_seconds),
            keepalive_interval: k.interval.map(whole_seconds),
        });
        let mut cluster = Cluster {
            name: place(NAME),
            alt_stat_name: place(STAT_NAME),
            connect_timeout: Some(duration(self.connect_timeout)),
            circuit_breakers: Some(circuit_breakers(&pool)),
            common_lb_config: Some(self.common_lb()),
            metadata: Some(self.metadata()),
            filters: filters(self.extensions),
            outlier_detection: outlier.map(|od| outlier::detection(od, &self.policy)),
            upstream_connection_options: keepalive
                .map(|k| UpstreamConnectionOptions { tcp_keepalive: Some(k), ..Default::default() }),
            // Says nothing about bytes that are forwarded by SNI; istiod has it there, too.
            typed_extension_protocol_options: self.http_options(),
            ..Default::default()
        };
        match self.discovery {
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
                    Some(EdsClusterConfig { service_name: place(NAME), eds_config: Some(ads()) });
                balancing::apply(&mut cluster, settings.load_balancer.as_ref());
            }
        }
        self.secure(&mut cluster);
        cluster
    }

    fn common_lb(&self) -> CommonLbConfig {
        let mut common = CommonLbConfig {
            healthy_panic_threshold: Some(outlier::panic_threshold(&self.policy)),
            ..Default::default()
        };
        if self.discovery == Discovery::Eds {
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
        let place = |n| string(&place(n));
        let service =
            object([("host", place(HOST)), ("name", place(SERVICE)), ("namespace", place(NAMESPACE))]);
        let mut fields = object([("services", list(vec![nested(service)]))]);
        if self.has_rule {
            fields.fields.insert("config".to_owned(), place(RULE));
        }
        if self.has_subset {
            fields.fields.insert("subset".to_owned(), place(SUBSET));
        }
        metadata([("istio", fields)])
    }

    fn secure(&self, cluster: &mut Cluster) {
        let mutual = || {
            tls::upstream_mutual(tls::Upstream {
                sni: place(SNI),
                // From the text up: the string's matcher, and the name's.
                identities: vec![place_within(IDENTITIES, 2)],
                http2: self.http2,
                secrets: self.secrets,
                extensions: self.extensions,
            })
        };
        match self.transport {
            Transport::Plaintext => (),
            Transport::ByRule => {
                let tls = self.policy.settings.tls.as_ref();
                cluster.transport_socket =
                    tls.map(|tls| tls::upstream_by_rule(tls, self.http2, self.secrets));
            }
            Transport::Mutual { to_all: true } => cluster.transport_socket = Some(mutual()),
            // Chosen per endpoint by its metadata.
            Transport::Mutual { to_all: false } => {
                cluster.transport_socket_matches = vec![
                    TransportSocketMatch {
                        name: "tlsMode-istio".to_owned(),
                        r#match: Some(object([("tlsMode", string("istio"))])),
                        transport_socket: Some(mutual()),
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
}

fn whole_seconds(d: Duration) -> u32 {
    u32::try_from(d.as_secs()).unwrap_or(u32::MAX)
}
