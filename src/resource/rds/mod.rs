//! Outbound routes.
//!
//! A port's table is one resource with all its hosts (RDS), or an empty one whose hosts are resources of their own (VHDS).
//! With the first, each change of a service sends the whole table to everybody who sees it.

mod domains;
mod host;
pub mod retry;

use std::{collections::BTreeSet, fmt::Display};

use landbridge_proto::envoy::config::route::v3::{
    Decorator, DirectResponseAction, Route, RouteAction, RouteConfiguration, RouteMatch, Vhds, VirtualHost,
    route::Action,
    route_action::{ClusterSpecifier, MaxStreamDuration},
    route_match::PathSpecifier,
};

use super::{
    Built, name,
    proto::{ads, with_messages, zero},
};
use crate::{
    index::{Index, Scope},
    model::{
        Kind,
        mesh::MeshConfig,
        port::{ListenerClass, Protocol},
        service::{Resolution, Service},
    },
    view::{RouteView, VirtualHosts},
};

/// Istio's limit for answers that are part of a route.
const MAX_DIRECT_RESPONSE: u32 = 1024 * 1024;
/// The number of a route configuration's field.
const VIRTUAL_HOSTS: u32 = 2;

/// The table of a port's HTTP listener: all its hosts, or only the catch-all where the others are resources of their own.
pub fn port(index: &Index, view: &RouteView, port: u16) -> Vec<Built> {
    if !has_table(index, &view.scope, port) {
        return Vec::new();
    }
    let name = port.to_string();
    if view.virtual_hosts == VirtualHosts::OneByOne {
        let mut table = route_configuration(name.clone());
        table.virtual_hosts = vec![catch_all(index.mesh())];
        table.vhds = Some(Vhds { config_source: Some(ads()) });
        let built = Built::new(name.clone(), &table, Vec::new());
        return vec![Built { waits_for: Some(host_prefix(&name).into()), ..built }];
    }
    let services = index.services_on_port(&view.scope, port);
    let on_port = |service| host_on_port(index, view, service, port, "");
    let mut hosts: Vec<_> = services.into_iter().filter_map(on_port).collect();
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    // Only a rule can be that of several services.
    let mut rules = BTreeSet::new();
    let sources = hosts.iter().flat_map(|host| &host.sources);
    let sources = sources.filter(|s| s.kind != Kind::DestinationRule || rules.insert(*s)).cloned().collect();
    let mut table = route_configuration(name.clone());
    table.virtual_hosts = vec![catch_all(index.mesh())];
    vec![Built::of_bytes(name, with_hosts(&table, &hosts), sources)]
}

/// The hosts of a service as resources of their own, one for each port that has a table. Envoy finds the table by the
/// name's first part; the name inside has to be the resource's, or a removal has no effect.
pub fn service(index: &Index, view: &RouteView, service: &Service) -> Vec<Built> {
    if view.virtual_hosts == VirtualHosts::Together {
        return Vec::new();
    }
    let ports = service.ports.iter().filter(|p| has_table(index, &view.scope, p.number));
    let built = ports.filter_map(|p| host_on_port(index, view, service, p.number, &host_prefix(p.number)));
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
        // The listener stands for this service alone, whatever the request calls it.
        let host = host::build(index, scope, service, port, "", &["*".into()]);
        let table = with_hosts(&route_configuration(name.clone()), std::slice::from_ref(&host));
        Built::of_bytes(name, table, host.sources)
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
    prefix: &str,
) -> Option<Built> {
    let routed = domains::routed(service, port)?;
    let domains = domains::of(index, view, service, port);
    (!domains.is_empty()).then(|| host::build(index, &view.scope, service, routed, prefix, &domains))
}

/// A table without hosts.
fn route_configuration(name: String) -> RouteConfiguration {
    RouteConfiguration {
        name,
        // A route may come before its cluster: that is Envoy's 503 until it does, not a rejected table.
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(MAX_DIRECT_RESPONSE),
        ignore_port_in_host_matching: true,
        ..Default::default()
    }
}

/// The encoded table with these hosts before its own.
fn with_hosts(table: &RouteConfiguration, hosts: &[Built]) -> Vec<u8> {
    with_messages(table, VIRTUAL_HOSTS, hosts.iter().map(|host| host.message.as_slice()))
}

/// A route for all that comes to a host, as Istio calls it.
pub fn default_route(operation: String, action: RouteAction) -> Route {
    Route {
        name: "default".to_owned(),
        r#match: Some(any_path()),
        decorator: Some(Decorator { operation, propagate: None }),
        action: Some(Action::Route(action)),
        ..Default::default()
    }
}

fn any_path() -> RouteMatch {
    RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..Default::default() }
}

/// A gRPC caller's own timeout is honoured, however long. (Istio's `max_grpc_timeout` of 0 s, which is deprecated.)
fn any_grpc_timeout() -> MaxStreamDuration {
    MaxStreamDuration { grpc_timeout_header_max: Some(zero()), ..Default::default() }
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
        r#match: Some(any_path()),
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
