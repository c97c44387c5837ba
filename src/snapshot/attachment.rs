//! How a stream holds on to the pipeline: it attaches with its proxy, reads the newest snapshot of its class, and
//! detaches when dropped.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use super::{ResourceType, Snapshot, Version};
use crate::model::node::Proxy;

/// One stream, for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What streams tell the pipeline.
#[derive(Debug)]
pub enum Command {
    /// A proxy is there; the answer follows its class, also when that changes later (a pod that becomes known, a
    /// policy that makes its locality matter).
    Attach(StreamId, Arc<Proxy>, oneshot::Sender<watch::Receiver<ClassReceiver>>),
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

/// Snapshots of one class of proxies.
pub type ClassReceiver = watch::Receiver<Arc<Snapshot>>;

/// The pipeline is gone: the process is ending.
#[derive(Debug, Error)]
#[error("the control plane is shutting down; connect again, to another replica if there is one")]
pub struct Closed;

/// Where streams attach.
#[derive(Clone, Debug)]
pub struct Attacher {
    commands: mpsc::UnboundedSender<Command>,
    next: Arc<AtomicU64>,
}

/// A stream's hold on the pipeline.
#[derive(Debug)]
pub struct Attachment {
    id: StreamId,
    class: watch::Receiver<ClassReceiver>,
    snapshots: ClassReceiver,
    commands: mpsc::UnboundedSender<Command>,
}

// === impl Attacher ===

impl Attacher {
    /// Also returns what the pipeline reads. Unbounded, because each stream has at most a few commands under way.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (commands, receiver) = mpsc::unbounded_channel();
        (Self { commands, next: Arc::default() }, receiver)
    }

    /// Attaches a proxy; returns when the pipeline has a snapshot for it.
    pub async fn attach(&self, proxy: Arc<Proxy>) -> Result<Attachment, Closed> {
        let id = StreamId(self.next.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Attach(id, proxy, answer)).map_err(|_| Closed)?;
        let mut class = answered.await.map_err(|_| Closed)?;
        let snapshots = class.borrow_and_update().clone();
        Ok(Attachment { id, class, snapshots, commands: self.commands.clone() })
    }
}

// === impl Attachment ===

impl Attachment {
    /// This stream.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// The newest snapshot, marked as seen.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        if self.class.has_changed().unwrap_or(false) {
            self.snapshots = self.class.borrow_and_update().clone();
        }
        self.snapshots.borrow_and_update().clone()
    }

    /// Waits until [`Self::snapshot`] would give another one. May be dropped and called again.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        tokio::select! {
            moved = self.class.changed() => {
                moved.map_err(|_| Closed)?;
                self.snapshots = self.class.borrow_and_update().clone();
                Ok(())
            }
            changed = self.snapshots.changed() => match changed {
                Ok(()) => Ok(()),
                // The old class ended because all its proxies moved; the new one arrives next.
                Err(_) => {
                    self.class.changed().await.map_err(|_| Closed)?;
                    self.snapshots = self.class.borrow_and_update().clone();
                    Ok(())
                }
            },
        }
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
