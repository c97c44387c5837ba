//! Clusters of which only the durable snapshot is there: nobody says how they are reached, because the secrets that do so cannot
//! be read, or not be used. What is known of them is served, and nothing else happens to them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Instant, SystemTime},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    model::{
        Change, ClusterId, ObjectKey,
        change::{Batch, ClusterState},
    },
    registry::{
        SourceStatus,
        durable::{Item, Snapshot},
    },
};

/// What is served, and why nothing newer.
pub struct Remembered {
    pub cluster: ClusterId,
    pub snapshot: Snapshot,
    pub reason: Arc<str>,
}

impl Remembered {
    /// Says what was known, and waits for the end.
    pub async fn run(self, changes: mpsc::Sender<Batch>, status: SourceStatus, stop: CancellationToken) {
        let Self { cluster, snapshot: Snapshot { as_of, items }, reason } = self;
        tell(&status, as_of, &items);
        let state = ClusterState::Stale { since: as_of, reason };
        status.set_state(state.clone());
        let upsert = |Item { namespace, name, object }: Item| {
            let key = ObjectKey { cluster: cluster.clone(), kind: object.kind(), namespace, name };
            Change::Upsert(key, object)
        };
        let mut all: Vec<_> = items.into_iter().map(upsert).collect();
        all.push(Change::Cluster(cluster.clone(), state));
        // Without a pipeline nobody is told.
        drop(changes.send(Batch { changes: all, seen: Instant::now() }).await);
        stop.cancelled().await;
    }
}

fn tell(status: &SourceStatus, as_of: SystemTime, items: &[Item]) {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(format!("{:?}", item.object.kind())).or_default() += 1;
    }
    status.set_counts(counts, BTreeMap::new());
    status.set_snapshot(as_of);
}
