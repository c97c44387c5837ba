//! The summary for people.

use std::fmt;

use super::{Report, Unit, metric::write_value};
use crate::wire::{TYPES, short_name};

struct Show(f64, Unit);

impl fmt::Display for Show {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        write_value(&mut text, self.0, self.1)?;
        f.pad(&text)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.phases(f)?;
        self.durations(f)?;
        self.types(f)?;
        self.end(f)
    }
}

impl Report {
    fn phases(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12} {:>9} {:>11} {:>10} {:>11} {:>10} {:>10} {:>10} {:>10}",
            "phase",
            "took",
            "server CPU",
            "own CPU",
            "server RSS",
            "own RSS",
            "received",
            "resources",
            "unchanged"
        )?;
        for phase in &self.phases {
            let or_dash = |value: Option<f64>, unit| {
                value.map_or("-".to_owned(), |value| Show(value, unit).to_string())
            };
            writeln!(
                f,
                "{:<12} {:>9} {:>11} {:>10} {:>11} {:>10} {:>10} {:>10} {:>10}",
                phase.name,
                Show(phase.seconds, Unit::Seconds),
                or_dash(phase.server_cpu, Unit::Seconds),
                Show(phase.own_cpu, Unit::Seconds),
                or_dash(phase.server_rss.map(|b| b as f64), Unit::Bytes),
                Show(phase.own_rss as f64, Unit::Bytes),
                Show(phase.received as f64, Unit::Bytes),
                phase.resources,
                phase.unchanged,
            )?;
        }
        Ok(())
    }

    fn durations(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<22} {:>9} {:>9} {:>9} {:>9} {:>9}", "time", "count", "p50", "p90", "p99", "max")?;
        for metric in &self.metrics {
            let Some(name) = metric.name.strip_suffix(".count").filter(|_| metric.value > 0.0) else {
                continue;
            };
            write!(f, "{name:<22} {:>9}", metric.value)?;
            for part in ["p50", "p90", "p99", "max"] {
                let value = self.get(&format!("{name}.{part}")).map_or(0.0, |metric| metric.value);
                write!(f, " {:>9}", Show(value, Unit::Seconds))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn types(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<8} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "type", "responses", "resources", "removals", "unchanged", "bytes"
        )?;
        for name in TYPES.map(short_name).into_iter().chain(["total"]) {
            let get = |part: &str| self.get(&format!("{name}.{part}")).map_or(0.0, |metric| metric.value);
            if get("responses") > 0.0 {
                write!(f, "{name:<8}")?;
                for part in ["responses", "resources", "removals", "unchanged"] {
                    write!(f, " {:>10}", get(part))?;
                }
                writeln!(f, " {:>10}", Show(get("bytes"), Unit::Bytes))?;
            }
        }
        Ok(())
    }

    fn end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let get = |name: &str| self.get(name).map_or(0.0, |metric| metric.value);
        writeln!(
            f,
            "\n{} proxies compared ({} resources, {} shapes, {} with a fresh proxy, {} clusters and assignments held against the \
             mesh), {} left out; {} changes made, {} due and not seen",
            get("verify.compared"),
            get("verify.resources"),
            get("verify.shapes"),
            get("verify.witnesses"),
            get("verify.truth"),
            get("verify.excluded"),
            get("changes.made"),
            get("changes.missing"),
        )?;
        for (why, times) in &self.errors {
            writeln!(f, "lost {times} times: {why}")?;
        }
        for problem in self.problems.iter().chain(&self.broken) {
            writeln!(f, "FAIL {problem}")?;
        }
        writeln!(f, "{}", if self.good { "ok" } else { "FAILED" })
    }
}
