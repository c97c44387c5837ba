//! The secrets of one stream: those of its own identity, never anybody else's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    StreamExt,
    future::{AbortHandle, Abortable, BoxFuture},
    stream::FuturesUnordered,
};
use tokio::sync::watch;

use crate::{
    model::identity::Spiffe,
    snapshot::{Encoded, ResourceSet, Resources, Version},
};

/// One secret that changes when it is rotated.
pub trait Secret: Send {
    /// Its newest bytes, marked as seen; none while it is made for the first time, or while the proxy may keep what it
    /// has from another stream. Then there is nothing that could be sent.
    fn current(&mut self) -> Option<Arc<Encoded>>;

    /// Waits until [`Self::current`] would give something else. False: it never will.
    fn changed(&mut self) -> BoxFuture<'_, bool>;
}

impl Secret for watch::Receiver<Option<Arc<Encoded>>> {
    fn current(&mut self) -> Option<Arc<Encoded>> {
        self.borrow_and_update().clone()
    }

    fn changed(&mut self) -> BoxFuture<'_, bool> {
        Box::pin(async { Self::changed(self).await.is_ok() })
    }
}

/// Where secrets come from.
pub trait SecretProvider: Send + Sync + 'static {
    /// The secret of this name for a workload that has proved to be `identity`. None: there is no such secret for it.
    /// `known`: the version that the proxy says it has from another stream. A provider may take its word for it, as a
    /// wrong one harms nobody else, and have no bytes for it as long as it is as good as the newest.
    fn subscribe(&self, identity: &Spiffe, name: &str, known: Option<Version>) -> Option<Box<dyn Secret>>;
}

/// The secrets that one request asks for by name, each with the version that the proxy has of it. None: it needs the
/// bytes.
pub type Asked<'a> = BTreeMap<&'a str, Option<Version>>;

/// How many secrets one stream may have. A sidecar has two; a gateway has one for each certificate that it serves.
pub const MAX_SECRETS: usize = 1000;

/// Why a secret is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// Nobody knows who is asking.
    Anonymous,
    /// There is none of this name for this identity.
    Unknown,
    /// The stream has too many.
    TooMany,
}

impl Withheld {
    /// For metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Unknown => "unknown",
            Self::TooMany => "too_many",
        }
    }

    /// For people, with a remedy.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Anonymous => {
                "secrets are only given to authenticated proxies: connect to the TLS port with a token or a certificate"
            }
            Self::Unknown => {
                "there is no secret of this name for this identity: `default` and `ROOTCA` exist for each"
            }
            Self::TooMany => "this stream asks for too many secrets",
        }
    }
}

/// What one stream may see.
pub struct Secrets {
    provider: Arc<dyn SecretProvider>,
    identity: Option<Spiffe>,
    watched: BTreeMap<Arc<str>, Watched>,
    /// One for each that is watched. They live as long as it takes: to begin to wait whenever the stream wakes costs more than
    /// the rest of a push.
    changes: FuturesUnordered<Abortable<BoxFuture<'static, Change>>>,
    withheld: BTreeMap<Arc<str>, Withheld>,
}

struct Watched {
    newest: Option<Arc<Encoded>>,
    waits: AbortHandle,
}

/// A secret changed.
struct Change {
    name: Arc<str>,
    secret: Box<dyn Secret>,
    /// Whether it may change again.
    lives: bool,
}

impl Secrets {
    /// For a stream of `identity`, or of somebody unknown.
    pub fn new(provider: Arc<dyn SecretProvider>, identity: Option<Spiffe>) -> Self {
        Self {
            provider,
            identity,
            watched: BTreeMap::new(),
            changes: FuturesUnordered::new(),
            withheld: BTreeMap::new(),
        }
    }

    /// Follows what the stream subscribes to: `names` after a request that named those in `asked`. Returns names that
    /// are newly asked for and not given.
    pub fn follow(&mut self, names: &BTreeSet<Arc<str>>, asked: &Asked<'_>) -> Vec<(Arc<str>, Withheld)> {
        self.watched.retain(|name, watched| {
            // A proxy that asks again no longer has what it kept.
            let stays = names.contains(name) && !asked.contains_key(&**name);
            if !stays {
                watched.waits.abort();
            }
            stays
        });
        self.withheld.retain(|name, _| names.contains(name));
        let mut refused = Vec::new();
        for name in names {
            if self.watched.contains_key(name) || self.withheld.contains_key(name) {
                continue;
            }
            match self.open(name, asked.get(&**name).copied().flatten()) {
                Ok(secret) => self.watch(name.clone(), secret),
                Err(why) => {
                    self.withheld.insert(name.clone(), why);
                    refused.push((name.clone(), why));
                }
            }
        }
        refused
    }

    fn open(&self, name: &str, known: Option<Version>) -> Result<Box<dyn Secret>, Withheld> {
        let identity = self.identity.as_ref().ok_or(Withheld::Anonymous)?;
        if self.watched.len() >= MAX_SECRETS {
            return Err(Withheld::TooMany);
        }
        self.provider.subscribe(identity, name, known).ok_or(Withheld::Unknown)
    }

    fn watch(&mut self, name: Arc<str>, mut secret: Box<dyn Secret>) {
        let newest = secret.current();
        let known = name.clone();
        let change: BoxFuture<'static, Change> = Box::pin(async move {
            let lives = secret.changed().await;
            Change { name, secret, lives }
        });
        let (change, waits) = futures::future::abortable(change);
        self.changes.push(change);
        self.watched.insert(known, Watched { newest, waits });
    }

    /// All secrets that are there now.
    pub fn resources(&self) -> Resources {
        let newest = |(name, watched): (&Arc<str>, &Watched)| Some((name.clone(), watched.newest.clone()?));
        let set: ResourceSet = self.watched.iter().filter_map(newest).collect();
        Resources::new(vec![set])
    }

    /// Ready when [`Self::resources`] gives something else.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.changes.is_empty() {
            match self.changes.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                // It is not followed any more.
                Poll::Ready(None | Some(Err(_))) => {}
                Poll::Ready(Some(Ok(Change { name, secret, lives: true }))) => {
                    self.watch(name, secret);
                    return Poll::Ready(());
                }
                // The provider gave this secret up. What the proxy has stays valid until it expires.
                Poll::Ready(Some(Ok(Change { name, .. }))) => {
                    self.watched.remove(&name);
                    self.withheld.insert(name, Withheld::Unknown);
                }
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
