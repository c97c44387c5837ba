//! The durable snapshot of a cluster, beside its watches: taken in before them, and written while everything is watched.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::sleep};

use super::{
    client::Client,
    source::{Deaf, Shared},
};
use crate::{
    model::change::ClusterState,
    registry::{
        Problem, SourceStatus,
        durable::{Slot, Snapshot, SnapshotError},
    },
};

/// Between two writes lies at least so many times what the last one took: a large cluster in a churn costs no more than two
/// per cent of a core.
const REST: u32 = 50;
/// How long a cluster of which a snapshot is in force is waited for before others are told of it.
pub(super) const PATIENCE: Duration = Duration::from_millis(900);

/// Where the snapshot is, and what is in it.
#[derive(Debug)]
pub(super) struct Keeper {
    slot: Slot,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// When what was read at the start was known to hold.
    restored: Option<SystemTime>,
    /// Which state is on disk, and of which API server.
    saved: Option<(u64, Arc<str>)>,
    problem: Option<Problem>,
}

impl Keeper {
    pub fn new(slot: Slot) -> Self {
        Self { slot, kept: Mutex::default() }
    }

    /// When what was read at the start was known to hold.
    pub fn restored(&self) -> Option<SystemTime> {
        self.kept.lock().restored
    }

    /// What is wrong with it.
    pub fn problem(&self) -> Option<Problem> {
        self.kept.lock().problem.clone()
    }

    fn failed(&self, error: &SnapshotError) {
        let mut kept = self.kept.lock();
        (kept.saved, kept.problem) = (None, Some(self.slot.problem(error)));
    }

    /// Writes what is in force, or notes that it is what was written.
    async fn save(&self, shared: &Shared, server: &str, status: &SourceStatus) {
        let (state, now) = (shared.edits(), SystemTime::now());
        let same = |saved: &(u64, Arc<str>)| saved.0 == state && *saved.1 == *server;
        let is_there = self.kept.lock().saved.as_ref().is_some_and(same);
        let result = if is_there {
            self.slot.confirm().await
        } else {
            let items = shared.view.lock().items();
            self.slot.save(server, state, items).await
        };
        match result {
            Ok(()) => {
                let mut kept = self.kept.lock();
                (kept.saved, kept.problem) = (Some((state, server.into())), None);
                status.set_snapshot(now);
            }
            Err(error) => self.failed(&error),
        }
    }
}

/// Takes in what was known when the cluster was last seen whole, if there is anything.
pub(super) async fn restore(shared: &Shared, server: &str, status: &SourceStatus) -> Result<(), Deaf> {
    let Some(keeper) = &shared.keeper else { return Ok(()) };
    match keeper.slot.load(Some(server)).await {
        Ok(None) => {}
        Ok(Some(Snapshot { as_of, items })) => {
            let age = as_of.elapsed().unwrap_or_default();
            tracing::info!(cluster = %shared.cluster, objects = items.len(), ?age,
                "what was last known is in force until the cluster is read");
            let mut changes = Vec::new();
            shared.view.lock().restore(items, &mut changes);
            shared.freshness.lock().restored();
            status.set_snapshot(as_of);
            shared.send(changes, Instant::now()).await?;
            let mut kept = keeper.kept.lock();
            (kept.restored, kept.saved) = (Some(as_of), Some((shared.edits(), server.into())));
        }
        Err(error) => keeper.failed(&error),
    }
    Ok(())
}

/// Writes whenever something changed, for ever. Only a cluster that is watched whole is written: what is there of one that
/// is not is as old as it says.
pub(super) async fn keep(shared: &Shared, access: watch::Receiver<Arc<Client>>, status: &SourceStatus) {
    let Some(keeper) = &shared.keeper else { return std::future::pending().await };
    let mut state = shared.state.subscribe();
    loop {
        // Its sender is a part of `shared`.
        drop(state.wait_for(|state| *state == ClusterState::Synced).await);
        let began = Instant::now();
        let client = access.borrow().clone();
        keeper.save(shared, client.server(), status).await;
        sleep(shared.timing.save.max(began.elapsed() * REST)).await;
    }
}

/// The last write.
pub(super) async fn finish(shared: &Shared, client: &Client, status: &SourceStatus) {
    if let Some(keeper) = &shared.keeper
        && *shared.state.borrow() == ClusterState::Synced
    {
        keeper.save(shared, client.server(), status).await;
    }
}
