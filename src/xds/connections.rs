//! The connections of one port, as somebody sees them who has to end some of them.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::grpc::Pace;

/// All that are open.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
}

/// One connection.
#[derive(Debug, Default)]
pub struct Connection {
    /// How near its end is: 0, [`CLOSING`] or [`CUT`]. Its streams look at it whenever they are polled.
    end_stage: AtomicU8,
    /// Its task.
    task: AtomicWaker,
    /// When it has lived long enough.
    end: Option<Instant>,
    calls: Mutex<Vec<Weak<Pace>>>,
}

/// It shall end: streams on it say good-bye.
const CLOSING: u8 = 1;
/// It ends now.
const CUT: u8 = 2;

/// Keeps a connection in the list until dropped.
#[derive(Debug)]
pub struct Open {
    all: Arc<Connections>,
    key: u64,
    /// The connection.
    pub connection: Arc<Connection>,
}

// === impl Connections ===

impl Connections {
    /// Adds a connection. `key`: never used before. `end`: when it has lived long enough.
    pub fn open(self: &Arc<Self>, key: u64, end: Option<Instant>) -> Open {
        let connection = Arc::new(Connection { end, ..Connection::default() });
        self.open.lock().insert(key, connection.clone());
        Open { all: self.clone(), key, connection }
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// Asks some of them to end; returns how many, if so many were not asked before.
    pub fn shed(&self, count: usize) -> usize {
        let open = self.open.lock();
        // A map's order is as good as chance.
        let others = open.values().filter(|connection| !connection.is_closing());
        others.take(count).map(|connection| connection.close()).count()
    }

    /// Asks all of them to end.
    pub fn close(&self) {
        self.open.lock().values().for_each(|connection| connection.close());
    }

    /// Asks those to end that have lived long enough.
    pub fn close_old(&self, now: Instant) {
        let open = self.open.lock();
        let old = open.values().filter(|connection| connection.end.is_some_and(|end| end <= now));
        old.for_each(|connection| connection.close());
    }

    /// Cuts all of them.
    pub fn abort(&self) {
        self.open.lock().values().for_each(|connection| connection.cut());
    }

    /// Cuts those whose client has taken nothing for so long although something waits for it; returns how many.
    pub fn cut_stalled(&self, patience: Duration) -> usize {
        let open = self.open.lock();
        let stalled = open.values().filter(|connection| connection.stalled(patience));
        stalled.map(|connection| connection.cut()).count()
    }
}

// === impl Connection ===

impl Connection {
    /// A new call on it.
    pub fn call(&self) -> Arc<Pace> {
        let pace = Arc::new(Pace::default());
        let mut calls = self.calls.lock();
        calls.retain(|call| call.strong_count() > 0);
        calls.push(Arc::downgrade(&pace));
        pace
    }

    /// Asks it to end.
    pub fn close(&self) {
        self.advance_to(CLOSING);
    }

    fn cut(&self) {
        self.advance_to(CUT);
    }

    fn advance_to(&self, stage: u8) {
        self.end_stage.fetch_max(stage, Ordering::AcqRel);
        self.task.wake();
    }

    /// Whether it was asked to end. Its streams are polled when it is.
    pub fn is_closing(&self) -> bool {
        self.end_stage.load(Ordering::Acquire) >= CLOSING
    }

    /// Waits until it is asked to end. Only for its own task.
    pub fn closing(&self) -> impl Future<Output = ()> {
        self.reaches(CLOSING)
    }

    /// Waits until it is cut. Only for its own task.
    pub fn cutting(&self) -> impl Future<Output = ()> {
        self.reaches(CUT)
    }

    fn reaches(&self, stage: u8) -> impl Future<Output = ()> {
        poll_fn(move |cx| {
            self.task.register(cx.waker());
            if self.end_stage.load(Ordering::Acquire) >= stage { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    fn stalled(&self, patience: Duration) -> bool {
        self.calls.lock().iter().filter_map(Weak::upgrade).any(|call| call.stalled(patience))
    }
}

// === impl Open ===

impl Drop for Open {
    fn drop(&mut self) {
        self.all.open.lock().remove(&self.key);
    }
}
