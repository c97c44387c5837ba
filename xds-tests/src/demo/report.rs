//! What the demo found, as `report.json` and as the summary on the terminal.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::story::{RATE, Record, millis};
use crate::load::Sample;

/// Where a failure can be seen on the wire, the first answer from elsewhere comes within this.
const FIRST_REMOTE_MS: f64 = 100.0;
/// Endpoints withdrawn from a file are out of the last proxy within this.
const WITHDRAWN_MS: f64 = 50.0;

#[derive(Serialize)]
pub struct Report {
    pub requests_total: usize,
    pub requests_failed: usize,
    /// Not sent, because the machine was too busy to send them in time.
    pub requests_skipped: u64,
    pub requests_per_second: u32,
    pub first_remote_answer_ms: BTreeMap<&'static str, f64>,
    /// From the edit of the YAML to the last of `withdrawn_proxies` that has the new endpoints.
    pub withdrawn_to_last_proxy_ms: Option<f64>,
    pub withdrawn_proxies: usize,
    pub returned_home_ms: BTreeMap<&'static str, f64>,
    pub control_planes: ControlPlanes,
    pub rotation: Rotation,
    pub phases: Vec<Phase>,
    pub events: Vec<Event>,
    /// One that is broken makes the demo fail.
    pub promises: Vec<Promise>,
    /// Times, which also depend on what else the machine does: shown, and no reason to fail.
    pub targets: Vec<Promise>,
    pub versions: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
pub struct ControlPlanes {
    pub down_ms: f64,
    pub reconnected_ms: f64,
    pub resources_sent_again: Vec<String>,
}

#[derive(Serialize)]
pub struct Rotation {
    pub all_proxies_ms: f64,
}

#[derive(Serialize)]
pub struct Phase {
    pub name: &'static str,
    pub title: &'static str,
    pub from_ms: f64,
    pub to_ms: f64,
    pub requests: usize,
    pub failed: usize,
    /// Answers per pod; failures under what was seen instead of an answer.
    pub answered_by: BTreeMap<String, usize>,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

#[derive(Serialize)]
pub struct Event {
    pub at_ms: f64,
    pub what: String,
}

#[derive(Serialize)]
pub struct Promise {
    pub promise: String,
    pub kept: bool,
    pub seen: String,
}

impl Report {
    /// `broke_off`: why the story did not play to its end, if it did not.
    pub fn new(
        record: Record,
        samples: &[Sample],
        skipped: u64,
        versions: BTreeMap<&'static str, String>,
        broke_off: Option<String>,
    ) -> Self {
        let phases: Vec<Phase> = record.phases.iter().map(|phase| summarise(phase, samples)).collect();
        let mut promises = promises(&record, &phases);
        let targets = targets(&record);
        if let Some(why) = broke_off {
            promises.push(Promise {
                promise: "the demo plays to its end".to_owned(),
                kept: false,
                seen: why,
            });
        }
        Self {
            requests_total: samples.len(),
            requests_failed: samples.iter().filter(|sample| sample.failed()).count(),
            requests_skipped: skipped,
            requests_per_second: RATE,
            control_planes: ControlPlanes {
                down_ms: record.control_plane_down_ms,
                reconnected_ms: record.reconnected_ms,
                resources_sent_again: record.resent,
            },
            rotation: Rotation { all_proxies_ms: record.rotated_ms },
            first_remote_answer_ms: record.first_remote_answer_ms,
            withdrawn_to_last_proxy_ms: record.withdrawn_to_last_proxy_ms,
            withdrawn_proxies: record.withdrawn_proxies,
            returned_home_ms: record.returned_home_ms,
            events: record
                .events
                .into_iter()
                .map(|event| Event { at_ms: millis(event.at), what: event.what })
                .collect(),
            phases,
            promises,
            targets,
            versions,
        }
    }

    pub fn kept(&self) -> bool {
        self.promises.iter().all(|promise| promise.kept)
    }

    /// The summary for people.
    pub fn summary(&self) -> String {
        let mut text =
            format!("{:<44} {:>8} {:>7} {:>8} {:>8}\n", "phase", "requests", "failed", "p50 ms", "p99 ms");
        for phase in &self.phases {
            text += &format!(
                "{:<44} {:>8} {:>7} {:>8.1} {:>8.1}\n",
                phase.title, phase.requests, phase.failed, phase.p50_ms, phase.p99_ms
            );
        }
        text += &format!("{:<44} {:>8} {:>7}\n\n", "all", self.requests_total, self.requests_failed);
        for (promises, kept, not) in [(&self.promises, "kept", "BROKEN"), (&self.targets, "met", "missed")] {
            for promise in promises {
                let sign = if promise.kept { kept } else { not };
                text += &format!("{sign:<6}  {}: {}\n", promise.promise, promise.seen);
            }
        }
        text
    }
}

fn summarise(phase: &super::story::Phase, samples: &[Sample]) -> Phase {
    let within: Vec<&Sample> =
        samples.iter().filter(|sample| (phase.from..phase.to).contains(&sample.sent)).collect();
    let mut answered_by = BTreeMap::new();
    for sample in &within {
        let by = if sample.failed() {
            format!("failed: {} {}", sample.status, sample.by)
        } else {
            sample.by.clone()
        };
        *answered_by.entry(by).or_insert(0) += 1;
    }
    let mut took: Vec<Duration> = within.iter().map(|sample| sample.took).collect();
    took.sort_unstable();
    Phase {
        name: phase.name,
        title: phase.title,
        from_ms: millis(phase.from),
        to_ms: millis(phase.to),
        requests: within.len(),
        failed: within.iter().filter(|sample| sample.failed()).count(),
        answered_by,
        p50_ms: quantile(&took, 0.5),
        p99_ms: quantile(&took, 0.99),
    }
}

/// Of a sorted list, in milliseconds; 0 of an empty one.
fn quantile(sorted: &[Duration], q: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * q).round() as usize).copied().map_or(0.0, millis)
}

fn promises(record: &Record, phases: &[Phase]) -> Vec<Promise> {
    let mut promises = Vec::new();
    for (names, what) in [
        (&["http_500"][..], "no request fails while home answers 500"),
        (&["killed"], "no request fails when home is killed"),
        (&["withdrawn"], "no request fails when home is withdrawn"),
        (&["home", "returned"], "no request fails while traffic is home or on its way back"),
        (&["control_planes_killed", "control_planes_restarted"], "no request fails without control planes"),
        (&["rotated"], "no request fails while the intermediates rotate"),
    ] {
        let of_these = || phases.iter().filter(|phase| names.contains(&phase.name));
        let failed: usize = of_these().map(|phase| phase.failed).sum();
        let total: usize = of_these().map(|phase| phase.requests).sum();
        promises.push(Promise {
            promise: what.to_owned(),
            kept: failed == 0 && total > 0,
            seen: format!("{failed} of {total} failed"),
        });
    }
    promises.push(Promise {
        promise: "control planes that come back send nothing again".to_owned(),
        kept: record.resent.is_empty(),
        seen: match record.resent.as_slice() {
            [] => "nothing".to_owned(),
            [first, ..] => format!("{} resources, the first {first}", record.resent.len()),
        },
    });
    promises
}

fn targets(record: &Record) -> Vec<Promise> {
    let target = |what: String, bound: f64, seen: Option<f64>| Promise {
        promise: format!("{what} within {bound} ms"),
        kept: seen.is_some_and(|ms| ms <= bound),
        seen: seen.map_or("never".to_owned(), |ms| format!("{ms} ms")),
    };
    let first = |kind: &str| {
        let seen = record.first_remote_answer_ms.get(kind).copied();
        target(format!("first answer from the other cloud ({kind})"), FIRST_REMOTE_MS, seen)
    };
    let spread = format!("withdrawn endpoints are gone from {} proxies", record.withdrawn_proxies);
    vec![first("http_500"), first("killed"), target(spread, WITHDRAWN_MS, record.withdrawn_to_last_proxy_ms)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sent_ms: u64, status: u16, by: &str) -> Sample {
        Sample {
            sent: Duration::from_millis(sent_ms),
            took: Duration::from_millis(2),
            status,
            by: by.to_owned(),
        }
    }

    #[test]
    fn a_failure_belongs_to_the_phase_in_which_it_was_sent_and_breaks_its_promise_only() {
        let phase = |name, from: u64, to: u64| super::super::story::Phase {
            name,
            title: name,
            from: Duration::from_millis(from),
            to: Duration::from_millis(to),
        };
        let phases = ["home", "http_500", "killed", "withdrawn", "control_planes_killed", "rotated"];
        let record = Record {
            phases: phases.iter().zip(0..).map(|(name, at)| phase(name, at * 10, at * 10 + 10)).collect(),
            first_remote_answer_ms: [("http_500", 12.0), ("killed", 130.0)].into(),
            withdrawn_to_last_proxy_ms: Some(20.0),
            withdrawn_proxies: 5,
            ..Record::default()
        };
        let mut samples: Vec<Sample> = (0..6).map(|at| sample(at * 10, 200, "east/backend-a")).collect();
        samples.push(sample(25, 503, "no healthy upstream"));

        let report = Report::new(record, &samples, 0, BTreeMap::new(), None);

        assert_eq!((report.requests_total, report.requests_failed), (7, 1));
        assert_eq!(report.phases[2].answered_by["failed: 503 no healthy upstream"], 1);
        let broken = |promises: &[Promise]| -> Vec<String> {
            promises.iter().filter(|promise| !promise.kept).map(|promise| promise.promise.clone()).collect()
        };
        assert_eq!(broken(&report.promises), ["no request fails when home is killed"]);
        assert_eq!(broken(&report.targets), ["first answer from the other cloud (killed) within 100 ms"]);
        assert!(!report.kept());
    }
}
