//! Clusters that remote secrets register.
//!
//! ```text
//! source of the config cluster -- RemoteSecrets --> desired (pure) --> Members: steps (pure) --> app: add, replace, remove
//!                                                        \-- problems, at their objects --> Joined --> admin
//! ```
//!
//! Credentials are a property of a cluster, not its identity: another kubeconfig for a cluster exchanges the client
//! under its watches. A cluster goes only when no secret names it any more, was seen so, and stays so for a while.

mod desired;
mod joined;
mod members;

use std::{collections::BTreeMap, fmt, sync::Arc};

use tokio::sync::watch;

pub use self::{
    desired::{Desired, desired},
    joined::{Joined, Member, fingerprint},
    members::{LINGER, Members, Step},
};
use crate::model::{Change, Kind, Object, ObjectKey, remote_secret::RemoteSecret};

/// Namespace and name of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretName {
    /// The root namespace.
    pub namespace: Arc<str>,
    /// Of the Secret; it means nothing.
    pub name: Arc<str>,
}

/// The remote secrets as they are now.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// Each by its name.
    pub by_name: BTreeMap<SecretName, Arc<RemoteSecret>>,
    /// They were read whole once, or cannot be read for now.
    pub settled: bool,
    /// They were read whole once: what is not among them is not there.
    pub whole: bool,
    /// What has happened to them.
    pub events: Events,
}

/// How many remote secrets came, changed and went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Came.
    pub added: u64,
    /// Changed.
    pub updated: u64,
    /// Went.
    pub deleted: u64,
}

/// What the config cluster's source tells of them. They go no further: the pipeline never sees credentials.
#[derive(Clone, Debug)]
pub struct RemoteSecrets(Arc<watch::Sender<Secrets>>);

// === impl SecretName ===

impl SecretName {
    fn of(key: &ObjectKey) -> Self {
        Self { namespace: key.namespace.clone(), name: key.name.clone() }
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl RemoteSecrets ===

impl Default for RemoteSecrets {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }
}

impl RemoteSecrets {
    /// Takes remote secrets out of a source's changes. Those of clusters without a `sink` mean nothing here.
    pub fn divert(sink: Option<&Self>, changes: &mut Vec<Change>) {
        let is_secret = |change: &Change| match change {
            Change::Upsert(key, _) | Change::Remove(key) => key.kind == Kind::RemoteSecret,
            Change::Cluster(..) | Change::Forget(_) => false,
        };
        if !changes.iter().any(is_secret) {
            return;
        }
        let taken: Vec<_> = changes.extract_if(.., |change| is_secret(change)).collect();
        let Some(Self(secrets)) = sink else { return };
        secrets.send_modify(|secrets| {
            for change in taken {
                match change {
                    Change::Upsert(key, Object::RemoteSecret(secret)) => {
                        match secrets.by_name.insert(SecretName::of(&key), secret) {
                            None => secrets.events.added += 1,
                            Some(_) => secrets.events.updated += 1,
                        }
                    }
                    Change::Remove(key) => {
                        let was_there = secrets.by_name.remove(&SecretName::of(&key)).is_some();
                        secrets.events.deleted += u64::from(was_there);
                    }
                    _ => {}
                }
            }
        });
    }

    /// None can be read for now, if they were not told already.
    pub fn settle(&self) {
        self.0.send_if_modified(|secrets| !std::mem::replace(&mut secrets.settled, true));
    }

    /// All that there are were told.
    pub fn settle_whole(&self) {
        self.0.send_if_modified(|secrets| {
            let before = (secrets.settled, secrets.whole);
            (secrets.settled, secrets.whole) = (true, true);
            before != (true, true)
        });
    }

    /// What is known, now and later.
    pub fn subscribe(&self) -> watch::Receiver<Secrets> {
        self.0.subscribe()
    }
}
