//! Outbound routes.
//!
//! A port's table is one resource with all its hosts (RDS), or an empty one whose hosts are resources of their own (VHDS).
//! With the first, each change of a service sends the whole table to everybody who sees it.

mod domains;
pub mod retry;

use std::fmt::Display;

use landbridge_proto::envoy::{
    config::route::v3::{
        Decorator, DirectResponseAction, HeaderMatcher, Route, RouteAction, RouteConfiguration, RouteMatch,
        Vhds, VirtualHost,
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
    proto::{ads, duration, zero},
};
use crate::{
    index::{Index, Scope},
    model::{
        ObjectKey,
        destination_rule::{HashKey, LbAlgorithm},
        mesh::MeshConfig,
        port::{ListenerClass, Protocol},
        service::{Port, Resolution, Service},
    },
    view::{RouteView, VirtualHosts},
};

/// Istio's limit for answers that are part of a route.
const MAX_DIRECT_RESPONSE: u32 = 1024 * 1024;

/// The table of a port's HTTP listener: all its hosts, or only the catch-all where the others are resources of their own.
pub fn port(index: &Index, view: &RouteView, port: u16) -> Vec<Built> {
    if !has_table(index, &view.scope, port) {
        return Vec::new();
    }
    let name = port.to_string();
    if view.virtual_hosts == VirtualHosts::OneByOne {
        let mut table = route_configuration(name.clone(), vec![catch_all(index.mesh())]);
        table.vhds = Some(Vhds { config_source: Some(ads()) });
        let built = Built::new(name.clone(), &table, Vec::new());
        return vec![Built { waits_for: Some(host_prefix(&name).into()), ..built }];
    }
    let services = index.services_on_port(&view.scope, port);
    let mut hosts = Vec::with_capacity(services.len() + 1);
    let mut sources = Vec::new();
    for service in services {
        if let Some((host, from)) = host_on_port(index, view, service, port) {
            hosts.push(host);
            sources.extend(from);
        }
    }
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts.push(catch_all(index.mesh()));
    sources.sort();
    sources.dedup();
    vec![Built::new(name.clone(), &route_configuration(name, hosts), sources)]
}

/// The hosts of a service as resources of their own, one for each port that has a table. Envoy finds the table by the
/// name's first part; the name inside has to be the resource's, or a removal has no effect.
pub fn service(index: &Index, view: &RouteView, service: &Service) -> Vec<Built> {
    if view.virtual_hosts == VirtualHosts::Together {
        return Vec::new();
    }
    let ports = service.ports.iter().filter(|p| has_table(index, &view.scope, p.number));
    let built = ports.filter_map(|p| {
        let (mut host, sources) = host_on_port(index, view, service, p.number)?;
        host.name = format!("{}{}", host_prefix(p.number), host.name);
        Some(Built::new(host.name.as_str(), &host, sources))
    });
    built.collect()
}

/// The tables of a service's sniffed listeners, each of this service alone.
pub fn sniffed(index: &Index, scope: &Scope, service: &Service) -> Vec<Built> {
    if matches!(service.resolution, Resolution::Alias(_)) {
        return Vec::new();
    }
    let ports = service.ports.iter().filter(|p| p.protocol == Protocol::Auto);
    let built = ports.map(|port| {
        let name = name::host_port(&service.key.host, port.number);
        let (mut host, sources) = virtual_host(index, scope, service, port);
        // The listener stands for this service alone, whatever the request calls it.
        host.domains = vec!["*".to_owned()];
        Built::new(name.clone(), &route_configuration(name, vec![host]), sources)
    });
    built.collect()
}

/// What the names of a table's hosts begin with, where they are resources of their own.
fn host_prefix(table: impl Display) -> String {
    format!("{table}/")
}

/// Whether the port has an HTTP listener, and so a table of hosts, in which its sniffed services are, too.
fn has_table(index: &Index, scope: &Scope, port: u16) -> bool {
    let is_http =
        |s: &&Service| s.port(port).is_some_and(|p| p.protocol.listener_class() == ListenerClass::Http);
    index.http_on_port(scope, port).is_some() || index.special_on_port(scope, port).iter().any(is_http)
}

/// A service's virtual host in a port's table, if requests for it go there and some name is left for it.
fn host_on_port(
    index: &Index,
    view: &RouteView,
    service: &Service,
    port: u16,
) -> Option<(VirtualHost, Vec<ObjectKey>)> {
    let routed = domains::routed(service, port)?;
    let domains = domains::of(index, view, service, port);
    let (host, sources) = virtual_host(index, &view.scope, service, routed);
    (!domains.is_empty()).then_some((VirtualHost { domains, ..host }, sources))
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
    scope: &Scope,
    service: &Service,
    port: &Port,
) -> (VirtualHost, Vec<ObjectKey>) {
    let (policy, rule) = policy::effective(index, scope, service, port, None);
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
