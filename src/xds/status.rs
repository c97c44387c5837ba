//! What is known of the connected streams, for `/debug/syncz`, `proxy-status` and people.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use parking_lot::Mutex;

use super::{
    frame::{Nonce, Protocol},
    kind::Kind,
};
use crate::{
    model::{identity::Spiffe, node::Proxy},
    snapshot::Snapshot,
};

/// All connected streams.
#[derive(Debug, Default)]
pub struct Streams {
    next: AtomicU64,
    streams: Mutex<BTreeMap<u64, Arc<StreamStatus>>>,
}

/// One stream.
#[derive(Debug)]
pub struct StreamStatus {
    /// Unique in the process, in the order of connection.
    pub id: u64,
    /// The proxy, as its node says.
    pub proxy: Arc<Proxy>,
    /// Where it connected from.
    pub peer: SocketAddr,
    /// Who it has proved to be.
    pub identity: Option<Spiffe>,
    /// The form of the stream.
    pub protocol: Protocol,
    /// When it connected.
    pub connected: SystemTime,
    state: Mutex<State>,
}

/// What changes with each push.
#[derive(Debug)]
struct State {
    snapshot: Arc<Snapshot>,
    bytes: u64,
    /// Nothing is left to send.
    settled: bool,
    /// Of most types most streams never hear.
    kinds: [Option<Box<KindStatus>>; Kind::ALL.len()],
}

/// One type on a stream.
#[derive(Clone, Debug, Default)]
pub struct KindStatus {
    /// Names asked for.
    pub names: usize,
    /// Whether everything is asked for.
    pub wildcard: bool,
    /// The newest response.
    pub sent: Option<Mark>,
    /// The newest response that was accepted.
    pub acked: Option<Mark>,
    /// Nothing had to be sent: the proxy came with everything it asks for, as it is now.
    pub kept: bool,
    /// The newest refusal: the proxy's words, and when.
    pub refused: Option<Box<(String, SystemTime)>>,
}

/// A response.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Its nonce.
    pub nonce: Nonce,
    /// The epoch of its snapshot.
    pub epoch: u64,
    /// When it was sent or accepted.
    pub at: SystemTime,
}

/// Keeps a stream in the list until dropped.
#[derive(Debug)]
pub struct Connected {
    all: Arc<Streams>,
    /// Its entry.
    pub status: Arc<StreamStatus>,
}

impl Streams {
    /// Adds a stream.
    pub fn connect(
        self: &Arc<Self>,
        proxy: Arc<Proxy>,
        peer: SocketAddr,
        identity: Option<Spiffe>,
        protocol: Protocol,
        snapshot: Arc<Snapshot>,
    ) -> Connected {
        let status = Arc::new(StreamStatus {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            proxy,
            peer,
            identity,
            protocol,
            connected: SystemTime::now(),
            state: Mutex::new(State { snapshot, bytes: 0, settled: false, kinds: Default::default() }),
        });
        self.streams.lock().insert(status.id, status.clone());
        Connected { all: self.clone(), status }
    }

    /// All, in the order in which they connected.
    pub fn list(&self) -> Vec<Arc<StreamStatus>> {
        self.streams.lock().values().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.streams.lock().len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.all.streams.lock().remove(&self.status.id);
    }
}

impl StreamStatus {
    /// One type.
    pub fn kind(&self, kind: Kind) -> KindStatus {
        let state = self.state.lock();
        let known = state.kinds[kind.index()].as_deref().cloned().unwrap_or_default();
        // What was subscribed and never sent, the proxy had already. Not so for secrets, which may be withheld.
        let kept = kind != Kind::Secret && known.sent.is_none() && (known.names > 0 || known.wildcard);
        KindStatus { kept: kept && state.settled, ..known }
    }

    /// The bytes of all responses so far, before HTTP/2.
    pub fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// The newest snapshot of the proxy's class that the stream saw. Secrets are not in it.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.state.lock().snapshot.clone()
    }

    pub(super) fn saw(&self, snapshot: Arc<Snapshot>) {
        self.state.lock().snapshot = snapshot;
    }

    pub(crate) fn update(&self, kind: Kind, change: impl FnOnce(&mut KindStatus)) {
        change(self.state.lock().kinds[kind.index()].get_or_insert_default());
    }

    /// Whether nothing is left to send.
    pub(super) fn settled(&self, settled: bool) {
        self.state.lock().settled = settled;
    }

    /// A response leaves.
    pub(super) fn sent(&self, kind: Kind, mark: Mark, bytes: usize) {
        let mut state = self.state.lock();
        state.kinds[kind.index()].get_or_insert_default().sent = Some(mark);
        state.bytes += bytes as u64;
    }
}
