//! The two protocols as one to the task that moves bytes.

use landbridge_proto::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
    },
    landbridge::envelope::{DeltaDiscoveryResponse, DiscoveryResponse},
};

use super::{Frame, Heard, Kind, Protocol, Session, Violation};

/// A protocol's messages.
pub trait Wire: Send + 'static {
    /// What clients send.
    type Request: Send + Sync + 'static;
    /// What they get.
    type Response: Send + 'static;
    /// Which one it is.
    const PROTOCOL: Protocol;

    /// The node, if this request carries it.
    fn node(request: &Self::Request) -> Option<&Node>;
    /// The type that it is about.
    fn type_url(request: &Self::Request) -> &str;
    /// Why the client refuses the last response, if it does.
    fn refusal(request: &Self::Request) -> Option<&str>;
    /// Takes it in.
    fn hear(session: &mut Session, kind: Kind, request: &Self::Request) -> Result<Heard, Violation>;
    /// A response.
    fn response(frame: Frame) -> Self::Response;
}

/// Delta.
pub enum Delta {}

/// State of the world.
pub enum Sotw {}

impl Wire for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    const PROTOCOL: Protocol = Protocol::Delta;

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }
    fn type_url(request: &Self::Request) -> &str {
        &request.type_url
    }
    fn refusal(request: &Self::Request) -> Option<&str> {
        request.error_detail.as_ref().map(|e| e.message.as_str())
    }
    fn hear(session: &mut Session, kind: Kind, request: &Self::Request) -> Result<Heard, Violation> {
        session.delta(kind, request)
    }
    fn response(frame: Frame) -> Self::Response {
        frame.into_delta()
    }
}

impl Wire for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const PROTOCOL: Protocol = Protocol::Sotw;

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }
    fn type_url(request: &Self::Request) -> &str {
        &request.type_url
    }
    fn refusal(request: &Self::Request) -> Option<&str> {
        request.error_detail.as_ref().map(|e| e.message.as_str())
    }
    fn hear(session: &mut Session, kind: Kind, request: &Self::Request) -> Result<Heard, Violation> {
        session.sotw(kind, request)
    }
    fn response(frame: Frame) -> Self::Response {
        frame.into_sotw()
    }
}
