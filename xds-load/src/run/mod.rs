//! A run: proxies on their threads, phases one after the other, what was measured and what was found.
//!
//! ```text
//! Conductor (phases, churn, /proc) ── Command ──► Shard (a thread: Link per connection ─► Proxy) ── Snapshot, Findings ──► Outcome
//! ```

pub mod command;
mod conductor;
mod crew;
mod link;
mod nodes;
pub mod process;
mod progress;
pub mod scenario;
mod setup;
pub mod shard;
pub mod truth;
pub mod verify;

use std::{collections::BTreeMap, time::Duration};

pub use self::conductor::run;
use self::{scenario::Scenario, shard::Snapshot, verify::Findings};

/// What came out of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What was to be done.
    pub scenario: Scenario,
    /// One after the other.
    pub phases: Vec<PhaseOutcome>,
    /// All counts at the end.
    pub counts: Snapshot,
    /// What the proxies had in the end.
    pub findings: Findings,
    /// What was announced to the clients, and what was done for it.
    pub changes: Changes,
    /// The server's memory at its highest; `None` if its process was not named, or ended.
    pub server_peak: Option<u64>,
    /// This program's, too.
    pub own_peak: u64,
    /// Once a second.
    pub samples: Vec<Sample>,
    /// What went wrong, apart from what the proxies had: a phase that did not come to its end, a server that went away.
    pub failures: Vec<String>,
}

/// What was changed.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Changes {
    /// Changes of the mesh.
    pub changes: u64,
    /// What they bring to proxies: (type, name, marker).
    pub expectations: u64,
    /// How long after its time the latest one was written, in seconds.
    pub latest: f64,
}

/// What happened in a phase.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseOutcome {
    /// As in the scenario; with a number, if there are several.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// CPU seconds.
    pub server_cpu: Option<f64>,
    pub own_cpu: f64,
    /// Bytes in memory at its end.
    pub server_rss: Option<u64>,
    pub own_rss: u64,
    /// Bytes that came over sockets, with frames and TLS left out.
    pub received: u64,
    pub sent: u64,
    pub responses: u64,
    pub resources: u64,
    /// Resources that were there already.
    pub unchanged: u64,
    /// Connections and streams that ended, and attempts that failed.
    pub lost: u64,
    /// Proxies that were configured at its end.
    pub configured: u64,
}

/// How things stood at one moment.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Since the run began.
    pub seconds: f64,
    pub configured: u64,
    pub responses: u64,
    pub received: u64,
    pub server_cpu: Option<f64>,
    pub server_rss: Option<u64>,
    pub own_cpu: f64,
}

/// Adds up what threads have counted.
fn sum(snapshots: impl IntoIterator<Item = Snapshot>) -> Snapshot {
    let mut all = Snapshot::default();
    for one in snapshots {
        all.tally.add(&one.tally);
        all.missing += one.missing;
        all.given_up += one.given_up;
        all.malformed += one.malformed;
        all.warming += one.warming;
        for (why, times) in one.errors {
            *all.errors.entry(why).or_default() += times;
        }
    }
    all
}

/// Adds up what threads have found, and compares shapes that are on several of them.
fn join(all: impl IntoIterator<Item = Findings>) -> Findings {
    let mut sum = Findings::default();
    let mut digests: BTreeMap<_, u64> = BTreeMap::new();
    for one in all {
        sum.compared += one.compared;
        sum.excluded += one.excluded;
        sum.resources += one.resources;
        sum.incomplete += one.incomplete;
        sum.different += one.different;
        sum.stale += one.stale;
        sum.unseen = sum.unseen.max(one.unseen);
        sum.witnesses += one.witnesses;
        sum.truth.add(one.truth);
        sum.problems.extend(one.problems);
        for (shape, digest) in one.digests {
            if *digests.entry(shape.clone()).or_insert(digest) != digest {
                sum.different += 1;
                sum.problems
                    .push(format!("proxies of the shape {shape:?} have other resources on another thread"));
            }
        }
    }
    sum.digests = digests;
    sum
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
