//! As much of protobuf as a proxy needs to behave like Envoy: the envelopes of both protocols, the node, and the paths that lead
//! from one resource to the names that it needs of others. What is not on these paths is hashed, not decoded.

pub mod assignment;
pub mod discovery;
pub mod links;
pub mod node;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use self::{
    read::{Fields, Malformed, Value},
    write::Writer,
};
use crate::expect::Type;

/// All types, in the order in which Envoy asks for them.
pub const TYPES: [Type; 7] = [
    Type::Cluster,
    Type::Endpoint,
    Type::LbEndpoint,
    Type::Secret,
    Type::Listener,
    Type::Route,
    Type::VirtualHost,
];

/// The type URL.
pub fn type_url(kind: Type) -> &'static str {
    match kind {
        Type::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        Type::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        Type::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
        Type::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        Type::VirtualHost => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
        Type::LbEndpoint => "type.googleapis.com/envoy.config.endpoint.v3.LbEndpoint",
        Type::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
    }
}

/// The type of a URL.
pub fn type_of(url: &str) -> Option<Type> {
    TYPES.into_iter().find(|kind| type_url(*kind) == url)
}

/// As people write it: `cds`, `eds` and so on.
pub fn short_name(kind: Type) -> &'static str {
    match kind {
        Type::Cluster => "cds",
        Type::Endpoint => "eds",
        Type::Listener => "lds",
        Type::Route => "rds",
        Type::VirtualHost => "vhds",
        Type::LbEndpoint => "leds",
        Type::Secret => "sds",
    }
}

/// The type that people write so.
pub fn from_short_name(name: &str) -> Option<Type> {
    TYPES.into_iter().find(|kind| short_name(*kind) == name)
}
