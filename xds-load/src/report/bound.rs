//! Bounds that fail a run: `change.eds.p99>5ms`.

use std::{fmt, str::FromStr};

use regex::Regex;

use super::metric::{Metric, Unit, patterns, write_value};

/// A metric, a comparison and a value; if it is true, the run fails.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    text: String,
    metric: String,
    comparison: Comparison,
    value: f64,
    /// `None`: a bare number, which is a count.
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
}

/// Two signs before the one that they begin with.
const COMPARISONS: [(&str, Comparison); 6] = [
    (">=", Comparison::GreaterOrEqual),
    ("<=", Comparison::LessOrEqual),
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    (">", Comparison::Greater),
    ("<", Comparison::Less),
];

const UNITS: [(&str, f64, Unit); 13] = [
    ("ns", 1e-9, Unit::Seconds),
    ("us", 1e-6, Unit::Seconds),
    ("µs", 1e-6, Unit::Seconds),
    ("ms", 1e-3, Unit::Seconds),
    ("s", 1.0, Unit::Seconds),
    ("min", 60.0, Unit::Seconds),
    ("B", 1.0, Unit::Bytes),
    ("KB", 1e3, Unit::Bytes),
    ("MB", 1e6, Unit::Bytes),
    ("GB", 1e9, Unit::Bytes),
    ("KiB", 1024.0, Unit::Bytes),
    ("MiB", 1048576.0, Unit::Bytes),
    ("", 1.0, Unit::Count),
];

/// Why a bound cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoundError {
    /// It is not written as one.
    #[error("the bound {0:?} is not METRIC, one of > >= < <= == !=, and a value, such as change.eds.p99>5ms")]
    Form(String),
    /// Its value is none.
    #[error(
        "the bound {bound:?} has the value {value:?}; write a number, with ns, us, ms, s or min, with B, KB, MB, GB, KiB or MiB, \
             or alone for a count"
    )]
    Value {
        /// The bound.
        bound: String,
        /// Its value.
        value: String,
    },
    /// There is no such metric.
    #[error("there is no metric {0:?}; there are\n  {1}")]
    Unknown(String, String),
}

impl FromStr for Bound {
    type Err = BoundError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || BoundError::Form(text.to_owned());
        let at = text.find(['>', '<', '=', '!']).ok_or_else(form)?;
        let (metric, rest) = text.split_at(at);
        let (value, comparison) = COMPARISONS
            .iter()
            .find_map(|(sign, comparison)| Some((rest.strip_prefix(sign)?, *comparison)))
            .ok_or_else(form)?;
        let (metric, value) = (metric.trim(), value.trim());
        if metric.is_empty() {
            return Err(form());
        }
        let wrong = || BoundError::Value { bound: text.to_owned(), value: value.to_owned() };
        let digits = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
        let (number, unit) = value.split_at(digits);
        let (_, scale, unit) = UNITS.iter().find(|(name, ..)| *name == unit.trim()).ok_or_else(wrong)?;
        let number: f64 = number.parse().map_err(|_| wrong())?;
        Ok(Self {
            text: text.to_owned(),
            metric: metric.to_owned(),
            comparison,
            value: number * scale,
            unit: *unit,
        })
    }
}

impl Bound {
    /// Whether there can be such a metric at all.
    pub fn check_name(&self) -> Result<(), BoundError> {
        let patterns = patterns();
        let known = patterns.iter().any(|pattern| {
            let pattern = format!("^(?:{})$", pattern.replace('.', r"\."));
            Regex::new(&pattern).is_ok_and(|pattern| pattern.is_match(&self.metric))
        });
        if known { Ok(()) } else { Err(BoundError::Unknown(self.metric.clone(), patterns.join("\n  "))) }
    }

    /// What is said if it is broken. A metric that the run has not is one that was not measured, which is no success.
    pub fn broken(&self, metrics: &[Metric]) -> Option<String> {
        let Some(metric) = metrics.iter().find(|metric| metric.name == self.metric) else {
            return Some(format!("{}: it was not measured in this run", self.text));
        };
        if metric.unit != self.unit && self.value != 0.0 {
            return Some(format!("{}: the metric is in {}", self.text, UnitName(metric.unit)));
        }
        let (value, bound) = (metric.value, self.value);
        let broken = match self.comparison {
            Comparison::Greater => value > bound,
            Comparison::GreaterOrEqual => value >= bound,
            Comparison::Less => value < bound,
            Comparison::LessOrEqual => value <= bound,
            Comparison::Equal => value == bound,
            Comparison::NotEqual => value != bound,
        };
        broken.then(|| {
            let mut said = format!("{}: it is ", self.text);
            // A string takes everything.
            _ = write_value(&mut said, metric.value, metric.unit);
            said
        })
    }
}

struct UnitName(Unit);

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Unit::Seconds => "seconds: write ns, us, ms, s or min behind the number",
            Unit::Bytes => "bytes: write B, KB, MB, GB, KiB or MiB behind the number",
            Unit::Count => "no unit: write the number alone",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Bound, BoundError, Metric, Unit};

    fn metrics() -> Vec<Metric> {
        vec![
            Metric { name: "change.eds.p99".into(), value: 0.006, unit: Unit::Seconds },
            Metric { name: "phase.connect.received".into(), value: 2048.0, unit: Unit::Bytes },
            Metric { name: "lost".into(), value: 0.0, unit: Unit::Count },
        ]
    }

    #[test]
    fn bounds_hold_or_say_what_is_broken() {
        let cases = [
            ("change.eds.p99>5ms", Some("change.eds.p99>5ms: it is 6 ms")),
            ("change.eds.p99 > 7ms", None),
            ("change.eds.p99>=0.006s", Some("change.eds.p99>=0.006s: it is 6 ms")),
            ("phase.connect.received>1KiB", Some("phase.connect.received>1KiB: it is 2 KiB")),
            ("phase.connect.received<1KB", None),
            ("lost>0", None),
            ("lost!=0", None),
            ("lost==0", Some("lost==0: it is 0")),
            ("change.cds.p99>1s", Some("change.cds.p99>1s: it was not measured in this run")),
            ("lost>5ms", Some("lost>5ms: the metric is in no unit: write the number alone")),
        ];
        for (text, said) in cases {
            let bound: Bound = text.parse().unwrap();
            assert_eq!(bound.check_name(), Ok(()), "{text}");
            assert_eq!(bound.broken(&metrics()).as_deref(), said);
        }
    }

    #[test]
    fn what_cannot_be_read_says_what_can() {
        for text in ["", "p99", ">5ms", "change.eds.p99=5ms"] {
            assert!(matches!(text.parse::<Bound>(), Err(BoundError::Form(_))), "{text}");
        }
        for text in ["lost>x", "lost>5 parsecs", "lost>", "lost>1.2.3"] {
            assert!(matches!(text.parse::<Bound>(), Err(BoundError::Value { .. })), "{text}");
        }
        let unknown = "change.xds.p99>5ms".parse::<Bound>().unwrap().check_name().unwrap_err();
        assert!(unknown.to_string().contains("change.(cds|eds"), "{unknown}");
    }
}
