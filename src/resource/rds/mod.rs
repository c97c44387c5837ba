//! Outbound routes.

mod domains;
pub mod retry;

use landbridge_proto::envoy::{
    config::route::v3::{
        Decorator, DirectResponseAction, HeaderMatcher, Route, RouteAction, RouteConfiguration, RouteMatch,
        VirtualHost,
        header_matcher::HeaderMatchSpecifier,
        route::Action,
        route_action::{
            ClusterSpecifier, HashPolicy, MaxStreamDuration,
            hash_policy::{ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter},
        },
        route_match::PathSpecifier,
    },
    r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
};

use super::{
    Built, name,
    policy::{self, Policy},
    proto::{duration, zero},
};
use crate::{
    index::Index,
    model::{
        ObjectKey,
        destination_rule::{HashKey, LbAlgorithm},
        mesh::MeshConfig,
        port::{ListenerClass, Protocol},
        service::{Port, Resolution, Service},
    },
    view::RouteView,
};

/// Istio's limit for answers that are part of a route.
const MAX_DIRECT_RESPONSE: u32 = 1024 * 1024;

/// The routes of a port: one table by host for its HTTP listener, and one table of a single service for each sniffed
/// listener.
pub fn port(index: &Index, view: &RouteView, port: u16) -> Vec<Built> {
    let services: Vec<_> = index
        .services_on_port(&view.scope, port)
        .into_iter()
        .filter(|s| !matches!(s.resolution, Resolution::Alias(_)))
        .filter_map(|s| Some((&**s, s.port(port)?)))
        .filter(|(_, p)| p.protocol.listener_class() != ListenerClass::Tcp)
        .collect();
    let mut built = Vec::new();
    if services.iter().any(|(_, p)| p.protocol.listener_class() == ListenerClass::Http) {
        built.push(by_host(index, view, port, &services));
    }
    for (service, p) in services.iter().filter(|(_, p)| p.protocol == Protocol::Auto) {
        let name = name::host_port(&service.key.host, port);
        let (mut host, sources) = virtual_host(index, view, service, p);
        // The listener stands for this service alone, whatever the request calls it.
        host.domains = vec!["*".to_owned()];
        built.push(Built::new(name.clone(), &route_configuration(name, vec![host]), sources));
    }
    built
}

fn by_host(index: &Index, view: &RouteView, port: u16, services: &[(&Service, &Port)]) -> Built {
    let mut domains = domains::assign(index, view, services);
    let mut hosts = Vec::with_capacity(services.len() + 1);
    let mut sources = Vec::new();
    for (service, p) in services {
        let Some(own) = domains.remove(&service.key).filter(|own| !own.is_empty()) else { continue };
        let (mut host, from) = virtual_host(index, view, service, p);
        host.domains = own;
        hosts.push(host);
        sources.extend(from);
    }
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts.push(catch_all(index.mesh()));
    sources.sort();
    sources.dedup();
    let name = port.to_string();
    Built::new(name.clone(), &route_configuration(name, hosts), sources)
}

fn route_configuration(name: String, virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    RouteConfiguration {
        name,
        virtual_hosts,
        // A route may come before its cluster: that is Envoy's 503 until it does, not a rejected table.
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(MAX_DIRECT_RESPONSE),
        ignore_port_in_host_matching: true,
        ..Default::default()
    }
}

/// A service's virtual host without its domains.
fn virtual_host(
    index: &Index,
    view: &RouteView,
    service: &Service,
    port: &Port,
) -> (VirtualHost, Vec<ObjectKey>) {
    let (policy, rule) = policy::effective(index, &view.scope, service, port, None);
    let name = name::host_port(&service.key.host, port.number);
    let many = index.spans_localities(service);
    let retries = retry::retries(index.mesh(), &policy, many);
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(
            name::outbound(port.number, "", &service.key.host).to_string(),
        )),
        timeout: Some(zero()),
        max_stream_duration: Some(any_grpc_timeout()),
        hash_policy: hash_policy(&policy),
        retry_policy: retries.any,
        ..Default::default()
    };
    let route = Route {
        name: "default".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        decorator: Some(Decorator { operation: format!("{name}/*"), propagate: None }),
        action: Some(Action::Route(action.clone())),
        ..Default::default()
    };
    let mut routes = Vec::new();
    if let Some(repeatable) = retries.repeatable {
        let mut first = route.clone();
        "repeatable".clone_into(&mut first.name);
        if let Some(m) = &mut first.r#match {
            m.headers.push(method_is(retry::REPEATABLE_METHODS));
        }
        first.action = Some(Action::Route(RouteAction { retry_policy: Some(repeatable), ..action }));
        routes.push(first);
    }
    routes.push(route);
    let host = VirtualHost { name, routes, include_request_attempt_count: true, ..Default::default() };
    (host, policy::sources(service, rule))
}

/// A gRPC caller's own timeout is honoured, however long. (Istio's `max_grpc_timeout` of 0 s, which is deprecated.)
fn any_grpc_timeout() -> MaxStreamDuration {
    MaxStreamDuration { grpc_timeout_header_max: Some(zero()), ..Default::default() }
}

fn method_is(regex: &str) -> HeaderMatcher {
    let regex = RegexMatcher { regex: regex.to_owned(), ..Default::default() };
    let matcher = StringMatcher { match_pattern: Some(MatchPattern::SafeRegex(regex)), ..Default::default() };
    HeaderMatcher {
        name: ":method".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(matcher)),
        ..Default::default()
    }
}

fn hash_policy(policy: &Policy) -> Vec<HashPolicy> {
    let Some(LbAlgorithm::Hash(hash)) = policy.settings.load_balancer.as_ref().map(|lb| &lb.algorithm) else {
        return Vec::new();
    };
    let specifier = match &hash.key {
        HashKey::Header(name) => {
            PolicySpecifier::Header(Header { header_name: name.to_string(), ..Default::default() })
        }
        HashKey::Cookie { name, path, ttl } => PolicySpecifier::Cookie(Cookie {
            name: name.to_string(),
            path: path.to_string(),
            ttl: ttl.map(duration),
            ..Default::default()
        }),
        HashKey::SourceIp => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
        HashKey::QueryParameter(name) => {
            PolicySpecifier::QueryParameter(QueryParameter { name: name.to_string() })
        }
    };
    vec![HashPolicy { policy_specifier: Some(specifier), ..Default::default() }]
}

/// Hosts that no service has: on to where the caller wanted, or refused.
fn catch_all(mesh: &MeshConfig) -> VirtualHost {
    let (name, action) = if mesh.registry_only {
        ("block_all", Action::DirectResponse(DirectResponseAction { status: 502, ..Default::default() }))
    } else {
        let route = RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(name::PASSTHROUGH.to_owned())),
            timeout: Some(zero()),
            max_stream_duration: Some(any_grpc_timeout()),
            ..Default::default()
        };
        ("allow_any", Action::Route(route))
    };
    let route = Route {
        name: name.to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        action: Some(action),
        ..Default::default()
    };
    VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        include_request_attempt_count: true,
        ..Default::default()
    }
}
