//! Whether gateways are alive, from the outcomes of probes. Pure: time and chance are arguments.
//!
//! A lost probe says nothing, eight in a row do: at 5 % of loss that happens once in millions of hours. And a failure says
//! something of a gateway only if another one answered at about the same time. Else it is more probably our own network, and
//! nothing is known. So a gateway is `Dead` only when it is proven to be.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Between probes of a gateway that is as it was.
pub const STEADY: Duration = Duration::from_secs(2);
/// Between probes of one about which there is doubt; they may overlap.
pub const DOUBT: Duration = Duration::from_millis(750);
/// A probe that takes longer has failed.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// So many failures in a row, each while others answered, are a proof.
pub const DEAD_AFTER: u32 = 8;
/// So many failures in a row without a proof: nothing is known any more.
const UNKNOWN_AFTER: u32 = 2 * DEAD_AFTER;
/// So many answers in a row bring it back.
pub const ALIVE_AFTER: u32 = 5;
/// A failure counts if another gateway answered a probe that was begun so long before, or later. A gateway's last answer is
/// usually not older. When our network goes, at most seven failures of a gateway begin within this time of the last answer.
const FRESH: Duration = Duration::from_millis(3250);
/// Pauses differ by up to this part, so that many control planes do not probe in step.
const JITTER: f64 = 0.1;

/// What is known of a gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Liveness {
    /// Nothing: it was not probed yet, or it does not answer, and neither does any other. Leave it as it is.
    #[default]
    Unknown,
    /// It answers.
    Alive,
    /// It does not answer while others do: prefer others.
    Dead,
}

impl Liveness {
    /// `alive`, `dead` or `unknown`: as in metrics and on pages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Alive => "alive",
            Self::Dead => "dead",
        }
    }
}

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A TLS handshake with a workload of the mesh behind the gateway was completed.
    Through,
    /// The gateway took the connection, and there is nobody to ask for behind it.
    Connected,
    /// The gateway took the connection, and led to nobody who was asked for: why.
    NoWay(String),
    /// It did not even take the connection: why.
    Silent(String),
}

/// A probe that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whom it asks.
    pub gateway: SocketAddr,
    /// When it was begun.
    pub begun: Instant,
    /// Whether another gateway had answered a moment before.
    witnessed: bool,
}

/// What is known of a gateway, and how.
#[derive(Clone, Debug)]
pub struct Health {
    /// The verdict.
    pub liveness: Liveness,
    /// When that began.
    pub since: Instant,
    /// Whether a handshake through it was ever completed. Until then taking the connection is all that is asked of it: which
    /// services it leads to is its own cluster's matter.
    pub proven: bool,
    /// How long the last answer took.
    pub latency: Option<Duration>,
    /// A moving average (one eighth each, as TCP does).
    pub smoothed: Option<Duration>,
    /// Why the last probe was no handshake.
    pub trouble: Option<String>,
    /// Probes that were answered, and that were not.
    pub probes: (u64, u64),
    added: Instant,
    next: Instant,
    /// When the last probe that it answered was begun.
    answered: Option<Instant>,
    /// In a row.
    answers: u32,
    failures: u32,
    /// Of the failures in this row: while others answered.
    witnessed: u32,
}

/// All gateways.
#[derive(Clone, Debug, Default)]
pub struct Board {
    gateways: BTreeMap<SocketAddr, Health>,
}

// === impl Health ===

impl Health {
    fn new(now: Instant, first: Instant) -> Self {
        Self {
            liveness: Liveness::Unknown,
            since: now,
            proven: false,
            latency: None,
            smoothed: None,
            trouble: None,
            probes: (0, 0),
            added: now,
            next: first,
            answered: None,
            answers: 0,
            failures: 0,
            witnessed: 0,
        }
    }

    /// Whether the next answers or failures may change the verdict.
    fn is_in_doubt(&self) -> bool {
        match self.liveness {
            Liveness::Dead => self.answers > 0,
            Liveness::Alive | Liveness::Unknown => self.failures > 0,
        }
    }

    fn pause(&self) -> Duration {
        if self.is_in_doubt() { DOUBT } else { STEADY }
    }

    fn ended(&mut self, probe: &Probe, outcome: Outcome, took: Duration) {
        let answered = match &outcome {
            Outcome::Through | Outcome::Connected => true,
            Outcome::NoWay(_) => !self.proven,
            Outcome::Silent(_) => false,
        };
        self.proven |= outcome == Outcome::Through;
        self.trouble = match outcome {
            Outcome::Through | Outcome::Connected => None,
            Outcome::NoWay(why) | Outcome::Silent(why) => Some(why),
        };
        if answered {
            self.probes.0 += 1;
            self.answered = self.answered.max(Some(probe.begun));
            self.answers += 1;
            (self.failures, self.witnessed) = (0, 0);
            self.latency = Some(took);
            self.smoothed = Some(self.smoothed.map_or(took, |before| (before * 7 + took) / 8));
        } else {
            self.probes.1 += 1;
            self.answers = 0;
            self.failures += 1;
            self.witnessed += u32::from(probe.witnessed);
        }
    }

    fn verdict(&self) -> Liveness {
        match self.liveness {
            Liveness::Dead if self.answers >= ALIVE_AFTER => Liveness::Alive,
            Liveness::Dead => Liveness::Dead,
            _ if self.witnessed >= DEAD_AFTER => Liveness::Dead,
            _ if self.failures >= UNKNOWN_AFTER => Liveness::Unknown,
            _ if self.answers > 0 => Liveness::Alive,
            as_before => as_before,
        }
    }
}

// === impl Board ===

impl Board {
    /// Follows exactly these from now on. `chance` gives numbers from 0 to 1.
    pub fn follow(&mut self, wanted: &BTreeSet<SocketAddr>, now: Instant, mut chance: impl FnMut() -> f64) {
        self.gateways.retain(|gateway, _| wanted.contains(gateway));
        for gateway in wanted {
            let mut first = || now + DOUBT.mul_f64(chance());
            self.gateways.entry(*gateway).or_insert_with(|| Health::new(now, first()));
        }
    }

    /// When a probe is due next.
    pub fn next(&self) -> Option<Instant> {
        self.gateways.values().map(|health| health.next).min()
    }

    /// Begins the probes that are due now, `room` of them at most, the longest overdue first.
    pub fn begin(&mut self, now: Instant, room: usize, mut chance: impl FnMut() -> f64) -> Vec<Probe> {
        let due = self.gateways.iter().filter(|(_, health)| health.next <= now);
        let mut due: Vec<_> = due.map(|(gateway, health)| (health.next, *gateway)).collect();
        due.sort_unstable();
        due.truncate(room);
        let mut begun = Vec::with_capacity(due.len());
        for (_, gateway) in due {
            let witnessed = self.gateways.iter().any(|(other, health)| {
                let fresh = |answered| now.saturating_duration_since(answered) <= FRESH;
                *other != gateway && health.answered.is_some_and(fresh)
            });
            if let Some(health) = self.gateways.get_mut(&gateway) {
                health.next = now + health.pause().mul_f64(1.0 + JITTER * (2.0 * chance() - 1.0));
            }
            begun.push(Probe { gateway, begun: now, witnessed });
        }
        begun
    }

    /// Takes in how a probe ended. Whether the verdict is another now.
    pub fn end(&mut self, probe: &Probe, outcome: Outcome, took: Duration, now: Instant) -> bool {
        let Some(health) = self.gateways.get_mut(&probe.gateway) else { return false };
        // Of a gateway that was gone meanwhile.
        if probe.begun < health.added {
            return false;
        }
        let doubted = health.is_in_doubt();
        health.ended(probe, outcome, took);
        let verdict = health.verdict();
        let changed = verdict != health.liveness;
        if changed {
            (health.liveness, health.since) = (verdict, now);
        }
        if !doubted && health.is_in_doubt() {
            health.next = health.next.min(now.max(probe.begun + DOUBT));
        }
        changed
    }

    /// Those that are proven to be dead.
    pub fn dead(&self) -> BTreeSet<SocketAddr> {
        let dead = self.gateways.iter().filter(|(_, health)| health.liveness == Liveness::Dead);
        dead.map(|(gateway, _)| *gateway).collect()
    }

    /// Every gateway.
    pub fn iter(&self) -> impl Iterator<Item = (&SocketAddr, &Health)> {
        self.gateways.iter()
    }

    /// One of them.
    pub fn get(&self, gateway: &SocketAddr) -> Option<&Health> {
        self.gateways.get(gateway)
    }
}

#[cfg(test)]
mod tests;
