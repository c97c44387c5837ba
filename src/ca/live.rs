//! The authority while the server runs: new files, or a Secret's new content, are taken over when, and only when, they are
//! wholly valid.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::authority::{Authority, CaError, describe};
use super::cacerts::Material;
use super::cert::Cert;
use super::{cacerts, self_signed};

/// Files are looked at once nothing happened for this long: people copy four files one after the other.
const QUIET: Duration = Duration::from_millis(100);
/// Without any event the directory is looked at this often: some file systems report nothing.
const POLL: Duration = Duration::from_secs(10);

/// Where the authority comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory in Istio's `cacerts` layout.
    CaCerts(PathBuf),
    /// A self-signed root in the state directory, made when absent.
    SelfSigned {
        /// The state directory.
        state_dir: PathBuf,
        /// The name in the root.
        trust_domain: String,
    },
    /// A Secret, as whoever watches it tells.
    Secret(watch::Receiver<Given>),
}

/// What a Secret holds.
#[derive(Clone, Debug)]
pub enum Given {
    /// In Istio's `cacerts` layout, or in that of `kubernetes.io/tls`.
    CaCerts(Material),
    /// As istiod keeps its own root in `istio-ca-secret`.
    SelfSigned(Material),
}

/// The writer of the authority in use; everybody else holds a `watch::Receiver`.
#[derive(Debug)]
pub struct Live {
    source: Source,
    sender: watch::Sender<Arc<Authority>>,
    /// The content that was looked at last, good or bad: the same files are reported once.
    seen: Vec<Option<[u8; 32]>>,
}

// === impl Source ===

impl Source {
    /// The `cacerts` directory when it holds any of its files (an incomplete one is then an error), otherwise a
    /// self-signed root in the state directory.
    pub fn choose(ca_dir: Option<&Path>, state_dir: &Path, trust_domain: &str) -> Self {
        match ca_dir {
            Some(dir) if cacerts::is_present(dir) => Self::CaCerts(dir.to_owned()),
            _ => Self::SelfSigned { state_dir: state_dir.to_owned(), trust_domain: trust_domain.to_owned() },
        }
    }

    fn load(&self) -> Result<Authority, CaError> {
        let now = OffsetDateTime::now_utc();
        match self {
            Self::CaCerts(dir) => cacerts::load(dir, now),
            Self::SelfSigned { state_dir, trust_domain } => {
                self_signed::load_or_create(state_dir, trust_domain, now)
            }
            Self::Secret(given) => match &*given.borrow() {
                Given::CaCerts(material) => material.authority(now),
                Given::SelfSigned(material) => material.self_signed(now),
            },
        }
    }

    fn content(&self) -> Vec<Option<[u8; 32]>> {
        let hash = |path: PathBuf| {
            let content = zeroize::Zeroizing::new(std::fs::read(path).ok()?);
            digest(&SHA256, &content).as_ref().try_into().ok()
        };
        match self {
            Self::CaCerts(dir) => cacerts::file_names().map(|name| hash(dir.join(name))).collect(),
            Self::SelfSigned { state_dir, .. } => vec![hash(self_signed::path(state_dir))],
            Self::Secret(_) => Vec::new(),
        }
    }

    /// Which directory to watch; a Secret is watched by others.
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::CaCerts(dir) => Some(dir),
            Self::SelfSigned { state_dir, .. } => Some(state_dir),
            Self::Secret(_) => None,
        }
    }
}

// === impl Live ===

impl Live {
    /// Loads the authority; an unusable one is an error here, so that a server never starts without.
    pub fn open(source: Source) -> Result<(Self, watch::Receiver<Arc<Authority>>), CaError> {
        let seen = source.content();
        let authority = source.load()?;
        info!(
            origin = authority.origin(), signer = %authority.signer().subject, not_after = %authority.not_after(),
            fingerprint = authority.signer().fingerprint(), roots = authority.roots().len(),
            "certificate authority loaded"
        );
        let (sender, receiver) = watch::channel(Arc::new(authority));
        Ok((Self { source, sender, seen }, receiver))
    }

    /// Watches the files or the Secret for ever and publishes each valid change. `told` hears how each attempt ended.
    pub async fn run(mut self, mut told: impl FnMut(Option<CaError>)) {
        if let Source::Secret(mut given) = self.source.clone() {
            while given.changed().await.is_ok() {
                told(self.reload_and_report());
            }
            // Whoever watched the Secret is gone: the process ends.
            return std::future::pending().await;
        }
        let changed = Arc::new(Notify::new());
        let _watcher = self.watch(changed.clone());
        loop {
            if tokio::time::timeout(POLL, changed.notified()).await.is_ok() {
                while tokio::time::timeout(QUIET, changed.notified()).await.is_ok() {}
            }
            let content = self.source.content();
            if content != self.seen {
                self.seen = content;
                told(self.reload_and_report());
            }
        }
    }

    /// Loads them again. `Ok(true)` when a new authority was published, `Ok(false)` when it is the one in use.
    pub fn reload(&self) -> Result<bool, CaError> {
        let current = self.sender.borrow().clone();
        let next = succeed(&current, self.source.load()?)?;
        if next.is_same(&current) {
            return Ok(false);
        }
        self.sender.send_replace(Arc::new(next));
        Ok(true)
    }

    fn reload_and_report(&self) -> Option<CaError> {
        let outcome = self.reload();
        match &outcome {
            Ok(true) => {
                let authority = self.sender.borrow();
                info!(
                    origin = authority.origin(), signer = %authority.signer().subject,
                    fingerprint = authority.signer().fingerprint(), roots = authority.roots().len(),
                    "certificate authority changed: workload certificates are renewed"
                );
            }
            Ok(false) => {}
            Err(error) => warn!(
                %error, in_use = %self.sender.borrow().signer().subject,
                "the new certificate authority cannot be used: the old one goes on, nothing is lost; mend the new one and it is taken over at once"
            ),
        }
        outcome.err()
    }

    fn watch(&self, changed: Arc<Notify>) -> Option<RecommendedWatcher> {
        let directory = self.source.directory()?;
        let on_event = move |event: notify::Result<notify::Event>| {
            // Our own reading causes access events; reacting to them would never end.
            if event.map_or(true, |event| !event.kind.is_access()) {
                changed.notify_one();
            }
        };
        // Kubernetes swaps the symbolic link `..data` inside the directory, which is an event of the directory.
        let watcher = notify::recommended_watcher(on_event)
            .and_then(|mut watcher| watcher.watch(directory, RecursiveMode::NonRecursive).map(|()| watcher));
        watcher
            .inspect_err(|error| {
                warn!(%error, every = ?POLL, "the certificate directory cannot be watched; it is read again at intervals");
            })
            .ok()
    }
}

/// What `next` becomes as the successor of `current`: refused when no root is common to both.
///
/// When the new bundle only adds or only removes roots it is taken as it is. When it does both, the old roots stay trusted
/// as well until the files change again: workloads still hold certificates under them. To take a root out of
/// use, leave it out in a step of its own.
fn succeed(current: &Authority, next: Authority) -> Result<Authority, CaError> {
    let holds = |roots: &[Cert], root: &Cert| roots.iter().any(|other| is_same_root(other, root));
    let (old, new) = (current.roots(), next.roots());
    if !new.iter().any(|root| holds(old, root)) {
        return Err(CaError::ForeignRoot {
            origin: next.origin().to_owned(),
            current: describe(old),
            next: describe(new),
        });
    }
    let only_adds = old.iter().all(|root| holds(new, root));
    let only_removes = new.iter().all(|root| holds(old, root));
    if only_adds || only_removes {
        return Ok(next);
    }
    let union = new.iter().chain(old.iter().filter(|root| !holds(new, root))).cloned().collect();
    Ok(next.with_roots(union))
}

/// A root that was made anew with the same name and key verifies the same certificates.
fn is_same_root(a: &Cert, b: &Cert) -> bool {
    a.der == b.der || (a.subject_raw == b.subject_raw && a.public_key_info == b.public_key_info)
}

#[cfg(test)]
mod tests;
