//! The figures of a run, each under a name.

use std::fmt;

use crate::{
    client::tally::Durations,
    run::Outcome,
    wire::{TYPES, short_name},
};

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Of time; also CPU seconds.
    Seconds,
    Bytes,
    Count,
}

/// A figure.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Metric {
    /// Such as `change.eds.p99`.
    pub name: String,
    pub value: f64,
    pub unit: Unit,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(f, self.value, self.unit)
    }
}

/// With three digits that count and a unit that fits.
pub fn write_value(f: &mut impl fmt::Write, value: f64, unit: Unit) -> fmt::Result {
    const SECONDS: [(f64, &str); 3] = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")];
    const BYTES: [(f64, &str); 4] = [(1073741824.0, "GiB"), (1048576.0, "MiB"), (1024.0, "KiB"), (1.0, "B")];
    let scales: &[(f64, &str)] = match unit {
        Unit::Seconds => &SECONDS,
        Unit::Bytes => &BYTES,
        Unit::Count if value.fract() == 0.0 => return write!(f, "{value}"),
        Unit::Count => return write!(f, "{value:.3}"),
    };
    if value == 0.0 {
        return write!(f, "0 {}", if unit == Unit::Bytes { "B" } else { "s" });
    }
    let fits = scales.iter().find(|(scale, _)| value.abs() >= *scale).or(scales.last());
    let (scale, name) = fits.copied().unwrap_or((1.0, ""));
    let value = value / scale;
    let digits = if value >= 100.0 || value.fract() == 0.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    write!(f, "{value:.digits$} {name}")
}

/// The parts of a distribution.
const PARTS: [(&str, f64); 5] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9), ("max", 100.0)];

struct Metrics(Vec<Metric>);

impl Metrics {
    fn add(&mut self, name: impl Into<String>, value: f64, unit: Unit) {
        self.0.push(Metric { name: name.into(), value, unit });
    }

    fn count(&mut self, name: impl Into<String>, value: u64) {
        self.add(name, value as f64, Unit::Count);
    }

    fn durations(&mut self, name: &str, durations: &Durations) {
        for (part, percent) in PARTS {
            if let Some(value) = durations.percentile(percent) {
                self.add(format!("{name}.{part}"), value.as_secs_f64(), Unit::Seconds);
            }
        }
        if let Some(mean) = durations.mean() {
            self.add(format!("{name}.mean"), mean.as_secs_f64(), Unit::Seconds);
        }
        self.count(format!("{name}.count"), durations.count());
    }
}

/// Durations by the first part of their metrics' names.
pub fn distributions(outcome: &Outcome) -> Vec<(String, Durations)> {
    let tally = &outcome.counts.tally;
    let mut all = vec![
        ("connect.socket".to_owned(), tally.connected.clone()),
        ("connect.configured".to_owned(), tally.configured.clone()),
        ("reconnect.configured".to_owned(), tally.reconnected.clone()),
    ];
    let (mut any, mut any_last) = (Durations::default(), Durations::default());
    for kind in TYPES {
        let (each, last) = (&tally.change[kind as usize], tally.last(kind));
        any.add(each);
        any_last.add(&last);
        all.push((format!("change.{}", short_name(kind)), each.clone()));
        all.push((format!("change.{}.last", short_name(kind)), last));
    }
    all.push(("change.any".to_owned(), any));
    all.push(("change.any.last".to_owned(), any_last));
    all
}

/// All figures of a run. What did not happen has none, apart from a count of 0.
pub fn all(outcome: &Outcome) -> Vec<Metric> {
    let mut metrics = Metrics(Vec::new());
    let proxies = outcome.scenario.proxies as f64;
    for (name, durations) in distributions(outcome) {
        metrics.durations(&name, &durations);
    }
    let counts = &outcome.counts;
    let tally = &counts.tally;
    let of_types = TYPES.map(|kind| (short_name(kind), tally.counts[kind as usize]));
    for (name, counts) in of_types.into_iter().chain([("total", tally.total())]) {
        metrics.count(format!("{name}.responses"), counts.responses);
        metrics.count(format!("{name}.resources"), counts.resources);
        metrics.count(format!("{name}.removals"), counts.removals);
        metrics.count(format!("{name}.unchanged"), counts.unchanged);
        metrics.count(format!("{name}.unasked"), counts.unasked);
        metrics.add(format!("{name}.bytes"), counts.bytes as f64, Unit::Bytes);
    }
    metrics.count("acks", tally.acks);
    metrics.count("nacks", tally.nacks);
    metrics.count("senseless", tally.senseless);
    metrics.count("unanswered", tally.unanswered);
    metrics.count("warming", counts.warming);
    metrics.count("malformed", counts.malformed);
    metrics.count("changes.made", outcome.changes.changes);
    metrics.count("changes.expected", outcome.changes.expectations);
    metrics.count("changes.missing", counts.missing + counts.given_up);
    metrics.count("changes.unseen", outcome.findings.unseen);
    metrics.add("changes.late", outcome.changes.latest, Unit::Seconds);
    metrics.count("verify.compared", outcome.findings.compared);
    metrics.count("verify.resources", outcome.findings.resources);
    metrics.count("verify.witnesses", outcome.findings.witnesses as u64);
    metrics.count("verify.shapes", outcome.findings.digests.len() as u64);
    metrics.count("verify.excluded", outcome.findings.excluded);
    metrics.count("verify.different", outcome.findings.different);
    metrics.count("verify.stale", outcome.findings.stale);
    metrics.count("verify.truth", outcome.findings.truth.compared);
    metrics.count("verify.untrue", outcome.findings.truth.wrong);

    for phase in &outcome.phases {
        let name = |part: &str| format!("phase.{}.{part}", phase.name);
        metrics.add(name("seconds"), phase.seconds, Unit::Seconds);
        if let Some(cpu) = phase.server_cpu {
            metrics.add(name("server.cpu"), cpu, Unit::Seconds);
            metrics.add(name("server.cpu.proxy"), cpu / proxies, Unit::Seconds);
        }
        if let Some(rss) = phase.server_rss {
            metrics.add(name("server.rss"), rss as f64, Unit::Bytes);
        }
        metrics.add(name("own.cpu"), phase.own_cpu, Unit::Seconds);
        metrics.add(name("own.rss"), phase.own_rss as f64, Unit::Bytes);
        metrics.add(name("received"), phase.received as f64, Unit::Bytes);
        metrics.add(name("sent"), phase.sent as f64, Unit::Bytes);
        metrics.count(name("responses"), phase.responses);
        metrics.count(name("resources"), phase.resources);
        metrics.count(name("unchanged"), phase.unchanged);
        metrics.count(name("lost"), phase.lost);
        metrics.count(name("configured"), phase.configured);
    }
    if let Some(peak) = outcome.server_peak {
        metrics.add("server.peak", peak as f64, Unit::Bytes);
    }
    metrics.add("own.peak", outcome.own_peak as f64, Unit::Bytes);
    metrics.count("lost", outcome.phases.iter().map(|phase| phase.lost).sum());
    metrics.0
}

/// The names of metrics, as patterns: what a bound may be on.
pub fn patterns() -> Vec<String> {
    let types = TYPES.map(short_name).join("|");
    let parts = PARTS.map(|(part, _)| part).join("|");
    vec![
        format!("connect.(socket|configured).({parts}|mean|count)"),
        format!("reconnect.configured.({parts}|mean|count)"),
        format!("change.({types}|any).({parts}|mean|count)"),
        format!("change.({types}|any).last.({parts}|mean|count)"),
        format!("({types}|total).(responses|resources|removals|unchanged|unasked|bytes)"),
        "acks|nacks|senseless|unanswered|warming|malformed|lost".to_owned(),
        "changes.(made|expected|missing|unseen|late)".to_owned(),
        "verify.(compared|resources|witnesses|shapes|excluded|different|stale|truth|untrue)".to_owned(),
        "phase.(connect|hold|churn|push|reconnect|command|disconnect)[0-9]*.(seconds|server.cpu|server.cpu.proxy|server.rss|own.cpu|\
         own.rss|received|sent|responses|resources|unchanged|lost|configured)"
            .to_owned(),
        "server.peak|own.peak".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Unit, write_value};

    #[test]
    fn values_read_well() {
        let cases = [
            (0.0123456, Unit::Seconds, "12.3 ms"),
            (0.000_001_5, Unit::Seconds, "1.50 µs"),
            (61.0, Unit::Seconds, "61 s"),
            (0.0, Unit::Seconds, "0 s"),
            (1536.0, Unit::Bytes, "1.50 KiB"),
            (12.0, Unit::Count, "12"),
        ];
        for (value, unit, text) in cases {
            let mut out = String::new();
            write_value(&mut out, value, unit).unwrap();
            assert_eq!(out, text);
        }
    }
}
