//! The two protocols as one to the task that moves bytes.

use bytes::Bytes;
use landbridge_proto::envoy::{config::core::v3::Node, service::discovery::v3::DiscoveryRequest};
use tonic::Status;

use super::{DeltaRequest, Heard, Kind, Protocol, Session, Violation, secrets::Asked};
use crate::grpc;

/// A protocol's messages.
pub trait Wire: Send + 'static {
    /// What clients send.
    type Request<'a>: Send + Sync;
    /// Which one it is.
    const PROTOCOL: Protocol;

    /// Reads a request.
    fn read(request: &Bytes) -> Result<Self::Request<'_>, Status>;
    /// The node, if this request carries it.
    fn node(request: &Self::Request<'_>) -> Result<Option<Node>, Status>;
    /// The node's id; empty if it is not there.
    fn node_id<'a>(request: &'a Self::Request<'_>) -> &'a str;
    /// The type that it is about.
    fn type_url<'a>(request: &'a Self::Request<'_>) -> &'a str;
    /// Why the client refuses the last response, if it does.
    fn refusal<'a>(request: &'a Self::Request<'_>) -> Option<&'a str>;
    /// What it asks for explicitly. `first`: it is the stream's first of its type, and may say what the client has.
    fn asked<'a>(request: &'a Self::Request<'_>, first: bool) -> Asked<'a>;
    /// Whether it may change what the client wants.
    fn resubscribes(request: &Self::Request<'_>) -> bool;
    /// Takes it in.
    fn hear(session: &mut Session, kind: Kind, request: &Self::Request<'_>) -> Result<Heard, Violation>;
}

/// Delta.
pub enum Delta {}

/// State of the world.
pub enum Sotw {}

impl Wire for Delta {
    type Request<'a> = DeltaRequest<'a>;
    const PROTOCOL: Protocol = Protocol::Delta;

    fn read(request: &Bytes) -> Result<DeltaRequest<'_>, Status> {
        DeltaRequest::read(request).map_err(grpc::unreadable)
    }
    fn node(request: &DeltaRequest<'_>) -> Result<Option<Node>, Status> {
        request.node().map_err(grpc::unreadable)
    }
    fn node_id<'a>(request: &'a DeltaRequest<'_>) -> &'a str {
        request.node_id
    }
    fn type_url<'a>(request: &'a DeltaRequest<'_>) -> &'a str {
        request.type_url
    }
    fn refusal<'a>(request: &'a DeltaRequest<'_>) -> Option<&'a str> {
        request.refusal
    }
    fn asked<'a>(request: &'a DeltaRequest<'_>, first: bool) -> Asked<'a> {
        let known = |name: &str| request.known.get(name)?.parse().ok();
        request.subscribe.iter().map(|name| (*name, if first { known(name) } else { None })).collect()
    }
    fn resubscribes(request: &DeltaRequest<'_>) -> bool {
        request.resubscribes()
    }
    fn hear(session: &mut Session, kind: Kind, request: &DeltaRequest<'_>) -> Result<Heard, Violation> {
        session.delta(kind, request)
    }
}

impl Wire for Sotw {
    type Request<'a> = DiscoveryRequest;
    const PROTOCOL: Protocol = Protocol::Sotw;

    fn read(request: &Bytes) -> Result<DiscoveryRequest, Status> {
        grpc::read(request.clone())
    }
    fn node(request: &DiscoveryRequest) -> Result<Option<Node>, Status> {
        Ok(request.node.clone())
    }
    fn node_id(request: &DiscoveryRequest) -> &str {
        request.node.as_ref().map_or("", |node| &node.id)
    }
    fn type_url(request: &DiscoveryRequest) -> &str {
        &request.type_url
    }
    fn refusal(request: &DiscoveryRequest) -> Option<&str> {
        request.error_detail.as_ref().map(|e| e.message.as_str())
    }
    /// A list of names is all that there is: it does not tell what is new from what was asked for before, and
    /// versions describe responses.
    fn asked<'a>(_: &'a DiscoveryRequest, _: bool) -> Asked<'a> {
        Asked::new()
    }
    fn resubscribes(_: &DiscoveryRequest) -> bool {
        true
    }
    fn hear(session: &mut Session, kind: Kind, request: &DiscoveryRequest) -> Result<Heard, Violation> {
        session.sotw(kind, request)
    }
}
