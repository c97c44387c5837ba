//! Responses as HTTP/2 takes them.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Sleep, sleep};
use tonic::Status;

use super::{Pace, response, too_late, trailers};

/// The body of a response.
#[derive(Default)]
pub struct Body(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    /// One message; trailers say that all is well.
    Message(Bytes),
    /// Such trailers.
    Done,
    Streaming(Box<dyn Chunks>),
    Tonic(tonic::body::Body),
}

type Polled = Poll<Option<Result<Frame<Bytes>, Status>>>;

trait Chunks: Send {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Polled;
}

// === impl Body ===

impl Body {
    /// Nothing: the headers say it all.
    pub fn empty() -> Self {
        Self::default()
    }

    /// One message with its prefix, and the status OK.
    pub fn message(bytes: Bytes) -> Self {
        Self(Kind::Message(bytes))
    }
}

impl From<tonic::body::Body> for Body {
    fn from(body: tonic::body::Body) -> Self {
        Self(Kind::Tonic(body))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        match std::mem::take(&mut self.0) {
            Kind::Empty => Poll::Ready(None),
            Kind::Message(bytes) => {
                self.0 = Kind::Done;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Done => Poll::Ready(Some(Ok(Frame::trailers(trailers(&Status::ok("")))))),
            Kind::Streaming(mut chunks) => {
                let polled = chunks.poll_chunk(cx);
                self.0 = Kind::Streaming(chunks);
                polled
            }
            Kind::Tonic(mut body) => {
                let polled = Pin::new(&mut body).poll_frame(cx);
                self.0 = Kind::Tonic(body);
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Message(_) | Kind::Done | Kind::Streaming(_) => false,
            Kind::Tonic(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Tonic(body) => body.size_hint(),
            Kind::Message(_) | Kind::Done | Kind::Streaming(_) => SizeHint::default(),
        }
    }
}

/// A call that answers with many messages: `call` sends them through its outlet and returns the status.
///
/// It is polled as the response's body, so it does nothing while the client takes nothing. A message is an iterator of
/// chunks that are made when there is room for them. `patience`: the client's own, see [`super::timeout`].
pub fn streaming<P, F>(
    pace: Arc<Pace>,
    patience: Option<Duration>,
    call: impl FnOnce(Outlet<P>) -> F,
) -> Response<Body>
where
    P: Iterator<Item = Bytes> + Send + Unpin + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let slot = Arc::new(Mutex::new(None));
    let call = Box::pin(call(Outlet(slot.clone())));
    let end = patience.map(|patience| Box::pin(sleep(patience)));
    let streaming = Streaming { pace, slot, end, chunks: None, call: Some(call), status: None };
    response(Body(Kind::Streaming(Box::new(streaming))))
}

type Slot<P> = Arc<Mutex<Option<P>>>;

/// Where a call puts its messages.
#[derive(Debug)]
pub struct Outlet<P>(Slot<P>);

impl<P> Outlet<P> {
    /// Sends a message; returns when HTTP/2 has taken all of it and has room again.
    pub async fn send(&self, message: P) {
        *self.0.lock() = Some(message);
        // Nobody has to wake us: the body empties the slot, and polls again when the chunks have gone.
        poll_fn(|_| if self.0.lock().is_some() { Poll::Pending } else { Poll::Ready(()) }).await;
    }
}

struct Streaming<P> {
    pace: Arc<Pace>,
    slot: Slot<P>,
    end: Option<Pin<Box<Sleep>>>,
    /// What is left of the message that is being sent.
    chunks: Option<P>,
    /// None when it is done.
    call: Option<BoxFuture<'static, Result<(), Status>>>,
    status: Option<Status>,
}

impl<P: Iterator<Item = Bytes> + Send + Unpin> Chunks for Streaming<P> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Polled {
        self.pace.taken();
        loop {
            if let Some(chunk) = self.chunks.as_mut().and_then(Iterator::next) {
                self.pace.handed();
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            self.chunks = None;
            if let Some(status) = self.status.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))));
            }
            let Some(call) = &mut self.call else { return Poll::Ready(None) };
            let polled = call.as_mut().poll(cx);
            self.chunks = self.slot.lock().take();
            match (polled, &mut self.end) {
                (Poll::Ready(done), _) => self.end_with(done.err().unwrap_or_else(|| Status::ok(""))),
                (Poll::Pending, _) if self.chunks.is_some() => {}
                (Poll::Pending, None) => return Poll::Pending,
                (Poll::Pending, Some(end)) => {
                    ready!(end.as_mut().poll(cx));
                    self.end_with(too_late());
                }
            }
        }
    }
}

impl<P> Streaming<P> {
    fn end_with(&mut self, status: Status) {
        self.status = Some(status);
        self.call = None;
    }
}
