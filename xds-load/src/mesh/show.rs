//! How a change shows in the bytes that clients get.
//!
//! Bytes that no other value has: an address as the field of Envoy's `SocketAddress` with its length, so that 10.0.0.1 is not
//! found in 10.0.0.12, followed by the port. Where health matters, the endpoint is read instead.

use std::{net::SocketAddrV4, sync::Arc};

use super::{
    truth::{gateway, is_in},
    world::{Mesh, Pod, Service},
};
use crate::{
    expect::{Marker, Type},
    wire::Writer,
};

/// What a change brings to the clients that have the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Show {
    /// The resource's type.
    pub kind: Type,
    /// Its xDS name.
    pub name: Arc<str>,
    /// How it shows.
    pub marker: Marker,
    /// The network whose clients see it; none: all.
    pub network: Option<usize>,
}

/// What the clients see of a service's pods in one cluster that were `before` and are now `after`, place by place. Nothing for
/// a headless service: its callers find pods by DNS.
pub fn pods(mesh: &Mesh, service: &Service, cluster: usize, before: &[Pod], after: &[Pod]) -> Vec<Show> {
    let mut shows = Vec::new();
    if service.headless {
        return shows;
    }
    let several = mesh.spec.networks > 1;
    let home = mesh.spec.network(cluster);
    let changed: Vec<_> = (0..before.len().max(after.len()))
        .map(|place| (before.get(place), after.get(place)))
        .filter(|(before, after)| before != after)
        .collect();
    for subset in service.subsets() {
        let was_behind = mesh.is_behind_gateway(cluster, before, &subset);
        let is_behind = mesh.is_behind_gateway(cluster, after, &subset);
        for port in &service.ports {
            let name: Arc<str> = service.cluster_name(port.port, &subset).into();
            let mut show = |marker, network| {
                shows.push(Show { kind: Type::Endpoint, name: name.clone(), marker, network });
            };
            let network = several.then_some(home);
            for (before, after) in &changed {
                let before = before.filter(|pod| is_in(pod, &subset));
                let after = after.filter(|pod| is_in(pod, &subset));
                let at = |pod: &Pod| SocketAddrV4::new(pod.address, port.target);
                match (before, after) {
                    (Some(b), Some(a)) if at(b) == at(a) => match (b.ready, a.ready) {
                        (true, false) => show(Marker::Unhealthy(at(a)), network),
                        (false, true) => show(Marker::Healthy(at(a)), network),
                        _ => {}
                    },
                    (before, after) => {
                        if let Some(gone) = before {
                            show(Marker::Lacks(address(at(gone))), network);
                        }
                        if let Some(new) = after.filter(|pod| pod.ready) {
                            show(Marker::Healthy(at(new)), network);
                        }
                    }
                }
            }
            if was_behind != is_behind {
                let bytes = address(gateway(cluster));
                let marker = if is_behind { Marker::Contains(bytes) } else { Marker::Lacks(bytes) };
                for other in (0..mesh.spec.networks).filter(|network| *network != home) {
                    show(marker.clone(), Some(other));
                }
            }
        }
    }
    shows
}

/// What the clients see of a service that is new: its clusters, and the route to it. Its endpoints come from [`pods`].
pub fn created(service: &Service) -> Vec<Show> {
    let host = service.host();
    let present = |_: u16| Marker::Contains(host.as_bytes().into());
    definition(service, present, Marker::Contains(host.as_bytes().into()))
}

/// What the clients see when a service is gone.
pub fn removed(service: &Service) -> Vec<Show> {
    let host = service.host();
    definition(service, |_| Marker::Gone, Marker::Lacks(host.as_bytes().into()))
}

fn definition(service: &Service, cluster: impl Fn(u16) -> Marker, route: Marker) -> Vec<Show> {
    let mut shows = Vec::new();
    for port in &service.ports {
        for subset in service.subsets() {
            let name = service.cluster_name(port.port, &subset).into();
            shows.push(Show { kind: Type::Cluster, name, marker: cluster(port.port), network: None });
        }
        // Istio names the route table of an HTTP port by its number.
        if is_http(&port.name) {
            let name = port.port.to_string().into();
            shows.push(Show { kind: Type::Route, name, marker: route.clone(), network: None });
        }
    }
    shows
}

/// What the clients see of a rule that says another connect timeout.
pub fn rule(service: &Service, milliseconds: u32) -> Vec<Show> {
    let marker = Marker::Contains(connect_timeout(milliseconds));
    let clusters = service.subsets().flat_map(|subset| {
        let names = service.ports.iter().map(|port| service.cluster_name(port.port, &subset));
        names.collect::<Vec<_>>()
    });
    clusters
        .map(|name| Show { kind: Type::Cluster, name: name.into(), marker: marker.clone(), network: None })
        .collect()
}

fn is_http(port: &str) -> bool {
    matches!(port.split('-').next(), Some("http" | "http2" | "grpc"))
}

/// `SocketAddress`: `address` (2) and `port_value` (3).
fn address(at: SocketAddrV4) -> Arc<[u8]> {
    let mut bytes = Writer::default();
    bytes.text(2, &at.ip().to_string()).number(3, at.port().into());
    bytes.0.into()
}

/// `Cluster.connect_timeout` (4), a `Duration` of seconds (1) and nanoseconds (2).
fn connect_timeout(milliseconds: u32) -> Arc<[u8]> {
    let (seconds, nanos) = (milliseconds / 1000, milliseconds % 1000 * 1_000_000);
    let mut bytes = Writer::default();
    bytes.message(4, |duration| _ = duration.number(1, seconds.into()).number(2, nanos.into()));
    bytes.0.into()
}
