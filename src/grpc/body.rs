//! Responses as HTTP/2 takes them.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use lean_http2::fetch;
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
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Message(bytes) => {
                let bytes = mem::take(bytes);
                self.0 = Kind::Done;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Done => {
                self.0 = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::trailers(trailers(&Status::ok(""))))))
            }
            Kind::Streaming(chunks) => chunks.poll_chunk(cx),
            Kind::Tonic(body) => Pin::new(body).poll_frame(cx),
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

/// A call that answers with many messages; its error is the status, if it ends with one.
///
/// It is polled as the response's body, so it does nothing while the client takes nothing. A message is an iterator of
/// chunks that are made when there is room for them. `patience`: the client's own, see [`super::timeout`].
pub fn streaming<P, S>(pace: Arc<Pace>, patience: Option<Duration>, messages: S) -> Response<Body>
where
    P: Iterator<Item = Bytes> + Send + 'static,
    S: Stream<Item = Result<P, Status>> + Send + Unpin + 'static,
{
    let end = patience.map(|patience| Box::pin(sleep(patience)));
    let streaming = Streaming { pace, end, chunks: None, messages: Some(messages) };
    response(Body(Kind::Streaming(Box::new(streaming))))
}

struct Streaming<P, S> {
    pace: Arc<Pace>,
    end: Option<Pin<Box<Sleep>>>,
    /// What is left of the message that is being sent.
    chunks: Option<P>,
    /// None when it is done.
    messages: Option<S>,
}

impl<P, S> Chunks for Streaming<P, S>
where
    P: Iterator<Item = Bytes> + Send,
    S: Stream<Item = Result<P, Status>> + Send + Unpin,
{
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Polled {
        fetch(self);
        self.pace.taken();
        let mut chunks = self.chunks.take();
        loop {
            if let Some(mut chunks) = chunks
                && let Some(chunk) = chunks.next()
            {
                self.chunks = (chunks.size_hint().1 != Some(0)).then_some(chunks);
                self.pace.handed();
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            let Some(messages) = &mut self.messages else { return Poll::Ready(None) };
            let status = match messages.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    chunks = Some(message);
                    continue;
                }
                Poll::Ready(Some(Err(status))) => status,
                Poll::Ready(None) => Status::ok(""),
                Poll::Pending => {
                    let Some(end) = &mut self.end else { return Poll::Pending };
                    ready!(end.as_mut().poll(cx));
                    too_late()
                }
            };
            self.messages = None;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))));
        }
    }
}
