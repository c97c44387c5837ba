use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    model::{Change, Object, ObjectKey, change::ClusterState},
    registry::{Problem, SourceStatus},
};

/// A source on a directory, and the world as its changes tell it.
struct World {
    dir: tempfile::TempDir,
    changes: mpsc::Receiver<Vec<Change>>,
    status: SourceStatus,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), SourceError>>,
    objects: BTreeMap<ObjectKey, Object>,
    state: ClusterState,
    /// Every key that was ever removed.
    removed: Vec<String>,
}

impl World {
    /// The directory `root` below a temporary one, with these files, read for the first time.
    async fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join("root").join(name), text).unwrap();
        }
        let mut world = Self::start(dir);
        world.until("first read", |w| w.state == ClusterState::Synced).await;
        world
    }

    fn start(dir: tempfile::TempDir) -> Self {
        let mut source = FileSource::new("east".into(), dir.path().join("root"));
        source.timing.retry = Duration::from_millis(20);
        source.timing.empty_grace = Duration::from_millis(200);
        let (sender, changes) = mpsc::channel(16);
        let (status, stop) = (SourceStatus::new("east".into()), CancellationToken::new());
        let task = tokio::spawn(source.run(sender, status.clone(), stop.clone()));
        let (objects, removed) = (BTreeMap::new(), Vec::new());
        Self { dir, changes, status, stop, task, objects, state: ClusterState::Syncing, removed }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("root").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Takes in changes until the condition holds.
    async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !holds(self) {
            let tick = Duration::from_millis(10);
            match tokio::time::timeout(tick, self.changes.recv()).await {
                Ok(Some(batch)) => batch.into_iter().for_each(|change| self.apply(change)),
                Ok(None) => panic!("{what}: the source has ended"),
                Err(_) => {}
            }
            let now = tokio::time::Instant::now();
            assert!(now < deadline, "{what}: {:?} {:?} {:?}", self.names(), self.state, self.problems());
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Upsert(key, object) => drop(self.objects.insert(key, object)),
            Change::Remove(key) => {
                self.removed.push(key.name.to_string());
                assert!(self.objects.remove(&key).is_some(), "{key} was not there");
            }
            Change::Cluster(_, state) => self.state = state,
        }
    }

    fn names(&self) -> Vec<&str> {
        self.objects.keys().map(|key| &*key.name).collect()
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.objects.iter().find(|(key, _)| &*key.name == name).and_then(|(_, object)| match object {
            Object::Namespace(n) => n.meta.labels.get("v").map(|v| &**v),
            _ => None,
        })
    }

    fn problems(&self) -> Vec<Problem> {
        self.status.report().problems
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn namespace(name: &str, v: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {{v: '{v}'}}\n---\n")
}

fn namespaces(names: &[&str]) -> String {
    names.iter().map(|name| namespace(name, "1")).collect()
}

#[tokio::test]
async fn an_edit_is_one_change_and_a_deleted_file_takes_its_objects() {
    let mut w = World::new(&[("a.yaml", &namespaces(&["a", "b"])), ("c.yaml", &namespaces(&["c"]))]).await;
    assert_eq!(w.names(), ["a", "b", "c"]);
    w.write("a.yaml", &(namespace("a", "2") + &namespace("b", "1")));
    w.until("edit", |w| w.label("a") == Some("2")).await;
    w.write("a.yaml", &namespaces(&["b"]));
    w.until("object gone", |w| w.names() == ["b", "c"]).await;
    fs::remove_file(w.path("c.yaml")).unwrap();
    w.until("file gone", |w| w.names() == ["b"]).await;
    fs::create_dir_all(w.path("deep/er")).unwrap();
    w.write("deep/er/d.yml", &namespaces(&["d"]));
    w.until("new directory", |w| w.names() == ["b", "d"]).await;
    assert_eq!(w.removed, ["a", "c"]);
    w.end().await;
}
