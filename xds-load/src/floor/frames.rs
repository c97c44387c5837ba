//! Everything that the floor says, built once as bytes that are ready for the socket.

use std::rc::Rc;

use lean_http2::frame;

use crate::{
    expect::Type,
    h2::grpc,
    wire::{Writer, type_of, type_url},
};

/// The one cluster, and its assignment.
pub const ASSIGNMENT: &str = "outbound|80||floor.xds-load.svc.cluster.local";

/// The id of a connection's first stream: frames are built for it.
pub const STREAM: u32 = 1;
/// Payload of each DATA frame: every client takes so much.
pub const PAYLOAD: usize = frame::DEFAULT_FRAME_BYTES as usize;

/// How much is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the cluster.
    pub cluster: usize,
    /// Bytes of the assignment when it is asked for.
    pub assignment: usize,
    /// Bytes of the assignment when it is pushed.
    pub push: usize,
}

/// The two variants of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// DeltaAggregatedResources
    Delta,
    /// StreamAggregatedResources
    Sotw,
}

/// The answers to first requests, for each protocol.
#[derive(Debug)]
pub struct Frames {
    clusters: [Rc<[u8]>; 2],
    endpoints: [Rc<[u8]>; 2],
}

impl Frames {
    /// Builds them.
    pub fn new(sizes: Sizes) -> Self {
        let both = |of: &dyn Fn(Protocol) -> Rc<[u8]>| [of(Protocol::Delta), of(Protocol::Sotw)];
        let cluster = cluster(sizes.cluster);
        let assignment = assignment(0, sizes.assignment);
        Self {
            clusters: both(&|p| response(p, type_url(Type::Cluster), 0, Some(&cluster))),
            endpoints: both(&|p| response(p, type_url(Type::Endpoint), 0, Some(&assignment))),
        }
    }

    /// The answer to the first request for a type.
    pub fn answer(&self, protocol: Protocol, url: &str) -> Rc<[u8]> {
        let of = |both: &[Rc<[u8]>; 2]| both[usize::from(protocol == Protocol::Sotw)].clone();
        match type_of(url) {
            Some(Type::Cluster) => of(&self.clusters),
            Some(Type::Endpoint) => of(&self.endpoints),
            _ => response(protocol, url, 0, None),
        }
    }
}

/// The assignment with this number, as it is pushed.
pub fn push(protocol: Protocol, number: u64, size: usize) -> Rc<[u8]> {
    response(protocol, type_url(Type::Endpoint), number, Some(&assignment(number, size)))
}

/// What tells the assignment with this number from others.
pub fn marker(number: u64) -> String {
    format!("push-{number:016x}.")
}

/// `ClusterLoadAssignment`: one locality, one endpoint, whose `hostname` begins with the marker and fills up.
fn assignment(number: u64, size: usize) -> Vec<u8> {
    let build = |padding: usize| {
        let mut message = Writer::default();
        message.text(1, ASSIGNMENT).message(2, |locality| {
            locality.message(2, |lb_endpoint| {
                lb_endpoint.message(1, |endpoint| {
                    endpoint.message(1, |address| {
                        address.message(1, |socket| _ = socket.text(2, "10.0.0.1").number(3, 80));
                    });
                    endpoint.text(3, &format!("{}{}", marker(number), "x".repeat(padding)));
                });
            });
        });
        message.0
    };
    build(size.saturating_sub(build(0).len()))
}

/// `Cluster` of type EDS with endpoints from ADS, filled up by `alt_stat_name`.
fn cluster(size: usize) -> Vec<u8> {
    const EDS: u64 = 3;
    let build = |padding: usize| {
        let mut message = Writer::default();
        message.text(1, ASSIGNMENT).number(2, EDS).message(3, |eds| {
            eds.message(1, |source| _ = source.item(3, b""));
        });
        message.text(28, &"x".repeat(padding));
        message.0
    };
    build(size.saturating_sub(build(0).len()))
}

/// A response with at most one resource, as DATA frames. Its number is version and nonce.
fn response(protocol: Protocol, type_url: &str, number: u64, resource: Option<&[u8]>) -> Rc<[u8]> {
    let number = number.to_string();
    let any = |any: &mut Writer, value: &[u8]| _ = any.text(1, type_url).item(2, value);
    let mut message = Writer::default();
    message.text(1, &number);
    if let Some(value) = resource {
        message.message(2, |resource| match protocol {
            Protocol::Delta => {
                resource.text(1, &number).message(2, |inner| any(inner, value)).text(3, ASSIGNMENT);
            }
            Protocol::Sotw => any(resource, value),
        });
    }
    message.text(4, type_url).text(5, &number);
    let mut data = Vec::new();
    grpc::write_message(&mut data, &message.0);
    let mut out = Vec::with_capacity(data.len() + data.len() / PAYLOAD * frame::HEADER_BYTES + 64);
    for payload in data.chunks(PAYLOAD) {
        let length = payload.len() as u32;
        frame::Header { length, kind: frame::kind::DATA, flags: 0, stream: STREAM }.write(&mut out);
        out.extend_from_slice(payload);
    }
    out.into()
}
