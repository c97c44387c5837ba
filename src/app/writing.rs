//! The writers of all clusters: begun when a cluster is read from its API server, ended with it, and at the end of the process
//! in good order, so that another replica goes on at once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, time};
use tokio_util::{sync::CancellationToken, sync::DropGuard, task::TaskTracker};

use crate::{
    model::ClusterId,
    registry::kubernetes::Access,
    writers::{Standing, Writer},
};

/// How long Leases may take to be given back at the end.
const GIVING_BACK: Duration = Duration::from_secs(3);

/// Begins and ends writers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Writing {
    writer: Arc<Writer>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Ends a cluster's writer when it is dropped.
    running: Arc<Mutex<BTreeMap<ClusterId, DropGuard>>>,
    own: watch::Sender<Standing>,
}

impl Writing {
    pub fn new(writer: Writer) -> Self {
        Self {
            writer: Arc::new(writer),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            running: Arc::default(),
            own: watch::Sender::default(),
        }
    }

    /// Who writes to the own cluster.
    pub fn own(&self) -> watch::Receiver<Standing> {
        self.own.subscribe()
    }

    /// Writes to a cluster by this way, as far as it is ours.
    pub fn begin(&self, cluster: &ClusterId, access: Access) {
        let standing = if *cluster == self.writer.own { self.own.clone() } else { watch::Sender::default() };
        let (writer, stop, id) = (self.writer.clone(), self.stop.child_token(), cluster.clone());
        self.running.lock().insert(id.clone(), stop.clone().drop_guard());
        self.tasks.spawn(async move { writer.run(&id, access, standing, stop).await });
    }

    /// Ends the writer of a cluster.
    pub fn end(&self, cluster: &ClusterId) {
        self.running.lock().remove(cluster);
    }

    /// Ends all of them and waits until they gave back what they hold.
    pub async fn end_all(&self) {
        self.stop.cancel();
        self.tasks.close();
        if time::timeout(GIVING_BACK, self.tasks.wait()).await.is_err() {
            tracing::warn!("some Leases were not given back in {GIVING_BACK:?}; they run out by themselves");
        }
    }
}

/// What this replica is called in Leases. A pod's name is no other pod's.
pub fn identity(pod_name: Option<&str>) -> Arc<str> {
    let made_up = || {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        format!("{}_{:016x}", host.trim(), rand::random::<u64>())
    };
    pod_name.map_or_else(made_up, str::to_owned).into()
}
