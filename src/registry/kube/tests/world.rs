//! A source that reads a scripted API server, and the world as its changes tell it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    super::*,
    api::{Api, Id, id},
};
use crate::{
    model::{Batch, Change, Kind, Object, ObjectKey, change::ClusterState},
    registry::SourceStatus,
};

/// A source, and the world as its changes tell it.
pub(super) struct World {
    pub api: Api,
    pub changes: mpsc::Receiver<Batch>,
    pub status: SourceStatus,
    pub access: Access,
    pub task: tokio::task::JoinHandle<()>,
    objects: BTreeMap<ObjectKey, Object>,
    pub state: ClusterState,
    /// Every name that was ever removed.
    pub removed: Vec<String>,
    pub upserts: usize,
}

pub(super) fn client(api: &Api, token: &str) -> Client {
    // Tests of other modules install the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config = ::kube::Config::new(format!("http://{}", api.address).parse().unwrap());
    config.auth_info.token = Some(token.to_owned().into());
    Client::new(&config).unwrap()
}

fn impatient() -> Timing {
    Timing {
        answer: Duration::from_millis(500),
        silence: Duration::from_secs(20),
        backoff: (Duration::from_millis(10), Duration::from_millis(50)),
        grace: Duration::from_millis(100),
        patience: None,
        uninstalled: Duration::from_millis(50),
        tick: Duration::from_millis(20),
        ..Timing::default()
    }
}

pub(super) fn service(name: &str) -> Id {
    id("services", "production", name)
}

impl World {
    pub async fn start(api: Api, set: impl FnOnce(&mut KubeSource)) -> Self {
        let mut source = KubeSource::new("east".into(), client(&api, "first"));
        source.timing = impatient();
        source.config_cluster = true;
        set(&mut source);
        let access = source.access();
        let (sender, changes) = mpsc::channel(16);
        let status = SourceStatus::new("east".into());
        let task = tokio::spawn(source.run(sender, status.clone(), CancellationToken::new()));
        let (objects, removed) = (BTreeMap::new(), Vec::new());
        Self {
            api,
            changes,
            status,
            access,
            task,
            objects,
            state: ClusterState::Syncing,
            removed,
            upserts: 0,
        }
    }

    /// With two services, read for the first time.
    pub async fn new(set: impl FnOnce(&mut KubeSource)) -> Self {
        let api = Api::start().await;
        api.put(&id("namespaces", "", "production"), json!({}), json!({}));
        for name in ["a", "b"] {
            api.put_service(&service(name), "1");
        }
        let mut world = Self::start(api, set).await;
        world.synced().await;
        assert_eq!(world.services(), ["a", "b"]);
        world
    }

    pub async fn synced(&mut self) {
        self.until("synced", |w| w.state == ClusterState::Synced).await;
    }

    pub async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds(self) {
            match tokio::time::timeout(Duration::from_millis(10), self.changes.recv()).await {
                Ok(Some(batch)) => batch.changes.into_iter().for_each(|change| self.apply(change)),
                Ok(None) => panic!("{what}: the source has ended"),
                Err(_) => {}
            }
            let report = self.status.report();
            assert!(Instant::now() < deadline, "{what}: {:?} {:?} {report:?}", self.services(), self.state);
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Upsert(key, object) => {
                self.upserts += 1;
                self.objects.insert(key, object);
            }
            Change::Remove(key) => {
                assert!(self.objects.remove(&key).is_some(), "{key} was not there");
                self.removed.push(key.name.to_string());
            }
            Change::Cluster(_, state) => self.state = state,
            Change::Forget(_) => panic!("sources do not forget"),
        }
    }

    pub fn names(&self, kind: Kind) -> Vec<&str> {
        self.objects.keys().filter(|key| key.kind == kind).map(|key| &*key.name).collect()
    }

    pub fn services(&self) -> Vec<&str> {
        self.names(Kind::Service)
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.objects.iter().find(|(key, _)| &*key.name == name).and_then(|(_, object)| match object {
            Object::Service(s) => s.meta.labels.get("v").map(|v| &**v),
            _ => None,
        })
    }

    pub fn reason(&self) -> Option<&str> {
        match &self.state {
            ClusterState::Stale { reason, .. } => Some(reason),
            _ => None,
        }
    }

    pub fn problems(&self) -> Vec<String> {
        self.status.report().problems.iter().map(ToString::to_string).collect()
    }
}

impl Api {
    pub fn put_service(&self, id: &Id, label: &str) {
        self.put(
            id,
            json!({ "v": label }),
            json!({ "spec": { "clusterIP": "None", "ports": [{ "port": 80 }] } }),
        );
    }
}
