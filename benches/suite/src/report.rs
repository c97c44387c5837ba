//! The figures, each beside its floor, as a table for people and as JSON for machines.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// One figure.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figure {
    /// The scenario that gave it.
    pub scenario: String,
    /// What was measured.
    pub metric: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: String,
    /// The floor or the peer, measured in the same run, in the same unit.
    pub floor: Option<f64>,
    /// `value / floor`.
    pub ratio: Option<f64>,
    /// What it should be, in words: `<= 40`, `<= 1.3x floor`.
    pub target: Option<String>,
    /// Whether it is; none without a target.
    pub met: Option<bool>,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// At most so much.
    AtMost(f64),
    /// At least so much.
    AtLeast(f64),
    /// At most so many times the floor.
    Floors(f64),
}

/// All figures of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Where and with what.
    pub machine: Machine,
    /// In the order in which they were measured.
    pub figures: Vec<Figure>,
}

impl Figure {
    /// A figure without floor and target.
    pub fn new(scenario: &str, metric: &str, value: f64, unit: &str) -> Self {
        Self { scenario: scenario.into(), metric: metric.into(), value, unit: unit.into(), ..Self::default() }
    }

    /// Beside this floor.
    pub fn beside(mut self, floor: f64) -> Self {
        self.floor = Some(floor);
        self.ratio = (floor != 0.0).then(|| self.value / floor);
        self
    }

    /// With this target. Set the floor before a target that needs it.
    pub fn target(mut self, target: Target) -> Self {
        let (text, met) = match target {
            Target::AtMost(limit) => (format!("<= {}", number(limit)), Some(self.value <= limit)),
            Target::AtLeast(limit) => (format!(">= {}", number(limit)), Some(self.value >= limit)),
            Target::Floors(limit) => (format!("<= {limit}x floor"), self.ratio.map(|ratio| ratio <= limit)),
        };
        (self.target, self.met) = (Some(text), met);
        self
    }
}

impl Report {
    /// Writes `report.json` and `report.md` into the directory.
    pub fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let json = serde_json::to_string_pretty(self)?;
        for (name, text) in [("report.json", json), ("report.md", self.markdown())] {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// The table for people.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}\n\n", self.machine);
        text.push_str(
            "| scenario | figure | value | floor | ratio | target | |\n|---|---|---:|---:|---:|---|---|\n",
        );
        for f in &self.figures {
            let optional = |value: Option<f64>| value.map(number).unwrap_or_default();
            let verdict = match f.met {
                Some(true) => "met",
                Some(false) => "**missed**",
                None => "",
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} {} | {} | {} | {} | {verdict} |",
                f.scenario,
                f.metric,
                number(f.value),
                f.unit,
                optional(f.floor),
                optional(f.ratio),
                f.target.as_deref().unwrap_or_default(),
            );
        }
        text
    }
}

/// Three significant digits, thousands apart.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    let decimals = if magnitude == 0.0 || magnitude >= 100.0 {
        0
    } else {
        (2 - magnitude.log10().floor() as i32).clamp(0, 6) as usize
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    let rest = rest.trim_end_matches('0');
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{}{point}{rest}", groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (0.01234, "0.0123"),
            (1.5, "1.5"),
            (42.0, "42"),
            (99.96, "100"),
            (12_345.6, "12,346"),
            (-1_000.0, "-1,000"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_target_is_met_by_value_or_by_ratio() {
        let figure = Figure::new("s", "m", 12.0, "us").beside(10.0);
        assert_eq!(figure.clone().target(Target::Floors(1.3)).met, Some(true));
        assert_eq!(figure.clone().target(Target::Floors(1.1)).met, Some(false));
        assert_eq!(figure.clone().target(Target::AtMost(11.0)).met, Some(false));
        assert_eq!(figure.target(Target::AtMost(12.0)).met, Some(true));
        assert_eq!(Figure::new("s", "m", 1.0, "us").target(Target::Floors(1.3)).met, None);
    }
}
