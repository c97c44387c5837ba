//! Filter chains that forward bytes, and the parts that all chains share.

use landbridge_proto::envoy::{
    config::{
        core::v3::TransportSocket,
        listener::v3::{Filter, FilterChain, FilterChainMatch, filter},
    },
    extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
    r#type::v3::{HashPolicy, hash_policy},
};
use prost_types::Any;

use crate::{
    model::{
        destination_rule::{HashKey, LbAlgorithm},
        mesh::MeshConfig,
        node::Extensions,
    },
    resource::{
        access_log::access_log,
        cds,
        policy::Policy,
        proto::{any, duration, seconds},
    },
};

/// What http_inspector finds in plaintext.
pub const PLAIN_HTTP: &[&str] = &["http/1.1", "h2c"];
/// What the mesh's clients offer for HTTP, if they have `istio.alpn`.
pub const ISTIO_HTTP: &[&str] = &["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// What they offer for bytes, and what clients without `istio.alpn` always offer.
pub const ISTIO_TCP: &[&str] = &["istio-peer-exchange", "istio"];
/// Any of them.
pub const ISTIO_ANY: &[&str] =
    &["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// How long a TLS handshake may take; Istio's default.
const HANDSHAKE_SECONDS: i64 = 15;

/// Names a filter's configuration.
pub fn filter(name: &str, config: Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

/// Forwards bytes to a cluster.
pub fn tcp_proxy(mesh: &MeshConfig, cluster: &str) -> TcpProxy {
    TcpProxy {
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        access_log: access_log(mesh),
        ..Default::default()
    }
}

/// As [`tcp_proxy`], with the settings of the destination rule that concern connections.
pub fn tcp_proxy_with(mesh: &MeshConfig, cluster: &str, policy: &Policy) -> TcpProxy {
    let pool = policy.settings.connection_pool.as_ref();
    let by_source =
        policy.settings.load_balancer.as_ref().is_some_and(
            |lb| matches!(&lb.algorithm, LbAlgorithm::Hash(hash) if hash.key == HashKey::SourceIp),
        );
    let source = hash_policy::PolicySpecifier::SourceIp(hash_policy::SourceIp {});
    TcpProxy {
        idle_timeout: pool.and_then(|p| p.tcp_idle_timeout).map(duration),
        max_downstream_connection_duration: pool.and_then(|p| p.max_connection_duration).map(duration),
        hash_policy: by_source.then_some(HashPolicy { policy_specifier: Some(source) }).into_iter().collect(),
        ..tcp_proxy(mesh, cluster)
    }
}

/// Wraps it as a filter.
pub fn tcp_filter(proxy: &TcpProxy) -> Filter {
    filter(
        "envoy.filters.network.tcp_proxy",
        any("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", proxy),
    )
}

/// Istio's exchange of metadata on connections, for proxies that have it.
pub fn exchange(extensions: Extensions) -> Vec<Filter> {
    let exchange = || filter("istio.metadata_exchange", cds::metadata_exchange());
    extensions.metadata_exchange.then(exchange).into_iter().collect()
}

/// A match by what the inspectors found; an empty transport matches any.
pub fn sniffed(transport: &str, protocols: &[&str]) -> FilterChainMatch {
    FilterChainMatch {
        transport_protocol: transport.to_owned(),
        application_protocols: protocols.iter().map(|p| (*p).to_owned()).collect(),
        ..Default::default()
    }
}

/// A chain for connections that match, or for all.
pub fn chain(matches: Option<FilterChainMatch>, filters: Vec<Filter>) -> FilterChain {
    FilterChain {
        filter_chain_match: matches,
        filters,
        transport_socket_connect_timeout: Some(seconds(HANDSHAKE_SECONDS)),
        ..Default::default()
    }
}

/// A chain with a name, which access logs show, and TLS if there is any.
pub fn named_chain(
    name: &str,
    matches: Option<FilterChainMatch>,
    filters: Vec<Filter>,
    transport_socket: Option<TransportSocket>,
) -> FilterChain {
    FilterChain {
        name: name.to_owned(),
        filter_chain_match: matches,
        filters,
        transport_socket,
        ..Default::default()
    }
}
