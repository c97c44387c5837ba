use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;

/// A source on a directory, and the world as its changes tell it.
struct World {
    dir: tempfile::TempDir,
    changes: mpsc::Receiver<Batch>,
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
        let mut world = Self::start(dir, Timing::default());
        world.until("first read", |w| w.state == ClusterState::Synced).await;
        world
    }

    fn start(dir: tempfile::TempDir, timing: Timing) -> Self {
        let mut source = FileSource::new("east".into(), dir.path().join("root"));
        source.timing = timing;
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

    /// Takes in changes until the condition holds. What the status says belongs into it, too: it is told after the changes are
    /// on their way.
    async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !holds(self) {
            let tick = Duration::from_millis(10);
            match tokio::time::timeout(tick, self.changes.recv()).await {
                Ok(Some(batch)) => batch.changes.into_iter().for_each(|change| self.apply(change)),
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
            Change::Forget(_) => panic!("sources do not forget"),
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

    fn is_stale(&self) -> bool {
        matches!(self.state, ClusterState::Stale { .. })
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
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

#[tokio::test]
async fn what_breaks_keeps_its_last_good_version() {
    let service = |port: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{clusterIP: None, ports: [{{port: {port}}}]}}\n---\n"
        )
    };
    let mut w = World::new(&[("a.yaml", &(namespaces(&["a", "b"]) + &service("80")))]).await;
    // An object that does not make sense, beside one that changes and one that goes.
    w.write("a.yaml", &(namespace("a", "2") + &service("70000")));
    w.until("edit", |w| w.label("a") == Some("2") && w.removed == ["b"] && w.problems().len() == 1).await;
    assert_eq!(w.names(), ["a", "s"]);
    let problems = w.problems();
    assert_eq!((problems[0].line, problems[0].object.as_deref()), (Some(10), Some("default/Service/s")));
    assert!(
        problems[0]
            .to_string()
            .contains("root/a.yaml:10: default/Service/s: spec.ports[0].port: 70000 is no port")
    );
    // A document that is no YAML could be any object: nothing of the file goes.
    w.write("a.yaml", &(namespace("c", "1") + "kind: [\n---\n"));
    w.until("new object", |w| w.label("c").is_some()).await;
    assert_eq!(w.names(), ["a", "c", "s"]);
    // ... but what moves to another file is there.
    w.write("b.yaml", &namespace("a", "3"));
    w.until("moved", |w| w.label("a") == Some("3")).await;
    w.write("a.yaml", &(namespaces(&["c"]) + &service("81")));
    w.until("repaired", |w| w.problems().is_empty()).await;
    w.until("object", |w| w.names() == ["a", "c", "s"]).await;
    assert_eq!(w.removed, ["b"]);
    w.end().await;
}

#[tokio::test]
async fn editors_and_half_written_files_are_harmless() {
    let all = namespaces(&["a", "b", "c"]);
    let mut w = World::new(&[("a.yaml", &all)]).await;
    for i in 0..5 {
        // Truncate, think, write a part, think, write the rest.
        let text = all.replace("'1'", &format!("'w{i}'"));
        let mut file = fs::File::create(w.path("a.yaml")).unwrap();
        let (first, second) = text.split_at(text.len() / 2 + i);
        for part in [first, second] {
            tokio::time::sleep(Duration::from_millis(30)).await;
            file.write_all(part.as_bytes()).unwrap();
        }
        drop(file);
        w.until("written in place", |w| w.label("c") == Some(&format!("w{i}"))).await;
        // A new file put over the old one.
        w.write(".a.yaml.tmp", &all.replace("'1'", &format!("'r{i}'")));
        fs::rename(w.path(".a.yaml.tmp"), w.path("a.yaml")).unwrap();
        w.until("renamed", |w| w.label("c") == Some(&format!("r{i}"))).await;
        // vim: probe, swap file, the old one moved away, the new one written.
        for name in ["4913", ".a.yaml.swp", "b.yaml~", "#a.yaml#"] {
            w.write(name, &namespaces(&["never"]));
        }
        fs::rename(w.path("a.yaml"), w.path("a.yaml~")).unwrap();
        w.write("a.yaml", &all.replace("'1'", &format!("'v{i}'")));
        fs::remove_file(w.path("a.yaml~")).unwrap();
        w.until("vim", |w| w.label("c") == Some(&format!("v{i}"))).await;
    }
    assert_eq!((w.names(), w.removed.len()), (vec!["a", "b", "c"], 0));
    w.end().await;
}

#[tokio::test]
async fn a_root_that_goes_takes_nothing_along() {
    let mut w = World::new(&[("a.yaml", &namespaces(&["a", "b"]))]).await;
    let (root, away) = (w.dir.path().join("root"), w.dir.path().join("away"));
    fs::rename(&root, &away).unwrap();
    w.until("stale", World::is_stale).await;
    let ClusterState::Stale { reason, .. } = w.state.clone() else { unreachable!() };
    assert!(reason.contains("cannot be read"), "{reason}");
    // An empty mount point in its place is not the directory, however long it stays.
    fs::create_dir(&root).unwrap();
    w.until("empty", |w| matches!(&w.state, ClusterState::Stale { reason, .. } if reason.contains("volume")))
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    fs::remove_dir(&root).unwrap();
    fs::write(away.join("a.yaml"), namespace("b", "2") + &namespace("c", "1")).unwrap();
    fs::rename(&away, &root).unwrap();
    w.until("back", |w| w.state == ClusterState::Synced).await;
    w.until("changed meanwhile", |w| w.names() == ["b", "c"] && w.label("b") == Some("2")).await;
    // The new watch works.
    w.write("a.yaml", &namespaces(&["d"]));
    w.until("edit", |w| w.names() == ["d"]).await;
    // The same directory, emptied: believed after a while.
    fs::remove_file(w.path("a.yaml")).unwrap();
    w.until("suspicious", World::is_stale).await;
    assert_eq!(w.names(), ["d"]);
    w.until("believed", |w| w.names().is_empty() && w.state == ClusterState::Synced).await;
    w.end().await;
}

#[tokio::test]
async fn what_may_not_be_read_stays() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("root/sub")).unwrap();
    fs::write(dir.path().join("root/a.yaml"), namespaces(&["a"])).unwrap();
    fs::write(dir.path().join("root/sub/b.yaml"), namespaces(&["b"])).unwrap();
    // Permissions say nothing to root; a link to nowhere cannot be read by anybody.
    symlink("nowhere", dir.path().join("root/c.yaml")).unwrap();
    let mut w = World::start(dir, Timing::default());
    w.until("first read", |w| w.names() == ["a", "b"] && w.is_stale()).await;
    fs::remove_file(w.path("c.yaml")).unwrap();
    w.until("whole", |w| w.state == ClusterState::Synced).await;
    fs::remove_file(w.path("a.yaml")).unwrap();
    symlink("nowhere", w.path("a.yaml")).unwrap();
    w.until("link to nowhere", |w| w.is_stale() && !w.problems().is_empty()).await;
    assert_eq!(w.names(), ["a", "b"]);
    assert!(w.problems()[0].reason.contains("cannot be read"));
    fs::write(w.path("nowhere"), namespace("a", "2")).unwrap();
    w.until("back", |w| w.label("a") == Some("2") && w.state == ClusterState::Synced).await;

    if fs::set_permissions(w.path("sub"), fs::Permissions::from_mode(0o000)).is_ok()
        && fs::read_dir(w.path("sub")).is_err()
    {
        w.until("forbidden", World::is_stale).await;
        assert_eq!(w.names(), ["a", "b"]);
        fs::set_permissions(w.path("sub"), fs::Permissions::from_mode(0o755)).unwrap();
        w.until("allowed", |w| w.state == ClusterState::Synced).await;
    }
    assert!(w.removed.is_empty());
    w.end().await;
}

#[tokio::test]
async fn a_source_may_start_before_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let mut w = World::start(dir, Timing::default());
    w.until("nothing there", World::is_stale).await;
    fs::create_dir(&root).unwrap();
    w.until("there", |w| w.state == ClusterState::Synced).await;
    w.write("a.yaml", &namespaces(&["a"]));
    w.until("read", |w| w.names() == ["a"]).await;
    w.end().await;
}

/// As kubelet mounts ConfigMaps: files are links through `..data`, which is swapped.
#[tokio::test]
async fn swapped_links() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let version = |name: &str, text: &str| {
        fs::create_dir_all(root.join(name)).unwrap();
        fs::write(root.join(name).join("a.yaml"), text).unwrap();
    };
    version("..1", &namespaces(&["a", "b"]));
    symlink("..1", root.join("..data")).unwrap();
    symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    version("..2", &(namespace("a", "2") + &namespace("c", "1")));
    let mut w = World::start(dir, Timing::default());
    w.until("first", |w| w.names() == ["a", "b"]).await;
    symlink("..2", w.path("..tmp")).unwrap();
    fs::rename(w.path("..tmp"), w.path("..data")).unwrap();
    fs::remove_dir_all(w.path("..1")).unwrap();
    w.until("swapped", |w| w.names() == ["a", "c"] && w.label("a") == Some("2")).await;
    assert_eq!(w.removed, ["b"]);
    w.end().await;
}

/// What no event tells of is found, however much happens elsewhere.
#[tokio::test]
async fn everything_is_looked_at_now_and_then_where_events_never_pause() {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside.yaml"));
    fs::create_dir(&root).unwrap();
    fs::write(&outside, namespace("a", "1")).unwrap();
    symlink(&outside, root.join("a.yaml")).unwrap();
    let busy = CancellationToken::new();
    let (stop, file, draft) = (busy.clone(), root.join("b.yaml"), dir.path().join("b.draft"));
    let writer = std::thread::spawn(move || {
        for i in 0.. {
            fs::write(&draft, namespace("b", &i.to_string())).unwrap();
            fs::rename(&draft, &file).unwrap();
            std::thread::sleep(Duration::from_millis(2));
            if stop.is_cancelled() {
                return;
            }
        }
    });
    let mut w = World::start(dir, Timing { rescan: Duration::from_millis(300), ..Timing::default() });
    w.until("first read", |w| w.label("a") == Some("1") && w.label("b").is_some()).await;
    fs::write(&outside, namespace("a", "2")).unwrap();
    w.until("rescan", |w| w.label("a") == Some("2")).await;
    busy.cancel();
    writer.join().unwrap();
    w.end().await;
}

#[tokio::test]
async fn two_definitions_of_one_object() {
    let mut w = World::new(&[("b.yaml", &namespace("a", "b")), ("c.json", &namespaces(&["other"]))]).await;
    assert_eq!(w.label("a"), Some("b"));
    w.write("a.yaml", &namespace("a", "a"));
    w.until("first by path", |w| w.label("a") == Some("a") && w.problems().len() == 1).await;
    let text = w.problems()[0].to_string();
    assert!(text.contains("b.yaml:1") && text.contains("in a.yaml:1, which wins"), "{text}");
    fs::remove_file(w.path("a.yaml")).unwrap();
    w.until("the other", |w| w.label("a") == Some("b") && w.problems().is_empty()).await;
    assert!(w.removed.is_empty());
    w.end().await;
}

#[tokio::test]
async fn an_edit_is_seen_at_once() {
    let mut w = World::new(&[("a.yaml", &namespace("a", "0"))]).await;
    let mut times = Vec::new();
    for i in 1..=20 {
        let start = std::time::Instant::now();
        w.write("a.yaml", &namespace("a", &i.to_string()));
        w.until("edit", |w| w.label("a") == Some(&i.to_string())).await;
        times.push(start.elapsed());
    }
    times.sort();
    println!("edit to change: median {:?}, worst {:?}", times[10], times[19]);
    // 50 ms is the whole way to Envoy; a busy machine may take longer now and then.
    assert!(times[10] < Duration::from_millis(50), "{times:?}");
    w.end().await;
}
