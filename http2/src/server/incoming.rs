//! The body of a request.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use parking_lot::Mutex;

/// The body of a request, as it comes. Trailers of requests are passed over.
#[derive(Debug)]
pub struct Incoming(Arc<Inbox>);

/// The request will not be completed: the client took it back, or the connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client ended the call, or its connection ended")]
pub struct Reset;

/// What came and was not read.
#[derive(Debug)]
pub struct Inbox {
    state: Mutex<State>,
    /// Asks the connection to look at what was read.
    call: Waker,
    /// So much has to be read to ask for that.
    worth: usize,
}

#[derive(Debug, Default)]
struct State {
    /// What came first. Nearly always there is no more, and a list would keep its memory.
    next: Option<Bytes>,
    /// What came after it.
    more: VecDeque<Bytes>,
    end: Option<Result<(), Reset>>,
    reader: Option<Waker>,
    /// Bytes read that the connection does not know of.
    read: usize,
}

impl Inbox {
    /// Empty so far.
    pub fn new(call: Waker, worth: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), call, worth })
    }

    /// What reads from here.
    pub fn incoming(self: &Arc<Self>) -> Incoming {
        Incoming(self.clone())
    }

    /// More of the body.
    pub fn put(&self, part: &[u8]) {
        let mut state = self.state.lock();
        let part = Bytes::copy_from_slice(part);
        match state.next {
            None => state.next = Some(part),
            Some(_) => state.more.push_back(part),
        }
        state.wake();
    }

    /// There is no more of it.
    pub fn end(&self, how: Result<(), Reset>) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.end = Some(how);
            state.wake();
        }
    }

    /// How many bytes were read since this was asked last.
    pub fn read(&self) -> usize {
        std::mem::take(&mut self.state.lock().read)
    }
}

impl State {
    fn wake(&self) {
        if let Some(reader) = &self.reader {
            reader.wake_by_ref();
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Reset;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reset>>> {
        let mut state = self.0.state.lock();
        // What is there of a call that was taken back is of no use any more.
        if let Some(Err(reset)) = state.end {
            return Poll::Ready(Some(Err(reset)));
        }
        if let Some(part) = state.next.take() {
            state.next = state.more.pop_front();
            state.read += part.len();
            let worth = state.read >= self.0.worth;
            drop(state);
            if worth {
                self.0.call.wake_by_ref();
            }
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        if state.end.is_some() {
            return Poll::Ready(None);
        }
        if !state.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            state.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.state.lock();
        state.next.is_none() && state.end == Some(Ok(()))
    }
}
