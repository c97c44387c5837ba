//! `connectionPool` of DestinationRule and mesh config.

use serde::Deserialize;

use super::{
    check,
    finding::{Finding, Result, Warnings},
    wire::{Flag, Int, Span, Text},
};
use crate::model::destination_rule::{ConnectionPool, TcpKeepalive};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wire {
    tcp: Tcp,
    http: Http,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Tcp {
    max_connections: Option<Int>,
    connect_timeout: Option<Span>,
    idle_timeout: Option<Span>,
    max_connection_duration: Option<Span>,
    tcp_keepalive: Option<Keepalive>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keepalive {
    probes: Option<Int>,
    time: Option<Span>,
    interval: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Http {
    http1_max_pending_requests: Option<Int>,
    http2_max_requests: Option<Int>,
    max_requests_per_connection: Option<Int>,
    max_retries: Option<Int>,
    idle_timeout: Option<Span>,
    max_concurrent_streams: Option<Int>,
    h2_upgrade_policy: Option<Text>,
    use_client_protocol: Flag,
    http2_keep_alive: Option<serde::de::IgnoredAny>,
}

const UPGRADE: &[(&str, Option<bool>)] =
    &[("DEFAULT", None), ("UPGRADE", Some(true)), ("DO_NOT_UPGRADE", Some(false))];

pub fn convert(at: &str, wire: &Wire, warnings: &mut Warnings) -> Result<ConnectionPool> {
    let Wire { tcp, http } = wire;
    let t = |name: &str| format!("{at}.tcp.{name}");
    let h = |name: &str| format!("{at}.http.{name}");
    if http.http2_keep_alive.is_some() {
        let remedy = "use tcp.tcpKeepalive to find dead connections";
        warnings.push(Finding::new(h("http2KeepAlive"), "is not supported yet and ignored", remedy));
    }
    let tcp_keepalive = match &tcp.tcp_keepalive {
        None => None,
        Some(k) => Some(TcpKeepalive {
            probes: check::limit(&t("tcpKeepalive.probes"), k.probes)?,
            time: check::some_duration(&t("tcpKeepalive.time"), k.time.as_ref(), warnings)?,
            interval: check::some_duration(&t("tcpKeepalive.interval"), k.interval.as_ref(), warnings)?,
        }),
    };
    Ok(ConnectionPool {
        max_connections: check::limit(&t("maxConnections"), tcp.max_connections)?,
        connect_timeout: check::some_duration(&t("connectTimeout"), tcp.connect_timeout.as_ref(), warnings)?,
        tcp_idle_timeout: check::some_duration(&t("idleTimeout"), tcp.idle_timeout.as_ref(), warnings)?,
        max_connection_duration: check::some_duration(
            &t("maxConnectionDuration"),
            tcp.max_connection_duration.as_ref(),
            warnings,
        )?,
        tcp_keepalive,
        max_pending_requests: check::limit(&h("http1MaxPendingRequests"), http.http1_max_pending_requests)?,
        max_requests: check::limit(&h("http2MaxRequests"), http.http2_max_requests)?,
        max_requests_per_connection: check::limit(
            &h("maxRequestsPerConnection"),
            http.max_requests_per_connection,
        )?,
        max_retries: check::limit(&h("maxRetries"), http.max_retries)?,
        http_idle_timeout: check::some_duration(&h("idleTimeout"), http.idle_timeout.as_ref(), warnings)?,
        max_concurrent_streams: check::limit(&h("maxConcurrentStreams"), http.max_concurrent_streams)?,
        h2_upgrade: match http.h2_upgrade_policy.as_deref() {
            Some(text) => check::choice(&h("h2UpgradePolicy"), text, UPGRADE)?,
            None => None,
        },
        use_client_protocol: http.use_client_protocol.0,
    })
}
