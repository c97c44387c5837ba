//! Which calls want to be polled.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
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
}

impl Ready {
    /// The connection is at work.
    pub fn work(&self) {
        self.0.lock().resting = false;
    }

    /// The calls that were woken, into `streams`, which has to be empty.
    pub fn take(&self, streams: &mut Vec<u32>) {
        mem::swap(&mut self.0.lock().streams, streams);
    }

    /// The connection rests, unless a call was woken meanwhile. `task` is woken when one is.
    #[must_use]
    pub fn rest(&self, task: &Waker) -> bool {
        let mut state = self.0.lock();
        state.resting = state.streams.is_empty();
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
            if std::mem::take(&mut state.resting)
                && let Some(task) = &state.task
            {
                task.wake_by_ref();
            }
        }
    }
}
