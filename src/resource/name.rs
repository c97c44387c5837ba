//! Names as Istio writes them: users, dashboards and `istioctl` know them.

use std::net::IpAddr;

/// What nothing matches.
pub const BLACK_HOLE: &str = "BlackHoleCluster";
/// To the address that the caller dialled.
pub const PASSTHROUGH: &str = "PassthroughCluster";
/// As above, on the inbound side.
pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// An outbound cluster, and its load assignment.
pub fn outbound(port: u16, subset: &str, host: &str) -> String {
    ["outbound|", itoa::Buffer::new().format(port), "|", subset, "|", host].concat()
}

/// The same for a gateway that forwards by SNI; also the SNI that clients send.
pub fn sni_dnat(port: u16, subset: &str, host: &str) -> String {
    ["outbound_.", itoa::Buffer::new().format(port), "_.", subset, "_.", host].concat()
}

/// The cluster of an inbound port.
pub fn inbound(target_port: u16) -> String {
    format!("inbound|{target_port}||")
}

/// A virtual host; also the route configuration of a sniffed listener.
pub fn host_port(host: &str, port: u16) -> String {
    [host, ":", itoa::Buffer::new().format(port)].concat()
}

/// An address: what `to_string` says, which takes a fifth of a microsecond for it.
pub fn ip(ip: IpAddr) -> String {
    let IpAddr::V4(ip) = ip else { return ip.to_string() };
    let mut text = String::with_capacity("255.255.255.255.".len());
    for octet in ip.octets() {
        text.push_str(itoa::Buffer::new().format(octet));
        text.push('.');
    }
    text.pop();
    text
}
