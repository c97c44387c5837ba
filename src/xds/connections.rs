//! The connections of one port, as somebody sees them who has to end some of them.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use lean_http2::server::Handle;
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
    /// What ends it.
    pub handle: Handle,
    /// When it has lived long enough.
    end: Option<Instant>,
    calls: Mutex<Vec<Weak<Pace>>>,
}

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
        let others = open.values().filter(|connection| !connection.handle.is_leaving());
        others.take(count).map(|connection| connection.handle.leave()).count()
    }

    /// Asks all of them to end.
    pub fn close(&self) {
        self.open.lock().values().for_each(|connection| connection.handle.leave());
    }

    /// Asks those to end that have lived long enough.
    pub fn close_old(&self, now: Instant) {
        let open = self.open.lock();
        let old = open.values().filter(|connection| connection.end.is_some_and(|end| end <= now));
        old.for_each(|connection| connection.handle.leave());
    }

    /// Cuts all of them.
    pub fn abort(&self) {
        self.open.lock().values().for_each(|connection| connection.handle.cut());
    }

    /// Cuts those whose client has taken nothing for so long although something waits for it; returns how many.
    pub fn cut_stalled(&self, patience: Duration) -> usize {
        let open = self.open.lock();
        let stalled = open.values().filter(|connection| connection.stalled(patience));
        stalled.map(|connection| connection.handle.cut()).count()
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
