//! The inbound side of sidecars: `virtualInbound`, or real listeners where traffic is not captured.

use landbridge_proto::envoy::config::{
    core::v3::TrafficDirection,
    listener::v3::{FilterChain, FilterChainMatch, ListenerFilter},
    route::v3::{
        RetryPolicy, RouteAction, RouteConfiguration, VirtualHost,
        route_action::{ClusterSpecifier, MaxStreamDuration},
    },
};

use super::{
    WILDCARD, capturing,
    chain::{
        ISTIO_ANY, ISTIO_HTTP, ISTIO_TCP, PLAIN_HTTP, exchange, named_chain, sniffed, tcp_filter, tcp_proxy,
    },
    http::{Routes, http_filter},
    inspect, listener, listener_name,
};
use crate::{
    index::Index,
    model::{
        mesh::MeshConfig,
        node::Interception,
        peer_authentication::MtlsMode,
        port::{ListenerClass, Protocol},
    },
    resource::{
        Built, name,
        proto::{duration, zero},
        rds::default_route,
        tls,
    },
    view::{InboundPort, InboundView},
};

/// One row of the table of chains: which connections, treated how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// `tls` or `raw_buffer`.
    pub transport: &'static str,
    /// What was offered or found; empty matches anything.
    pub protocols: &'static [&'static str],
    /// HTTP, else bytes.
    pub http: bool,
    /// Mutual TLS ends here.
    pub mutual: bool,
}

const fn row(transport: &'static str, protocols: &'static [&'static str], http: bool, mutual: bool) -> Row {
    Row { transport, protocols, http, mutual }
}

/// The chains of a port, in Istio's order. A row that has TLS without ending it passes the application's own TLS through.
pub fn rows(class: ListenerClass, mode: MtlsMode) -> &'static [Row] {
    use ListenerClass::{Auto, Http, Tcp};
    use MtlsMode::{Disable, Permissive, Strict};
    match (class, mode) {
        (Http, Strict) => const { &[row("tls", &[], true, true)] },
        (Http, Permissive) => {
            const { &[row("tls", ISTIO_ANY, true, true), row("raw_buffer", &[], true, false)] }
        }
        (Http, Disable) => const { &[row("raw_buffer", &[], true, false)] },
        (Tcp, Strict) => const { &[row("tls", &[], false, true)] },
        (Tcp, Permissive) => {
            const {
                &[
                    row("tls", ISTIO_ANY, false, true),
                    row("tls", &[], false, false),
                    row("raw_buffer", &[], false, false),
                ]
            }
        }
        (Tcp, Disable) => const { &[row("raw_buffer", &[], false, false)] },
        (Auto, Strict) => const { &[row("tls", ISTIO_HTTP, true, true), row("tls", &[], false, true)] },
        (Auto, Permissive) => {
            const {
                &[
                    row("tls", ISTIO_HTTP, true, true),
                    row("raw_buffer", PLAIN_HTTP, true, false),
                    row("tls", ISTIO_TCP, false, true),
                    row("raw_buffer", &[], false, false),
                    row("tls", &[], false, false),
                ]
            }
        }
        (Auto, Disable) => {
            const { &[row("raw_buffer", PLAIN_HTTP, true, false), row("raw_buffer", &[], false, false)] }
        }
    }
}

/// What a set of chains leads to.
struct Destination<'a> {
    /// None: any port that has no chains of its own.
    port: Option<u16>,
    cluster: &'a str,
    tcp_chain: &'a str,
    http_chain: &'a str,
    stat_prefix: String,
    /// `<host>:<port>` for traces, and the service port of the virtual host's name.
    operation: String,
    service_port: u16,
    protocol: Protocol,
}

/// The listeners.
pub fn build(index: &Index, view: &InboundView) -> Vec<Built> {
    match view.interception {
        Interception::Redirect | Interception::Tproxy => vec![captured(index, view)],
        Interception::None => view
            .ports
            .iter()
            .filter(|port| port.protocol != Protocol::Udp)
            .flat_map(|port| view.bind.iter().map(move |ip| (port, ip.to_string())))
            .map(|(port, ip)| real(index, view, port, &ip))
            .collect(),
    }
}

fn captured(index: &Index, view: &InboundView) -> Built {
    let mesh = index.mesh();
    let name = "virtualInbound";
    let itself = FilterChainMatch { destination_port: Some(mesh.inbound_port.into()), ..Default::default() };
    let mut filters = exchange(view.extensions);
    filters.push(tcp_filter(&tcp_proxy(mesh, name::BLACK_HOLE)));
    let mut chains = vec![named_chain("virtualInbound-blackhole", Some(itself), filters, None)];

    let passthrough = std::iter::once((None, view.passthrough.default));
    let exceptions = view.passthrough.ports.iter().map(|(port, mode)| (Some(*port), *mode));
    for (port, mode) in passthrough.chain(exceptions) {
        chains.extend(chains_of(mesh, view, ListenerClass::Auto, mode, &anywhere(port)));
    }
    let ports = || view.ports.iter().filter(|p| p.protocol != Protocol::Udp);
    for port in ports() {
        let cluster = name::inbound(port.target);
        let name = listener_name(WILDCARD, port.target);
        let class = port.protocol.listener_class();
        let destination = destination(port, &cluster, &name, Some(port.target));
        chains.extend(chains_of(mesh, view, class, port.mode, &destination));
    }

    let mut built = listener(mesh, name.to_owned(), WILDCARD, mesh.inbound_port, TrafficDirection::Inbound);
    built.filter_chains = chains;
    built.listener_filters.push(inspect::original_dst());
    if view.interception == Interception::Tproxy {
        built.listener_filters.push(inspect::original_src());
    }
    let own = [(mesh.inbound_port, &[][..])];
    let exceptions = view.passthrough.ports.iter().map(|(p, mode)| (*p, rows(ListenerClass::Auto, *mode)));
    let known: Vec<_> = own
        .into_iter()
        .chain(exceptions)
        .chain(ports().map(|p| (p.target, rows(p.protocol.listener_class(), p.mode))))
        .collect();
    let others = rows(ListenerClass::Auto, view.passthrough.default);
    built.listener_filters.extend(inspectors(&known, others));
    built.listener_filters_timeout = Some(duration(mesh.protocol_detection_timeout));
    built.continue_on_listener_filters_timeout = true;
    let mut sources: Vec<_> =
        view.ports.iter().filter_map(|p| index.service(&p.service)).flat_map(|s| s.sources.clone()).collect();
    sources.sort();
    sources.dedup();
    Built::new(name, &capturing(built, view.interception), sources)
}

/// A listener on the pod's own address; the application listens on the loopback interface.
fn real(index: &Index, view: &InboundView, port: &InboundPort, ip: &str) -> Built {
    let mesh = index.mesh();
    let name = listener_name(ip, port.target);
    let cluster = name::inbound(port.target);
    let class = port.protocol.listener_class();
    let mut built = listener(mesh, name.clone(), ip, port.target, TrafficDirection::Inbound);
    built.filter_chains = chains_of(mesh, view, class, port.mode, &destination(port, &cluster, &name, None));
    built.listener_filters = inspectors(&[], rows(class, port.mode));
    built.listener_filters_timeout = Some(duration(mesh.protocol_detection_timeout));
    built.continue_on_listener_filters_timeout = true;
    let sources = index.service(&port.service).map(|s| s.sources.clone()).unwrap_or_default();
    Built::new(name, &built, sources)
}

fn destination<'a>(
    port: &InboundPort,
    cluster: &'a str,
    name: &'a str,
    matched: Option<u16>,
) -> Destination<'a> {
    Destination {
        port: matched,
        cluster,
        tcp_chain: name,
        http_chain: name,
        stat_prefix: format!("inbound_{name};"),
        operation: name::host_port(&port.service.host, port.service_port),
        service_port: port.service_port,
        protocol: port.protocol,
    }
}

/// Ports of no service.
fn anywhere(port: Option<u16>) -> Destination<'static> {
    Destination {
        port,
        cluster: name::INBOUND_PASSTHROUGH,
        tcp_chain: "virtualInbound",
        http_chain: "virtualInbound-catchall-http",
        stat_prefix: format!("{};", name::INBOUND_PASSTHROUGH),
        operation: ":0".to_owned(),
        service_port: 0,
        protocol: Protocol::Auto,
    }
}

fn chains_of(
    mesh: &MeshConfig,
    view: &InboundView,
    class: ListenerClass,
    mode: MtlsMode,
    to: &Destination,
) -> Vec<FilterChain> {
    let chain = |row: &Row| {
        let mut matches = sniffed(row.transport, row.protocols);
        matches.destination_port = to.port.map(u32::from);
        let mut filters = exchange(view.extensions);
        filters.push(if row.http {
            let routes = Routes::Inline(Box::new(routes(to)));
            http_filter(mesh, &to.stat_prefix, routes, to.protocol == Protocol::GrpcWeb, view.extensions)
        } else {
            tcp_filter(&tcp_proxy(mesh, to.cluster))
        });
        let peer_exchange = !row.http && view.extensions.metadata_exchange;
        let tls = row.mutual.then(|| tls::downstream_mutual(mesh, view.secrets, peer_exchange));
        let name = if row.http { to.http_chain } else { to.tcp_chain };
        named_chain(name, Some(matches), filters, tls)
    };
    rows(class, mode).iter().map(chain).collect()
}

/// The one route to the application. What surely did not reach it is tried again, unless it is gRPC, where the caller
/// decides.
fn routes(to: &Destination) -> RouteConfiguration {
    let retry = RetryPolicy {
        retry_on: "reset-before-request".to_owned(),
        num_retries: Some(2),
        ..Default::default()
    };
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(to.cluster.to_owned())),
        timeout: Some(zero()),
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: Some(zero()),
            grpc_timeout_header_max: Some(zero()),
            ..Default::default()
        }),
        retry_policy: (to.protocol != Protocol::Grpc).then_some(retry),
        ..Default::default()
    };
    let route = default_route(format!("{}/*", to.operation), action);
    RouteConfiguration {
        name: to.cluster.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|http|{}", to.service_port),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..Default::default()
        }],
        validate_clusters: Some(false),
        ..Default::default()
    }
}

/// The inspectors that the chains need, each only on the ports that do.
fn inspectors(known: &[(u16, &[Row])], others: &[Row]) -> Vec<ListenerFilter> {
    let needs_tls = |rows: &[Row]| rows.iter().any(|r| r.transport == "tls");
    let needs_http = |rows: &[Row]| rows.iter().any(|r| r.transport != "tls" && !r.protocols.is_empty());
    let ports = |needs: &dyn Fn(&[Row]) -> bool| -> Vec<(u16, bool)> {
        known.iter().map(|(port, rows)| (*port, needs(rows))).collect()
    };
    let tls = inspect::only_where_needed(inspect::tls_inspector(), &ports(&needs_tls), needs_tls(others));
    let http = inspect::only_where_needed(inspect::http_inspector(), &ports(&needs_http), needs_http(others));
    tls.into_iter().chain(http).collect()
}
