//! What a change of the mesh must bring to the clients. The side that changes the mesh writes expectations; the clients
//! measure how long each took, and say at the end which was never met.

use std::{sync::Arc, time::Instant};

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

/// How a client knows that it has a change: by the bytes of a resource, so that no control plane has to take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    /// The resource has these bytes somewhere, such as the text of an address.
    Contains(Arc<[u8]>),
    /// The resource is there without these bytes, or is not there.
    Lacks(Arc<[u8]>),
    /// There is no such resource.
    Gone,
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
