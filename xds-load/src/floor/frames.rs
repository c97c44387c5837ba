//! Everything that the floor says, built once as bytes that are ready for the socket.

use std::rc::Rc;

use crate::{
    expect::Type,
    h2::{frame, grpc},
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

/// Type URLs, with the types that the floor has something of.
pub const TYPES: [(&str, Type); 4] = [
    ("type.googleapis.com/envoy.config.cluster.v3.Cluster", Type::Cluster),
    ("type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", Type::Endpoint),
    ("type.googleapis.com/envoy.config.listener.v3.Listener", Type::Listener),
    ("type.googleapis.com/envoy.config.route.v3.RouteConfiguration", Type::Route),
];

impl Frames {
    /// Builds them.
    pub fn new(sizes: Sizes) -> Self {
        let both = |of: &dyn Fn(Protocol) -> Rc<[u8]>| [of(Protocol::Delta), of(Protocol::Sotw)];
        let cluster = cluster(sizes.cluster);
        let assignment = assignment(0, sizes.assignment);
        Self {
            clusters: both(&|p| response(p, TYPES[0].0, 0, Some(&cluster))),
            endpoints: both(&|p| response(p, TYPES[1].0, 0, Some(&assignment))),
        }
    }

    /// The answer to the first request for a type.
    pub fn answer(&self, protocol: Protocol, type_url: &str) -> Rc<[u8]> {
        let of = |both: &[Rc<[u8]>; 2]| both[usize::from(protocol == Protocol::Sotw)].clone();
        match TYPES.iter().find(|(url, _)| *url == type_url) {
            Some((_, Type::Cluster)) => of(&self.clusters),
            Some((_, Type::Endpoint)) => of(&self.endpoints),
            _ => response(protocol, type_url, 0, None),
        }
    }
}

/// The assignment with this number, as it is pushed.
pub fn push(protocol: Protocol, number: u64, size: usize) -> Rc<[u8]> {
    response(protocol, TYPES[1].0, number, Some(&assignment(number, size)))
}

/// What tells the assignment with this number from others.
pub fn marker(number: u64) -> String {
    format!("push-{number:016x}.")
}

/// `ClusterLoadAssignment`: one locality, one endpoint, whose `hostname` begins with the marker and fills up.
fn assignment(number: u64, size: usize) -> Vec<u8> {
    let socket = message(&[(1, &message(&[(2, b"10.0.0.1")]))]);
    let build = |padding: usize| {
        let hostname = format!("{}{}", marker(number), "x".repeat(padding));
        let endpoint = message(&[(1, &socket), (3, hostname.as_bytes())]);
        let locality = message(&[(2, &message(&[(1, &endpoint)]))]);
        message(&[(1, ASSIGNMENT.as_bytes()), (2, &locality)])
    };
    build(size.saturating_sub(build(0).len()))
}

/// `Cluster` with endpoints from ADS, filled up by `alt_stat_name`.
fn cluster(size: usize) -> Vec<u8> {
    let ads = message(&[(1, &message(&[(3, b"")]))]);
    let build = |padding: usize| {
        let mut bytes = message(&[(1, ASSIGNMENT.as_bytes())]);
        bytes.extend([2 << 3, 3]); // type: EDS
        bytes.extend(message(&[(3, &ads), (28, "x".repeat(padding).as_bytes())]));
        bytes
    };
    build(size.saturating_sub(build(0).len()))
}

/// A response with at most one resource, as DATA frames. Its number is version and nonce.
fn response(protocol: Protocol, type_url: &str, number: u64, resource: Option<&[u8]>) -> Rc<[u8]> {
    let number = number.to_string();
    let any = resource.map(|value| message(&[(1, type_url.as_bytes()), (2, value)]));
    let mut fields: Vec<(u32, &[u8])> = vec![(1, number.as_bytes())];
    let resource = any.as_ref().map(|any| match protocol {
        Protocol::Delta => message(&[(1, number.as_bytes()), (2, any), (3, ASSIGNMENT.as_bytes())]),
        Protocol::Sotw => any.clone(),
    });
    fields.extend(resource.as_ref().map(|r| (2, r.as_slice())));
    fields.extend([(4, type_url.as_bytes()), (5, number.as_bytes())]);
    let mut data = Vec::new();
    grpc::write_message(&mut data, &message(&fields));
    let mut out = Vec::with_capacity(data.len() + data.len() / PAYLOAD * frame::HEADER_BYTES + 64);
    for payload in data.chunks(PAYLOAD) {
        let length = payload.len() as u32;
        frame::Header { length, kind: frame::kind::DATA, flags: 0, stream: STREAM }.write(&mut out);
        out.extend_from_slice(payload);
    }
    out.into()
}

/// A protobuf message of length-delimited fields.
fn message(fields: &[(u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::with_capacity(fields.iter().map(|(_, value)| value.len() + 8).sum());
    for (number, value) in fields {
        varint(&mut out, (number << 3 | 2) as usize);
        varint(&mut out, value.len());
        out.extend_from_slice(value);
    }
    out
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
