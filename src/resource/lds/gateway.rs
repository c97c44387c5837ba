//! Listeners of east-west gateways: forwarding by SNI, and a health page.

use std::collections::{BTreeMap, BTreeSet};

use landbridge_proto::envoy::{
    config::{
        core::v3::TrafficDirection,
        listener::v3::{FilterChain, FilterChainMatch},
        route::v3::{HeaderMatcher, RouteConfiguration, header_matcher::HeaderMatchSpecifier},
    },
    extensions::filters::{
        http::health_check::v3::HealthCheck,
        network::http_connection_manager::v3::{
            HttpConnectionManager, http_connection_manager::RouteSpecifier,
        },
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

use super::{
    WILDCARD, capturing,
    chain::{ISTIO_ANY, chain, tcp_filter, tcp_proxy_with},
    http::{http_filter_of, named, router},
    inspect, listener, listener_name,
};
use crate::{
    index::Index,
    model::{
        Kind, ObjectKey,
        gateway::{Gateway, Server, ServerTlsMode, host_within},
        mesh::MeshConfig,
        node::{Interception, SecretSource},
        service::Service,
    },
    resource::{
        Built,
        cds::ports_and_subsets,
        name,
        policy::{self, Policy},
        proto::{any, with_messages},
        template::{Templates, place},
    },
    view::GatewayView,
};

/// Where load balancers and kubelets ask for a gateway's health.
const HEALTH_PORT: u16 = 15021;
const HEALTH_PATH: &str = "/healthz/ready";
/// The number of a listener's field.
const FILTER_CHAINS: u32 = 3;

/// The listeners. A proxy with Istio's agent has its health page from there.
pub fn build(index: &Index, view: &GatewayView) -> Vec<Built> {
    let mut by_port: BTreeMap<u16, Vec<(&Gateway, &Server)>> = BTreeMap::new();
    for gateway in &view.gateways {
        for server in &gateway.0.servers {
            if server.tls == Some(ServerTlsMode::AutoPassthrough) {
                by_port.entry(server.port).or_default().push((&gateway.0, server));
            }
        }
    }
    let mut built: Vec<_> =
        by_port.iter().filter_map(|(port, servers)| forwarding(index, view, *port, servers)).collect();
    if view.secrets == SecretSource::Ads && !by_port.contains_key(&HEALTH_PORT) {
        built.push(health(index));
    }
    built
}

/// A chain for each service, port and subset that the servers' hosts cover. TLS is not ended here: it is between the two
/// sidecars. What no chain names is closed.
fn forwarding(
    index: &Index,
    view: &GatewayView,
    port: u16,
    servers: &[(&Gateway, &Server)],
) -> Option<Built> {
    let mesh = index.mesh();
    let mut visible = index.visible(&view.scope);
    visible.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    let mut sources: BTreeSet<ObjectKey> =
        servers.iter().map(|(gateway, _)| source(index, gateway)).collect();
    let templates = Templates::new();
    let mut chains = Vec::new();
    for service in visible.into_iter().filter(|s| covered(s, servers)) {
        for (service_port, subset) in ports_and_subsets(index, &view.scope, service) {
            let subset_name = subset.map(|s| &*s.name).unwrap_or_default();
            let name = name::sni_dnat(service_port.number, subset_name, &service.key.host);
            let (policy, _) = policy::effective(index, &view.scope, service, service_port, subset);
            chains.push(templates.fill(&policy, |policy| sni_chain(mesh, policy), &[&[&name]]));
        }
        sources.extend(service.sources.iter().cloned());
    }
    // Envoy refuses a listener without chains.
    if chains.is_empty() {
        return None;
    }
    let name = listener_name(WILDCARD, port);
    let mut built = listener(mesh, name.clone(), WILDCARD, port, TrafficDirection::Outbound);
    built.listener_filters = vec![inspect::tls_inspector()];
    let message = with_messages(
        &capturing(built, Interception::Redirect),
        FILTER_CHAINS,
        chains.iter().map(Vec::as_slice),
    );
    Some(Built::of_bytes(name, message, sources.into_iter().collect()))
}

/// With a place for the cluster's name, which is also the server's name that is asked for.
fn sni_chain(mesh: &MeshConfig, policy: &Policy) -> FilterChain {
    let matches = FilterChainMatch {
        server_names: vec![place(0)],
        application_protocols: ISTIO_ANY.iter().map(|p| (*p).to_owned()).collect(),
        ..Default::default()
    };
    chain(Some(matches), vec![tcp_filter(&tcp_proxy_with(mesh, &place(0), policy))])
}

/// Whether a server's hosts (`namespace/host`) include the service.
fn covered(service: &Service, servers: &[(&Gateway, &Server)]) -> bool {
    servers.iter().flat_map(|(_, server)| &server.hosts).any(|(namespace, host)| {
        (&**namespace == "*" || *namespace == service.key.namespace) && host_within(&service.key.host, host)
    })
}

fn source(index: &Index, gateway: &Gateway) -> ObjectKey {
    ObjectKey {
        cluster: index.options().config_cluster.clone(),
        kind: Kind::Gateway,
        namespace: gateway.meta.namespace.clone(),
        name: gateway.meta.name.clone(),
    }
}

/// Answers 200 on the path that Istio's agent would, while Envoy serves; 503 once it drains.
fn health(index: &Index) -> Built {
    let mesh = index.mesh();
    let exact = StringMatcher {
        match_pattern: Some(MatchPattern::Exact(HEALTH_PATH.to_owned())),
        ..Default::default()
    };
    let path = HeaderMatcher {
        name: ":path".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(exact)),
        ..Default::default()
    };
    let check = HealthCheck { pass_through_mode: Some(false), headers: vec![path], ..Default::default() };
    let config = any("envoy.extensions.filters.http.health_check.v3.HealthCheck", &check);
    let manager = HttpConnectionManager {
        stat_prefix: "health".to_owned(),
        http_filters: vec![named("envoy.filters.http.health_check", config), router()],
        // Nothing else is here: 404.
        route_specifier: Some(RouteSpecifier::RouteConfig(RouteConfiguration {
            name: "health".to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let name = listener_name(WILDCARD, HEALTH_PORT);
    let mut built = listener(mesh, name.clone(), WILDCARD, HEALTH_PORT, TrafficDirection::Inbound);
    built.filter_chains = vec![chain(None, vec![http_filter_of(&manager)])];
    Built::new(name, &built, Vec::new())
}
