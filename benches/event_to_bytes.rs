//! One endpoint flips among 1,000 services x 10 endpoints with 2,000 proxies attached: from the change to the bytes of a
//! stream's Delta response. Its floor is prost encoding the one assignment that changes.

mod mesh;

use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use landbridge::{
    snapshot::ResourceType,
    xds::{DeltaRequest, Kind, Limits, Payload, Protocol, Session},
};
use landbridge_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use prost::Message;

const SERVICES: usize = 1_000;
const ENDPOINTS: usize = 10;
const PROXIES: usize = 2_000;

fn event_to_bytes(c: &mut Criterion) {
    let mut state = mesh::state(SERVICES, ENDPOINTS);
    mesh::attach(&mut state, PROXIES);
    let kind = Kind::Snapshot(ResourceType::Endpoint);
    let mut session = Session::new(Protocol::Delta, mesh::snapshot(&state), Limits::default());
    let snapshot = mesh::snapshot(&state);
    let names = snapshot.endpoints.iter().map(|e| &*e.name).collect();
    let subscribe = DeltaRequest { subscribe: names, ..Default::default() };
    session.delta(kind, &subscribe).expect("a valid request");
    settle(&mut session, kind);

    let mut group = c.benchmark_group("event_to_bytes");
    let mut ready = true;
    group.bench_function("landbridge", |b| {
        b.iter(|| {
            ready = !ready;
            state.apply(vec![mesh::slice(7, ENDPOINTS, ready)], Instant::now());
            session.snapshot(mesh::snapshot(&state));
            let bytes = settle(&mut session, kind);
            assert!(bytes > 0, "the flip reaches the stream");
            bytes
        });
    });
    let name = "outbound|80||svc7.ns7.svc.cluster.local";
    let any = mesh::snapshot(&state).endpoints.get(name).expect("the assignment").any();
    let any = prost_types::Any::decode(any).expect("our own bytes");
    let message = ClusterLoadAssignment::decode(any.value.as_slice()).expect("our own bytes");
    group.bench_function("floor_prost_encode", |b| b.iter(|| message.encode_to_vec()));
}

/// Takes and acknowledges all frames; tells how many bytes they were.
fn settle(session: &mut Session, kind: Kind) -> usize {
    let mut bytes = 0;
    while let Some(frame) = session.next_frame(Instant::now()) {
        let nonce = frame.nonce.to_string();
        bytes += Payload::new(Protocol::Delta, frame).map(|chunk| chunk.len()).sum::<usize>();
        let ack = DeltaRequest { nonce: &nonce, ..Default::default() };
        session.delta(kind, &ack).expect("a valid request");
    }
    bytes
}

criterion_group!(benches, event_to_bytes);
criterion_main!(benches);
