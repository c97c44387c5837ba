//! What a proxy listens on by itself, whatever the control plane says: the answer to probes, and ports that are passed on.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{
    BootstrapArgs, Forward, HostPort,
    render::{cluster, socket_address},
};

/// Envoy's own admin interface, as a cluster.
const ADMIN: &str = "admin";

/// The fixed listeners.
pub fn listeners(args: &BootstrapArgs) -> Vec<Value> {
    let address = any_address(args);
    let status = args.status_port.map(|port| status(address, port));
    status.into_iter().chain(args.forward.iter().map(|forward| passed_on(address, forward))).collect()
}

/// The clusters that they lead to.
pub fn clusters(args: &BootstrapArgs) -> Vec<Value> {
    let admin = HostPort { host: "127.0.0.1".to_owned(), port: args.admin_port };
    let admin = args.status_port.map(|_| cluster(ADMIN, &admin));
    admin.into_iter().chain(args.forward.iter().map(|f| cluster(&forward_name(f), &f.to))).collect()
}

/// All addresses, also where only IPv6 is.
fn any_address(args: &BootstrapArgs) -> &'static str {
    if args.ip.iter().any(IpAddr::is_ipv4) { "0.0.0.0" } else { "::" }
}

fn forward_name(forward: &Forward) -> String {
    format!("forward-{}", forward.port)
}

/// Readiness only: the other pages of the admin interface stay on loopback.
fn status(address: &str, port: u16) -> Value {
    json!({
        "name": "status",
        "address": socket_address(address, port),
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "status",
                "route_config": { "virtual_hosts": [{
                    "name": "status",
                    "domains": ["*"],
                    "routes": [{
                        "match": { "path": "/healthz/ready", "headers": [
                            { "name": ":method", "string_match": { "exact": "GET" } },
                        ]},
                        "route": { "cluster": ADMIN, "prefix_rewrite": "/ready", "timeout": "2s" },
                    }],
                }]},
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    },
                }],
            },
        }]}],
    })
}

fn passed_on(address: &str, forward: &Forward) -> Value {
    let name = forward_name(forward);
    json!({
        "name": name,
        "address": socket_address(address, forward.port),
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": name,
                "cluster": name,
                // Streams of configuration are quiet for long, and have pings of their own.
                "idle_timeout": "0s",
            },
        }]}],
    })
}
