//! Outbound listeners of sidecars.

mod shape;

use std::{collections::BTreeMap, net::IpAddr};

use landbridge_proto::envoy::config::{
    core::v3::TrafficDirection,
    listener::v3::{FilterChainMatch, Listener},
};
use shape::{Shape, Texts};

use super::{
    LOOPBACK, WILDCARD, capturing,
    chain::{named_chain, tcp_filter, tcp_proxy},
    listener, listener_name, reserved,
};
use crate::{
    index::Index,
    model::{
        ObjectKey,
        endpoint::Health,
        node::Interception,
        port::{ListenerClass, Protocol},
        service::{Port, Resolution, Service},
    },
    resource::{Built, name, policy},
    view::ListenerView,
};

/// A listener in the making: everything that is called at one address and port.
#[derive(Default)]
struct Entry<'a> {
    /// Further addresses of the same service.
    more: Vec<IpAddr>,
    /// The route configuration for HTTP.
    routes: Option<String>,
    /// Some service of it speaks gRPC-Web.
    grpc_web: bool,
    /// Who gets bytes.
    tcp: Option<(&'a Service, &'a Port)>,
    sources: Vec<ObjectKey>,
}

/// The listener that the services of a port share: for HTTP, and for bytes to any address.
///
/// Without capture nobody's traffic arrives by itself: the application calls its proxy on the loopback interface, where
/// all services of a port share one listener. HTTP goes by host; for bytes there is no host, so that the oldest service
/// gets them.
///
/// One HTTP service more changes nothing here, so that of those only the first is looked at.
pub fn port(index: &Index, view: &ListenerView, port: u16) -> Vec<Built> {
    let mesh = index.mesh();
    if mesh.outbound_port == 0 || reserved(mesh, port) {
        return Vec::new();
    }
    let captured = view.interception != Interception::None;
    let mut services = index.special_on_port(&view.scope, port);
    let silent = services.iter().filter_map(|s| s.port(port)).any(silent_client);
    if captured && !silent {
        services.extend(index.http_on_port(&view.scope, port));
    } else {
        services = index.services_on_port(&view.scope, port);
    }
    let mut entry = None;
    for service in in_order(view, services) {
        if let Some(p) = listened(service, port).filter(|p| binds(view, service, p) == Bind::Shared) {
            entry.get_or_insert_with(Entry::default).add(service, p, Vec::new());
        }
    }
    let ip = if captured { WILDCARD } else { LOOPBACK };
    entry.map(|entry| entry.build(index, view, ip, port)).into_iter().collect()
}

/// The listeners of a service's own addresses, for what is not HTTP by name: one per port and virtual address, or per
/// endpoint of a headless service. Address ranges of clusters overlap and services share pods: the one that comes first
/// builds what is called at an address for all that are.
pub fn service(index: &Index, view: &ListenerView, service: &Service) -> Vec<Built> {
    if index.mesh().outbound_port == 0 || view.interception == Interception::None {
        return Vec::new();
    }
    let mut services = index.rivals(&view.scope, service);
    services.push(service);
    services.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    let services = in_order(view, services);
    let mut built = Vec::new();
    for port in &service.ports {
        let bound: Vec<_> = services.iter().filter_map(|s| Some((*s, listened(s, port.number)?))).collect();
        let at: Vec<_> = bound.iter().map(|(s, p)| own_addresses(index, view, s, p)).collect();
        let Some(own) = bound.iter().position(|(s, _)| s.key == service.key) else { continue };
        for ip in at[own].keys() {
            let here = bound.iter().zip(&at).filter_map(|(bound, at)| Some((bound, at.get(ip)?)));
            let mut entry = Entry::default();
            let mut first = None;
            for ((s, p), more) in here {
                first.get_or_insert(&s.key);
                entry.add(s, p, more.clone());
            }
            if first == Some(&service.key) {
                built.push(entry.build(index, view, &name::ip(*ip), port.number));
            }
        }
    }
    built
}

/// An address belongs to the service that has it in the client's own cluster. Istio lets the oldest service have it.
fn in_order<'a>(view: &ListenerView, mut by_age: Vec<&'a Service>) -> Vec<&'a Service> {
    by_age.sort_by_key(|s| !s.vips.contains_key(&view.cluster));
    by_age
}

/// The port, if connections to it are taken.
fn listened(service: &Service, port: u16) -> Option<&Port> {
    let alias = matches!(service.resolution, Resolution::Alias(_));
    service.port(port).filter(|p| !alias && p.protocol != Protocol::Udp)
}

/// Where connections to a service's port are taken.
#[derive(PartialEq)]
enum Bind {
    /// With others of the same port.
    Shared,
    /// At its own addresses.
    Own,
    /// Nowhere.
    Not,
}

fn binds(view: &ListenerView, service: &Service, port: &Port) -> Bind {
    let headless = service.resolution == Resolution::Passthrough;
    if port.protocol.listener_class() == ListenerClass::Http {
        return Bind::Shared;
    }
    if view.interception == Interception::None {
        // Nobody can dial a pod's address through the loopback interface.
        return if headless { Bind::Not } else { Bind::Shared };
    }
    let addressed = service.vips_for(&view.cluster).iter().any(|ip| !ip.is_unspecified());
    if headless || addressed { Bind::Own } else { Bind::Shared }
}

/// The addresses of a service that has some to itself, each with further ones of the same listener.
fn own_addresses(
    index: &Index,
    view: &ListenerView,
    service: &Service,
    port: &Port,
) -> BTreeMap<IpAddr, Vec<IpAddr>> {
    if binds(view, service, port) != Bind::Own {
        return BTreeMap::new();
    }
    if service.resolution == Resolution::Passthrough {
        let endpoints = index.endpoints(&service.key).iter();
        return endpoints
            .filter(|e| *e.port_name() == port.name && e.health() != Health::Terminating)
            .filter(|e| !view.own_headless_ips.contains(&e.address()))
            .map(|e| (e.address(), Vec::new()))
            .collect();
    }
    let mut vips = service.vips_for(&view.cluster).iter().copied().filter(|ip| !ip.is_unspecified());
    vips.next().map(|first| (first, vips.collect())).into_iter().collect()
}

/// The server speaks first.
fn silent_client(port: &Port) -> bool {
    matches!(port.protocol, Protocol::Mongo | Protocol::MySql)
}

impl<'a> Entry<'a> {
    /// Istio's rules for several services at one address: HTTP services share one table of routes; bytes go to the first
    /// that wants them; both together are told apart by sniffing. Protocols in which the server speaks first cannot be
    /// sniffed and share with nobody.
    fn add(&mut self, service: &'a Service, port: &'a Port, more: Vec<IpAddr>) {
        let alone = self.tcp.is_some_and(|(_, p)| silent_client(p));
        let class = port.protocol.listener_class();
        match class {
            _ if alone => return,
            ListenerClass::Tcp if silent_client(port) && self.routes.is_some() => return,
            ListenerClass::Tcp => drop(self.tcp.get_or_insert((service, port))),
            ListenerClass::Http => self.routes = Some(port.number.to_string()),
            ListenerClass::Auto => {
                let own = || name::host_port(&service.key.host, port.number);
                self.routes.get_or_insert_with(own);
                self.tcp.get_or_insert((service, port));
            }
        }
        self.grpc_web |= port.protocol == Protocol::GrpcWeb;
        self.more = std::mem::take(&mut self.more).into_iter().chain(more).collect();
        self.sources.extend(service.sources.iter().cloned());
    }

    fn build(self, index: &Index, view: &ListenerView, ip: &str, port: u16) -> Built {
        let name = listener_name(ip, port);
        let stat_prefix = ["outbound_", &name, ";"].concat();
        let more: Vec<_> = self.more.iter().map(|ip| name::ip(*ip)).collect();
        let more: Vec<_> = more.iter().map(String::as_str).collect();
        let cluster = self.tcp.map(|(service, port)| name::outbound(port.number, "", &service.key.host));
        let policy = |(service, port)| policy::effective(index, &view.scope, service, port, None).0;
        let shape = Shape {
            port,
            captured: view.interception != Interception::None,
            http: self.routes.is_some(),
            grpc_web: self.grpc_web,
            extensions: view.extensions,
            mesh: index.mesh().clone(),
            tcp: self.tcp.map(policy),
        };
        let message = shape.fill(&Texts {
            name: &name,
            ip,
            more: &more,
            stat_prefix: &stat_prefix,
            routes: self.routes.as_deref().unwrap_or_default(),
            cluster: cluster.as_deref().unwrap_or_default(),
        });
        let mut sources = self.sources;
        sources.sort();
        sources.dedup();
        Built::of_bytes(name, message, sources)
    }
}

/// `virtualOutbound`: takes all captured traffic and hands it to the listener of its address.
pub fn fixed(index: &Index, view: &ListenerView) -> Vec<Built> {
    let mesh = index.mesh();
    if view.interception == Interception::None || mesh.outbound_port == 0 {
        return Vec::new();
    }
    let direct = FilterChainMatch { destination_port: Some(mesh.outbound_port.into()), ..Default::default() };
    let proxy = |cluster| vec![tcp_filter(&tcp_proxy(mesh, cluster))];
    let name = "virtualOutbound";
    let base = listener(mesh, name.to_owned(), WILDCARD, mesh.outbound_port, TrafficDirection::Outbound);
    let built = Listener {
        use_original_dst: Some(true),
        filter_chains: vec![
            // Called by itself: forwarding would call it again, for ever.
            named_chain("virtualOutbound-blackhole", Some(direct), proxy(name::BLACK_HOLE), None),
            named_chain("virtualOutbound-catchall-tcp", None, proxy(shape::catch_all(mesh)), None),
        ],
        ..base
    };
    vec![Built::new(name, &capturing(built, view.interception), Vec::new())]
}
