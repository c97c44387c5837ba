//! Changes at their times: applies a script to a mesh, writes the files, and says what the clients must get.
//!
//! The next change is worked out before it is due, so that nothing but writing is within the measured time. The load is
//! open: a change that could not be written in time is written at once, and how late the latest one was is kept.
//!
//! A server in the same process can be fed without files: any function over [`Write`] is a [`Sink`]. What is measured then
//! begins behind the file watcher; a report has to say so.

mod script;

use std::time::Instant;

use thiserror::Error;

pub use self::script::{Plan, Script};
use super::{
    change::{Effects, Refused, Write},
    directory::{self, Directories},
    world::{Mesh, network_name},
};
use crate::expect::Expectation;

/// Takes what is written.
pub trait Sink {
    /// All of it, in this order.
    fn write(&mut self, writes: &[Write]) -> Result<(), directory::Error>;
}

impl Sink for Directories {
    fn write(&mut self, writes: &[Write]) -> Result<(), directory::Error> {
        self.apply(writes)
    }
}

impl<F: FnMut(&[Write])> Sink for F {
    fn write(&mut self, writes: &[Write]) -> Result<(), directory::Error> {
        self(writes);
        Ok(())
    }
}

/// A script that runs.
#[derive(Debug)]
pub struct Churn<S> {
    mesh: Mesh,
    plan: Plan,
    sink: S,
    began: Option<Instant>,
    totals: Totals,
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Changes; the sequence number of the last one.
    pub changes: u64,
    /// Files written or removed.
    pub writes: u64,
    /// How long after its time the latest change was written.
    pub latest_seconds: f64,
}

/// Why a script ended early.
#[derive(Debug, Error)]
pub enum Error {
    /// It does not fit the mesh.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nothing could be written.
    #[error(transparent)]
    Write(#[from] directory::Error),
}

impl<S: Sink> Churn<S> {
    /// Changes `mesh`, which `sink` has as it is. Begins with the first [`Churn::next`].
    pub fn new(mesh: Mesh, script: Script, sink: S) -> Self {
        Self { mesh, plan: Plan::new(script), sink, began: None, totals: Totals::default() }
    }

    /// Waits for the time of the next change and writes it. `announce` gets what clients must see, just before it is written:
    /// a client may have it before this returns. False when the script is over.
    pub async fn next(&mut self, announce: impl FnOnce(Vec<Expectation>)) -> Result<bool, Error> {
        let began = *self.began.get_or_insert_with(Instant::now);
        let Some((due, change)) = self.plan.next(&self.mesh) else { return Ok(false) };
        let Effects { writes, shows } = self.mesh.apply(change)?;
        let due = began.checked_add(due).unwrap_or(began);
        tokio::time::sleep_until(due.into()).await;

        self.totals.changes += 1;
        self.totals.writes += writes.len() as u64;
        let at = Instant::now();
        let late = at.saturating_duration_since(due).as_secs_f64();
        self.totals.latest_seconds = self.totals.latest_seconds.max(late);
        announce(
            shows
                .into_iter()
                .map(|show| Expectation {
                    sequence: self.totals.changes,
                    kind: show.kind,
                    name: show.name,
                    marker: show.marker,
                    network: show.network.map(|network| network_name(network).into()),
                    at,
                })
                .collect(),
        );
        self.sink.write(&writes)?;
        Ok(true)
    }

    /// The mesh as it is now: the truth that clients must end with.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// What was done so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The mesh as it is now, to go on with another script.
    pub fn into_mesh(self) -> Mesh {
        self.mesh
    }
}
