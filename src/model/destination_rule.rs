//! Istio's DestinationRule: how clients treat a service.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{kubernetes::Meta, name::Labels};

/// A DestinationRule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRule {
    /// Name, namespace, age.
    pub meta: Meta,
    /// Fully qualified when read: a short name is one of the rule's namespace. May start with `*`.
    pub host: Arc<str>,
    /// Raw `exportTo`; resolved with the mesh's default.
    pub export_to: Vec<Arc<str>>,
    /// Only for client workloads with these labels, of the rule's namespace.
    pub workload_selector: Option<Labels>,
    /// For all subsets.
    pub policy: TrafficPolicy,
    /// Named subsets of the endpoints, in the rule's order.
    pub subsets: Vec<Subset>,
}

/// Endpoints with certain labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// Part of the cluster's name.
    pub name: Arc<str>,
    /// What an endpoint must carry.
    pub labels: Labels,
    /// Wins over the rule's, field by field.
    pub policy: TrafficPolicy,
}

/// Settings for a service, with exceptions per port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// For every port that has no entry of its own.
    pub settings: PolicySettings,
    /// An entry replaces `settings` as a whole for its port: Istio does not inherit single fields.
    pub ports: BTreeMap<u16, PolicySettings>,
}

/// The settings themselves. `None` means "not said".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicySettings {
    /// Limits.
    pub connection_pool: Option<ConnectionPool>,
    /// When an endpoint is taken out.
    pub outlier_detection: Option<OutlierDetection>,
    /// How an endpoint is picked.
    pub load_balancer: Option<LoadBalancer>,
    /// TLS towards the service.
    pub tls: Option<ClientTls>,
}

/// Limits on connections and requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionPool {
    /// `tcp.maxConnections`.
    pub max_connections: Option<u32>,
    /// `tcp.connectTimeout`.
    pub connect_timeout: Option<Duration>,
    /// `tcp.idleTimeout`.
    pub tcp_idle_timeout: Option<Duration>,
    /// `tcp.maxConnectionDuration`.
    pub max_connection_duration: Option<Duration>,
    /// `tcp.tcpKeepalive`.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `http.http1MaxPendingRequests`.
    pub max_pending_requests: Option<u32>,
    /// `http.http2MaxRequests`.
    pub max_requests: Option<u32>,
    /// `http.maxRequestsPerConnection`.
    pub max_requests_per_connection: Option<u32>,
    /// `http.maxRetries`.
    pub max_retries: Option<u32>,
    /// `http.idleTimeout`.
    pub http_idle_timeout: Option<Duration>,
    /// `http.maxConcurrentStreams`.
    pub max_concurrent_streams: Option<u32>,
    /// `http.h2UpgradePolicy`: `Some(true)` UPGRADE, `Some(false)` DO_NOT_UPGRADE, `None` as the mesh says.
    pub h2_upgrade: Option<bool>,
    /// `http.useClientProtocol`.
    pub use_client_protocol: bool,
}

/// TCP keep-alive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpKeepalive {
    /// Probes before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first.
    pub time: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
}

/// When an endpoint is taken out of balancing. `None` fields take Envoy's defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// `consecutive5xxErrors`; 0 turns it off.
    pub consecutive_5xx: Option<u32>,
    /// `consecutiveGatewayErrors`; 0 turns it off.
    pub consecutive_gateway_errors: Option<u32>,
    /// `splitExternalLocalOriginErrors`.
    pub split_local_origin: bool,
    /// `consecutiveLocalOriginFailures`.
    pub consecutive_local_origin: Option<u32>,
    /// Between sweeps.
    pub interval: Option<Duration>,
    /// Shortest time out.
    pub base_ejection_time: Option<Duration>,
    /// Per cent.
    pub max_ejection_percent: Option<u32>,
    /// Per cent; above 0, less than that healthy means panic: all endpoints are used.
    pub min_health_percent: Option<u32>,
}

/// How an endpoint is picked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// The algorithm.
    pub algorithm: LbAlgorithm,
    /// Locality settings; `Some` with `enabled` false turns the mesh-wide ones off.
    pub locality: Option<LocalityLb>,
    /// `warmup`: new endpoints get their share slowly.
    pub warmup: Option<Warmup>,
}

/// The algorithm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum LbAlgorithm {
    /// Not said: LEAST_REQUEST.
    #[default]
    Unspecified,
    /// LEAST_REQUEST (and the old LEAST_CONN).
    LeastRequest,
    /// ROUND_ROBIN.
    RoundRobin,
    /// RANDOM.
    Random,
    /// PASSTHROUGH: the address that the caller dialled.
    Passthrough,
    /// `consistentHash`.
    Hash(HashPolicy),
}

/// Consistent hashing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HashPolicy {
    /// What is hashed.
    pub key: HashKey,
    /// `minimumRingSize`; none: 1024.
    pub minimum_ring_size: Option<u64>,
    /// `maglev.tableSize`: Maglev instead of a ring.
    pub maglev: Option<u64>,
}

/// What is hashed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HashKey {
    /// A request header.
    Header(Arc<str>),
    /// A cookie, made if absent when it has a lifetime.
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// Its path.
        path: Arc<str>,
        /// Its lifetime.
        ttl: Option<Duration>,
    },
    /// The caller's address.
    SourceIp,
    /// A query parameter.
    QueryParameter(Arc<str>),
}

/// `warmup` and the old `warmupDurationSecs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Warmup {
    /// How long.
    pub duration: Duration,
    /// Share at the start, per cent; Istio's default 10.
    pub minimum_percent: f64,
    /// 1 is linear.
    pub aggression: f64,
}

/// Locality settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalityLb {
    /// `enabled`; unset is true.
    pub enabled: bool,
    /// Weights by caller's locality; excludes failover.
    pub distribute: Vec<Distribute>,
    /// From region to region.
    pub failover: Vec<(Arc<str>, Arc<str>)>,
    /// Labels (`key` or `key=value`), the most important first.
    pub failover_priority: Vec<Arc<str>>,
}

impl Default for LocalityLb {
    fn default() -> Self {
        Self { enabled: true, distribute: Vec::new(), failover: Vec::new(), failover_priority: Vec::new() }
    }
}

/// One rule of `distribute`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Distribute {
    /// The caller's locality pattern.
    pub from: Arc<str>,
    /// Locality pattern to weight, in the rule's order made deterministic by name.
    pub to: BTreeMap<Arc<str>, u32>,
}

/// TLS towards the service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientTls {
    /// DISABLE, SIMPLE, MUTUAL or ISTIO_MUTUAL.
    pub mode: ClientTlsMode,
    /// `sni`.
    pub sni: Option<Arc<str>>,
    /// `subjectAltNames`; empty: those of the service's identities.
    pub subject_alt_names: Vec<Arc<str>>,
    /// `insecureSkipVerify`.
    pub insecure_skip_verify: bool,
    /// `caCertificates`, `clientCertificate`, `privateKey`: paths on the proxy.
    pub files: Option<ClientTlsFiles>,
}

/// Paths on the proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTlsFiles {
    /// `caCertificates`.
    pub ca: Option<Arc<str>>,
    /// `clientCertificate` and `privateKey`.
    pub certificate: Option<(Arc<str>, Arc<str>)>,
}

/// TLS mode of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientTlsMode {
    /// Plaintext.
    Disable,
    /// Server certificate only.
    Simple,
    /// With a client certificate from files.
    Mutual,
    /// With the mesh's certificates.
    IstioMutual,
}
