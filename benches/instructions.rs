//! The hot paths, one at a time, for counting instructions: `instructions PATH` prepares, runs the path once to warm it, and
//! then [`ROUNDS`] times inside [`measured`], which `callgrind --toggle-collect` watches. `bench instructions` runs it and
//! holds the counts against the committed baseline. Run by itself it only says what there is.

mod mesh;

use std::{process::exit, time::Instant};

use landbridge::{
    pipeline::State,
    resource::eds,
    snapshot::{ResourceType, Snapshot},
    view::{EndpointView, Scope},
    xds::{DeltaRequest, Kind, Limits, Payload, Protocol, Session},
};

/// How often a path runs while it is counted. Even, so that what flips is as before.
const ROUNDS: u64 = 20;

/// What is prepared once gives the path that is counted.
type Path = Box<dyn FnMut()>;

/// A path's name, and what prepares it.
type Named = (&'static str, fn() -> Path);

const PATHS: [Named; 6] = [
    ("assignment_of_1000", assignment),
    ("endpoint_flips", endpoint_flips),
    ("endpoint_flips_in_10x_mesh", endpoint_flips_in_larger_mesh),
    ("service_comes_and_goes", service_comes_and_goes),
    ("push_to_one_stream", push),
    ("proxy_attaches", attach),
];

fn main() {
    // `cargo test --benches` passes flags of its own; a name is what stands without dashes.
    let Some(name) = std::env::args().skip(1).find(|arg| !arg.starts_with('-')) else {
        for (name, _) in PATHS {
            println!("{name}");
        }
        return;
    };
    let Some((_, prepare)) = PATHS.iter().find(|(path, _)| *path == name) else {
        eprintln!("no hot path is called {name}; run without arguments for the list");
        exit(2);
    };
    let mut path = prepare();
    path();
    path();
    measured(&mut *path);
    println!("{ROUNDS}");
}

/// What callgrind counts.
#[inline(never)]
fn measured(path: &mut dyn FnMut()) {
    for _ in 0..ROUNDS {
        path();
    }
}

/// One assignment of 1,000 endpoints from the tables, in full.
fn assignment() -> Path {
    let state = mesh::state(1, 1_000);
    let service = state.index.services().next().expect("one service").clone();
    let view = EndpointView {
        kind: landbridge::model::node::ProxyKind::Sidecar,
        scope: Scope::Public,
        cluster: "east".into(),
        network: "".into(),
        requested_networks: None,
        locality: Default::default(),
        labels: Default::default(),
        node: None,
        sni_dnat: false,
        workloads: true,
        one_by_one_above: None,
    };
    Box::new(move || assert_eq!(eds::service(&state.index, &view, &service).len(), 1))
}

/// One endpoint of 10 flips: from the change to published snapshots.
fn endpoint_flips() -> Path {
    flips(mesh_with_proxies(100, 200))
}

/// The same among ten times as much that is not concerned: must cost the same.
fn endpoint_flips_in_larger_mesh() -> Path {
    flips(mesh_with_proxies(1_000, 2_000))
}

fn flips(mut state: State) -> Path {
    let mut ready = true;
    Box::new(move || {
        ready = !ready;
        state.apply(vec![mesh::slice(7, 10, ready)], Instant::now());
    })
}

/// A service with its endpoints comes, and goes in the next round.
fn service_comes_and_goes() -> Path {
    let mut state = mesh_with_proxies(1_000, 100);
    let mut there = false;
    Box::new(move || {
        let changes = if there { mesh::withdrawn(1_000, 10) } else { mesh::objects(1_000, 10) };
        there = !there;
        state.apply(changes, Instant::now());
    })
}

/// A published flip to the bytes of one Delta stream, with its acknowledgement.
fn push() -> Path {
    let kind = Kind::Snapshot(ResourceType::Endpoint);
    let mut state = mesh_with_proxies(100, 1);
    let snapshots = [false, true].map(|ready| {
        state.apply(vec![mesh::slice(7, 10, ready)], Instant::now());
        mesh::snapshot(&state)
    });
    let mut session = Session::new(Protocol::Delta, snapshots[1].clone(), Limits::default());
    let names = names(&snapshots[1]);
    let subscribe = DeltaRequest { subscribe: names, ..Default::default() };
    session.delta(kind, &subscribe).expect("a valid request");
    assert!(frame(&mut session, kind) > 0);
    let mut next = 0;
    Box::new(move || {
        session.snapshot(snapshots[next].clone());
        next = 1 - next;
        assert!(frame(&mut session, kind) > 0, "the flip reaches the stream");
    })
}

/// One more proxy of a known class attaches.
fn attach() -> Path {
    let mut state = mesh_with_proxies(1_000, 2_000);
    let mut next = 2_000;
    Box::new(move || {
        mesh::attach_one(&mut state, next);
        next += 1;
    })
}

fn mesh_with_proxies(services: usize, proxies: usize) -> State {
    let mut state = mesh::state(services, 10);
    mesh::attach(&mut state, proxies);
    state
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.endpoints.iter().map(|e| &*e.name).collect()
}

/// The next frame's bytes, acknowledged.
fn frame(session: &mut Session, kind: Kind) -> usize {
    let Some(frame) = session.next_frame(Instant::now()) else { return 0 };
    let nonce = frame.nonce.to_string();
    let bytes = Payload::new(Protocol::Delta, frame).map(|chunk| chunk.len()).sum();
    let ack = DeltaRequest { nonce: &nonce, ..Default::default() };
    session.delta(kind, &ack).expect("a valid request");
    bytes
}
