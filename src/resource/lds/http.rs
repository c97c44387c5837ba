//! The HTTP connection manager as Istio sets it up, for both directions.

use std::sync::OnceLock;

use landbridge_proto::{
    envoy::{
        config::{listener::v3::Filter, route::v3::RouteConfiguration},
        extensions::{
            filters::{
                http::{
                    cors::v3::Cors,
                    fault::v3::HttpFault,
                    grpc_stats::v3::{FilterConfig as GrpcStats, filter_config::PerMethodStatSpecifier},
                    grpc_web::v3::GrpcWeb,
                    router::v3::Router,
                },
                network::http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, Rds, RequestIdExtension,
                    http_connection_manager::{
                        ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
                        SetCurrentClientCertDetails, UpgradeConfig,
                    },
                    http_filter,
                },
            },
            request_id::uuid::v3::UuidRequestIdConfig,
        },
    },
    istio::envoy::config::filter::http::alpn::v2alpha1::{
        FilterConfig,
        filter_config::{AlpnOverride, Protocol},
    },
};
use prost::Message;
use prost_types::Any;

use super::chain::filter;
use crate::{
    model::{mesh::MeshConfig, node::Extensions},
    resource::{
        access_log::access_log,
        proto::{ads, any, list, nested, object, typed_struct, zero},
    },
};

const FILTER: &str = "envoy.filters.network.http_connection_manager";
const MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// Where routes come from, which goes with the direction.
pub enum Routes {
    /// Outbound: a route configuration of ours.
    Named(String),
    /// Inbound: part of the listener.
    Inline(Box<RouteConfiguration>),
}

/// The HTTP filter of a chain. `grpc_web`: browsers' gRPC is translated.
pub fn http_filter(
    mesh: &MeshConfig,
    stat_prefix: &str,
    routes: Routes,
    grpc_web: bool,
    extensions: Extensions,
) -> Filter {
    let inbound = matches!(routes, Routes::Inline(_));
    let mut manager = HttpConnectionManager {
        stat_prefix: stat_prefix.to_owned(),
        access_log: access_log(mesh),
        ..Default::default()
    };
    match routes {
        Routes::Named(name) => {
            let rds = Rds { route_config_name: name, config_source: Some(ads()) };
            manager.route_specifier = Some(RouteSpecifier::Rds(rds));
        }
        Routes::Inline(config) => manager.route_specifier = Some(RouteSpecifier::RouteConfig(*config)),
    }
    let mut config = any(MANAGER, &manager);
    // Fields that follow are part of the same message.
    config.value.extend_from_slice(alike(inbound, grpc_web, extensions));
    filter(FILTER, config)
}

/// What all connection managers of a kind have alike, encoded once: it is most of them.
fn alike(inbound: bool, grpc_web: bool, extensions: Extensions) -> &'static [u8] {
    static KINDS: [OnceLock<Vec<u8>>; 16] = [const { OnceLock::new() }; 16];
    let Extensions { alpn, metadata_exchange, stats: _ } = extensions;
    let kind = [inbound, grpc_web, alpn, metadata_exchange]
        .into_iter()
        .fold(0, |kind, is| kind * 2 + usize::from(is));
    KINDS[kind].get_or_init(|| {
        let mut manager = HttpConnectionManager {
            http_filters: http_filters(inbound, grpc_web, extensions),
            normalize_path: Some(true),
            path_with_escaped_slashes_action: PathWithEscapedSlashesAction::KeepUnchanged.into(),
            stream_idle_timeout: Some(zero()),
            use_remote_address: Some(false),
            proxy_100_continue: true,
            upgrade_configs: vec![UpgradeConfig {
                upgrade_type: "websocket".to_owned(),
                ..Default::default()
            }],
            request_id_extension: Some(RequestIdExtension {
                typed_config: Some(any(
                    "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                    &UuidRequestIdConfig {
                        use_request_id_for_trace_sampling: Some(true),
                        ..Default::default()
                    },
                )),
            }),
            ..Default::default()
        };
        if inbound {
            manager.server_name = "istio-envoy".to_owned();
            // The application learns who called, also through several proxies.
            manager.forward_client_cert_details = ForwardClientCertDetails::AppendForward.into();
            manager.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
                subject: Some(true),
                dns: true,
                uri: true,
                ..Default::default()
            });
        }
        manager.encode_to_vec()
    })
}

/// Wraps a connection manager as a filter.
pub fn http_filter_of(manager: &HttpConnectionManager) -> Filter {
    filter(FILTER, any(MANAGER, manager))
}

/// The last filter of every connection manager.
pub fn router() -> HttpFilter {
    named(
        "envoy.filters.http.router",
        any("envoy.extensions.filters.http.router.v3.Router", &Router::default()),
    )
}

/// Names an HTTP filter's configuration.
pub fn named(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

/// Istio's order. `fault` and `cors` do nothing until a route asks for them.
fn http_filters(inbound: bool, grpc_web: bool, extensions: Extensions) -> Vec<HttpFilter> {
    let mut filters = Vec::new();
    if extensions.metadata_exchange {
        filters.push(named("istio.metadata_exchange", metadata_exchange(inbound)));
    }
    if grpc_web {
        let config = any("envoy.extensions.filters.http.grpc_web.v3.GrpcWeb", &GrpcWeb {});
        filters.push(named("envoy.filters.http.grpc_web", config));
    }
    let grpc_stats = GrpcStats {
        emit_filter_state: true,
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(false)),
        ..Default::default()
    };
    filters.push(named(
        "envoy.filters.http.grpc_stats",
        any("envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", &grpc_stats),
    ));
    if extensions.alpn && !inbound {
        filters.push(named("istio.alpn", alpn()));
    }
    filters.push(named(
        "envoy.filters.http.fault",
        any("envoy.extensions.filters.http.fault.v3.HTTPFault", &HttpFault::default()),
    ));
    filters
        .push(named("envoy.filters.http.cors", any("envoy.extensions.filters.http.cors.v3.Cors", &Cors {})));
    filters.push(router());
    filters
}

/// Istio's exchange of workload metadata in headers.
fn metadata_exchange(inbound: bool) -> Any {
    let nothing = || nested(object([]));
    let headers = || nested(object([("istio_headers", nothing())]));
    let discovery = list(vec![headers(), nested(object([("workload_discovery", nothing())]))]);
    let propagation = list(vec![headers()]);
    let config = if inbound {
        object([("downstream_discovery", discovery), ("downstream_propagation", propagation)])
    } else {
        object([("upstream_discovery", discovery), ("upstream_propagation", propagation)])
    };
    typed_struct("io.istio.http.peer_metadata.Config", config)
}

/// Istio's filter that sets what a connection offers by the protocol of its requests.
fn alpn() -> Any {
    let protocols = [
        (Protocol::Http10, ["istio-http/1.0", "istio", "http/1.0"]),
        (Protocol::Http11, ["istio-http/1.1", "istio", "http/1.1"]),
        (Protocol::Http2, ["istio-h2", "istio", "h2"]),
    ];
    let overrides = protocols.into_iter().map(|(protocol, names)| AlpnOverride {
        upstream_protocol: protocol.into(),
        alpn_override: names.map(str::to_owned).to_vec(),
    });
    let config = FilterConfig { alpn_override: overrides.collect() };
    any("istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig", &config)
}
