//! One changed assignment to 1,000 streams over loopback TCP: difference, frame and write for each, read by another thread.
//! Its floor is writing the same finished bytes to as many sockets.

mod mesh;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use landbridge::{
    snapshot::ResourceType,
    xds::{Kind, Limits, Protocol, Session},
};
use landbridge_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use prost::Message;

const STREAMS: usize = 1_000;
/// About 2 KiB in an assignment, as in the published floors.
const ENDPOINTS: usize = 15;

fn fanout(c: &mut Criterion) {
    let mut state = mesh::state(100, ENDPOINTS);
    mesh::attach(&mut state, 1);
    let kind = Kind::Snapshot(ResourceType::Endpoint);
    let snapshot = mesh::snapshot(&state);
    let names: Vec<_> = snapshot.endpoints.iter().map(|e| e.name.to_string()).collect();
    let subscribe = DeltaDiscoveryRequest { resource_names_subscribe: names, ..Default::default() };
    let mut sessions: Vec<_> = (0..STREAMS)
        .map(|_| {
            let mut session = Session::new(Protocol::Delta, snapshot.clone(), Limits::default());
            session.delta(kind, &subscribe).expect("a valid request");
            frame(&mut session, kind);
            session
        })
        .collect();
    let mut sockets = Sockets::open(STREAMS);

    let mut group = c.benchmark_group("fanout");
    group.throughput(Throughput::Elements(STREAMS as u64));
    group.sample_size(30);
    let mut ready = true;
    let mut bytes = Vec::new();
    group.bench_function("landbridge", |b| {
        b.iter(|| {
            ready = !ready;
            state.apply(vec![mesh::slice(7, ENDPOINTS, ready)], Instant::now());
            let snapshot = mesh::snapshot(&state);
            for (i, session) in sessions.iter_mut().enumerate() {
                session.snapshot(snapshot.clone());
                bytes = frame(session, kind);
                sockets.write(i, &bytes);
            }
            sockets.wait();
        });
    });
    assert!(bytes.len() > 1_000, "{} bytes are not an assignment", bytes.len());
    group.bench_function("floor_raw_write", |b| {
        b.iter(|| {
            for i in 0..STREAMS {
                sockets.write(i, &bytes);
            }
            sockets.wait();
        });
    });
}

/// The next frame, acknowledged.
fn frame(session: &mut Session, kind: Kind) -> Vec<u8> {
    let response = session.next_frame(Instant::now()).expect("something changed").into_delta();
    let bytes = response.encode_to_vec();
    let ack = DeltaDiscoveryRequest { response_nonce: response.nonce, ..Default::default() };
    session.delta(kind, &ack).expect("a valid request");
    bytes
}

/// Connections whose other ends are read by one thread.
struct Sockets {
    writers: Vec<TcpStream>,
    written: usize,
    read: Arc<AtomicUsize>,
}

impl Sockets {
    fn open(count: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("bound");
        let mut readers = Vec::new();
        let writers = (0..count).map(|_| {
            let writer = TcpStream::connect(address).expect("loopback");
            writer.set_nodelay(true).expect("a socket option");
            let (reader, _) = listener.accept().expect("loopback");
            reader.set_nonblocking(true).expect("a socket option");
            readers.push(reader);
            writer
        });
        let writers: Vec<_> = writers.collect();
        let read = Arc::new(AtomicUsize::new(0));
        let total = read.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let mut idle = true;
                for reader in &mut readers {
                    if let Ok(n) = reader.read(&mut buffer)
                        && n > 0
                    {
                        idle = false;
                        total.fetch_add(n, Ordering::Relaxed);
                    }
                }
                if idle {
                    thread::yield_now();
                }
            }
        });
        Self { writers, written: 0, read }
    }

    fn write(&mut self, i: usize, bytes: &[u8]) {
        self.writers[i].write_all(bytes).expect("loopback");
        self.written += bytes.len();
    }

    /// Until the last reader has everything.
    fn wait(&self) {
        while self.read.load(Ordering::Relaxed) < self.written {
            thread::yield_now();
        }
    }
}

criterion_group!(benches, fanout);
criterion_main!(benches);
