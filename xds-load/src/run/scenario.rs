//! What a run does: a small YAML file, or the same as flags.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    client::proxy::Protocol,
    mesh::{api::Api, churn::Script},
};

/// A run. Every field has a default, so that a file says only what differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Scenario {
    /// `HOST:PORT` of the control plane. Several, separated by commas, are replicas: proxies are spread over them, and go to
    /// the next one when they lose theirs.
    pub server: String,
    /// Its process, for CPU and memory.
    pub server_pid: Option<u32>,
    pub tls: Option<TlsSettings>,
    /// A file with a token, sent as `authorization: Bearer …`; read again for each stream.
    pub token: Option<PathBuf>,
    /// More metadata of requests, as `name=value`.
    pub headers: Vec<String>,
    pub protocol: Protocol,
    /// How many proxies.
    pub proxies: usize,
    /// Proxies on one connection.
    pub streams_per_connection: usize,
    /// Threads of this program that drive proxies.
    pub threads: usize,
    /// Draws what is drawn.
    pub seed: u64,
    pub nodes: Nodes,
    pub ask: Ask,
    /// Responses that are refused: `every:N`, or `cds:REGEX` and so on.
    pub nack: Option<String>,
    /// So many proxies stop reading once they are configured.
    pub stop_reading: usize,
    /// The mesh that the server reads, as `xds-load mesh generate` wrote it: proxies are its pods, churn changes it, and the
    /// truth comes from it.
    pub mesh: Option<PathBuf>,
    /// `HOST:PORT` of a `kubectl proxy` for each cluster of the mesh, whose API server holds the mesh: changes go there, too.
    pub api: Vec<Api>,
    /// One after the other.
    pub phases: Vec<Phase>,
    pub verify: Verify,
    /// Bounds on metrics, such as `change.eds.p99>5ms`: if one is true, the run fails.
    pub fail_if: Vec<String>,
}

/// TLS towards the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TlsSettings {
    /// Roots of the server's certificate, as PEM. Without them it is not checked.
    pub ca: Option<PathBuf>,
    /// The name in the server's certificate; else the host of `server`.
    pub server_name: Option<String>,
    /// The client's chain and key, as PEM.
    pub client_cert: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
}

/// Who the proxies are: proxy i has the i-th combination of all these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Nodes {
    /// `sidecar` or `router`.
    pub kind: String,
    /// So many of the proxies are gateways (`router`), whatever `kind` says.
    pub gateways: usize,
    pub namespaces: Vec<String>,
    pub clusters: Vec<String>,
    /// One of each cluster, in the same order; the last one for all others.
    pub networks: Vec<String>,
    /// `region/zone/subzone`
    pub localities: Vec<String>,
    /// `name=value`, comma-separated; each entry is one set of labels.
    pub labels: Vec<String>,
    pub service_account: String,
    pub trust_domain: String,
    /// The first address; the others follow.
    pub ip: std::net::Ipv4Addr,
    /// As pilot-agent says it. Empty: a plain Envoy, which gets its secrets over ADS.
    pub istio_version: String,
    /// More metadata, as `NAME=value`.
    pub metadata: Vec<String>,
}

/// What the proxies ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Ask {
    /// Types: `cds`, `eds`, `leds`, `sds`, `lds`, `rds`, `vhds`.
    pub types: Vec<String>,
    /// Names that are asked for from the beginning, as `eds:NAME`, or `eds:@FILE` with a name in each line. Wildcards for the types
    /// above are not begun then, unless `types` is given, too.
    pub subscribe: Vec<String>,
    /// Each proxy draws so many of `subscribe`; 0: all.
    pub draw: usize,
    /// Each proxy follows the endpoints of so many of its clusters; 0: all.
    pub clusters: usize,
}

/// A part of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Phase {
    /// All proxies connect; ends when all are configured.
    Connect(Pace),
    /// Nothing is done. For so many seconds.
    Hold(f64),
    /// The mesh changes; ends when all changes have arrived, or `settle` after the last one.
    Churn(Script),
    /// The server is a floor (`xds-load floor serve`), and sends its assignment to all.
    Push {
        /// How often.
        times: usize,
        /// Between two times.
        seconds: f64,
    },
    /// All proxies drop their connections and come back; ends when all are configured.
    Reconnect(Pace),
    /// A command, which may restart the server; ends when all proxies are configured again.
    Command(Vec<String>),
    /// All proxies leave.
    Disconnect,
}

/// How proxies come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Pace {
    /// So many in a second, whatever the server does. 0: the next one when one is configured.
    pub rate: f64,
    /// So many are on their way at a time. 0: all at once, a storm.
    pub in_flight: usize,
}

/// What is compared in the end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Verify {
    /// Proxies of the same shape have the same.
    pub shapes: bool,
    /// For so many shapes a fresh proxy is asked, which must get what the others have.
    pub witnesses: usize,
    /// What the mesh says.
    pub truth: bool,
    /// Nothing must have arrived for so many seconds before that.
    pub quiet: f64,
    /// How long is waited for anything at most, in seconds.
    pub patience: f64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            server: "127.0.0.1:15010".into(),
            server_pid: None,
            tls: None,
            token: None,
            headers: Vec::new(),
            protocol: Protocol::Delta,
            proxies: 100,
            streams_per_connection: 1,
            threads: 1,
            seed: 1,
            nodes: Nodes::default(),
            ask: Ask::default(),
            nack: None,
            stop_reading: 0,
            mesh: None,
            api: Vec::new(),
            phases: vec![Phase::Connect(Pace::default()), Phase::Hold(1.0), Phase::Disconnect],
            verify: Verify::default(),
            fail_if: Vec::new(),
        }
    }
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            kind: "sidecar".into(),
            gateways: 0,
            namespaces: vec!["default".into()],
            clusters: vec!["Kubernetes".into()],
            networks: Vec::new(),
            localities: Vec::new(),
            labels: vec!["app=xds-load".into()],
            service_account: "default".into(),
            trust_domain: "cluster.local".into(),
            ip: std::net::Ipv4Addr::new(10, 240, 0, 1),
            istio_version: "1.27.0".into(),
            metadata: Vec::new(),
        }
    }
}

impl Default for Ask {
    fn default() -> Self {
        let types = ["cds", "eds", "leds", "lds", "rds", "vhds"];
        Self { types: types.map(str::to_owned).to_vec(), subscribe: Vec::new(), draw: 0, clusters: 0 }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self { rate: 0.0, in_flight: 64 }
    }
}

impl Default for Verify {
    fn default() -> Self {
        Self { shapes: true, witnesses: 20, truth: true, quiet: 1.0, patience: 60.0 }
    }
}

impl Phase {
    /// As it is called in reports and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Hold(_) => "hold",
            Self::Churn(_) => "churn",
            Self::Push { .. } => "push",
            Self::Reconnect(_) => "reconnect",
            Self::Command(_) => "command",
            Self::Disconnect => "disconnect",
        }
    }
}
