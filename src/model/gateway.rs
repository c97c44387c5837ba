//! Istio's Gateway: listeners of a gateway proxy.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{kubernetes::Meta, name::Labels};

/// A Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Gateway {
    /// Name, namespace, age.
    pub meta: Meta,
    /// Labels of the gateway proxies; empty selects all.
    pub selector: Labels,
    /// Its servers.
    pub servers: Vec<Server>,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Port number.
    pub port: u16,
    /// Port name.
    pub port_name: Arc<str>,
    /// `HTTP`, `HTTPS`, `TLS`, `TCP`, `GRPC`, ... in upper case.
    pub protocol: Arc<str>,
    /// TLS mode, if there is a `tls` block.
    pub tls: Option<ServerTlsMode>,
    /// Namespace restriction (`*` for any; `.` is resolved to the Gateway's) and host, which may start with `*.`.
    pub hosts: Vec<(Arc<str>, Arc<str>)>,
}

/// TLS mode of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerTlsMode {
    /// Forward by SNI as routes say.
    Passthrough,
    /// Forward by SNI to the service that the SNI names, without any route: what east-west gateways do.
    AutoPassthrough,
    /// Terminate with a server certificate.
    Simple,
    /// Terminate, demand a client certificate.
    Mutual,
    /// Terminate, accept a client certificate.
    OptionalMutual,
    /// Terminate with the mesh's certificates.
    IstioMutual,
}

/// Whether host pattern `narrow` lies within `wide` (`a.b` in `*.b`, `*.a.b` in `*.b`, anything in `*`).
pub fn host_within(narrow: &str, wide: &str) -> bool {
    match wide.strip_prefix('*') {
        None => narrow == wide,
        Some(suffix) => narrow.strip_prefix('*').unwrap_or(narrow).ends_with(suffix),
    }
}
