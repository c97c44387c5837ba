//! What a run says in the end: metrics under names that do not change, for people, for machines and for bounds.

mod bound;
mod html;
mod metric;
mod plot;
mod text;

pub use self::{
    bound::{Bound, BoundError},
    html::html,
    metric::{Metric, Unit},
};
use crate::run::{Changes, Outcome, PhaseOutcome, scenario::Scenario};

/// A report.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `xds-load` and its version.
    pub tool: &'static str,
    /// Nothing was wrong and no bound is broken.
    pub good: bool,
    /// What was wrong, in words.
    pub problems: Vec<String>,
    /// Bounds that are broken.
    pub broken: Vec<String>,
    /// All figures.
    pub metrics: Vec<Metric>,
    /// By phase.
    pub phases: Vec<PhaseOutcome>,
    /// What was changed.
    pub changes: Changes,
    /// Why connections and streams ended, and how often.
    pub errors: std::collections::BTreeMap<String, u64>,
    /// Where it was measured.
    pub machine: Machine,
    /// What was done.
    pub scenario: Scenario,
}

/// Client and server are measured by one clock, so both were here.
#[derive(Debug, serde::Serialize)]
pub struct Machine {
    /// Logical.
    pub cpus: usize,
    /// As the kernel names itself.
    pub kernel: String,
}

impl Report {
    /// Of what came out.
    pub fn new(outcome: &Outcome, bounds: &[Bound]) -> Self {
        let metrics = metric::all(outcome);
        let mut problems = outcome.failures.clone();
        problems.extend(outcome.findings.problems.iter().cloned());
        problems.extend(outcome.findings.truth.problems.iter().cloned());
        let more = [
            (outcome.findings.different, "proxies have something else than they should"),
            (outcome.findings.truth.wrong, "clusters or assignments are not what the mesh says"),
            (outcome.findings.stale, "(change, proxy) pairs never came"),
            (outcome.findings.incomplete, "proxies are not configured"),
            (outcome.counts.malformed, "resources could not be read"),
            (outcome.counts.tally.senseless, "responses were of a type that was not asked for"),
            (outcome.counts.tally.unanswered, "names were not answered within Envoy's 15 s"),
            (
                outcome.counts.warming,
                "clusters changed and their endpoints did not follow: Envoy would wait 15 s",
            ),
        ];
        problems.extend(
            more.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")),
        );
        let broken: Vec<_> = bounds.iter().filter_map(|bound| bound.broken(&metrics)).collect();
        Self {
            tool: concat!("xds-load ", env!("CARGO_PKG_VERSION")),
            good: problems.is_empty() && broken.is_empty(),
            problems,
            broken,
            metrics,
            phases: outcome.phases.clone(),
            changes: outcome.changes,
            errors: outcome.counts.errors.clone(),
            machine: Machine {
                cpus: std::thread::available_parallelism().map_or(1, usize::from),
                kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                    .unwrap_or_default()
                    .trim()
                    .to_owned(),
            },
            scenario: outcome.scenario.clone(),
        }
    }

    /// Nothing was wrong and no bound is broken.
    pub fn is_good(&self) -> bool {
        self.good
    }

    /// A metric by its name.
    pub fn get(&self, name: &str) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.name == name)
    }
}
