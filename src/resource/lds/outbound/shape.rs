//! What outbound listeners have alike: all but the names and addresses in them.

use std::sync::Arc;

use landbridge_proto::envoy::config::{
    core::v3::TrafficDirection,
    listener::v3::{AdditionalAddress, FilterChain, FilterChainMatch, Listener},
};

use crate::{
    model::{mesh::MeshConfig, node::Extensions},
    resource::{
        lds::{
            chain::{PLAIN_HTTP, chain, named_chain, sniffed, tcp_filter, tcp_proxy, tcp_proxy_with},
            http::{Routes, http_filter},
            inspect, listener,
        },
        name,
        policy::Policy,
        proto::{address, duration, zero},
        template::{Templates, place, place_within},
    },
};

/// All that a listener says but names and addresses, so that one template does for all services with the same settings.
#[derive(Clone)]
pub struct Shape {
    pub port: u16,
    /// Connections come by capture, not to a socket of its own.
    pub captured: bool,
    /// There is a table of routes for HTTP.
    pub http: bool,
    pub grpc_web: bool,
    pub extensions: Extensions,
    pub mesh: Arc<MeshConfig>,
    /// Of the service that gets bytes.
    pub tcp: Option<Policy>,
}

/// The texts that are filled in; what a shape does not have is not looked at.
pub struct Texts<'a> {
    pub name: &'a str,
    pub ip: &'a str,
    pub more: &'a [&'a str],
    pub stat_prefix: &'a str,
    pub routes: &'a str,
    pub cluster: &'a str,
}

/// Their places.
const NAME: u8 = 0;
const IP: u8 = 1;
const MORE: u8 = 2;
const STAT_PREFIX: u8 = 3;
const ROUTES: u8 = 4;
const CLUSTER: u8 = 5;

thread_local! {
    static TEMPLATES: Templates<Shape> = const { Templates::new() };
}

impl PartialEq for Shape {
    fn eq(&self, other: &Self) -> bool {
        let key = |s: &Self| (s.port, s.captured, s.http, s.grpc_web, s.extensions);
        // A mesh configuration that says the same again is another one: that costs a template.
        key(self) == key(other) && Arc::ptr_eq(&self.mesh, &other.mesh) && self.tcp == other.tcp
    }
}

impl Shape {
    /// The encoded listener.
    pub fn fill(&self, texts: &Texts) -> Vec<u8> {
        let Texts { name, ip, more, stat_prefix, routes, cluster } = *texts;
        let texts: [&[&str]; 6] = [&[name], &[ip], more, &[stat_prefix], &[routes], &[cluster]];
        TEMPLATES.with(|templates| templates.fill(self, Self::listener, &texts))
    }

    /// With places for names and addresses.
    fn listener(&self) -> Listener {
        let mesh = &*self.mesh;
        let mut built = listener(mesh, place(NAME), &place(IP), self.port, TrafficDirection::Outbound);
        built.continue_on_listener_filters_timeout = true;
        built.listener_filters_timeout = Some(zero());
        built.bind_to_port = self.captured.then_some(false);
        // From the text up: the socket's address, the address, the additional one.
        let further = address(&place_within(MORE, 3), self.port);
        built.additional_addresses = vec![AdditionalAddress { address: Some(further), ..Default::default() }];

        let tcp = self
            .tcp
            .as_ref()
            .map(|policy| chain(None, vec![tcp_filter(&tcp_proxy_with(mesh, &place(CLUSTER), policy))]));
        let http = |matches: Option<FilterChainMatch>| {
            let routes = Routes::Named(place(ROUTES));
            chain(
                matches,
                vec![http_filter(mesh, &place(STAT_PREFIX), routes, self.grpc_web, self.extensions)],
            )
        };
        if !self.http {
            built.filter_chains = tcp.into_iter().collect();
        } else if tcp.is_none() && !self.captured {
            // Nothing but HTTP can arrive, and nothing else would know where to go.
            built.filter_chains = vec![http(None)];
        } else {
            built.filter_chains = vec![http(Some(sniffed("raw_buffer", PLAIN_HTTP)))];
            built.default_filter_chain = Some(tcp.unwrap_or_else(|| anywhere(mesh)));
            built.listener_filters = vec![inspect::http_inspector()];
            built.listener_filters_timeout = Some(duration(mesh.protocol_detection_timeout));
        }
        built
    }
}

/// What is not HTTP on an HTTP port goes where it was sent, if the mesh allows that.
fn anywhere(mesh: &MeshConfig) -> FilterChain {
    let matches = Some(FilterChainMatch::default());
    named_chain("PassthroughFilterChain", matches, vec![tcp_filter(&tcp_proxy(mesh, catch_all(mesh)))], None)
}

/// Where connections go that nobody has.
pub fn catch_all(mesh: &MeshConfig) -> &'static str {
    if mesh.registry_only { name::BLACK_HOLE } else { name::PASSTHROUGH }
}
