//! What a sidecar's inbound side depends on: its workload's ports and what they accept.

use std::{net::IpAddr, sync::Arc};

use crate::model::{
    node::{Extensions, Interception, SecretSource},
    peer_authentication::MtlsMode,
    port::Protocol,
    service::ServiceKey,
};

/// Workloads with the same ports, modes and proxy abilities share their inbound configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InboundView {
    /// By target port, ascending; the oldest service wins a port that several claim.
    pub ports: Vec<InboundPort>,
    /// For ports of no service: the workload's mode, then exceptions of `portLevelMtls` by port.
    pub passthrough: PassthroughMode,
    /// Captured, or real listeners.
    pub interception: Interception,
    /// Istio's own filters, if the proxy has them.
    pub extensions: Extensions,
    /// Where TLS contexts take certificates from.
    pub secrets: SecretSource,
    /// Addresses to bind; only where traffic is not captured.
    pub bind: Vec<IpAddr>,
}

/// One inbound port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InboundPort {
    /// The workload's port.
    pub target: u16,
    /// The service port that leads to it.
    pub service_port: u16,
    /// The service.
    pub service: ServiceKey,
    /// The service's short name, for telemetry metadata.
    pub service_name: Arc<str>,
    /// What is spoken.
    pub protocol: Protocol,
    /// What it accepts.
    pub mode: MtlsMode,
}

/// What ports of no service accept.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PassthroughMode {
    /// Any port.
    pub default: MtlsMode,
    /// `portLevelMtls` of ports that no service leads to.
    pub ports: Vec<(u16, MtlsMode)>,
}
