//! How a stream holds on to the pipeline: it attaches with its proxy, reads the newest snapshot of its class, and
//! detaches when dropped.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Follower, ResourceType, Version};
use crate::model::node::Proxy;

/// One stream, for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What streams tell the pipeline.
#[derive(Debug)]
pub enum Command {
    /// A proxy is there; the answer follows its class, also when that changes later (a pod that becomes known, a
    /// policy that makes its locality matter).
    Attach(StreamId, Arc<Proxy>, oneshot::Sender<Follower>),
    /// It is gone.
    Detach(StreamId),
    /// It refused something.
    Nack(StreamId, Nack),
}

/// A refused resource, attributed by Envoy's words.
#[derive(Clone, Debug)]
pub struct Nack {
    /// Its type.
    pub kind: ResourceType,
    /// Its name.
    pub name: Arc<str>,
    /// The version that was refused.
    pub version: Version,
    /// Envoy's reason.
    pub reason: Arc<str>,
}

/// The pipeline is gone: the process is ending.
#[derive(Debug, Error)]
#[error("the control plane is shutting down; connect again, to another replica if there is one")]
pub struct Closed;

/// So many streams may wait for the pipeline at once; the others wait for one of them. A server that starts meets all
/// its proxies in a second, and changes must not stand behind thousands of them.
const TURNS: usize = 64;

/// Where streams attach.
#[derive(Clone, Debug)]
pub struct Attacher {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    next: AtomicU64,
    turns: Semaphore,
}

/// A stream's hold on the pipeline.
#[derive(Debug)]
pub struct Attachment {
    id: StreamId,
    snapshots: Follower,
    commands: mpsc::UnboundedSender<Command>,
}

// === impl Attacher ===

impl Attacher {
    /// Also returns what the pipeline reads. Its length is bounded without a limit: a stream has its turn to attach,
    /// detaches once, and reports what it refused of what it was sent.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let shared = Shared { next: AtomicU64::new(0), turns: Semaphore::new(TURNS) };
        (Self { commands, shared: Arc::new(shared) }, receiver)
    }

    /// Attaches a proxy; returns when the pipeline has a snapshot for it.
    pub async fn attach(&self, proxy: Arc<Proxy>) -> Result<Attachment, Closed> {
        let _turn = self.shared.turns.acquire().await.map_err(|_| Closed)?;
        let id = StreamId(self.shared.next.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Attach(id, proxy, answer)).map_err(|_| Closed)?;
        let snapshots = answered.await.map_err(|_| Closed)?;
        Ok(Attachment { id, snapshots, commands: self.commands.clone() })
    }
}

// === impl Attachment ===

impl Attachment {
    /// This stream.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// The snapshots of its proxy's class.
    pub fn snapshots(&self) -> &Follower {
        &self.snapshots
    }

    /// Reports a refused resource.
    pub fn nack(&self, nack: Nack) {
        // The pipeline being gone is noticed by `changed`.
        let _ = self.commands.send(Command::Nack(self.id, nack));
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Detach(self.id));
    }
}
