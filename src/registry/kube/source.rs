//! The source of one cluster: all its watches in one task, so that dropping it frees everything.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    client::Client,
    drift,
    failure::Failure,
    freshness::{Freshness, Verdict},
    keep::{self, Keeper},
    kinds::{self, Resource},
    probe,
    selection::{Discovery, Selectors},
    view::View,
    watch::Watcher,
};
use crate::{
    model::{Batch, Change, ClusterId, Kind, change::ClusterState, mesh::MeshConfig},
    registry::{RemoteSecrets, Settings, SourceStatus, durable::Slot},
};

/// A cluster that is read from its API server.
#[derive(Debug)]
pub struct KubeSource {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its Istio objects are in force, and its mesh configuration says which namespaces are read, everywhere.
    pub config_cluster: bool,
    /// How objects are converted.
    pub settings: Settings,
    /// How long things are waited for.
    pub timing: Timing,
    /// Which namespaces are read; shared by the sources of all clusters.
    pub discovery: Discovery,
    /// Where the clusters go that the config cluster's remote secrets name.
    pub remote_secrets: RemoteSecrets,
    /// Where what is known is kept over restarts.
    pub snapshot: Option<Slot>,
    access: watch::Sender<Arc<Client>>,
}

/// How long things are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For the head of an answer, and between parts of a list.
    pub answer: Duration,
    /// On a watch, before it is opened again to see whether anybody is there. Bookmarks come every minute; but of a collection in
    /// which nothing happens only where etcd reports its progress (kubeadm has it do so, embedded ones may not).
    pub silence: Duration,
    /// Between tries, at first and at most.
    pub backoff: (Duration, Duration),
    /// How long a watch may be away before the cluster is stale.
    pub grace: Duration,
    /// How long the first read may take before the cluster is stale; none: for ever.
    pub patience: Option<Duration>,
    /// Between looks for a kind that is not installed.
    pub uninstalled: Duration,
    /// Between looks at everything, at most; collection by collection.
    pub compare: Duration,
    /// Between questions to the API server how it is.
    pub probe: Duration,
    /// Between looks at the clock.
    pub tick: Duration,
    /// Between writes of what is known, at least.
    pub save: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            silence: Duration::from_secs(90),
            backoff: (Duration::from_millis(200), Duration::from_secs(30)),
            grace: Duration::from_secs(3),
            patience: Some(Duration::from_secs(30)),
            uninstalled: Duration::from_secs(10),
            compare: Duration::from_secs(600),
            probe: Duration::from_secs(10),
            tick: Duration::from_millis(500),
            save: Duration::from_secs(10),
        }
    }
}

/// Exchanges the way to a cluster while it is watched.
#[derive(Clone, Debug)]
pub struct Access(watch::Sender<Arc<Client>>);

impl Access {
    /// Uses `client` from now on. It has to be able to read before the old one is given up; otherwise the old one stays.
    /// Watches go on where they are: nothing is read again, nothing is sent.
    pub async fn replace(&self, client: Client, patience: Duration) -> Result<(), Failure> {
        client.get_all("/api/v1/namespaces?limit=1", super::client::JSON, patience).await?;
        self.0.send_replace(Arc::new(client));
        Ok(())
    }

    /// The ways that are used, one after the other.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Client>> {
        self.0.subscribe()
    }

    /// The way that is used now, for requests of others.
    pub fn client(&self) -> Arc<Client> {
        self.0.borrow().clone()
    }
}

/// Nobody receives changes any more.
#[derive(Debug)]
pub struct Deaf;

/// What the watches of a cluster have in common. All of them run in one task: locks are never waited for.
pub(super) struct Shared {
    pub cluster: ClusterId,
    pub root_namespace: Arc<str>,
    pub timing: Timing,
    pub view: Mutex<View>,
    pub freshness: Mutex<Freshness>,
    pub relist: BTreeMap<Kind, Notify>,
    changes: mpsc::Sender<Batch>,
    progress: Mutex<BTreeMap<Kind, Progress>>,
    /// The state is to be looked at again.
    news: Notify,
    gate: watch::Sender<Gate>,
    pub state: watch::Sender<ClusterState>,
    /// How many batches of changes were sent: which state of what is known this is.
    edits: AtomicU64,
    pub keeper: Option<Keeper>,
    /// Set in the config cluster.
    publish: Option<Discovery>,
    /// The same.
    remote_secrets: Option<RemoteSecrets>,
}

/// How far a watch is.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Everything up to this version was taken in.
    version: u64,
    /// Which version of the collection's API is used.
    api: usize,
    /// How often it was listed whole.
    lists: u64,
}

/// What must be known before objects in namespaces are read.
#[derive(Clone, Copy, Debug, Default)]
struct Gate {
    /// Whether there are selectors.
    selectors: Option<bool>,
    /// Namespaces were listed.
    namespaces: bool,
}

// === impl KubeSource ===

impl KubeSource {
    /// A source with default settings.
    pub fn new(cluster: ClusterId, client: Client) -> Self {
        Self {
            cluster,
            config_cluster: false,
            settings: Settings::default(),
            timing: Timing::default(),
            discovery: Discovery::default(),
            remote_secrets: RemoteSecrets::default(),
            snapshot: None,
            access: watch::Sender::new(Arc::new(client)),
        }
    }

    /// What exchanges its client.
    pub fn access(&self) -> Access {
        Access(self.access.clone())
    }

    /// Reads the cluster, sends all of it and `Synced`, then whatever changes, until `shutdown` or until nobody receives.
    pub async fn run(self, changes: mpsc::Sender<Batch>, status: SourceStatus, shutdown: CancellationToken) {
        let mcs = self.settings.mcs.then_some(&self.settings.mcs_api);
        let resources: Vec<_> = kinds::resources(self.config_cluster, mcs).collect();
        let named = resources.iter().map(|r| (r.kind, r.need, r.name()));
        let shared = Shared {
            cluster: self.cluster.clone(),
            root_namespace: self.settings.root_namespace.clone(),
            timing: self.timing,
            freshness: Mutex::new(Freshness::new(Instant::now(), named)),
            relist: resources.iter().map(|r| (r.kind, Notify::new())).collect(),
            view: Mutex::new(View::new(self.cluster, self.settings, resources.iter().map(|r| r.kind))),
            changes,
            progress: Mutex::default(),
            news: Notify::new(),
            gate: watch::Sender::default(),
            state: watch::Sender::new(ClusterState::Syncing),
            edits: AtomicU64::default(),
            keeper: self.snapshot.map(Keeper::new),
            publish: self.config_cluster.then(|| self.discovery.clone()),
            remote_secrets: self.config_cluster.then(|| self.remote_secrets.clone()),
        };
        let client = || self.access.borrow().clone();
        // What is listed is compared with it.
        let at_start = client();
        let restored = keep::restore(&shared, at_start.server(), &status);
        if !matches!(shutdown.run_until_cancelled(restored).await, Some(Ok(()))) {
            return;
        }
        let mut parts = FuturesUnordered::new();
        for resource in &resources {
            parts.push(Watcher::new(&shared, resource.clone(), self.access.subscribe()).run().boxed());
        }
        parts.push(shared.follow_selectors(self.discovery.subscribe()).boxed());
        parts.push(shared.keep_state(status.clone(), self.access.subscribe()).boxed());
        parts.push(drift::compare(&shared, &resources, self.access.subscribe(), &status).boxed());
        parts.push(probe::probe(&shared, self.access.subscribe()).boxed());
        parts.push(keep::keep(&shared, self.access.subscribe(), &status).boxed());
        // Each ends only when nobody receives.
        let _ = shutdown.run_until_cancelled(parts.next()).await;
        keep::finish(&shared, &client(), &status).await;
    }
}

// === impl Shared ===

impl Shared {
    /// Sends changes, and wakes those who have to list again because of them.
    pub async fn send(&self, mut changes: Vec<Change>, seen: Instant) -> Result<(), Deaf> {
        for kind in self.view.lock().take_relists() {
            self.list_again(kind);
        }
        RemoteSecrets::divert(self.remote_secrets.as_ref(), &mut changes);
        if changes.is_empty() {
            return Ok(());
        }
        if let Some(discovery) = &self.publish {
            discovery.observe(&changes);
        }
        self.edits.fetch_add(1, Ordering::Relaxed);
        self.changes.send(Batch { changes, seen }).await.map_err(|_| Deaf)
    }

    /// Which state of what is known this is.
    pub fn edits(&self) -> u64 {
        self.edits.load(Ordering::Relaxed)
    }

    /// Waits until it is known whether the objects of a collection are to be read.
    pub async fn pass_gate(&self, resource: &Resource) {
        if resource.is_selected() {
            let mut gate = self.gate.subscribe();
            let open =
                |gate: &Gate| gate.selectors == Some(false) || (gate.selectors.is_some() && gate.namespaces);
            // The gate is a part of `self`: it cannot be gone.
            drop(gate.wait_for(open).await);
        }
    }

    pub fn opened(&self, kind: Kind) {
        self.freshness.lock().opened(kind, Instant::now());
    }

    pub fn heard(&self, kind: Kind) {
        self.freshness.lock().heard(kind, Instant::now());
    }

    /// A watch took in everything up to this version.
    pub fn advanced(&self, kind: Kind, version: u64) {
        self.progress.lock().entry(kind).or_default().version = version;
    }

    /// How far a watch is.
    pub fn progress(&self, kind: Kind) -> u64 {
        self.progress.lock().get(&kind).map_or(0, |p| p.version)
    }

    /// How often a kind was listed whole.
    pub fn lists(&self, kind: Kind) -> u64 {
        self.progress.lock().get(&kind).map_or(0, |p| p.lists)
    }

    /// Under which version of its API a kind is known; none if it is not.
    pub fn watched_api(&self, kind: Kind) -> Option<usize> {
        self.progress.lock().get(&kind).filter(|p| p.lists > 0).map(|p| p.api)
    }

    /// Asks a watch to begin again with a list.
    pub fn list_again(&self, kind: Kind) {
        if let Some(notify) = self.relist.get(&kind) {
            notify.notify_one();
        }
    }

    /// All of a kind was sent, under this version of its API.
    pub fn listed(&self, kind: Kind, api: usize) {
        {
            let mut progress = self.progress.lock();
            let progress = progress.entry(kind).or_default();
            (progress.api, progress.lists) = (api, progress.lists + 1);
        }
        self.freshness.lock().listed(kind, Instant::now());
        if kind == Kind::RemoteSecret {
            self.remote_secrets.iter().for_each(RemoteSecrets::settle_whole);
        }
        self.settled(kind);
        if kind == Kind::Namespace {
            self.gate.send_modify(|gate| gate.namespaces = true);
        }
        self.news.notify_one();
    }

    pub fn failed(&self, kind: Kind, failure: Failure) {
        let optional = failure.is_forbidden() || failure.is_missing();
        self.freshness.lock().failed(kind, failure, Instant::now());
        if optional {
            self.settled(kind);
        }
        self.news.notify_one();
    }

    pub fn missing(&self, kind: Kind) {
        self.freshness.lock().missing(kind, Instant::now());
        self.news.notify_one();
    }

    /// Whether there is a mesh configuration, or which clusters are registered, is known, or that it cannot be.
    fn settled(&self, kind: Kind) {
        match kind {
            Kind::MeshConfig => self.publish.iter().for_each(Discovery::settle),
            Kind::RemoteSecret => self.remote_secrets.iter().for_each(RemoteSecrets::settle),
            _ => {}
        }
    }

    async fn follow_selectors(&self, mut mesh: watch::Receiver<Option<Arc<MeshConfig>>>) {
        loop {
            let known = mesh.borrow_and_update().clone();
            if let Some(known) = known {
                let mut changes = Vec::new();
                let selectors = Selectors::from(known.discovery_selectors.as_slice());
                let any = !selectors.is_empty();
                self.view.lock().select(selectors, &mut changes);
                self.gate.send_modify(|gate| gate.selectors = Some(any));
                if self.send(changes, Instant::now()).await.is_err() {
                    return;
                }
            }
            if mesh.changed().await.is_err() {
                // The sources that could say more are gone.
                return std::future::pending().await;
            }
        }
    }

    /// Says what the cluster's state is whenever that is news, and keeps the status.
    async fn keep_state(&self, status: SourceStatus, server: watch::Receiver<Arc<Client>>) {
        let mut said = ClusterState::Syncing;
        if self.changes.send(self.batch(said.clone())).await.is_err() {
            return;
        }
        loop {
            let now = Instant::now();
            let (verdict, ages) = {
                let freshness = self.freshness.lock();
                let Timing { grace, patience, .. } = self.timing;
                (freshness.verdict(now, grace, patience), freshness.ages(now))
            };
            let restored = self.keeper.as_ref().and_then(Keeper::restored);
            let state = state(verdict, &said, restored, now);
            if state == ClusterState::Synced {
                let oldest = ages.values().max().copied().unwrap_or_default();
                status.read_whole(ago(oldest));
            } else if matches!(state, ClusterState::Stale { .. }) {
                self.settled(Kind::MeshConfig);
                self.settled(Kind::RemoteSecret);
            }
            status.set_server(server.borrow().server().into());
            self.tell(&status, ages);
            if state != said {
                let is_late = said == ClusterState::Syncing && matches!(state, ClusterState::Stale { .. });
                if is_late && self.publish.is_none() {
                    status.timed_out();
                }
                status.set_state(state.clone());
                self.state.send_replace(state.clone());
                said = state.clone();
                if self.changes.send(self.batch(state)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.timing.tick) => {}
                () = self.news.notified() => {}
            }
        }
    }

    fn tell(&self, status: &SourceStatus, ages: BTreeMap<String, Duration>) {
        let (objects, mut problems) = {
            let view = self.view.lock();
            (view.counts(), view.problems())
        };
        problems.extend(self.freshness.lock().problems(&self.cluster.0, Instant::now()));
        problems.extend(self.keeper.as_ref().and_then(Keeper::problem));
        problems.sort();
        status.set_counts(objects, BTreeMap::new());
        status.set_ages(ages);
        status.set_problems(problems);
    }

    fn batch(&self, state: ClusterState) -> Batch {
        Batch { changes: vec![Change::Cluster(self.cluster.clone(), state)], seen: Instant::now() }
    }
}

/// The state after a verdict. One that goes on being stale is so since the same time; one of which a snapshot is served, since
/// that was known to hold.
fn state(
    verdict: Verdict,
    before: &ClusterState,
    restored: Option<SystemTime>,
    now: Instant,
) -> ClusterState {
    match (verdict, before) {
        (Verdict::Restored(reason), _) => ClusterState::Stale {
            since: restored.unwrap_or(SystemTime::UNIX_EPOCH),
            reason: format!("its durable snapshot is served: {reason}").into(),
        },
        (Verdict::Syncing, _) => ClusterState::Syncing,
        (Verdict::Synced, _) => ClusterState::Synced,
        (Verdict::Stale(_, reason), ClusterState::Stale { since, .. }) => {
            ClusterState::Stale { since: *since, reason: reason.into() }
        }
        (Verdict::Stale(heard, reason), _) => {
            ClusterState::Stale { since: ago(now.duration_since(heard)), reason: reason.into() }
        }
    }
}

/// So long ago.
fn ago(age: Duration) -> SystemTime {
    SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)
}
