//! Names as Istio writes them: users, dashboards and `istioctl` know them.

use std::sync::Arc;

/// What nothing matches.
pub const BLACK_HOLE: &str = "BlackHoleCluster";
/// To the address that the caller dialled.
pub const PASSTHROUGH: &str = "PassthroughCluster";
/// As above, on the inbound side.
pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// An outbound cluster, and its load assignment.
pub fn outbound(port: u16, subset: &str, host: &str) -> Arc<str> {
    ["outbound|", &port.to_string(), "|", subset, "|", host].concat().into()
}

/// The same for a gateway that forwards by SNI; also the SNI that clients send.
pub fn sni_dnat(port: u16, subset: &str, host: &str) -> Arc<str> {
    ["outbound_.", &port.to_string(), "_.", subset, "_.", host].concat().into()
}

/// The cluster of an inbound port.
pub fn inbound(target_port: u16) -> Arc<str> {
    format!("inbound|{target_port}||").into()
}

/// A virtual host; also the route configuration of a sniffed listener.
pub fn host_port(host: &str, port: u16) -> String {
    [host, ":", &port.to_string()].concat()
}
