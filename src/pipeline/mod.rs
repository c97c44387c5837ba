//! The single writer. Everything that is derived changes here and nowhere else.
//!
//! ```text
//! changes, attaches, nacks -> index.update -> Delta -> layers: build what is dirty -> classes: publish snapshots
//! ```
//!
//! Nothing waits for a timer: the first change goes at once, and what arrives while it is being worked on is the next batch.
//! Only what the staleness of a cluster does to its endpoints begins at a time of its own ([`staleness`]).

mod classes;
mod layer;
mod layers;
mod staleness;
mod units;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

pub use classes::Classes;
use futures::future::OptionFuture;
pub use layers::{Layers, Rejection};
use tokio::{
    sync::{mpsc, watch},
    time::sleep_until,
};
use tracing::{debug, info};

use self::staleness::Staleness;
use crate::{
    index::{Addresses, Delta, Index, Options},
    model::{
        Change, ClusterId,
        change::{Batch, ClusterState},
        staleness::{StalePolicies, Treatment},
    },
    snapshot::Command,
};

/// A question that is answered between two batches, with everything in one consistent state. Collect shared pointers
/// and return: what takes long is done outside.
pub type Inspection = Box<dyn FnOnce(&State) + Send>;

/// All state of the control plane, owned by the pipeline task.
#[derive(Debug)]
pub struct State {
    /// Derived tables.
    pub index: Index,
    /// Built resources, per view.
    pub layers: Layers,
    /// Streams by class.
    pub classes: Classes,
    /// What the pipeline has done so far.
    pub totals: Totals,
}

/// Counters, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Batches worked on.
    pub batches: u64,
    /// Changes in them.
    pub changes: u64,
    /// Resources whose bytes changed.
    pub resources: u64,
    /// Builders that panicked; the last good bytes stayed.
    pub failed_builds: u64,
    /// Time spent, in seconds.
    pub busy: f64,
}

/// The pipeline task.
pub struct Pipeline {
    state: State,
    changes: mpsc::Receiver<Batch>,
    commands: mpsc::UnboundedReceiver<Command>,
    inspections: mpsc::Receiver<Inspection>,
    /// Clusters that must have been read once before any proxy is told anything.
    awaited: BTreeSet<ClusterId>,
    waiting: Vec<Command>,
    staleness: Staleness,
    dead_gateways: watch::Receiver<Arc<BTreeSet<SocketAddr>>>,
    gateway_addresses: watch::Receiver<Arc<Addresses>>,
    ready: watch::Sender<bool>,
}

/// At most so many queued batches are taken in one go, so that a flood of changes cannot starve the proxies.
const BATCHES_AT_ONCE: usize = 256;

// === impl State ===

impl State {
    /// Empty tables.
    pub fn new(options: Options) -> Self {
        Self {
            index: Index::new(options),
            layers: Layers::default(),
            classes: Classes::default(),
            totals: Totals::default(),
        }
    }

    /// Takes in changes and publishes what follows from them. The heart of landbridge, and the unit of its tests.
    pub fn apply(&mut self, changes: Vec<Change>, event: Instant) {
        self.totals.batches += 1;
        self.totals.changes += changes.len() as u64;
        self.take_in(event, |index| index.update(changes));
    }

    /// Does something to the endpoints of clusters that are away, or were.
    pub fn treat(&mut self, treatments: Vec<(ClusterId, Treatment)>, event: Instant) {
        self.take_in(event, |index| index.treat(treatments));
    }

    /// Takes in which gateways are dead: what lies behind them comes after all else.
    pub fn set_dead_gateways(&mut self, dead: Arc<BTreeSet<SocketAddr>>, event: Instant) {
        self.take_in(event, |index| index.set_dead_gateways(dead));
    }

    /// Takes in what the host names of gateways mean.
    pub fn set_gateway_addresses(&mut self, addresses: Arc<Addresses>, event: Instant) {
        self.take_in(event, |index| index.set_gateway_addresses(addresses));
    }

    /// Takes in what a stream says.
    pub fn command(&mut self, command: Command) {
        match command {
            Command::Attach(id, proxy, answer) => {
                let receiver =
                    self.classes.attach(id, proxy, &self.index, &mut self.layers, &mut self.totals);
                // A stream that ended meanwhile says so with a Detach of its own.
                let _ = answer.send(receiver);
            }
            Command::Detach(id) => self.classes.detach(id, &mut self.layers),
            Command::Nack(_, nack) => {
                let touched = self.layers.quarantine(nack);
                self.classes.publish(&touched, &self.layers, Instant::now());
            }
        }
    }

    /// Changes the tables, builds what this made dirty, and publishes it.
    fn take_in(&mut self, event: Instant, change: impl FnOnce(&mut Index) -> Delta) {
        let started = Instant::now();
        let delta = change(&mut self.index);
        if !delta.is_empty() {
            let touched = self.layers.rebuild(&self.index, &delta, &mut self.totals);
            self.classes.publish(&touched, &self.layers, event);
            self.classes.move_streams(&delta.proxies, &self.index, &mut self.layers, &mut self.totals);
        }
        self.totals.busy += started.elapsed().as_secs_f64();
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// A pipeline that answers no proxy before every one of `awaited` was read once or is known to be away.
    pub fn new(
        options: Options,
        awaited: BTreeSet<ClusterId>,
        changes: mpsc::Receiver<Batch>,
        commands: mpsc::UnboundedReceiver<Command>,
        inspections: mpsc::Receiver<Inspection>,
    ) -> (Self, watch::Receiver<bool>) {
        let (ready, is_ready) = watch::channel(false);
        let state = State::new(options);
        let staleness = Staleness::new(StalePolicies::default(), Instant::now());
        let waiting = Vec::new();
        let (_, dead_gateways) = watch::channel(Arc::default());
        let (_, gateway_addresses) = watch::channel(Arc::default());
        let pipeline = Self {
            state,
            changes,
            commands,
            inspections,
            awaited,
            waiting,
            staleness,
            dead_gateways,
            gateway_addresses,
            ready,
        };
        (pipeline, is_ready)
    }

    /// What is done to clusters that are away; by default nothing.
    pub fn with_stale_policies(self, policies: StalePolicies) -> Self {
        Self { staleness: Staleness::new(policies, Instant::now()), ..self }
    }

    /// Who says which gateways are dead; by default nobody.
    pub fn with_dead_gateways(self, dead_gateways: watch::Receiver<Arc<BTreeSet<SocketAddr>>>) -> Self {
        Self { dead_gateways, ..self }
    }

    /// Who says what the host names of gateways mean; by default nobody.
    pub fn with_gateway_addresses(self, gateway_addresses: watch::Receiver<Arc<Addresses>>) -> Self {
        Self { gateway_addresses, ..self }
    }

    /// Runs until every sender of changes and commands is gone.
    pub async fn run(mut self) {
        loop {
            let due = self.staleness.next().map(|due| sleep_until(due.into()));
            // Whoever is chosen: neither a storm of proxies nor a flood of changes makes the other wait.
            tokio::select! {
                Some(inspection) = self.inspections.recv() => self.on_inspection(inspection),
                Some(command) = self.commands.recv() => self.on_command(command),
                Some(batch) = self.changes.recv() => self.on_batch(batch),
                Ok(()) = self.dead_gateways.changed() => self.on_dead_gateways(),
                Ok(()) = self.gateway_addresses.changed() => self.on_gateway_addresses(),
                Some(()) = OptionFuture::from(due) => self.on_due(),
                else => return,
            }
        }
    }

    /// Who tells something and then asks sees what was told.
    fn on_inspection(&mut self, inspection: Inspection) {
        for _ in 0..self.changes.len().div_ceil(BATCHES_AT_ONCE) {
            if let Ok(batch) = self.changes.try_recv() {
                self.on_batch(batch);
            }
        }
        inspection(&self.state);
    }

    fn on_command(&mut self, command: Command) {
        if *self.ready.borrow() {
            self.state.command(command);
        } else {
            // Told now, a proxy would lose what was not read yet.
            self.waiting.push(command);
        }
    }

    fn on_batch(&mut self, first: Batch) {
        let event = first.seen;
        let mut changes = first.changes;
        for _ in 1..BATCHES_AT_ONCE {
            match self.changes.try_recv() {
                Ok(next) => changes.extend(next.changes),
                Err(_) => break,
            }
        }
        self.note_clusters(&changes);
        let count = changes.len();
        let treated = self.staleness.note(&changes, Instant::now(), SystemTime::now());
        self.state.apply(changes, event);
        self.treat(treated, event);
        debug!(changes = count, elapsed = ?event.elapsed(), "batch committed");
        self.become_ready();
    }

    fn on_due(&mut self) {
        let now = Instant::now();
        let treated = self.staleness.due(now);
        self.treat(treated, now);
    }

    fn on_dead_gateways(&mut self) {
        let dead = self.dead_gateways.borrow_and_update().clone();
        self.state.set_dead_gateways(dead, Instant::now());
    }

    fn on_gateway_addresses(&mut self) {
        let addresses = self.gateway_addresses.borrow_and_update().clone();
        self.state.set_gateway_addresses(addresses, Instant::now());
    }

    fn treat(&mut self, treated: Vec<(ClusterId, Treatment)>, event: Instant) {
        if treated.is_empty() {
            return;
        }
        for (cluster, treatment) in &treated {
            info!(%cluster, ?treatment, "endpoints of the cluster are treated by --stale-cluster");
        }
        self.state.treat(treated, event);
    }

    /// A cluster that joins before the others are read is awaited with them, and one that is taken away is not.
    fn note_clusters(&mut self, changes: &[Change]) {
        if *self.ready.borrow() {
            return;
        }
        for change in changes {
            match change {
                Change::Cluster(id, ClusterState::Syncing) => drop(self.awaited.insert(id.clone())),
                Change::Forget(id) => drop(self.awaited.remove(id)),
                _ => {}
            }
        }
    }

    fn become_ready(&mut self) {
        if *self.ready.borrow() {
            return;
        }
        let states: std::collections::BTreeMap<_, _> = self.state.index.clusters().collect();
        let known = |id: &ClusterId| states.get(id).is_some_and(|state| **state != ClusterState::Syncing);
        if self.awaited.iter().all(known) {
            info!(
                clusters = self.awaited.len(),
                services = self.state.index.services().count(),
                "registry is complete"
            );
            self.ready.send_replace(true);
            for command in std::mem::take(&mut self.waiting) {
                self.state.command(command);
            }
        }
    }
}

/// How long an inspection may wait for the pipeline before the asker gives up.
pub const INSPECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Where others ask.
#[derive(Clone, Debug)]
pub struct Inspector(mpsc::Sender<Inspection>);

impl Inspector {
    /// Also returns what the pipeline reads.
    pub fn new() -> (Self, mpsc::Receiver<Inspection>) {
        let (sender, receiver) = mpsc::channel(16);
        (Self(sender), receiver)
    }

    /// Asks; `None` if the pipeline is gone or does not answer in [`INSPECTION_TIMEOUT`].
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let inspection: Inspection = Box::new(move |state| drop(answer.send(question(state))));
        let asked = async {
            self.0.send(inspection).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(INSPECTION_TIMEOUT, asked).await.ok().flatten()
    }
}
