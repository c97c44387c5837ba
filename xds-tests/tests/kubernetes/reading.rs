//! landbridge's source on a real API server, and the world as its changes tell it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use landbridge::model::change::ClusterState;
use landbridge::model::{Batch, Change, Kind, Object, ObjectKey};
use landbridge::registry::kubernetes::{Access, Client};
use landbridge::registry::{KubeSource, SourceReport, SourceStatus};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use xds_tests::kubernetes::{Cluster, Login};

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A source, and what it has said.
pub struct Reading {
    changes: mpsc::Receiver<Batch>,
    pub status: SourceStatus,
    pub access: Access,
    task: JoinHandle<()>,
    pub objects: BTreeMap<ObjectKey, Object>,
    pub state: ClusterState,
    /// Every object that was ever removed.
    pub removed: Vec<String>,
    pub upserts: usize,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a client reaches the cluster, directly or by way of another address.
pub async fn config(cluster: &Cluster, login: Login, by: Option<SocketAddr>) -> Result<Config> {
    let kubeconfig = Kubeconfig::from_yaml(&cluster.kubeconfig(login)?)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    if let Some(by) = by {
        config.tls_server_name = config.cluster_url.host().map(str::to_owned);
        config.cluster_url = format!("https://{by}").parse()?;
    }
    Ok(config)
}

impl Reading {
    /// Begins to read as the config cluster `east`, more impatient than in production where it can be.
    pub fn start(config: &Config, set: impl FnOnce(&mut KubeSource)) -> Result<Self> {
        let mut source = KubeSource::new("east".into(), Client::new(config)?);
        source.config_cluster = true;
        source.timing.patience = None;
        source.timing.grace = Duration::from_millis(500);
        source.timing.uninstalled = Duration::from_millis(200);
        source.timing.backoff = (Duration::from_millis(50), Duration::from_secs(2));
        source.timing.probe = Duration::from_secs(1);
        set(&mut source);
        let access = source.access();
        let (sender, changes) = mpsc::channel(64);
        let status = SourceStatus::new("east".into());
        let task = tokio::spawn(source.run(sender, status.clone(), CancellationToken::new()));
        let state = ClusterState::Syncing;
        let (objects, removed) = (BTreeMap::new(), Vec::new());
        Ok(Self { changes, status, access, task, objects, state, removed, upserts: 0 })
    }

    /// Takes in changes until the condition holds.
    pub async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            match timeout(Duration::from_millis(5), self.changes.recv()).await {
                Ok(Some(batch)) => batch.changes.into_iter().try_for_each(|change| self.apply(change))?,
                Ok(None) => bail!("{what}: the source has ended"),
                Err(_) => {}
            }
            if Instant::now() > deadline {
                let names: Vec<_> = self.objects.keys().map(ToString::to_string).collect();
                bail!("{what}: {:?}, {:#?}, of {names:?}", self.state, self.report());
            }
        }
        Ok(())
    }

    fn apply(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Upsert(key, object) => {
                self.upserts += 1;
                self.objects.insert(key, object);
            }
            Change::Remove(key) => {
                ensure!(self.objects.remove(&key).is_some(), "{key} is removed and was not there");
                self.removed.push(key.to_string());
            }
            Change::Cluster(_, state) => self.state = state,
            Change::Forget(cluster) => bail!("a source forgets {cluster}"),
        }
        Ok(())
    }

    pub async fn synced(&mut self) -> Result<()> {
        self.until("synced", |r| r.state == ClusterState::Synced).await
    }

    pub async fn stale(&mut self, word: &str) -> Result<()> {
        self.until(
            &format!("stale, because {word}"),
            |r| matches!(&r.state, ClusterState::Stale { reason, .. } if reason.contains(word)),
        )
        .await
    }

    pub fn get(&self, kind: Kind, name: &str) -> Option<&Object> {
        self.objects.iter().find(|(key, _)| key.kind == kind && &*key.name == name).map(|(_, object)| object)
    }

    /// Addresses of a slice's endpoints.
    pub fn addresses(&self, slice: &str) -> Vec<String> {
        match self.get(Kind::EndpointSlice, slice) {
            Some(Object::EndpointSlice(slice)) => {
                let rows = &slice.endpoints;
                (0..rows.len()).map(|row| rows.address(row).to_string()).collect()
            }
            _ => Vec::new(),
        }
    }

    pub fn report(&self) -> SourceReport {
        self.status.report()
    }

    /// What is wrong, as people read it.
    pub fn problems(&self) -> Vec<String> {
        self.report().problems.iter().map(ToString::to_string).collect()
    }

    /// What is known about when it was stale since.
    pub fn stale_for(&self) -> Result<Duration> {
        match &self.state {
            ClusterState::Stale { since, .. } => since.elapsed().context("a clock that goes forward"),
            other => bail!("{other:?}"),
        }
    }
}
