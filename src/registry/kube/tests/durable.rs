//! What is kept over restarts.

use std::time::{Duration, SystemTime};

use super::{
    super::KubeSource,
    world::{World, service},
};
use crate::{
    model::change::ClusterState,
    registry::durable::{Slot, Snapshots},
};

fn slot(dir: &tempfile::TempDir, control_plane: &str) -> Slot {
    Snapshots::open(dir.path(), control_plane.into()).unwrap().slot(&"east".into(), false)
}

/// Two services that were read once and written, and an API server that says nothing any more.
async fn written_and_frozen(slot: Slot) -> World {
    let mut w = World::new(|source: &mut KubeSource| source.snapshot = Some(slot)).await;
    w.until("written", |w| w.status.report().snapshot.is_some()).await;
    w.task.abort();
    w.api.set(|state| state.frozen = true);
    w
}

#[tokio::test]
async fn a_cluster_that_is_away_at_the_start_is_as_it_was_until_it_answers() {
    let dir = tempfile::tempdir().unwrap();
    let before = written_and_frozen(slot(&dir, "east")).await;
    before.api.delete(&service("b"));

    let again = slot(&dir, "east");
    let mut w = World::start(before.api, |source| source.snapshot = Some(again)).await;
    w.until("served", |w| w.reason().is_some_and(|reason| reason.contains("its durable snapshot"))).await;
    assert_eq!(w.services(), ["a", "b"]);
    let ClusterState::Stale { since, .. } = w.state else { unreachable!() };
    let age = SystemTime::now().duration_since(since).unwrap();
    assert!(age > Duration::from_millis(500) && age < Duration::from_secs(60), "{age:?}");
    assert_eq!(w.status.report().snapshot, Some(since));

    // Of what is still there nothing is said again.
    let upserts = w.upserts;
    w.api.set(|state| state.frozen = false);
    w.synced().await;
    assert_eq!((w.services(), w.removed.len(), w.upserts), (vec!["a"], 1, upserts));
    assert!(w.problems().is_empty(), "{:?}", w.problems());
}

#[tokio::test]
async fn what_is_foreign_is_not_served_and_everything_else_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let before = written_and_frozen(slot(&dir, "east")).await;
    let other = slot(&dir, "north");
    let mut w = World::start(before.api, |source| source.snapshot = Some(other)).await;
    let foreign = |w: &World| w.problems().iter().any(|p| p.contains("is not served: it was taken of"));
    w.until("refused", foreign).await;
    assert!(w.services().is_empty() && w.state == ClusterState::Syncing);
    w.api.set(|state| state.frozen = false);
    w.synced().await;
    w.until("written anew", |w| w.problems().is_empty()).await;
    assert_eq!(w.services(), ["a", "b"]);
}
