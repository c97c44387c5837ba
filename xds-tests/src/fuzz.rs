//! What strangers can send, one function each: bytes in, no panic. `fuzz/` runs them under libFuzzer, and
//! `tests/fuzz_seeds.rs` runs the committed seeds and their mutations as plain tests.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use http::Response;
use http_body_util::Empty;
use landbridge::{
    authn::{jwt, xfcc},
    ca::csr,
    registry::file,
    snapshot::{Encoded, ResourceSet, ResourceType, Resources, Snapshot},
    xds::{DeltaRequest, Kind, Limits, Protocol, Session, node},
};
use landbridge_proto::envoy::{config::core::v3::Node, service::discovery::v3::DiscoveryRequest};
use lean_http2::{
    frame::PREFACE,
    server::{Answer, Connection, Settings},
};
use prost::{Message, decode_length_delimiter};
use tokio::{
    io::{AsyncWriteExt, copy, duplex, sink, split},
    join, runtime,
};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All targets, by the name of their seeds' folder.
pub const TARGETS: &[(&str, Target)] = &[
    ("node", read_node),
    ("delta", delta),
    ("sotw", sotw),
    ("yaml", yaml),
    ("csr", request),
    ("jwt", token),
    ("xfcc", forwarded),
    ("http2", http2),
];

/// A node message.
pub fn read_node(bytes: &[u8]) {
    if let Ok(node) = Node::decode(bytes) {
        let _ = node::proxy(Some(&node));
    }
}

/// The requests of a Delta stream, length-delimited.
pub fn delta(bytes: &[u8]) {
    let mut session = Session::new(Protocol::Delta, snapshot(), Limits::default());
    each(bytes, |message| {
        let Ok(request) = DeltaRequest::read(message) else { return };
        let _ = request.node();
        if let Some(kind) = Kind::from_type_url(request.type_url) {
            let _ = session.delta(kind, &request);
            drain(&mut session);
        }
    });
}

/// The requests of a state-of-the-world stream, length-delimited.
pub fn sotw(bytes: &[u8]) {
    let mut session = Session::new(Protocol::Sotw, snapshot(), Limits::default());
    each(bytes, |message| {
        let Ok(request) = DiscoveryRequest::decode(message) else { return };
        if let Some(kind) = Kind::from_type_url(&request.type_url) {
            let _ = session.sotw(kind, &request);
            drain(&mut session);
        }
    });
}

/// A file of Kubernetes objects.
pub fn yaml(bytes: &[u8]) {
    let _ = file::parse(bytes);
}

/// A certificate signing request.
pub fn request(bytes: &[u8]) {
    let _ = csr::parse(bytes);
}

/// A token.
pub fn token(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = jwt::inspect(text);
    }
}

/// What a gateway says of its client.
pub fn forwarded(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = xfcc::identity(text, "cluster.local");
    }
}

/// What a client says on a connection after its preface, until it leaves.
pub fn http2(bytes: &[u8]) {
    let runtime = runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let (mut client, server) = duplex(16 << 10);
        let answer = |_| -> Answer<Empty<Bytes>> { Box::pin(async { Response::new(Empty::new()) }) };
        let (mut heard, mut said) = split(&mut client);
        let talk = async {
            // An error: the server has ended it.
            let _ = said.write_all(&[PREFACE, bytes].concat()).await;
            let _ = said.shutdown().await;
        };
        let mut nowhere = sink();
        let listen = copy(&mut heard, &mut nowhere);
        let _ = join!(Connection::new(server, Settings::default(), answer), talk, listen);
    });
}

fn each(mut bytes: &[u8], mut take: impl FnMut(&[u8])) {
    while !bytes.is_empty() {
        let Ok(length) = decode_length_delimiter(&mut bytes) else { return };
        let Some((message, rest)) = bytes.split_at_checked(length) else { return };
        take(message);
        bytes = rest;
    }
}

/// A session that always finds something new to say would hang a stream.
fn drain(session: &mut Session) {
    for _ in 0..64 {
        if session.next_frame(Instant::now()).is_none() {
            return;
        }
    }
    panic!("a session sends for ever");
}

fn snapshot() -> Arc<Snapshot> {
    let set = |kind: ResourceType| {
        let one = |name: &str| {
            let name: Arc<str> = name.into();
            (name.clone(), Arc::new(Encoded::new(name, kind.type_url(), b"", None, Arc::new([]))))
        };
        Resources::new(vec![ResourceSet::from_iter([one("a"), one("b")])])
    };
    Arc::new(Snapshot {
        clusters: set(ResourceType::Cluster),
        endpoints: set(ResourceType::Endpoint),
        listeners: set(ResourceType::Listener),
        routes: set(ResourceType::Route),
        ..Snapshot::empty()
    })
}
