//! Outbound listeners of sidecars.

use std::{collections::BTreeMap, net::IpAddr};

use landbridge_proto::envoy::config::{
    core::v3::TrafficDirection,
    listener::v3::{AdditionalAddress, FilterChain, FilterChainMatch, Listener},
};

use super::{
    LOOPBACK, WILDCARD, capturing,
    chain::{PLAIN_HTTP, chain, named_chain, sniffed, tcp_filter, tcp_proxy, tcp_proxy_with},
    http::{Routes, http_filter},
    inspect, listener, listener_name, reserved,
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
    resource::{
        Built, name, policy,
        proto::{duration, ip_address, zero},
    },
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

/// The listeners of a port: one for HTTP to any address, and one per virtual address for the rest (per endpoint for
/// headless services).
///
/// Without capture nobody's traffic arrives by itself: the application calls its proxy on the loopback interface, where
/// all services of a port share one listener. HTTP goes by host; for bytes there is no host, so that the oldest service
/// gets them.
pub fn port(index: &Index, view: &ListenerView, port: u16) -> Vec<Built> {
    let mesh = index.mesh();
    if mesh.outbound_port == 0 {
        return Vec::new();
    }
    let mut services: Vec<_> = index
        .services_on_port(&view.scope, port)
        .into_iter()
        .filter(|s| !matches!(s.resolution, Resolution::Alias(_)))
        .filter_map(|s| Some((&**s, s.port(port).filter(|p| p.protocol != Protocol::Udp)?)))
        .collect();
    // Address ranges of clusters overlap: an address belongs to the service that has it in the client's own cluster.
    // Istio lets the oldest service have it.
    services.sort_by_key(|(s, _)| !s.vips.contains_key(&view.cluster));

    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for (service, p) in services {
        for (ip, more) in binds(index, view, service, p) {
            let shared = ip == WILDCARD || ip == LOOPBACK;
            if shared && reserved(mesh, port) {
                continue;
            }
            entries.entry(ip).or_default().add(service, p, more);
        }
    }
    entries.into_iter().map(|(ip, entry)| entry.build(index, view, &ip, port)).collect()
}

/// Where a service's port is listened for: an address, and further ones of the same listener.
fn binds(index: &Index, view: &ListenerView, service: &Service, port: &Port) -> Vec<(String, Vec<IpAddr>)> {
    let http = port.protocol.listener_class() == ListenerClass::Http;
    if view.interception == Interception::None {
        // Nobody can dial a pod's address through the loopback interface.
        let reachable = http || service.resolution != Resolution::Passthrough;
        return if reachable { vec![(LOOPBACK.to_owned(), Vec::new())] } else { Vec::new() };
    }
    if http {
        return vec![(WILDCARD.to_owned(), Vec::new())];
    }
    if service.resolution == Resolution::Passthrough {
        let endpoints = index.endpoints(&service.key).iter();
        return endpoints
            .filter(|e| *e.port_name() == port.name && e.health() != Health::Terminating)
            .filter(|e| !view.own_headless_ips.contains(&e.address()))
            .map(|e| (e.address().to_string(), Vec::new()))
            .collect();
    }
    let mut vips = service.vips_for(&view.cluster).iter().copied().filter(|ip| !ip.is_unspecified());
    match vips.next() {
        Some(first) => vec![(first.to_string(), vips.collect())],
        None => vec![(WILDCARD.to_owned(), Vec::new())],
    }
}

impl<'a> Entry<'a> {
    /// Istio's rules for several services at one address: HTTP services share one table of routes; bytes go to the first
    /// that wants them; both together are told apart by sniffing. Protocols in which the server speaks first cannot be
    /// sniffed and share with nobody.
    fn add(&mut self, service: &'a Service, port: &'a Port, more: Vec<IpAddr>) {
        let silent_client = |p: &Port| matches!(p.protocol, Protocol::Mongo | Protocol::MySql);
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
        let mesh = index.mesh();
        let captured = view.interception != Interception::None;
        let name = listener_name(ip, port);
        let mut built = listener(mesh, name.clone(), ip, port, TrafficDirection::Outbound);
        built.continue_on_listener_filters_timeout = true;
        built.listener_filters_timeout = Some(zero());
        built.bind_to_port = captured.then_some(false);
        let further =
            |ip: &IpAddr| AdditionalAddress { address: Some(ip_address(*ip, port)), ..Default::default() };
        built.additional_addresses = self.more.iter().map(further).collect();

        let tcp = self.tcp.map(|(service, port)| tcp_chain(index, view, service, port));
        let http = |matches: Option<FilterChainMatch>, routes: String| {
            let stat_prefix = format!("outbound_{name};");
            chain(
                matches,
                vec![http_filter(mesh, &stat_prefix, Routes::Named(routes), self.grpc_web, view.extensions)],
            )
        };
        match (self.routes, tcp) {
            (None, tcp) => built.filter_chains = tcp.into_iter().collect(),
            // Nothing but HTTP can arrive, and nothing else would know where to go.
            (Some(routes), None) if !captured => built.filter_chains = vec![http(None, routes)],
            (Some(routes), tcp) => {
                let sniffed = sniffed("raw_buffer", PLAIN_HTTP);
                built.filter_chains = vec![http(Some(sniffed), routes)];
                built.default_filter_chain = Some(tcp.unwrap_or_else(|| anywhere(index)));
                built.listener_filters = vec![inspect::http_inspector()];
                built.listener_filters_timeout = Some(duration(mesh.protocol_detection_timeout));
            }
        }
        let mut sources = self.sources;
        sources.sort();
        sources.dedup();
        Built::new(name, &built, sources)
    }
}

fn tcp_chain(index: &Index, view: &ListenerView, service: &Service, port: &Port) -> FilterChain {
    let (policy, _) = policy::effective(index, &view.scope, service, port, None);
    let cluster = name::outbound(port.number, "", &service.key.host);
    chain(None, vec![tcp_filter(&tcp_proxy_with(index.mesh(), &cluster, &policy))])
}

/// What is not HTTP on an HTTP port goes where it was sent, if the mesh allows that.
fn anywhere(index: &Index) -> FilterChain {
    let to = catch_all(index);
    let matches = Some(FilterChainMatch::default());
    named_chain("PassthroughFilterChain", matches, vec![tcp_filter(&tcp_proxy(index.mesh(), to))], None)
}

fn catch_all(index: &Index) -> &'static str {
    if index.mesh().registry_only { name::BLACK_HOLE } else { name::PASSTHROUGH }
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
            named_chain("virtualOutbound-catchall-tcp", None, proxy(catch_all(index)), None),
        ],
        ..base
    };
    vec![Built::new(name, &capturing(built, view.interception), Vec::new())]
}
