//! One secret as one stream sees it: nothing while its proxy needs none, then the bytes of the shared entry.

use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::{RETRY, SecretReceiver, SvidStore, version};
use crate::ca::authority::{Authority, CaError};
use crate::model::identity::Spiffe;
use crate::snapshot::{Encoded, Version};

/// A secret of one identity on one stream.
pub struct SvidSecret(State);

enum State {
    /// It is sent, now and after each renewal.
    Shared(SecretReceiver),
    /// There are no bytes so far, so that none can be sent by mistake.
    Waiting(Waiting),
}

/// A certificate that is not made yet.
struct Waiting {
    store: Arc<SvidStore>,
    identity: Spiffe,
    /// What the proxy has and may keep until then. None: making one failed, and is tried again then.
    kept: Option<Version>,
    until: Instant,
    /// What signs, once its roots are on their way to everybody.
    authority: watch::Receiver<Arc<Authority>>,
}

// === impl SvidSecret ===

impl SvidSecret {
    pub(super) const fn shared(receiver: SecretReceiver) -> Self {
        Self(State::Shared(receiver))
    }

    /// The certificate of `identity`, for a stream whose proxy says that it has the version `known` of it.
    pub(super) fn certificate(store: Arc<SvidStore>, identity: Spiffe, known: Option<Version>) -> Self {
        // In this order, so that no change is missed.
        let authority = store.in_use.subscribe();
        let signer = store.authority.borrow().clone();
        let now = OffsetDateTime::now_utc();
        let rest = known
            .and_then(|known| version::good_for(known, &signer, &identity, store.ttl, now))
            // What the store has it renews, for all streams at once.
            .filter(|_| !store.has(&identity, known));
        let kept = known.filter(|_| rest.is_some());
        let until = Instant::now() + rest.unwrap_or_default();
        let mut waiting = Waiting { store, identity, kept, until, authority };
        if let Some(rest) = rest {
            debug!(identity = %waiting.identity, for_seconds = rest.as_secs(), "the proxy keeps its certificate");
            return Self(State::Waiting(waiting));
        }
        if waiting.store.is_slow() {
            // It is due, and made when it is waited for.
            return Self(State::Waiting(waiting));
        }
        let made = waiting.store.with_entry(&waiting.identity, |entry| entry.secret.subscribe());
        match waiting.outcome(made) {
            Some(receiver) => Self(State::Shared(receiver)),
            None => Self(State::Waiting(waiting)),
        }
    }

    /// The newest bytes, marked as seen. None: the proxy keeps what it has.
    pub fn current(&mut self) -> Option<Arc<Encoded>> {
        match &mut self.0 {
            State::Shared(receiver) => receiver.borrow_and_update().clone(),
            State::Waiting(_) => None,
        }
    }

    /// Waits until [`Self::current`] would give something else. False: it never will. May be dropped and called again.
    pub async fn changed(&mut self) -> bool {
        loop {
            match &mut self.0 {
                State::Shared(receiver) => return receiver.changed().await.is_ok(),
                State::Waiting(waiting) => {
                    if let Some(receiver) = waiting.due().await {
                        self.0 = State::Shared(receiver);
                        return true;
                    }
                }
            }
        }
    }
}

// === impl Waiting ===

impl Waiting {
    /// Waits for the time or another authority. None: to be called again.
    async fn due(&mut self) -> Option<SecretReceiver> {
        tokio::select! {
            () = sleep_until(self.until) => {}
            // The store that this holds has the sender.
            _ = self.authority.changed() => {
                let authority = self.authority.borrow_and_update();
                // Only other roots.
                if self.kept.is_some_and(|kept| version::is_of(kept, &authority, &self.identity)) {
                    return None;
                }
            }
        }
        // This may be dropped from here on, and must go on here when it is called again.
        (self.kept, self.until) = (None, Instant::now());
        let made = self.store.receiver(&self.identity).await;
        self.outcome(made)
    }

    fn outcome(&mut self, made: Result<SecretReceiver, CaError>) -> Option<SecretReceiver> {
        made.inspect_err(|error| {
            warn!(identity = %self.identity, %error, retry_in = ?RETRY, "a workload certificate cannot be made");
            (self.kept, self.until) = (None, Instant::now() + RETRY);
        })
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;
    use crate::ca::secret::{CERTIFICATE, ROOTS};
    use crate::ca::signers::Signers;
    use crate::ca::testing::{Root, mk_authority, mk_root, mk_rsa_authority, mk_watched};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    struct World {
        root: Root,
        sender: watch::Sender<Arc<Authority>>,
        /// Two replicas of one control plane.
        stores: [Arc<SvidStore>; 2],
        identity: Spiffe,
    }

    fn mk_world(ttl: Duration) -> World {
        let root = mk_root("root");
        let (sender, authority) = mk_watched(&root);
        let stores = [authority.clone(), authority]
            .map(|authority| Arc::new(SvidStore::new(authority, ttl, Signers::start())));
        World { root, sender, stores, identity: Spiffe::new("cluster.local", "production", "a").unwrap() }
    }

    impl World {
        fn ask(&self, replica: usize, known: Option<Version>) -> SvidSecret {
            self.stores[replica].secret(&self.identity, CERTIFICATE, known).unwrap()
        }

        /// Runs the second replica until the story ends.
        async fn run<T>(&self, story: impl Future<Output = T>) -> T {
            tokio::select! {
                () = self.stores[1].run() => unreachable!(),
                told = tokio::time::timeout(Duration::from_secs(20), story) => told.expect("in time"),
            }
        }
    }

    fn version(secret: &mut SvidSecret) -> Option<Version> {
        secret.current().map(|encoded| encoded.version)
    }

    async fn arrives(secret: &mut SvidSecret) -> Option<Version> {
        loop {
            match version(secret) {
                None => assert!(secret.changed().await),
                version => return version,
            }
        }
    }

    #[tokio::test]
    async fn what_one_replica_gave_another_need_not_give_again() {
        let world = mk_world(DAY);
        let known = version(&mut world.ask(0, None));
        assert!(known.is_some());
        let mut kept = world.ask(1, known);
        assert_eq!(version(&mut kept), None);
        assert!(world.stores[1].is_empty(), "nothing is signed before it is needed");
        assert!(kept.changed().now_or_never().is_none());

        let mut same = world.ask(0, known);
        assert_eq!(version(&mut same), known, "the replica that has it knows that it is the same");
        for (known, why) in [(None, "not there"), (Some(Version(7)), "not ours")] {
            assert!(version(&mut world.ask(1, known)).is_some(), "{why}");
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_renewed_at_half_its_life() {
        let world = mk_world(Duration::from_secs(4));
        let known = version(&mut world.ask(0, None));
        let mut kept = world.ask(1, known);
        assert_eq!(version(&mut kept), None);
        let began = Instant::now();
        world.run(async { assert!(kept.changed().await) }).await;
        assert!(began.elapsed() > Duration::from_millis(500), "after {:?}", began.elapsed());
        let renewed = version(&mut kept);
        assert!(renewed.is_some() && renewed != known);
        // From now on as all others.
        world.run(async { assert!(kept.changed().await) }).await;
        assert!(version(&mut kept).is_some());
    }

    #[tokio::test]
    async fn another_authority_renews_what_is_kept_after_the_roots() {
        let world = mk_world(DAY);
        let known = version(&mut world.ask(0, None));
        let mut kept = world.ask(1, known);
        let mut roots = world.stores[1].secret(&world.identity, ROOTS, None).unwrap();
        let roots_before = version(&mut roots);
        let current = world.sender.borrow().clone();
        let with_roots = |name: &str, of: &Authority| {
            let key = crate::ca::key::PrivateKey::from_pem(of.key().to_pem().unwrap().as_bytes()).unwrap();
            let roots = vec![world.root.cert.clone(), mk_root(name).cert];
            let now = OffsetDateTime::now_utc();
            Arc::new(Authority::new(key, of.signer().clone(), &[], roots, name.into(), now).unwrap())
        };
        let story = async {
            world.sender.send_replace(with_roots("wider", &current));
            assert!(roots.changed().await);
            assert!(kept.changed().now_or_never().is_none(), "roots alone renew nothing");
            let widened = version(&mut roots);
            assert_ne!(widened, roots_before);

            let second = mk_authority(&world.root, "second", time::Duration::days(50));
            world.sender.send_replace(with_roots("another", &second));
            assert!(kept.changed().await);
            assert_ne!(version(&mut roots), widened, "published before");
            let renewed = version(&mut kept);
            assert!(renewed.is_some() && renewed != known);
        };
        world.run(story).await;
    }

    /// The stream's task only waits, for however long it takes, and may ask again in between.
    #[tokio::test]
    async fn a_slow_key_signs_elsewhere() {
        let world = mk_world(DAY);
        world.sender.send_replace(mk_rsa_authority(&world.root, "rsa"));
        let mut secrets = [world.ask(1, None), world.ask(1, None)];
        assert!(secrets.iter_mut().all(|secret| secret.current().is_none()), "not yet");
        let _ = secrets[0].changed().now_or_never();
        let story = async {
            let [first, second] = &mut secrets;
            [arrives(first).await, arrives(second).await]
        };
        let [first, second] = world.run(story).await;
        assert!(first.is_some() && first == second, "one certificate for both");

        // What was begun and dropped is not forgotten: here the wait for another authority's certificate.
        let mut kept = world.ask(0, first);
        assert_eq!(version(&mut kept), None);
        assert!(kept.changed().now_or_never().is_none());
        let story = async {
            world.sender.send_replace(mk_rsa_authority(&world.root, "another"));
            let mut roots = world.stores[0].in_use.subscribe();
            tokio::select! { () = world.stores[0].run() => {}, changed = roots.changed() => changed.unwrap() }
            let _ = kept.changed().now_or_never();
            arrives(&mut kept).await
        };
        let renewed = world.run(story).await;
        assert!(renewed.is_some() && renewed != first);
    }

    #[tokio::test]
    async fn what_cannot_be_signed_is_given_as_soon_as_it_can() {
        let world = mk_world(DAY);
        let dying = mk_authority(&world.root, "dying", time::Duration::seconds(1));
        while OffsetDateTime::now_utc() < dying.not_after() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let healthy = world.sender.send_replace(dying);
        let mut secret = world.ask(1, None);
        assert_eq!(version(&mut secret), None);
        let story = async {
            assert!(secret.changed().now_or_never().is_none());
            world.sender.send_replace(healthy);
            assert!(secret.changed().await);
        };
        world.run(story).await;
        assert!(version(&mut secret).is_some());
    }
}
