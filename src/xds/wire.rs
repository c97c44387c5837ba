//! The two protocols as one to the task that moves bytes.

use landbridge_proto::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
};
use prost::Message;

use super::{Heard, Kind, Protocol, Session, Violation, ack::Ack, secrets::Asked};

/// A protocol's messages.
pub trait Wire: Send + 'static {
    /// What clients send.
    type Request: Message + Default + Send + Sync + 'static;
    /// Which one it is.
    const PROTOCOL: Protocol;

    /// The acknowledgement that these bytes are, if that can be told without decoding them.
    fn ack(request: &[u8]) -> Option<Ack<'_>>;
    /// The node, if this request carries it.
    fn node(request: &Self::Request) -> Option<&Node>;
    /// The type that it is about.
    fn type_url(request: &Self::Request) -> &str;
    /// Why the client refuses the last response, if it does.
    fn refusal(request: &Self::Request) -> Option<&str>;
    /// What it asks for explicitly. `first`: it is the stream's first of its type, and may say what the client has.
    fn asked(request: &Self::Request, first: bool) -> Asked<'_>;
    /// Whether it may change what the client wants.
    fn resubscribes(request: &Self::Request) -> bool;
    /// Takes it in.
    fn hear(session: &mut Session, kind: Kind, request: &Self::Request) -> Result<Heard, Violation>;
}

/// Delta.
pub enum Delta {}

/// State of the world.
pub enum Sotw {}

impl Wire for Delta {
    type Request = DeltaDiscoveryRequest;
    const PROTOCOL: Protocol = Protocol::Delta;

    fn ack(request: &[u8]) -> Option<Ack<'_>> {
        Ack::read(request)
    }
    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }
    fn type_url(request: &Self::Request) -> &str {
        &request.type_url
    }
    fn refusal(request: &Self::Request) -> Option<&str> {
        request.error_detail.as_ref().map(|e| e.message.as_str())
    }
    fn asked(request: &Self::Request, first: bool) -> Asked<'_> {
        let known = |name: &str| request.initial_resource_versions.get(name)?.parse().ok();
        let names = request.resource_names_subscribe.iter().map(String::as_str);
        names.map(|name| (name, if first { known(name) } else { None })).collect()
    }
    fn resubscribes(request: &Self::Request) -> bool {
        !(request.resource_names_subscribe.is_empty() && request.resource_names_unsubscribe.is_empty())
    }
    fn hear(session: &mut Session, kind: Kind, request: &Self::Request) -> Result<Heard, Violation> {
        session.delta(kind, request)
    }
}

impl Wire for Sotw {
    type Request = DiscoveryRequest;
    const PROTOCOL: Protocol = Protocol::Sotw;

    /// Each says what the client wants, too.
    fn ack(_: &[u8]) -> Option<Ack<'_>> {
        None
    }
    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }
    fn type_url(request: &Self::Request) -> &str {
        &request.type_url
    }
    fn refusal(request: &Self::Request) -> Option<&str> {
        request.error_detail.as_ref().map(|e| e.message.as_str())
    }
    /// A list of names is all that there is: it does not tell what is new from what was asked for before, and
    /// versions describe responses.
    fn asked(_: &Self::Request, _: bool) -> Asked<'_> {
        Asked::new()
    }
    fn resubscribes(_: &Self::Request) -> bool {
        true
    }
    fn hear(session: &mut Session, kind: Kind, request: &Self::Request) -> Result<Heard, Violation> {
        session.sotw(kind, request)
    }
}
