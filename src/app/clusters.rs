//! The registered clusters: a source for each, which can be added and taken away while everything runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use futures::FutureExt;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use super::{api_servers::ApiServers, remembered::Remembered, writing::Writing};
use crate::{
    model::{
        Change, ClusterId,
        change::{Batch, ClusterState},
    },
    registry::{
        Discovery, KubeSource, RemoteSecrets, Settings, Snapshots, SourceStatus, Sources,
        durable::Slot,
        file::FileSource,
        kubernetes::{Access, Client, from_file, in_cluster},
    },
};

/// Between looks at a kubeconfig file.
const KUBECONFIG_LOOK: Duration = Duration::from_secs(5);
/// How long new credentials may take to prove that they can read.
pub(super) const PROOF: Duration = Duration::from_secs(10);

/// Where a cluster is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory of YAML.
    Files(PathBuf),
    /// The API server of a kubeconfig file's current context.
    Kubeconfig(PathBuf),
    /// The API server of the cluster that this runs in.
    InCluster,
}

/// The registered clusters.
pub struct Clusters {
    config_cluster: ClusterId,
    settings: Settings,
    /// How long the first read of another cluster may take; none: for ever.
    patience: Option<Duration>,
    changes: mpsc::Sender<Batch>,
    sources: Sources,
    discovery: Discovery,
    api_servers: ApiServers,
    remote_secrets: RemoteSecrets,
    snapshots: Option<Snapshots>,
    /// Clusters of which only a snapshot is served.
    remembered: BTreeSet<ClusterId>,
    ending: Ending,
    writing: Option<Writing>,
    running: BTreeMap<ClusterId, Running>,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Ends all sources.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// How long all sources may take to write what they know.
const LAST_WRITES: Duration = Duration::from_secs(5);

impl Clusters {
    pub fn new(
        config_cluster: ClusterId,
        settings: Settings,
        patience: Option<Duration>,
        changes: mpsc::Sender<Batch>,
    ) -> Self {
        Self {
            api_servers: ApiServers::new(config_cluster.clone()),
            config_cluster,
            settings,
            patience,
            changes,
            sources: Sources::default(),
            discovery: Discovery::default(),
            remote_secrets: RemoteSecrets::default(),
            snapshots: None,
            remembered: BTreeSet::new(),
            ending: Ending::default(),
            writing: None,
            running: BTreeMap::new(),
        }
    }

    /// Keeps what is known over restarts, of clusters that are read from API servers.
    pub fn with_snapshots(self, snapshots: Option<Snapshots>) -> Self {
        Self { snapshots, ..self }
    }

    /// What ends all sources.
    pub fn ending(&self) -> Ending {
        self.ending.clone()
    }

    /// What the sources say of themselves.
    pub fn sources(&self) -> Sources {
        self.sources.clone()
    }

    /// The API servers that are read from.
    pub fn api_servers(&self) -> ApiServers {
        self.api_servers.clone()
    }

    /// Which namespaces are the mesh's.
    pub fn discovery(&self) -> Discovery {
        self.discovery.clone()
    }

    /// Clusters that are read from API servers from now on are written to, as far as they are ours.
    pub fn write_with(&mut self, writing: Writing) {
        self.writing = Some(writing);
    }

    /// What the config cluster says of further clusters.
    pub fn remote_secrets(&self) -> RemoteSecrets {
        self.remote_secrets.clone()
    }

    /// Begins to read a cluster that a secret names from its API server, until it is removed; what exchanges its credentials.
    pub async fn join(&mut self, cluster: ClusterId, client: Client) -> Access {
        let source = self.kube_source(&cluster, client, true);
        self.read(cluster, source).await
    }

    async fn read(&mut self, cluster: ClusterId, source: KubeSource) -> Access {
        let access = source.access();
        self.start(cluster, |changes, status, stop| source.run(changes, status, stop)).await;
        access
    }

    /// The clusters that secrets had named when they were last read, and of which something is known.
    pub fn known(&self) -> Vec<ClusterId> {
        self.snapshots.iter().flat_map(Snapshots::joined).collect()
    }

    /// Serves what was last known of a cluster that cannot be read; nothing, if nothing is known.
    pub async fn remember(&mut self, cluster: &ClusterId, reason: &str) {
        let Some(snapshots) = &self.snapshots else { return };
        let slot = snapshots.slot(cluster, true);
        let snapshot = match slot.load(None).await {
            Ok(Some(snapshot)) => snapshot,
            Ok(None) => return,
            Err(error) => return warn!("{}", slot.problem(&error)),
        };
        let reason = format!("its durable snapshot is served: {reason}").into();
        let remembered = Remembered { cluster: cluster.clone(), snapshot, reason };
        self.start(cluster.clone(), |changes, status, stop| remembered.run(changes, status, stop)).await;
        self.remembered.insert(cluster.clone());
    }

    /// The clusters of which only what was last known is served.
    pub fn remembered(&self) -> Vec<ClusterId> {
        self.remembered.iter().cloned().collect()
    }

    /// Whether only what was last known of it is served.
    pub fn remembers(&self, cluster: &ClusterId) -> bool {
        self.remembered.contains(cluster)
    }

    /// Begins to read a cluster. One that is read already goes on from the new place, and keeps what is known of it until then.
    pub async fn add(&mut self, cluster: ClusterId, place: &Place) -> Result<()> {
        match place {
            Place::Files(dir) => {
                let mut source = FileSource::new(cluster.clone(), dir);
                source.settings = self.settings.clone();
                if cluster == self.config_cluster {
                    source.discovery = Some(self.discovery.clone());
                    source.remote_secrets = Some(self.remote_secrets.clone());
                }
                self.start(cluster, |changes, status, stop| async move {
                    if let Err(error) = source.run(changes, status, stop).await {
                        warn!(%error, "a source ended");
                    }
                })
                .await;
            }
            Place::Kubeconfig(path) => {
                let config = from_file(path).await.with_context(|| format!("cluster {cluster}"))?;
                let client = Client::new(&config).with_context(|| format!("cluster {cluster}"))?;
                let source = self.kube_source(&cluster, client, false);
                let access = source.access();
                let path = path.clone();
                self.start(cluster.clone(), |changes, status, stop| async move {
                    let follow = follow_kubeconfig(&cluster, &path, &access);
                    tokio::select! {
                        () = source.run(changes, status, stop) => {}
                        () = follow => {}
                    }
                })
                .await;
            }
            Place::InCluster => {
                let config = in_cluster().with_context(|| {
                    format!("nothing says where cluster {cluster} (--cluster-id) is read from: no --kubeconfig, and none of --kube and --files is called {cluster}")
                })?;
                let client = Client::new(&config).with_context(|| format!("cluster {cluster}"))?;
                let source = self.kube_source(&cluster, client, false);
                self.read(cluster, source).await;
            }
        }
        Ok(())
    }

    fn kube_source(&self, cluster: &ClusterId, client: Client, joined: bool) -> KubeSource {
        info!(%cluster, server = client.server(), "reading a cluster");
        let mut source = KubeSource::new(cluster.clone(), client);
        source.config_cluster = *cluster == self.config_cluster;
        source.settings = self.settings.clone();
        source.discovery = self.discovery.clone();
        source.remote_secrets = self.remote_secrets.clone();
        // Without the mesh's own configuration nothing should be told to anybody.
        source.timing.patience = self.patience.filter(|_| !source.config_cluster);
        let slot = self.snapshots.as_ref().map(|snapshots| snapshots.slot(cluster, joined));
        // What is in force of it has to be compared with what there is.
        source.snapshot = if self.remembers(cluster) { slot.map(Slot::of_any_server) } else { slot };
        self.api_servers.insert(cluster, source.access());
        if let Some(writing) = &self.writing {
            writing.begin(cluster, source.access());
        }
        source
    }

    async fn start<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        cluster: ClusterId,
        source: impl FnOnce(mpsc::Sender<Batch>, SourceStatus, CancellationToken) -> F,
    ) {
        self.stop(&cluster).await;
        self.remembered.remove(&cluster);
        let (status, stop) = (SourceStatus::new(cluster.clone()), self.ending.stop.child_token());
        self.sources.insert(status.clone());
        // Whoever awaits all clusters awaits this one from now on, not from when its task first runs.
        let syncing = vec![Change::Cluster(cluster.clone(), ClusterState::Syncing)];
        drop(self.changes.send(Batch { changes: syncing, seen: Instant::now() }).await);
        let reading = source(self.changes.clone(), status.clone(), stop.clone());
        let (changes, id) = (self.changes.clone(), cluster.clone());
        let task = self.ending.tasks.spawn(async move {
            if AssertUnwindSafe(reading).catch_unwind().await.is_err() {
                abandon(id, &status, &changes).await;
            }
        });
        self.running.insert(cluster, Running { stop, task });
    }

    /// Takes a cluster away, with all that is known of it; whether there was one.
    pub async fn remove(&mut self, cluster: &ClusterId) -> bool {
        let was_running = self.stop(cluster).await;
        if let Some(slot) = self.snapshots.as_ref().map(|snapshots| snapshots.slot(cluster, true))
            && let Err(error) = slot.remove().await
        {
            warn!("{}", slot.problem(&error));
        }
        if !was_running {
            return false;
        }
        self.sources.remove(cluster);
        if let Some(writing) = &self.writing {
            writing.end(cluster);
        }
        self.api_servers.remove(cluster);
        self.remembered.remove(cluster);
        let changes = vec![Change::Forget(cluster.clone())];
        // Without a pipeline there is nothing to forget.
        drop(self.changes.send(Batch { changes, seen: Instant::now() }).await);
        info!(%cluster, "the cluster was taken away");
        true
    }

    /// Ends a source: it sends nothing after this.
    async fn stop(&mut self, cluster: &ClusterId) -> bool {
        let Some(Running { stop, task }) = self.running.remove(cluster) else { return false };
        stop.cancel();
        if task.await.is_err() {
            warn!(%cluster, "the source did not end as it should");
        }
        true
    }
}

impl Ending {
    /// Ends them. Each writes what it knows; those that cannot in time leave what they wrote before.
    pub async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        if timeout(LAST_WRITES, self.tasks.wait()).await.is_err() {
            warn!(sources = self.tasks.len(), "sources did not end in {LAST_WRITES:?}");
        }
    }
}

/// A source panicked: a bug. The other clusters go on, and what was known of this one stays in force.
async fn abandon(cluster: ClusterId, status: &SourceStatus, changes: &mpsc::Sender<Batch>) {
    error!(%cluster, "the source panicked; restart landbridge and report this");
    let reason = "its source ended by a bug; restart landbridge and report this".into();
    let state = ClusterState::Stale { since: SystemTime::now(), reason };
    status.set_state(state.clone());
    let changes_of = vec![Change::Cluster(cluster, state)];
    drop(changes.send(Batch { changes: changes_of, seen: Instant::now() }).await);
}

/// Takes over the credentials and the address of a kubeconfig whenever the file changes; what cannot be used is said, and
/// the old ones stay.
async fn follow_kubeconfig(cluster: &ClusterId, path: &Path, access: &Access) {
    let fingerprint = async || {
        let bytes = tokio::fs::read(path).await.ok()?;
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Some(hasher.finish())
    };
    let mut used = fingerprint().await;
    loop {
        tokio::time::sleep(KUBECONFIG_LOOK).await;
        let now = fingerprint().await;
        if now.is_none() || now == used {
            continue;
        }
        match replace(path, access).await {
            Ok(()) => {
                info!(%cluster, path = %path.display(), "new credentials are in use");
                used = now;
            }
            // Tried again at the next look: the API server may be away.
            Err(error) => warn!(%cluster, "the new kubeconfig is not used, the old one stays: {error:#}"),
        }
    }
}

async fn replace(path: &Path, access: &Access) -> Result<()> {
    let config = from_file(path).await?;
    let client = Client::new(&config)?;
    access.replace(client, PROOF).await.with_context(|| format!("kubeconfig {}", path.display()))
}
