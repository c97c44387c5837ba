//! Latencies.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies from 1 us to 10 minutes, to three digits.
#[derive(Clone, Debug)]
pub struct Recorder(Histogram<u64>);

/// What came of it, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Latencies {
    /// How many.
    pub count: u64,
    /// The median.
    pub p50_ms: f64,
    /// Nine of ten are faster.
    pub p90_ms: f64,
    /// 99 of a hundred are faster.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

const LONGEST_US: u64 = 600_000_000;

impl Default for Recorder {
    fn default() -> Self {
        // The bounds are right: 1 is at least 1, and the longest is more than twice that.
        Self(
            Histogram::new_with_bounds(1, LONGEST_US, 3)
                .unwrap_or_else(|e| unreachable!("fixed bounds: {e:?}")),
        )
    }
}

impl Recorder {
    /// Notes one.
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros.clamp(1, LONGEST_US));
    }

    /// Sums up.
    pub fn latencies(&self) -> Latencies {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        Latencies {
            count: self.0.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            max_ms: self.0.max() as f64 / 1000.0,
        }
    }
}
