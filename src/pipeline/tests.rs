//! When proxies are answered.

use std::time::Instant;

use super::*;
use crate::snapshot::Attacher;

fn options() -> Options {
    Options {
        config_cluster: "a".into(),
        failover_by_default: true,
        domain: "cluster.local".into(),
        mcs: Default::default(),
    }
}

/// Whether all clusters are read is asked for as soon as one more was told to join.
#[tokio::test]
async fn who_tells_something_and_asks_sees_it() {
    let (changes, batches) = mpsc::channel(16);
    let (_attacher, commands) = Attacher::new();
    let (inspector, inspections) = Inspector::new();
    let (pipeline, _ready) = Pipeline::new(options(), BTreeSet::new(), batches, commands, inspections);
    let running = tokio::spawn(pipeline.run());
    for count in 1..50 {
        let joins = Change::Cluster(format!("{count}").as_str().into(), ClusterState::Syncing);
        // One thread: the pipeline has both before it has its turn.
        changes.try_send(Batch { changes: vec![joins], seen: Instant::now() }).unwrap();
        assert_eq!(inspector.ask(|state| state.index.clusters().count()).await, Some(count));
    }
    running.abort();
}

/// A cluster that joins while others are read is awaited, too; one that is taken away is not any more.
#[tokio::test]
async fn the_clusters_that_are_awaited_may_change() {
    let (changes, batches) = mpsc::channel(16);
    let (_attacher, commands) = Attacher::new();
    let (inspector, inspections) = Inspector::new();
    let awaited = BTreeSet::from(["a".into(), "b".into()]);
    let (pipeline, ready) = Pipeline::new(options(), awaited, batches, commands, inspections);
    let running = tokio::spawn(pipeline.run());
    let is = |id: &str, state| Change::Cluster(id.into(), state);
    let steps = [
        (is("a", ClusterState::Synced), false),
        (is("c", ClusterState::Syncing), false),
        (Change::Forget("b".into()), false),
        (is("c", ClusterState::Synced), true),
        (is("d", ClusterState::Syncing), true),
    ];
    for (change, expected) in steps {
        let what = format!("{change:?}");
        changes.send(Batch { changes: vec![change], seen: Instant::now() }).await.unwrap();
        while changes.capacity() < 16 {
            tokio::task::yield_now().await;
        }
        let clusters = inspector.ask(|state| state.index.clusters().count()).await.unwrap();
        assert_eq!(*ready.borrow(), expected, "after {what}, of {clusters}");
    }
    running.abort();
}
