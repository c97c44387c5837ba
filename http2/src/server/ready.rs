//! Which calls want to be polled, and whether the connection shall end.

use std::{
    future::poll_fn,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Wake, Waker},
};

use parking_lot::Mutex;

/// The calls of one connection that were woken. While the connection is at work, nobody has to wake its task: it looks here
/// before it rests.
#[derive(Debug, Default)]
pub struct Ready(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    streams: Vec<u32>,
    /// Whom to wake.
    task: Option<Waker>,
    /// Whether it has to be woken: it is not while the connection is at work.
    resting: bool,
    end: End,
}

/// How near its end a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Nobody has asked for it.
    #[default]
    Far,
    /// It shall leave in an orderly way.
    Asked,
    /// It ends now.
    Now,
}

/// A hold on a connection from elsewhere: before it is served, while it is, and when it has ended.
#[derive(Clone, Debug, Default)]
pub struct Handle(Arc<Ready>);

// === impl Handle ===

impl Handle {
    /// The client is asked to open no more streams, and all calls are polled: they may want to end. The connection ends with the
    /// last one, or when its grace is over.
    pub fn leave(&self) {
        self.0.end(End::Asked);
    }

    /// The connection ends.
    pub fn cut(&self) {
        self.0.end(End::Now);
    }

    /// Whether one of them was called.
    pub fn is_leaving(&self) -> bool {
        self.0.0.lock().end != End::Far
    }

    /// Waits for that. Only for what comes before the connection is served, such as a handshake: afterwards the connection itself
    /// is woken.
    pub async fn leaving(&self) {
        poll_fn(|cx| {
            let asked = !self.0.rest(cx.waker(), End::Far);
            if asked { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    pub(super) fn ready(self) -> Arc<Ready> {
        self.0
    }
}

// === impl Ready ===

impl Ready {
    /// The connection is at work. Tells how near its end is.
    pub fn work(&self) -> End {
        let mut state = self.0.lock();
        state.resting = false;
        state.end
    }

    fn end(&self, end: End) {
        let mut state = self.0.lock();
        state.end = state.end.max(end);
        state.wake();
    }

    /// The calls that were woken, into `streams`, which has to be empty.
    pub fn take(&self, streams: &mut Vec<u32>) {
        mem::swap(&mut self.0.lock().streams, streams);
    }

    /// The connection rests, unless a call was woken meanwhile or its end is nearer than it knows. `task` is woken then.
    #[must_use]
    pub fn rest(&self, task: &Waker, known: End) -> bool {
        let mut state = self.0.lock();
        state.resting = state.streams.is_empty() && state.end == known;
        if state.resting && !state.task.as_ref().is_some_and(|known| known.will_wake(task)) {
            state.task = Some(task.clone());
        }
        state.resting
    }

    /// A waker for the call on this stream.
    pub fn waker(self: &Arc<Self>, stream: u32) -> (Waker, Arc<CallWaker>) {
        let waker = Arc::new(CallWaker { stream, listed: AtomicBool::new(false), ready: self.clone() });
        (waker.clone().into(), waker)
    }
}

impl State {
    fn wake(&mut self) {
        if mem::take(&mut self.resting)
            && let Some(task) = &self.task
        {
            task.wake_by_ref();
        }
    }
}

/// Lists its call.
#[derive(Debug)]
pub struct CallWaker {
    stream: u32,
    /// It is in the list.
    listed: AtomicBool,
    ready: Arc<Ready>,
}

impl CallWaker {
    /// The call is about to be polled: from here on it can be woken again.
    pub fn unlist(&self) {
        self.listed.store(false, Ordering::Release);
    }
}

impl Wake for CallWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.listed.swap(true, Ordering::AcqRel) {
            let mut state = self.ready.0.lock();
            state.streams.push(self.stream);
            state.wake();
        }
    }
}
