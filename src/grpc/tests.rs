use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::{FutureExt, StreamExt, stream};
use http_body::{Body as HttpBody, Frame};
use landbridge_proto::envoy::service::discovery::v3::DiscoveryRequest;
use tokio::sync::Notify;
use tonic::Code;

use super::*;

/// Data as it comes.
struct Parts(VecDeque<Bytes>);

impl HttpBody for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }
}

fn request(url: &str) -> DiscoveryRequest {
    DiscoveryRequest { type_url: url.into(), ..Default::default() }
}

fn urls(parts: Vec<Bytes>, headers: &HeaderMap) -> (Vec<String>, Result<(), Status>) {
    let mut messages = Messages::new(headers, Parts(parts.into()), 100);
    let mut urls = Vec::new();
    loop {
        match messages.next().now_or_never().expect("all parts are there") {
            Ok(Some(message)) => match read::<DiscoveryRequest>(message) {
                Ok(request) => urls.push(request.type_url),
                Err(status) => return (urls, Err(status)),
            },
            Ok(None) => return (urls, Ok(())),
            Err(status) => return (urls, Err(status)),
        }
    }
}

#[test]
fn messages_are_read_however_they_are_cut() {
    let all: Vec<u8> = ["a", "", "ccc"].iter().flat_map(|url| encode(&request(url))).collect();
    for size in 1..=all.len() {
        let parts = all.chunks(size).map(Bytes::copy_from_slice).collect();
        let (urls, end) = urls(parts, &HeaderMap::new());
        assert_eq!(urls, ["a", "", "ccc"], "in parts of {size}");
        assert!(end.is_ok());
    }
    for missing in 1..8 {
        let cut = Bytes::copy_from_slice(&all[..all.len() - missing]);
        let (urls, end) = urls(vec![cut], &HeaderMap::new());
        assert_eq!(urls, ["a", ""]);
        assert_eq!(end.expect_err("cut").code(), Code::InvalidArgument);
    }
}

#[test]
fn what_is_no_message_is_refused_with_the_code_for_it() {
    let code = |bytes: Vec<u8>, headers: &HeaderMap| {
        urls(vec![bytes.into()], headers).1.map_err(|status| status.code()).expect_err("refused")
    };
    let none = HeaderMap::new();
    let gzip = HeaderMap::from_iter([("grpc-encoding".parse().unwrap(), HeaderValue::from_static("gzip"))]);
    assert_eq!(code(vec![1, 0, 0, 0, 0], &none), Code::Internal);
    assert_eq!(code(vec![1, 0, 0, 0, 0], &gzip), Code::Unimplemented);
    assert_eq!(code(vec![7, 0, 0, 0, 0], &none), Code::InvalidArgument);
    assert_eq!(code(vec![0, 0, 0, 0, 101], &none), Code::ResourceExhausted, "before its bytes are there");
    assert_eq!(code(vec![0, 255, 255, 255, 255], &none), Code::ResourceExhausted);
    assert_eq!(code(vec![0, 0, 0, 0, 1, 255], &none), Code::InvalidArgument);
    // Not every message has to be compressed.
    let plain = encode(&request("a"));
    assert_eq!(urls(vec![plain], &gzip).0, ["a"]);
}

/// What a body gives now: data as text, trailers as their status.
fn poll(body: &mut Body) -> Option<String> {
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(body).poll_frame(&mut cx) {
        Poll::Pending => Some("pending".into()),
        Poll::Ready(None) => None,
        Poll::Ready(Some(frame)) => match frame.expect("bodies do not fail").into_data() {
            Ok(data) => Some(String::from_utf8_lossy(&data).into_owned()),
            Err(frame) => {
                let trailers = frame.into_trailers().expect("data or trailers");
                let status = Status::from_header_map(&trailers).expect("a status");
                Some(format!("{:?} {}", status.code(), status.message()))
            }
        },
    }
}

#[tokio::test]
async fn a_call_goes_on_when_the_client_has_taken_what_it_sent() {
    let (pace, more) = (Arc::new(Pace::default()), Arc::new(Notify::new()));
    let again = more.clone();
    let chunks = |all: &'static [&'static str]| all.iter().map(|c| Bytes::from_static(c.as_bytes()));
    let one = stream::iter([Ok(chunks(&["a", "b"])), Ok(chunks(&["c"]))]);
    let later = stream::once(Box::pin(async move {
        again.notified().await;
        Ok(chunks(&["d"]))
    }));
    let end = stream::iter([Err(Status::unavailable("50 % done"))]);
    let response = streaming(pace.clone(), None, one.chain(later).chain(end));
    let mut body = response.into_body();
    assert_eq!(poll(&mut body).as_deref(), Some("a"));
    assert!(pace.stalled(Duration::ZERO) && !pace.stalled(Duration::from_secs(1000)));
    assert_eq!(poll(&mut body).as_deref(), Some("b"));
    assert_eq!(poll(&mut body).as_deref(), Some("c"));
    assert_eq!(poll(&mut body).as_deref(), Some("pending"));
    assert!(!pace.stalled(Duration::ZERO), "nothing waits for the client");
    more.notify_one();
    assert_eq!(poll(&mut body).as_deref(), Some("d"));
    assert_eq!(poll(&mut body).as_deref(), Some("Unavailable 50 % done"));
    assert_eq!(poll(&mut body), None);
}

#[tokio::test]
async fn a_call_ends_when_its_client_waits_no_longer() {
    let headers = HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), HeaderValue::from_static("20m"))]);
    let patience = timeout(&headers);
    assert_eq!(patience, Some(Duration::from_millis(20)));
    let never = stream::pending::<Result<std::iter::Empty<Bytes>, Status>>();
    let mut body = streaming(Arc::default(), patience, never).into_body();
    assert_eq!(poll(&mut body).as_deref(), Some("pending"));
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert!(poll(&mut body).is_some_and(|end| end.starts_with("DeadlineExceeded")));
}

#[test]
fn timeouts_are_read_as_the_specification_writes_them() {
    let read = |text: &'static str| {
        timeout(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), HeaderValue::from_static(text))]))
    };
    assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
    assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
    for wrong in ["", "S", "-1S", "1", "123456789S", "1 S", "1x"] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
}
