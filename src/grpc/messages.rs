//! The messages of a request, one after the other.

use std::{
    fmt::Display,
    future::poll_fn,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use lean_http2::server::Incoming;
use prost::Message;
use tonic::Status;

use super::PREFIX;

/// So much room is made for a message before it has come. A client may announce 4 MiB and send none of it.
const ROOM: usize = 128 * 1024;

/// Cuts a body into messages. Keeps nothing between two of them.
#[derive(Debug)]
pub struct Messages<B = Incoming> {
    body: B,
    /// Read and not handed out yet.
    rest: Bytes,
    /// The beginning of a message that came in several parts.
    part: BytesMut,
    limit: usize,
    encoding: Option<Box<str>>,
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Reads `body`, whose request had these `headers`; refuses messages of more than `limit` bytes.
    pub fn new(headers: &HeaderMap, body: B, limit: usize) -> Self {
        let encoding = headers.get("grpc-encoding").and_then(|value| value.to_str().ok());
        let encoding = encoding.filter(|name| *name != "identity").map(Box::from);
        Self { body, rest: Bytes::new(), part: BytesMut::new(), limit, encoding }
    }

    /// The next message, to be read by [`read`]; none after the last one. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same, as a poll.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if let Some(message) = self.cut()? {
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                // Trailers of a request mean nothing to gRPC.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.push(data),
                    Err(_) => continue,
                },
                // The client is gone, or it has reset the stream.
                Some(Err(_)) => return Poll::Ready(Err(Status::cancelled("the client ended the call"))),
                None if self.part.is_empty() && self.rest.is_empty() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(unreadable("it ends within a message"))),
            }
        }
    }

    fn push(&mut self, data: Bytes) {
        if self.part.is_empty() {
            self.rest = data;
        } else {
            self.part.extend_from_slice(&data);
        }
    }

    fn cut(&mut self) -> Result<Option<Bytes>, Status> {
        let read: &[u8] = if self.part.is_empty() { &self.rest } else { &self.part };
        let Some((prefix, _)) = read.split_first_chunk::<PREFIX>() else {
            self.keep(PREFIX);
            return Ok(None);
        };
        let [flag, length @ ..] = *prefix;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        self.check(flag, length)?;
        if read.len() - PREFIX < length {
            self.keep(PREFIX + length);
            return Ok(None);
        }
        if !self.part.is_empty() {
            self.rest = mem::take(&mut self.part).freeze();
        }
        // An empty slice would keep the whole buffer.
        let is_all = self.rest.len() == PREFIX + length;
        let mut message =
            if is_all { mem::take(&mut self.rest) } else { self.rest.split_to(PREFIX + length) };
        message.advance(PREFIX);
        Ok(Some(message))
    }

    /// What is there of `whole` bytes is not enough: the next ones are appended to it.
    fn keep(&mut self, whole: usize) {
        if !self.rest.is_empty() {
            self.part.reserve(whole.min(ROOM));
            self.part.extend_from_slice(&mem::take(&mut self.rest));
        }
    }

    fn check(&self, flag: u8, length: usize) -> Result<(), Status> {
        match (flag, self.encoding.as_deref()) {
            (0, _) => {}
            (1, Some(name)) => {
                let name: String = name.chars().take(50).collect();
                let mut status = Status::unimplemented(format!(
                    "a request is compressed with {name:?}; send it uncompressed"
                ));
                let accepted = tonic::metadata::MetadataValue::from_static("identity");
                status.metadata_mut().insert("grpc-accept-encoding", accepted);
                return Err(status);
            }
            (1, None) => {
                return Err(Status::internal(
                    "a request is compressed, and nothing says how (grpc-encoding)",
                ));
            }
            _ => return Err(unreadable("it does not begin as gRPC messages do")),
        }
        if length > self.limit {
            return Err(Status::resource_exhausted(format!(
                "a request is too large: {length} bytes, the limit is {}",
                self.limit
            )));
        }
        Ok(())
    }
}

/// A request that is no message.
pub fn unreadable(why: impl Display) -> Status {
    Status::invalid_argument(format!("a request cannot be read: {why}"))
}

/// Reads one of [`Messages`].
pub fn read<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(unreadable)
}

/// The only message of a request.
pub(super) async fn only<M, B>(messages: &mut Messages<B>) -> Result<M, Status>
where
    M: Message + Default,
    B: Body<Data = Bytes> + Unpin,
{
    let one = || Status::unimplemented("this method takes exactly one message");
    let message = messages.next().await.and_then(|first| first.ok_or_else(one))?;
    let more = messages.next().await?;
    if more.is_some() { Err(one()) } else { read(message) }
}
