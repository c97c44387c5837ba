//! How fresh what is known of a cluster is: an age for each watch, and what follows for the cluster. Pure.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{failure::Failure, keep, kinds::Need};
use crate::{
    model::Kind,
    registry::{Problem, Severity},
};

/// The pulse of every watch of a cluster.
#[derive(Debug)]
pub struct Freshness {
    started: Instant,
    /// What was known before the start is in force.
    restored: bool,
    pulses: BTreeMap<Kind, Pulse>,
    /// When the API server last said that it is well.
    well: Instant,
    /// What it said since then, and when for the first time.
    ailing: Option<(Instant, Failure)>,
}

#[derive(Debug)]
struct Pulse {
    need: Need,
    /// For people.
    name: String,
    /// Listed whole once.
    listed: bool,
    /// When the API server last said anything on it: an object, a bookmark, the head of an answer.
    heard: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Not open yet.
    Opening,
    Open,
    Away(Away),
    /// The API server has no such kind.
    Missing,
}

#[derive(Debug)]
struct Away {
    since: Instant,
    failure: Failure,
    /// It is open again since then. That it holds has to be seen.
    opened: Option<Instant>,
}

/// A watch that is open for so long is open.
const HOLDS: Duration = Duration::from_secs(1);

/// What is to be said of a cluster.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not read whole yet.
    Syncing,
    /// It is, and watched.
    Synced,
    /// It is not watched whole; it last was at that time.
    Stale(Instant, String),
    /// It is not read whole yet, and what was known before the start is in force.
    Restored(String),
}

impl Freshness {
    pub fn new(now: Instant, kinds: impl IntoIterator<Item = (Kind, Need, String)>) -> Self {
        let pulse = |(kind, need, name)| {
            (kind, Pulse { need, name, listed: false, heard: now, state: State::Opening })
        };
        Self {
            started: now,
            restored: false,
            pulses: kinds.into_iter().map(pulse).collect(),
            well: now,
            ailing: None,
        }
    }

    /// What was known before the start is in force.
    pub fn restored(&mut self) {
        self.restored = true;
    }

    /// The API server accepted a watch, and has said nothing on it yet.
    pub fn opened(&mut self, kind: Kind, now: Instant) {
        if let Some(pulse) = self.pulses.get_mut(&kind) {
            pulse.heard = now;
            match &mut pulse.state {
                State::Away(away) => away.opened = Some(now),
                state => *state = State::Open,
            }
        }
    }

    /// A watch said something.
    pub fn heard(&mut self, kind: Kind, now: Instant) {
        if let Some(pulse) = self.pulses.get_mut(&kind) {
            (pulse.heard, pulse.state) = (now, State::Open);
        }
    }

    /// All objects of the kind are known.
    pub fn listed(&mut self, kind: Kind, now: Instant) {
        self.heard(kind, now);
        if let Some(pulse) = self.pulses.get_mut(&kind) {
            pulse.listed = true;
        }
    }

    /// A list or watch ended in this way.
    pub fn failed(&mut self, kind: Kind, failure: Failure, now: Instant) {
        if let Some(pulse) = self.pulses.get_mut(&kind) {
            let since = pulse.away(now).map_or(now, |away| away.since);
            pulse.state = State::Away(Away { since, failure, opened: None });
        }
    }

    /// The API server has no such kind.
    pub fn missing(&mut self, kind: Kind, now: Instant) {
        if let Some(pulse) = self.pulses.get_mut(&kind) {
            (pulse.heard, pulse.state) = (now, State::Missing);
        }
    }

    /// What the API server says about itself: nothing, or what is wrong with it.
    pub fn probed(&mut self, failure: Option<Failure>, now: Instant) {
        if failure.is_none() {
            self.well = now;
        }
        let since = self.ailing.as_ref().map_or(now, |(since, _)| *since);
        self.ailing = failure.map(|failure| (since, failure));
    }

    /// What is to be said of the cluster. It is stale when a watch has been away for `grace`, or if it could not be read whole
    /// within `patience` of the start (none: for ever). One that is known from before is waited for only shortly.
    pub fn verdict(&self, now: Instant, grace: Duration, patience: Option<Duration>) -> Verdict {
        let whole = self.pulses.values().all(Pulse::is_settled);
        let away: Vec<_> = self
            .pulses
            .values()
            .filter_map(|pulse| Some((pulse, pulse.away(now)?)))
            .filter(|(pulse, away)| !pulse.may_be_away(&away.failure))
            .filter(|(_, away)| !whole || now.duration_since(away.since) >= grace)
            .collect();
        let reason = || {
            let names: Vec<_> = away.iter().map(|(pulse, _)| pulse.name.as_str()).collect();
            let last = away.iter().max_by_key(|(_, away)| away.since);
            last.map(|(_, away)| format!("{} ({})", away.failure, names.join(", ")))
        };
        if !whole && self.restored && now.duration_since(self.started) >= keep::PATIENCE {
            return Verdict::Restored(reason().unwrap_or_else(|| "it is still being read".to_owned()));
        }
        if !whole {
            return match patience {
                Some(patience) if now.duration_since(self.started) >= patience => {
                    let reason = reason().unwrap_or_else(|| format!("not read whole within {patience:?}"));
                    Verdict::Stale(self.started, reason)
                }
                _ => Verdict::Syncing,
            };
        }
        if let Some(reason) = reason() {
            let watched = away.iter().map(|(pulse, away)| self.watched(pulse, away)).min();
            return Verdict::Stale(watched.unwrap_or(self.started), reason);
        }
        match &self.ailing {
            Some((since, failure)) if now.duration_since(*since) >= grace => {
                Verdict::Stale(self.well, failure.to_string())
            }
            _ => Verdict::Synced,
        }
    }

    /// Until when a kind was watched that is not now. A watch that is quiet was one as long as the API server was well, unless its
    /// very silence is what is wrong.
    fn watched(&self, pulse: &Pulse, away: &Away) -> Instant {
        match away.failure {
            Failure::Silent(_) => pulse.heard,
            _ => pulse.heard.max(self.well.min(away.since)),
        }
    }

    /// How long each watch has been silent.
    pub fn ages(&self, now: Instant) -> BTreeMap<String, Duration> {
        let age = |pulse: &Pulse| (pulse.name.clone(), now.duration_since(pulse.heard));
        self.pulses.values().filter(|p| !matches!(p.state, State::Missing)).map(age).collect()
    }

    /// What is wrong with watches; those that fail in the same way are named together.
    pub fn problems(&self, cluster: &Arc<str>, now: Instant) -> Vec<Problem> {
        let mut by_failure: BTreeMap<String, (Vec<&str>, Severity, &'static str)> = BTreeMap::new();
        for pulse in self.pulses.values() {
            let Some(Away { failure, .. }) = pulse.away(now) else { continue };
            let severity = if pulse.may_be_away(failure) { Severity::Warning } else { Severity::Error };
            let entry = by_failure.entry(failure.to_string());
            entry.or_insert_with(|| (Vec::new(), severity, failure.remedy())).0.push(&pulse.name);
        }
        let problem = |(reason, (names, severity, remedy)): (String, (Vec<&str>, _, &str))| {
            Problem::of_object(cluster, None, names.join(", "), severity, reason, remedy)
        };
        by_failure.into_iter().map(problem).collect()
    }
}

impl Pulse {
    /// Whether the cluster counts as read whole although this watch cannot be opened.
    fn may_be_away(&self, failure: &Failure) -> bool {
        !self.listed && self.need != Need::Always && (failure.is_forbidden() || failure.is_missing())
    }

    fn is_settled(&self) -> bool {
        self.listed
            || match &self.state {
                State::Away(away) => self.may_be_away(&away.failure),
                State::Missing => true,
                State::Opening | State::Open => false,
            }
    }

    /// Since when it is not watched.
    fn away(&self, now: Instant) -> Option<&Away> {
        match &self.state {
            State::Away(away) if away.opened.is_none_or(|at| now.duration_since(at) < HOLDS) => Some(away),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_watch_was_one_while_its_server_was_well() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let stale_since = |failure| {
            let mut freshness = Freshness::new(start, [(Kind::Service, Need::Always, "services".to_owned())]);
            freshness.listed(Kind::Service, start);
            freshness.probed(None, at(50));
            freshness.failed(Kind::Service, failure, at(58));
            // Whoever answers that does not serve the watch.
            freshness.probed(None, at(60));
            match freshness.verdict(at(70), Duration::from_secs(5), None) {
                Verdict::Stale(since, _) => since.duration_since(start).as_secs(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(stale_since(Failure::Unreachable("it is gone".to_owned())), 58);
        assert_eq!(stale_since(Failure::Silent(Duration::from_secs(90))), 0);
    }
}
