//! gRPC for the calls that are hot, on our own HTTP/2.
//!
//! ```text
//! Incoming --Messages--> your Stream of messages --> Body: shared Bytes in DATA frames, then trailers
//! ```
//!
//! A call is polled by its connection's task, with the response's body: there is no second task, no channel, and
//! bytes that were encoded once are sent as they are. What is not hot stays on tonic behind the same [`Router`].
//! Messages are never compressed.

mod body;
mod messages;
mod pace;
mod router;
mod unary;

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use prost::Message;
use tonic::Status;

pub use body::{Body, streaming};
pub use messages::{Messages, read, unreadable};
pub use pace::Pace;
pub use router::Router;
pub use unary::unary;

/// The largest request. gRPC's default, and istiod's.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;

/// The length of what stands before each message: a flag for compression, and the message's length.
pub const PREFIX: usize = 5;

/// What stands before a message of `len` bytes. `len` must be less than 4 GiB.
pub fn prefix(len: usize) -> [u8; PREFIX] {
    let [a, b, c, d] = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    [0, a, b, c, d]
}

/// One message as it stands on the wire.
pub fn encode(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + len);
    bytes.put_slice(&prefix(len));
    message.encode_raw(&mut bytes);
    bytes.freeze()
}

/// The answer to a call that ends before it has begun: a status and nothing else.
pub fn refuse(status: &Status) -> Response<Body> {
    let mut response = response(Body::empty());
    *response.headers_mut() = trailers(status);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

fn trailers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(2);
    if status.add_header(&mut headers).is_err() {
        // Only details that are no header value; the code says enough.
        headers.insert(Status::GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    headers
}

/// How long the client will wait (`grpc-timeout`), if it says so in words that gRPC knows.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

fn too_late() -> Status {
    Status::deadline_exceeded("the time that the client gave (grpc-timeout) is over")
}

#[cfg(test)]
mod tests;
