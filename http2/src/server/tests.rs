//! A connection over a pipe: with the `h2` crate as its client, which knows the protocol, and with bytes, which do not.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
};

use super::{Answer, Connection, Error, Handle, Incoming, Settings, error::code};
use crate::frame::{self, Header, PREFACE, flag, kind, setting};

/// The request's body, part by part, and trailers.
struct Echo(Option<Incoming>);

impl Body for Echo {
    type Data = Bytes;
    type Error = super::Reset;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, super::Reset>>> {
        let Some(incoming) = &mut self.0 else { return Poll::Ready(None) };
        let polled = Pin::new(incoming).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) {
            self.0 = None;
            let trailers =
                HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        polled
    }
}

/// `/echo` sends the request back as it comes, `/count` its length, `/never` nothing, and every other path is not found.
fn serve(request: Request<Incoming>) -> Answer<Echo> {
    Box::pin(async move {
        let (head, body) = request.into_parts();
        match head.uri.path() {
            "/echo" => Response::new(Echo(Some(body))),
            "/never" => std::future::pending().await,
            "/count" => {
                let length = body.collect().await.map_or(0, |body| body.to_bytes().len());
                Response::builder().header("x-length", length).body(Echo(None)).unwrap()
            }
            _ => Response::builder().status(404).body(Echo(None)).unwrap(),
        }
    })
}

const SETTINGS: Settings = Settings {
    streams: 100,
    stream_window: 70_000,
    connection_window: 100_000,
    output: 20_000,
    keepalive_interval: Duration::from_secs(30),
    keepalive_timeout: Duration::from_secs(10),
    grace: Duration::from_secs(10),
};

type Served = JoinHandle<Result<(), Error>>;

fn start(settings: Settings) -> (DuplexStream, Served) {
    // A small pipe: everything is cut, and writes have to wait.
    let (client, server) = duplex(1000);
    (client, tokio::spawn(Connection::new(server, settings, serve)))
}

type Client = h2::client::SendRequest<Bytes>;

async fn connect(settings: Settings) -> (Client, Served) {
    let (client, served) = start(settings);
    let (client, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);
    (client, served)
}

fn request(path: &str) -> Request<()> {
    Request::post(format!("http://localhost{path}")).body(()).unwrap()
}

/// Sends all of it as windows allow.
async fn send(mut to: h2::SendStream<Bytes>, mut all: Bytes) {
    while !all.is_empty() {
        to.reserve_capacity(all.len());
        let Some(Ok(room)) = poll_fn(|cx| to.poll_capacity(cx)).await else { return };
        to.send_data(all.split_to(room.min(all.len())), false).unwrap();
    }
    to.send_data(Bytes::new(), true).unwrap();
}

async fn receive(mut from: h2::RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(part) = from.data().await {
        let part = part.unwrap();
        from.flow_control().release_capacity(part.len()).unwrap();
        all.extend_from_slice(&part);
    }
    let trailers = from.trailers().await.unwrap();
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    all
}

#[tokio::test]
async fn bodies_larger_than_all_windows_go_both_ways_on_many_streams() {
    let (client, _served) = connect(SETTINGS).await;
    let calls = (0..20_u32).map(|i| {
        let mut client = client.clone();
        tokio::spawn(async move {
            let all: Bytes = (0..300_000 + i).map(|n| (n * (i + 1)) as u8).collect::<Vec<_>>().into();
            client = client.ready().await.unwrap();
            let (response, stream) = client.send_request(request("/echo"), false).unwrap();
            let sending = tokio::spawn(send(stream, all.clone()));
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            assert!(receive(response.into_body()).await == all, "stream {i}");
            sending.await.unwrap();
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn answers_without_a_body_and_to_what_is_not_there() {
    let (mut client, _served) = connect(SETTINGS).await;
    let (response, stream) = client.send_request(request("/count"), false).unwrap();
    tokio::spawn(send(stream, vec![7; 123_456].into()));
    assert_eq!(response.await.unwrap().headers()["x-length"], "123456");
    let (response, _) = client.send_request(request("/"), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_call_is_dropped_when_the_client_takes_it_back_or_is_gone() {
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            ALIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let (client, server) = duplex(1000);
    let service = |_| -> Answer<Echo> {
        ALIVE.fetch_add(1, Ordering::SeqCst);
        let counted = Counted;
        Box::pin(async move {
            let _counted = counted;
            std::future::pending().await
        })
    };
    let served = tokio::spawn(Connection::new(server, SETTINGS, service));
    let (mut client, connection) = h2::client::handshake(client).await.unwrap();
    let connection = tokio::spawn(connection);
    let calls: Vec<_> = (0..3).map(|_| client.send_request(request("/"), true).unwrap()).collect();
    let until = |count| async move {
        while ALIVE.load(Ordering::SeqCst) != count {
            tokio::task::yield_now().await;
        }
    };
    until(3).await;
    let mut calls = calls.into_iter();
    calls.next().unwrap().1.send_reset(h2::Reason::CANCEL);
    until(2).await;
    connection.abort();
    served.await.unwrap().expect("the client left");
    until(0).await;
}

#[tokio::test]
async fn leaving_serves_what_has_begun_and_refuses_the_rest() {
    let (client, server) = duplex(1000);
    let handle = Handle::default();
    let served = tokio::spawn(Connection::with_handle(server, SETTINGS, serve, handle.clone()));
    let (mut client, connection) = h2::client::handshake(client).await.unwrap();
    let connection = tokio::spawn(connection);
    let (response, stream) = client.send_request(request("/echo"), false).unwrap();
    let response = response.await.unwrap();
    assert!(!handle.is_leaving());
    handle.leave();
    // As soon as the client knows, it sends nothing new here.
    while client.clone().ready().await.is_ok() {
        tokio::task::yield_now().await;
    }
    send(stream, vec![1; 5000].into()).await;
    assert_eq!(receive(response.into_body()).await.len(), 5000);
    served.await.unwrap().expect("an orderly end");
    connection.await.unwrap().expect("an orderly end");
}

#[tokio::test]
async fn a_connection_may_be_asked_to_leave_before_it_is_served() {
    let handle = Handle::default();
    assert!(tokio::time::timeout(Duration::from_millis(20), handle.leaving()).await.is_err());
    handle.leave();
    handle.leaving().await;
    let (mut client, server) = duplex(1000);
    let served = tokio::spawn(Connection::with_handle(server, SETTINGS, serve, handle));
    client.shutdown().await.unwrap();
    let mut said = Vec::new();
    client.read_to_end(&mut said).await.unwrap();
    served.await.unwrap().expect("an orderly end");
}

#[tokio::test]
async fn calls_that_do_not_end_are_cut_when_grace_is_over_or_there_is_none() {
    let never = |_| -> Answer<Echo> { Box::pin(std::future::pending()) };
    let patient = Settings { grace: Duration::from_secs(3600), ..SETTINGS };
    type End = fn(&Handle);
    let ends: [(Settings, End); 3] = [
        (Settings { grace: Duration::from_millis(20), ..SETTINGS }, Handle::leave),
        (patient, Handle::cut),
        (patient, |handle| {
            handle.leave();
            handle.cut();
        }),
    ];
    for (settings, end) in ends {
        let (client, server) = duplex(1000);
        let handle = Handle::default();
        let served = tokio::spawn(Connection::with_handle(server, settings, never, handle.clone()));
        let (mut client, connection) = h2::client::handshake(client).await.unwrap();
        tokio::spawn(connection);
        let (response, _stream) = client.send_request(request("/"), false).unwrap();
        end(&handle);
        served.await.unwrap().expect("no error");
        assert!(response.await.is_err());
    }
}

#[tokio::test]
async fn a_client_that_is_gone_is_noticed_and_one_that_is_idle_is_kept() {
    let short = Settings {
        keepalive_interval: Duration::from_millis(50),
        keepalive_timeout: Duration::from_millis(200),
        ..SETTINGS
    };
    // This client answers pings.
    let (mut idle, kept) = connect(short).await;
    // This one does not read.
    let (_gone, served) = start(short);
    assert!(matches!(served.await.unwrap(), Err(Error::Silent)));
    assert!(!kept.is_finished());
    let (response, _) = idle.send_request(request("/"), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_stream_whose_client_reads_nothing_keeps_little_and_delays_no_other() {
    let (mut client, _served) = connect(SETTINGS).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let (_response, mut stream) = client.send_request(request("/echo"), false).unwrap();
    let counted = taken.clone();
    tokio::spawn(async move {
        loop {
            stream.reserve_capacity(1000);
            let Some(Ok(_)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
            stream.send_data(vec![0; 1000].into(), false).unwrap();
            counted.fetch_add(1000, Ordering::SeqCst);
        }
    });
    // The echo waits for the client's window of 65,535; what it does not read comes to rest in our window.
    let mut before = usize::MAX;
    while before != taken.load(Ordering::SeqCst) || before < 65_535 {
        before = taken.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(before < 65_535 + 70_000 + 70_000, "{before}");
    // The connection's window is the client's own matter; what needs none is answered.
    let (response, _) = client.send_request(request("/"), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 404);
}

/// A frame as bytes.
fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Header { length: payload.len() as u32, kind, flags, stream }.write(&mut out);
    out.extend_from_slice(payload);
    out
}

/// A request's headers: POST /never, http, and what is added.
fn head(more: &[u8]) -> Vec<u8> {
    [b"\x83\x86\x04\x06/never", more].concat()
}

/// The codes of the GOAWAYs and RST_STREAMs that come for these bytes after a hello, and how the connection ended. The client
/// ends its half after them.
async fn told(input: &[u8]) -> (Vec<(u8, u32)>, Result<(), Error>) {
    let (mut client, served) = start(SETTINGS);
    let mut hello = PREFACE.to_vec();
    hello.extend(bytes(kind::SETTINGS, 0, 0, &[]));
    hello.extend_from_slice(input);
    let (mut read, mut write) = tokio::io::split(&mut client);
    let reading = async {
        let mut all = Vec::new();
        let _ = read.read_to_end(&mut all).await;
        all
    };
    let writing = async {
        let _ = write.write_all(&hello).await;
        let _ = write.shutdown().await;
    };
    let (all, ()) = tokio::join!(reading, writing);
    let mut codes = Vec::new();
    let mut rest = all.as_slice();
    while let Some((header, after)) = rest.split_first_chunk() {
        let header = Header::read(header);
        let (payload, after) = after.split_at(header.length as usize);
        let code = match header.kind {
            kind::GOAWAY => payload[4..].first_chunk(),
            kind::RST_STREAM => payload.first_chunk(),
            _ => None,
        };
        codes.extend(code.map(|code| (header.kind, u32::from_be_bytes(*code))));
        rest = after;
    }
    (codes, served.await.unwrap())
}

#[tokio::test]
async fn what_is_not_allowed_is_told_with_the_code_for_it() {
    let open = bytes(kind::HEADERS, flag::END_HEADERS, 1, &head(b""));
    let ended = bytes(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &head(b""));
    let after = |first: &[u8], then: Vec<u8>| [first, &then].concat();
    let window =
        |value: u32| [&setting::INITIAL_WINDOW_SIZE.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let lengthy = bytes(kind::HEADERS, flag::END_HEADERS, 1, &head(b"\x0f\x0d\x0210"));
    let goaway: Vec<(&str, Vec<u8>, u32)> = vec![
        ("DATA of the connection", bytes(kind::DATA, 0, 0, b""), code::PROTOCOL),
        ("DATA of an idle stream", bytes(kind::DATA, 0, 1, b"x"), code::PROTOCOL),
        ("padding without a length", after(&open, bytes(kind::DATA, flag::PADDED, 1, b"")), code::PROTOCOL),
        (
            "padding beyond the frame",
            after(&open, bytes(kind::DATA, flag::PADDED, 1, b"\x02x")),
            code::PROTOCOL,
        ),
        ("an even stream", bytes(kind::HEADERS, flag::END_HEADERS, 2, &head(b"")), code::PROTOCOL),
        ("a broken block", bytes(kind::HEADERS, flag::END_HEADERS, 1, b"\x80"), code::COMPRESSION),
        (
            "an interrupted block",
            after(&bytes(kind::HEADERS, 0, 1, b""), bytes(kind::PING, 0, 0, &[0; 8])),
            code::PROTOCOL,
        ),
        (
            "a block of another",
            after(&bytes(kind::HEADERS, 0, 1, b""), bytes(kind::CONTINUATION, 0, 3, b"")),
            code::PROTOCOL,
        ),
        ("nothing continued", bytes(kind::CONTINUATION, flag::END_HEADERS, 1, b""), code::PROTOCOL),
        (
            "endless blocks",
            after(&bytes(kind::HEADERS, 0, 1, b""), bytes(kind::CONTINUATION, 0, 1, b"").repeat(100)),
            code::ENHANCE_YOUR_CALM,
        ),
        (
            "HEADERS after the end",
            after(&after(&ended, bytes(kind::RST_STREAM, 0, 1, &[0; 4])), ended.clone()),
            code::STREAM_CLOSED,
        ),
        ("a reset of an idle stream", bytes(kind::RST_STREAM, 0, 1, &[0; 4]), code::PROTOCOL),
        ("a short reset", after(&open, bytes(kind::RST_STREAM, 0, 1, &[0; 3])), code::FRAME_SIZE),
        ("SETTINGS of a stream", bytes(kind::SETTINGS, 0, 1, &[]), code::PROTOCOL),
        ("broken SETTINGS", bytes(kind::SETTINGS, 0, 0, &[0; 5]), code::FRAME_SIZE),
        ("an acknowledgement with bytes", bytes(kind::SETTINGS, flag::ACK, 0, &[0; 6]), code::FRAME_SIZE),
        ("a window beyond all", bytes(kind::SETTINGS, 0, 0, &window(1 << 31)), code::FLOW_CONTROL),
        ("a pushed stream", bytes(kind::PUSH_PROMISE, 0, 1, &[0; 4]), code::PROTOCOL),
        ("a PING of a stream", bytes(kind::PING, 0, 1, &[0; 8]), code::PROTOCOL),
        ("a short PING", bytes(kind::PING, 0, 0, &[0; 7]), code::FRAME_SIZE),
        ("a short GOAWAY", bytes(kind::GOAWAY, 0, 0, &[0; 7]), code::FRAME_SIZE),
        (
            "the connection's window opened by nothing",
            bytes(kind::WINDOW_UPDATE, 0, 0, &[0; 4]),
            code::PROTOCOL,
        ),
        (
            "the connection's window beyond all",
            bytes(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]),
            code::FLOW_CONTROL,
        ),
        ("a long frame", bytes(kind::DATA, 0, 1, &[0; 16_385]), code::FRAME_SIZE),
        (
            "more than the connection's window",
            [1, 3]
                .map(|stream| {
                    [
                        bytes(kind::HEADERS, flag::END_HEADERS, stream, &head(b"")),
                        bytes(kind::DATA, 0, stream, &[0; 16_000]).repeat(4),
                    ]
                    .concat()
                })
                .concat(),
            code::FLOW_CONTROL,
        ),
        ("a flood of pings", bytes(kind::PING, 0, 0, &[0; 8]).repeat(1100), code::ENHANCE_YOUR_CALM),
        (
            "a flood of empty DATA",
            after(&open, bytes(kind::DATA, 0, 1, b"").repeat(1100)),
            code::ENHANCE_YOUR_CALM,
        ),
        (
            "a rapid reset",
            (0..1100_u32)
                .flat_map(|i| {
                    [
                        bytes(kind::HEADERS, flag::END_HEADERS, 2 * i + 1, &head(b"")),
                        bytes(kind::RST_STREAM, 0, 2 * i + 1, &[0; 4]),
                    ]
                    .concat()
                })
                .collect(),
            code::ENHANCE_YOUR_CALM,
        ),
    ];
    for (what, input, code) in goaway {
        let (told, end) = told(&input).await;
        assert_eq!(told.last(), Some(&(kind::GOAWAY, code)), "{what}");
        assert!(matches!(end, Err(Error::Violation(violation)) if violation.code == code), "{what}: {end:?}");
    }
    let reset: Vec<(&str, Vec<u8>, u32)> = vec![
        (
            "more than the stream's window",
            after(&open, bytes(kind::DATA, 0, 1, &[0; 16_000]).repeat(5)),
            code::FLOW_CONTROL,
        ),
        (
            "the stream's window opened by nothing",
            after(&open, bytes(kind::WINDOW_UPDATE, 0, 1, &[0; 4])),
            code::PROTOCOL,
        ),
        ("DATA after the end", after(&ended, bytes(kind::DATA, 0, 1, b"x")), code::STREAM_CLOSED),
        (
            "DATA after a reset",
            after(&open, [bytes(kind::RST_STREAM, 0, 1, &[0; 4]), bytes(kind::DATA, 0, 1, b"x")].concat()),
            code::STREAM_CLOSED,
        ),
        ("less than was said", after(&lengthy, bytes(kind::DATA, flag::END_STREAM, 1, b"x")), code::PROTOCOL),
        ("more than was said", after(&lengthy, bytes(kind::DATA, 0, 1, &[0; 11])), code::PROTOCOL),
        ("no path", bytes(kind::HEADERS, flag::END_HEADERS, 1, b"\x83\x86"), code::PROTOCOL),
        ("a path twice", bytes(kind::HEADERS, flag::END_HEADERS, 1, &head(b"\x84")), code::PROTOCOL),
        (
            "a name in upper case",
            bytes(kind::HEADERS, flag::END_HEADERS, 1, &head(b"\0\x01X\x01y")),
            code::PROTOCOL,
        ),
        (
            "a header of connections",
            bytes(kind::HEADERS, flag::END_HEADERS, 1, &head(b"\0\x0aconnection\x01y")),
            code::PROTOCOL,
        ),
        (
            "a pseudo-header too late",
            bytes(kind::HEADERS, flag::END_HEADERS, 1, &[&b"\0\x01x\x01y"[..], &head(b"")].concat()),
            code::PROTOCOL,
        ),
        (
            "trailers that do not end it",
            after(&open, bytes(kind::HEADERS, flag::END_HEADERS, 1, b"\0\x01x\x01y")),
            code::PROTOCOL,
        ),
        (
            "the 101st stream",
            (0..101_u32)
                .flat_map(|i| bytes(kind::HEADERS, flag::END_HEADERS, 2 * i + 1, &head(b"")))
                .collect(),
            code::REFUSED_STREAM,
        ),
    ];
    for (what, input, code) in reset {
        let (told, end) = told(&input).await;
        assert_eq!(told, [(kind::RST_STREAM, code)], "{what}");
        assert!(end.is_ok(), "{what}: {end:?}");
    }
    let fine = [
        ("an unknown frame", bytes(99, 255, 5, b"x")),
        ("a priority", bytes(kind::PRIORITY, 0, 3, &[0, 0, 0, 1, 1])),
        (
            "frames of a stream that was refused",
            [bytes(kind::HEADERS, flag::END_HEADERS, 1, b"\x83"), bytes(kind::DATA, 0, 1, b"x")].concat(),
        ),
        (
            "trailers",
            after(&open, bytes(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, b"\0\x01x\x01y")),
        ),
    ];
    for (what, input) in fine {
        let (told, end) = told(&input).await;
        assert!(
            told.iter().all(|(kind, _)| *kind == kind::RST_STREAM) && end.is_ok(),
            "{what}: {told:?} {end:?}"
        );
    }
    let (mut client, served) = start(SETTINGS);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(served.await.unwrap(), Err(Error::Violation(_))));
}

/// Frames that make some sense, with mistakes.
fn some_frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        Just(head(b"")),
        Just(vec![0; 4]),
        Just(vec![0; 8]),
        proptest::collection::vec(any::<u8>(), 0..50),
    ];
    let one = (0_u8..11, any::<u8>(), 0_u32..8, payload).prop_map(|(k, f, s, p)| bytes(k, f & 0x2d, s, &p));
    proptest::collection::vec(one, 0..40).prop_map(|frames| frames.concat())
}

proptest! {
    #[test]
    fn whatever_a_client_sends_ends_in_an_orderly_way(input in some_frames()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let end = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(20), told(&input)).await.map(|(_, end)| end)
        });
        prop_assert!(matches!(end, Ok(Ok(()) | Err(Error::Violation(_)))), "{:?}", end);
    }

    #[test]
    fn answers_do_not_depend_on_how_the_input_is_cut(input in some_frames(), cut in 1_usize..60) {
        let read = |size: usize| {
            let mut reader = super::reader::Reader::default();
            let mut frames = Vec::new();
            let all = [PREFACE, &input].concat();
            let end = all.chunks(size).try_for_each(|part| {
                reader.read(part, |header, payload| {
                    frames.push((header, payload.to_vec()));
                    Ok(())
                })
            });
            (frames, end)
        };
        prop_assert_eq!(read(cut), read(usize::MAX));
    }
}

#[test]
fn settings_names_are_those_of_the_specification() {
    assert_eq!(frame::reason(code::ENHANCE_YOUR_CALM), "ENHANCE_YOUR_CALM");
    assert_eq!(frame::reason(code::REFUSED_STREAM), "REFUSED_STREAM");
}
