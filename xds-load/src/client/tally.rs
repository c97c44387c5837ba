//! What is counted while proxies run: plain numbers of one thread, added up at the end.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::{board::Met, world::IdMap};
use crate::expect::Type;

/// Of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Responses with it.
    pub responses: u64,
    /// Resources in them.
    pub resources: u64,
    /// Removals in them.
    pub removals: u64,
    /// Resources that were there already, byte for byte and with the same version.
    pub unchanged: u64,
    /// Bytes of the responses, without frames and TLS.
    pub bytes: u64,
    /// Resources that nobody asked for.
    pub unasked: u64,
}

/// How a change arrived at the proxies of a thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival {
    /// At the last one.
    pub last: Duration,
    /// At how many.
    pub proxies: u64,
}

/// Durations in microseconds, to three digits, up to an hour.
#[derive(Clone, Debug, Default)]
pub struct Durations(Option<Box<Histogram<u64>>>);

/// What one thread has counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By type.
    pub counts: [Counts; 7],
    /// Acknowledgements sent.
    pub acks: u64,
    /// Refusals sent.
    pub nacks: u64,
    /// Responses that are no message of the protocol, or of a type that was not asked for.
    pub senseless: u64,
    /// Names that were asked for and not answered within the patience that Envoy has.
    pub unanswered: u64,
    /// From the change to the bytes at a proxy, by type.
    pub change: [Durations; 7],
    /// By change and type.
    pub arrivals: IdMap<(u64, u32), Arrival>,
    /// From the beginning of the connect to the configured proxy.
    pub configured: Durations,
    /// The same up to the socket (and the handshake of TLS).
    pub connected: Durations,
    /// From the loss of a stream to the proxy that is up to date again, as far as it can see.
    pub reconnected: Durations,
}

impl Tally {
    /// A change has reached a proxy.
    pub fn met(&mut self, met: Met, now: Instant) {
        let took = now.saturating_duration_since(met.at);
        self.change[met.kind as usize].record(took);
        let arrival = self.arrivals.entry((met.sequence, met.kind as u32)).or_default();
        arrival.last = arrival.last.max(took);
        arrival.proxies += 1;
    }

    /// Adds what another thread has counted.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            mine.add(theirs);
        }
        self.acks += other.acks;
        self.nacks += other.nacks;
        self.senseless += other.senseless;
        self.unanswered += other.unanswered;
        for (mine, theirs) in self.change.iter_mut().zip(&other.change) {
            mine.add(theirs);
        }
        for (key, arrival) in &other.arrivals {
            let mine = self.arrivals.entry(*key).or_default();
            mine.last = mine.last.max(arrival.last);
            mine.proxies += arrival.proxies;
        }
        self.configured.add(&other.configured);
        self.connected.add(&other.connected);
        self.reconnected.add(&other.reconnected);
    }

    /// Resources of all types.
    pub fn resources(&self) -> u64 {
        self.counts.iter().map(|counts| counts.resources).sum()
    }

    /// Of all types.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.counts.iter().for_each(|counts| total.add(counts));
        total
    }

    /// From a change to the last of the proxies that got it, over all changes with this type.
    pub fn last(&self, kind: Type) -> Durations {
        let mut last = Durations::default();
        self.arrivals.iter().filter(|((_, k), _)| *k == kind as u32).for_each(|(_, a)| last.record(a.last));
        last
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.responses += other.responses;
        self.resources += other.resources;
        self.removals += other.removals;
        self.unchanged += other.unchanged;
        self.bytes += other.bytes;
        self.unasked += other.unasked;
    }
}

impl Durations {
    /// Notes one; more than an hour is an hour.
    pub fn record(&mut self, duration: Duration) {
        let histogram = self.0.get_or_insert_with(|| Box::new(new()));
        histogram.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds those of another thread.
    pub fn add(&mut self, other: &Self) {
        if let Some(theirs) = &other.0 {
            let mine = self.0.get_or_insert_with(|| Box::new(new()));
            // Of the same range, so nothing can be out of it.
            let _ = mine.add(&**theirs);
        }
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |h| h.len())
    }

    /// That which so many percent do not exceed. `None` without any.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let histogram = self.0.as_ref().filter(|h| !h.is_empty())?;
        Some(Duration::from_micros(histogram.value_at_quantile(percent / 100.0)))
    }

    /// The mean.
    pub fn mean(&self) -> Option<Duration> {
        let histogram = self.0.as_ref().filter(|h| !h.is_empty())?;
        Some(Duration::from_secs_f64(histogram.mean() / 1e6))
    }

    /// (duration, share of all that took at most as long), for a plot.
    pub fn distribution(&self) -> Vec<(Duration, f64)> {
        let Some(histogram) = self.0.as_ref().filter(|h| !h.is_empty()) else { return Vec::new() };
        histogram
            .iter_quantiles(2)
            .map(|step| (Duration::from_micros(step.value_iterated_to()), step.quantile()))
            .collect()
    }
}

fn new() -> Histogram<u64> {
    const HOUR: u64 = 3_600_000_000;
    Histogram::new_with_bounds(1, HOUR, 3)
        .unwrap_or_else(|error| unreachable!("these bounds are allowed: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Durations;

    #[test]
    fn durations_add_up_and_none_is_none() {
        let (mut all, mut other) = (Durations::default(), Durations::default());
        assert_eq!(all.percentile(50.0), None);
        (1..=100).for_each(|ms| other.record(Duration::from_millis(ms)));
        all.add(&other);
        all.add(&Durations::default());
        assert_eq!(all.count(), 100);
        let p99 = all.percentile(99.0).unwrap().as_secs_f64();
        assert!((0.099..0.0991).contains(&p99), "{p99}");
        let max = all.percentile(100.0).unwrap().as_secs_f64();
        assert!((0.1..0.1001).contains(&max), "{max}");
        let shares: Vec<_> = all.distribution().iter().map(|(_, share)| *share).collect();
        assert!(shares.is_sorted() && shares.last() == Some(&1.0));
    }
}
