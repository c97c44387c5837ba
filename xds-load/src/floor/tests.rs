use std::{net::SocketAddr, path::Path, time::Duration};

use lean_http2::frame;

use super::{
    command::tls,
    frames::{self, marker},
    wire::{Heard, Wire},
    *,
};
use crate::{
    expect::{Marker, Type},
    h2::{Connection, Event, Target, Tls, TlsFiles},
    wire::{
        discovery::{Common, DELTA_METHOD, SOTW_METHOD, delta_request, sotw_request},
        type_url,
    },
};

const SIZES: Sizes = Sizes { cluster: 120_000, assignment: 180_000, push: 1_798 };

/// A floor on a thread of its own, which ends with the process.
fn start(root: Option<&Path>) -> SocketAddr {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let tls = root.map(|file| tls(file, any).unwrap());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let floor = Floor::bind(any, tls, SIZES).unwrap();
            sender.send(floor.address().unwrap()).unwrap();
            floor.run(None, |_| {}).await.unwrap();
        });
    });
    receiver.recv().unwrap()
}

/// A request of one of the protocols: for a type, or as answer to a nonce.
fn request(method: &str, kind: Type, nonce: &str) -> Vec<u8> {
    let common = Common { node: Some(b""), type_url: type_url(kind), nonce, refused: None };
    match method {
        DELTA_METHOD => delta_request(common, [].into_iter(), [].into_iter(), [].into_iter()),
        _ => sotw_request(common, "", [].into_iter()),
    }
}

async fn next(connection: &mut Connection) -> Vec<u8> {
    let event = tokio::time::timeout(Duration::from_secs(10), connection.next()).await;
    match event.expect("within 10 s").unwrap() {
        (_, Event::Message(message)) => message,
        (_, Event::Closed(status)) => panic!("closed: {status}"),
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(bytes, text).is_some()
}

#[tokio::test]
async fn the_clients_of_this_crate_are_configured_and_hear_pushes() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root.pem");
    let (plain, secure) = (start(None), start(Some(&root)));
    let files = TlsFiles { roots: Some(root), identity: None };
    let tls = Tls::load(&files, "localhost").unwrap();
    let types = [Type::Cluster, Type::Endpoint, Type::Listener, Type::Route];
    for (address, tls) in [(plain, None), (secure, Some(tls))] {
        let mut pusher = Pusher::new(address).await.unwrap();
        let mut clients = Vec::new();
        for path in [DELTA_METHOD, SOTW_METHOD] {
            let target = Target { address, authority: "floor".into(), source: None, tls: tls.clone() };
            let mut connection = Connection::connect(&target).await.unwrap();
            let stream = connection.open(path, &[]).unwrap();
            for (kind, size) in types.into_iter().zip([SIZES.cluster, SIZES.assignment, 0, 0]) {
                connection.send(stream, &request(path, kind, ""));
                let answer = next(&mut connection).await;
                assert!(contains(&answer, type_url(kind).as_bytes()));
                assert_eq!(contains(&answer, ASSIGNMENT.as_bytes()), size > 0);
                // The resource has its size, and what is around it is small.
                assert!((size..size + 300).contains(&answer.len()), "{} for {size}", answer.len());
                connection.send(stream, &request(path, kind, "0"));
            }
            clients.push((connection, stream, path));
        }
        for _ in 0..2 {
            let mut expected = None;
            let order = pusher.push(|e| expected = Some(e));
            let hear = async {
                for (connection, stream, path) in &mut clients {
                    let push = next(connection).await;
                    assert!((SIZES.push..SIZES.push + 300).contains(&push.len()), "{}", push.len());
                    let at = memchr::memmem::find(&push, b"push-").unwrap();
                    let number = std::str::from_utf8(&push[at + 5..at + 21]).unwrap();
                    let nonce = u64::from_str_radix(number, 16).unwrap().to_string();
                    connection.send(*stream, &request(path, Type::Endpoint, &nonce));
                    // Written with the next look at the connection.
                    let _ = tokio::time::timeout(Duration::from_millis(50), connection.next()).await;
                }
            };
            let (report, ()) = tokio::join!(order, hear);
            let report = report.unwrap();
            assert_eq!((report.connections, report.streams, report.acknowledged), (2, 2, 2));
            assert!(report.acknowledged_seconds < 10.0);
            let each = report.cpu_seconds * 1e6 / 2.0;
            assert!((report.cpu_microseconds_per_stream - each).abs() < 0.01, "{report:?}");
            let expected = expected.unwrap();
            assert_eq!((expected.kind, &*expected.name), (Type::Endpoint, ASSIGNMENT));
            assert!(matches!(expected.marker, Marker::Contains(_)));
        }
    }
}

#[test]
fn windows_are_respected_frame_by_frame() {
    let mut wire = Wire::default();
    let bytes = frames::push(frames::Protocol::Delta, 1, 200_000);
    let whole = frames::PAYLOAD + frame::HEADER_BYTES;
    // 65,535 bytes are three frames of 16,384.
    assert_eq!(wire.allowed(&bytes), 3 * whole);
    assert_eq!(wire.allowed(&bytes[3 * whole..]), 0);
    let mut hello = frame::PREFACE.to_vec();
    frame::write_word(&mut hello, frame::kind::WINDOW_UPDATE, 0, 1 << 20);
    wire.receive(&hello, |_| {}).unwrap();
    assert_eq!(wire.allowed(&bytes[3 * whole..]), 0, "the stream's window is used up");
    let mut more = Vec::new();
    frame::write_word(&mut more, frame::kind::WINDOW_UPDATE, 1, 16_384);
    wire.receive(&more, |_| {}).unwrap();
    assert_eq!(wire.allowed(&bytes[3 * whole..]), whole, "one more, and what the first three left");
}

#[test]
fn bytes_may_come_in_any_pieces_and_strangers_are_refused() {
    let mut hello = Vec::new();
    frame::write_hello(&mut hello);
    for size in [1, 5, 100] {
        let mut wire = Wire::default();
        let before = wire.out.len();
        for piece in hello.chunks(size) {
            wire.receive(piece, |heard| panic!("nothing is asked: {heard:?}")).unwrap();
        }
        assert_eq!(wire.out.len(), before + frame::HEADER_BYTES, "settings are acknowledged once");
    }
    let mut wire = Wire::default();
    assert!(wire.receive(b"GET / HTTP/1.1\r\nHost: floor\r\n\r\n", |_| {}).is_err());
    let mut wire = Wire::default();
    wire.receive(&hello, |_| {}).unwrap();
    let mut end = Vec::new();
    frame::write_word(&mut end, frame::kind::RST_STREAM, 1, 8);
    let mut heard = Vec::new();
    wire.receive(&end, |h| heard.push(h)).unwrap();
    assert_eq!(heard, [Heard::Ended]);
}

#[test]
fn markers_have_one_length() {
    assert_eq!(marker(1).len(), marker(u64::MAX).len());
    let sizes = [0, 1, 500, 5_000].map(|size| frames::push(frames::Protocol::Delta, 7, size).len());
    assert_eq!(sizes[0], sizes[1], "there is a smallest one");
    assert!(sizes[2] < sizes[3]);
}

#[test]
fn every_operation_is_measured() {
    let rates = measure(Duration::from_millis(5)).unwrap();
    assert_eq!(rates.len(), 7);
    assert!(rates.iter().all(|r| r.microseconds > 0.0 && r.per_second > 1.0), "{rates:?}");
}
