//! What a change of the mesh must bring to the clients. The side that changes the mesh writes expectations; the clients
//! measure how long each took, and say at the end which was never met.

use std::{net::SocketAddrV4, sync::Arc, time::Instant};

use crate::wire::assignment::{Endpoint, of_assignment, of_endpoint};

/// The types of resources that a client can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    /// `envoy.config.cluster.v3.Cluster`
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`
    Endpoint,
    /// `envoy.config.listener.v3.Listener`
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`
    Route,
    /// `envoy.config.route.v3.VirtualHost`, one by one (VHDS)
    VirtualHost,
    /// `envoy.config.endpoint.v3.LbEndpoint`, one by one (LEDS)
    LbEndpoint,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`
    Secret,
}

/// How a client knows that it has a change: by the bytes of a resource, so that no control plane has to take part. What is spread
/// over several fields is read, not searched: encoders order fields as they like (istiod's writes those of a `oneof` last).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    /// The resource has these bytes somewhere, such as the text of an address.
    Contains(Arc<[u8]>),
    /// The resource is there without these bytes, or is not there.
    Lacks(Arc<[u8]>),
    /// The assignment has this endpoint, and it is healthy.
    Healthy(SocketAddrV4),
    /// The assignment has this endpoint no more, or as unhealthy.
    Unhealthy(SocketAddrV4),
    /// There is no such resource.
    Gone,
}

impl Marker {
    /// Whether what is looked for must be there; else it must not.
    pub fn wants(&self) -> bool {
        matches!(self, Self::Contains(_) | Self::Healthy(_))
    }

    /// Whether what is looked for is in the bytes of a resource of this type.
    pub fn is_in(&self, kind: Type, bytes: &[u8]) -> bool {
        match self {
            Self::Contains(needle) | Self::Lacks(needle) => has(bytes, needle),
            Self::Healthy(at) | Self::Unhealthy(at) => {
                let mut found = false;
                let mut look = |e: Endpoint| found |= e.healthy && e.address == *at;
                if !has(bytes, at.ip().to_string().as_bytes()) {
                    return false;
                }
                let read = match kind {
                    Type::LbEndpoint => of_endpoint(bytes, &mut look),
                    _ => of_assignment(bytes, &mut look),
                };
                read.is_ok() && found
            }
            Self::Gone => true,
        }
    }
}

fn has(bytes: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(bytes, needle).is_some()
}

/// One change, as it must arrive.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// Counts the changes of a run.
    pub sequence: u64,
    /// The type of the resource that shows it.
    pub kind: Type,
    /// Its name, as xDS has it (`outbound|80||backend.shop.svc.cluster.local`).
    pub name: Arc<str>,
    /// How it shows.
    pub marker: Marker,
    /// The network whose clients must see it; none: all that have the resource. Pods of other networks are behind a
    /// gateway, and show to nobody else.
    pub network: Option<Arc<str>>,
    /// Just before the change was written: the time to the client includes reading it.
    pub at: Instant,
}

#[cfg(test)]
mod tests {
    use super::{Marker, Type};
    use crate::wire::Writer;

    /// An `LbEndpoint` with the health before or after the address, as landbridge and istiod write it.
    fn endpoint(health: u64, health_first: bool) -> Vec<u8> {
        let mut endpoint = Writer::default();
        if health_first {
            endpoint.number(2, health);
        }
        endpoint.message(1, |endpoint| {
            endpoint.message(1, |address| {
                address.message(1, |socket| _ = socket.text(2, "10.0.0.12").number(3, 8080));
            });
        });
        if !health_first {
            endpoint.number(2, health);
        }
        endpoint.0
    }

    #[test]
    fn health_is_read_in_whatever_order_it_is_written() {
        let at = |text: &str| text.parse().unwrap();
        for health_first in [true, false] {
            for (health, healthy) in [(0, true), (1, true), (2, false)] {
                let part = endpoint(health, health_first);
                let mut whole = Writer::default();
                whole.text(1, "svc").message(2, |locality| _ = locality.item(2, &part));
                for (kind, bytes) in [(Type::LbEndpoint, &part), (Type::Endpoint, &whole.0)] {
                    let found = |address| Marker::Healthy(at(address)).is_in(kind, bytes);
                    assert_eq!(found("10.0.0.12:8080"), healthy, "{kind:?} {health} {health_first}");
                    assert!(!found("10.0.0.1:8080") && !found("10.0.0.12:80"));
                }
            }
        }
        assert!(!Marker::Healthy(at("10.0.0.12:8080")).is_in(Type::Endpoint, b"10.0.0.12"), "malformed");
        assert!(!Marker::Unhealthy(at("10.0.0.12:8080")).wants());
    }
}
