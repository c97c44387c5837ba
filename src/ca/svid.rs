//! Keys and certificates of workloads, made by the server and handed out over SDS.
//!
//! ```text
//! subscribe(identity)     -> watch::Receiver<Arc<Svid>>              made on first ask, shared by all streams
//! secret(identity, name)  -> SvidSecret                              the same as the bytes of an SDS resource
//! run()                   -> renews at half life and when the authority changes; forgets what nobody holds
//! ```

mod secret;
mod version;

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::authority::{Authority, CaError};
use super::issue::San;
use super::key::{KeyError, KeyType, PrivateKey};
use super::secret as sds;
use super::signers::Signers;
use crate::model::identity::Spiffe;
use crate::snapshot::{Encoded, Version};

pub use secret::SvidSecret;

/// After a failure to sign, the next attempt; the old certificate is good for half its life then.
const RETRY: Duration = Duration::from_secs(10);
/// How often entries that nobody holds are dropped. Until then a proxy that reconnects finds its certificate again.
const SWEEP: Duration = Duration::from_secs(60);

/// So many certificates at most wait to be made or published: a request waits behind them, with an RSA key 0.1 s.
const AHEAD: usize = 128;

/// A workload's certificate with its private key.
pub struct Svid {
    /// Whose it is.
    pub identity: Spiffe,
    /// The leaf and the intermediates, PEM.
    pub chain_pem: String,
    /// The private key, PKCS#8 PEM. Wiped from memory when dropped; never in `Debug`.
    pub key_pem: Zeroizing<String>,
    /// Valid from.
    pub not_before: OffsetDateTime,
    /// Valid until.
    pub not_after: OffsetDateTime,
    authority: Arc<Authority>,
}

/// The certificates of all workloads that are connected.
pub struct SvidStore {
    authority: watch::Receiver<Arc<Authority>>,
    ttl: Duration,
    entries: Mutex<HashMap<Spiffe, Entry>>,
    roots: watch::Sender<Option<Arc<Encoded>>>,
    /// The authority whose roots are published.
    in_use: watch::Sender<Arc<Authority>>,
    /// When `run` wakes by itself. Read and written under the lock of `entries`, so that it misses none.
    wakes_at: Mutex<Option<Instant>>,
    /// An entry was added that `run` has to look at earlier.
    added: Notify,
    signers: Arc<Signers>,
}

/// The bytes of one secret; always present here, optional because other providers may not have theirs yet.
type SecretReceiver = watch::Receiver<Option<Arc<Encoded>>>;

/// A certificate and its bytes, made where nobody waits for a lock.
struct Made {
    svid: Arc<Svid>,
    secret: Arc<Encoded>,
}

struct Entry {
    sender: watch::Sender<Arc<Svid>>,
    secret: watch::Sender<Option<Arc<Encoded>>>,
    renew_at: Instant,
    /// The last renewal failed: `renew_at` is the time of the next attempt, whatever else happens.
    failed: bool,
}

// === impl Svid ===

impl Svid {
    /// Makes a key and a certificate for it.
    pub fn issue(identity: &Spiffe, authority: &Arc<Authority>, ttl: Duration) -> Result<Self, CaError> {
        let key = PrivateKey::generate(KeyType::EcdsaP256)?;
        let issued = authority.issue(key.public_key_info(), &[San::Uri(identity.to_string())], ttl)?;
        Ok(Self {
            identity: identity.clone(),
            chain_pem: authority.chain_pem(&issued.der),
            key_pem: key.to_pem()?,
            not_before: issued.not_before,
            not_after: issued.not_after,
            authority: authority.clone(),
        })
    }

    /// Whether this certificate is as good as one that `authority` would make now.
    fn is_current(&self, authority: &Arc<Authority>) -> bool {
        Arc::ptr_eq(&self.authority, authority) || self.authority.has_same_chain(authority)
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Svid({}, until {}, secret)", self.identity, self.not_after)
    }
}

// === impl Made ===

impl Made {
    fn new(identity: &Spiffe, authority: &Arc<Authority>, ttl: Duration) -> Result<Self, CaError> {
        let svid = Arc::new(Svid::issue(identity, authority, ttl)?);
        Ok(Self { secret: encode_certificate(&svid), svid })
    }
}

// === impl SvidStore ===

impl SvidStore {
    /// A store whose certificates are valid for `ttl`, shorter where the authority itself ends earlier.
    pub fn new(authority: watch::Receiver<Arc<Authority>>, ttl: Duration, signers: Arc<Signers>) -> Self {
        let current = authority.borrow().clone();
        Self {
            authority,
            ttl,
            entries: Mutex::new(HashMap::new()),
            roots: watch::Sender::new(Some(encode_roots(&current))),
            in_use: watch::Sender::new(current),
            wakes_at: Mutex::default(),
            added: Notify::new(),
            signers,
        }
    }

    /// The authority in use, for the roots (`ROOTCA`).
    pub fn authority(&self) -> watch::Receiver<Arc<Authority>> {
        self.authority.clone()
    }

    /// The certificate of an identity, now and after each renewal. The caller must have authenticated the identity.
    pub fn subscribe(&self, identity: &Spiffe) -> Result<watch::Receiver<Arc<Svid>>, CaError> {
        self.with_entry(identity, |entry| entry.sender.subscribe())
    }

    /// The secrets that a workload may ask for by SDS: its own certificate ([`sds::CERTIFICATE`]) and the trusted roots
    /// ([`sds::ROOTS`]). None for other names. The caller must have authenticated the identity.
    ///
    /// `known`: the version that the proxy says it has. A certificate that is good is not made again before it is due.
    /// One that cannot be signed, which is logged, is tried again.
    pub fn secret(
        self: &Arc<Self>,
        identity: &Spiffe,
        name: &str,
        known: Option<Version>,
    ) -> Option<SvidSecret> {
        match name {
            sds::ROOTS => Some(SvidSecret::shared(self.roots.subscribe())),
            sds::CERTIFICATE => Some(SvidSecret::certificate(self.clone(), identity.clone(), known)),
            _ => None,
        }
    }

    /// Whether an identity's certificate is there and of this version.
    fn has(&self, identity: &Spiffe, version: Option<Version>) -> bool {
        let entries = self.entries.lock();
        entries.get(identity).is_some_and(|entry| entry.version() == version)
    }

    /// Finds or makes an identity's entry and looks at it under the lock, so that it is held before it can be forgotten.
    fn with_entry<T>(&self, identity: &Spiffe, look: impl Fn(&Entry) -> T) -> Result<T, CaError> {
        let authority = self.authority.borrow().clone();
        if let Some(entry) = self.entries.lock().get(identity).filter(|entry| entry.is_usable(&authority)) {
            return Ok(look(entry));
        }
        // Outside the lock: signing takes milliseconds with an RSA authority, and other streams must not wait for it.
        let made = Made::new(identity, &authority, self.ttl)?;
        Ok(self.add(identity, made, look))
    }

    /// Adds a certificate, unless another stream of the same workload was quicker.
    fn add<T>(&self, identity: &Spiffe, made: Made, look: impl Fn(&Entry) -> T) -> T {
        let authority = made.svid.authority.clone();
        let mut entries = self.entries.lock();
        let entry = match entries.entry(identity.clone()) {
            Occupied(entry) => {
                let entry = entry.into_mut();
                if !entry.is_usable(&authority) {
                    entry.publish(made);
                }
                entry
            }
            Vacant(place) => place.insert(Entry::new(made)),
        };
        // When a whole mesh connects, `run` must not look at all entries for each new one.
        let in_time = self.wakes_at.lock().is_some_and(|at| at <= entry.renew_at);
        // But another authority may have come while this one signed, and `run` may be done with all other entries.
        if !in_time || !Arc::ptr_eq(&self.authority.borrow(), &authority) {
            self.added.notify_one();
        }
        look(entry)
    }

    /// [`Self::with_entry`] for a stream's task, which must not be kept for milliseconds by a slow key.
    async fn receiver(self: &Arc<Self>, identity: &Spiffe) -> Result<SecretReceiver, CaError> {
        let authority = self.authority.borrow().clone();
        let held = |entry: &Entry| entry.secret.subscribe();
        if !authority.key().is_slow() {
            return self.with_entry(identity, held);
        }
        let (store, identity) = (self.clone(), identity.clone());
        let made = self.signers.run(move || store.with_entry(&identity, held)).await;
        made.unwrap_or(Err(CaError::Key(KeyError::Crypto("sign: there is no thread for it"))))
    }

    /// Whether the key that signs takes milliseconds.
    fn is_slow(&self) -> bool {
        self.authority.borrow().key().is_slow()
    }

    /// How many identities have a certificate now.
    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// Whether no identity has a certificate.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Renews certificates for ever.
    pub async fn run(&self) {
        let mut authority = self.authority.clone();
        let mut sweep = tokio::time::interval(SWEEP);
        let mut authority_lives = true;
        loop {
            let next = self.next_renewal();
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.added.notified() => {}
                changed = authority.changed(), if authority_lives => authority_lives = changed.is_ok(),
                _ = sweep.tick() => self.forget_unheld(),
            }
            let current = authority.borrow_and_update().clone();
            // Roots first: who trusts a new root before he meets its certificates refuses nobody.
            self.publish_roots(&current);
            self.renew_due(&current).await;
        }
    }

    /// When the first entry is due, which `run` waits for from now on.
    fn next_renewal(&self) -> Option<Instant> {
        let entries = self.entries.lock();
        let next = entries.values().map(|entry| entry.renew_at).min();
        *self.wakes_at.lock() = next;
        next
    }

    fn publish_roots(&self, authority: &Arc<Authority>) {
        let roots = encode_roots(authority);
        self.roots.send_if_modified(|current| {
            let is_new = current.as_ref().is_none_or(|current| current.version != roots.version);
            if is_new {
                *current = Some(roots);
            }
            is_new
        });
        self.in_use.send_if_modified(|current| {
            let is_new = !Arc::ptr_eq(current, authority);
            current.clone_from(authority);
            is_new
        });
    }

    /// Ends when all that is due is renewed, or when another authority signs.
    async fn renew_due(&self, authority: &Arc<Authority>) {
        let now = Instant::now();
        let mut due: Vec<(Instant, Spiffe)> = self
            .entries
            .lock()
            .iter()
            .filter(|(_, entry)| {
                entry.renew_at <= now || (!entry.failed && !entry.sender.borrow().is_current(authority))
            })
            .map(|(identity, entry)| (entry.renew_at, identity.clone()))
            .collect();
        // What is due for longest first.
        due.sort_unstable();
        let renewals = stream::iter(due).map(|(_, identity)| {
            let (authority, ttl) = (authority.clone(), self.ttl);
            self.signers.run(move || {
                let made = Made::new(&identity, &authority, ttl);
                (identity, made)
            })
        });
        // In order, and each is published while the next ones are made.
        let mut renewals = pin!(renewals.buffered(AHEAD));
        while Arc::ptr_eq(&self.authority.borrow(), authority) {
            match renewals.next().await {
                Some(Some((identity, renewed))) => self.install(&identity, renewed),
                // No thread made it: it is still due.
                Some(None) => tokio::time::sleep(RETRY).await,
                None => return,
            }
        }
    }

    fn install(&self, identity: &Spiffe, renewed: Result<Made, CaError>) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(identity) else { return };
        match renewed {
            Ok(made) => {
                debug!(%identity, not_after = %made.svid.not_after, "workload certificate renewed");
                entry.publish(made);
            }
            Err(error) => {
                let not_after = entry.sender.borrow().not_after;
                warn!(%identity, %error, %not_after, retry_in = ?RETRY, "a workload certificate cannot be renewed; the old one stays in use");
                entry.renew_at = Instant::now() + RETRY;
                entry.failed = true;
            }
        }
    }

    fn forget_unheld(&self) {
        self.entries
            .lock()
            .retain(|_, entry| entry.sender.receiver_count() + entry.secret.receiver_count() > 0);
    }
}

impl fmt::Debug for SvidStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SvidStore({} identities)", self.len())
    }
}

// === impl Entry ===

impl Entry {
    fn new(made: Made) -> Self {
        Self {
            renew_at: Instant::now() + renew_after(&made.svid),
            failed: false,
            secret: watch::Sender::new(Some(made.secret)),
            sender: watch::Sender::new(made.svid),
        }
    }

    fn publish(&mut self, made: Made) {
        self.renew_at = Instant::now() + renew_after(&made.svid);
        self.failed = false;
        self.secret.send_replace(Some(made.secret));
        self.sender.send_replace(made.svid);
    }

    fn version(&self) -> Option<Version> {
        self.secret.borrow().as_ref().map(|encoded| encoded.version)
    }

    fn is_usable(&self, authority: &Arc<Authority>) -> bool {
        let svid = self.sender.borrow();
        svid.is_current(authority) && svid.not_after > OffsetDateTime::now_utc()
    }
}

fn encode_certificate(svid: &Svid) -> Arc<Encoded> {
    let message = sds::certificate(sds::CERTIFICATE, svid);
    let version = version::of(&svid.authority, &svid.identity, svid.not_after);
    let sources = Arc::default();
    Arc::new(Encoded::with_version(sds::CERTIFICATE.into(), sds::TYPE_URL, &message, version, None, sources))
}

fn encode_roots(authority: &Authority) -> Arc<Encoded> {
    let message = sds::roots(sds::ROOTS, authority.roots_pem());
    Arc::new(Encoded::new(sds::ROOTS.into(), sds::TYPE_URL, &message, None, Arc::default()))
}

/// About half of what is left. At least a second: an authority at its end must not make a busy loop.
fn renew_after(svid: &Svid) -> Duration {
    let left = Duration::try_from(svid.not_after - OffsetDateTime::now_utc()).unwrap_or_default();
    left.mul_f64(version::renewal()).max(Duration::from_secs(1))
}

#[cfg(test)]
mod tests;
