//! Who leads: the rules of a Lease, as client-go's leader election has them. Pure: time is an argument.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// How long things hold; client-go's and so everybody's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A Lease that was seen unchanged for this long may be taken.
    pub lease: Duration,
    /// A leader that could not renew for this long leads no more. Less than `lease` by more than a request that was given up
    /// may still need to arrive.
    pub deadline: Duration,
    /// Between tries.
    pub retry: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        let of = Duration::from_secs;
        Self { lease: of(15), deadline: of(10), retry: of(2) }
    }
}

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty: nobody.
    pub holder: String,
    /// For how long after each renewal.
    pub duration: Duration,
    /// Since when, as the holder says; nobody's clock is compared with it.
    pub acquired: SystemTime,
    /// The last renewal; the same.
    pub renewed: SystemTime,
    /// How often it changed hands.
    pub transitions: u32,
}

/// A Lease in the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Of the object: an update of another version fails.
    pub version: String,
    /// What it says.
    pub record: Record,
}

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bid {
    /// There is no Lease: make it. Fails if somebody else does.
    Create(Record),
    /// Replace the one that has this version. Fails if it changed.
    Update(String, Record),
}

/// One who stands for election.
#[derive(Debug)]
pub struct Elector {
    identity: Arc<str>,
    terms: Terms,
    known: Known,
    /// It leads until then.
    until: Option<Instant>,
}

#[derive(Debug)]
enum Known {
    /// It has to be read.
    Nothing,
    /// There is none.
    Absent,
    /// This one, which says the same since then.
    Lease(Lease, Instant),
    /// The same, and its version is not the newest.
    Outdated(Record, Instant),
}

// === impl Elector ===

impl Elector {
    /// One that knows nothing.
    pub fn new(identity: Arc<str>, terms: Terms) -> Self {
        Self { identity, terms, known: Known::Nothing, until: None }
    }

    /// Whether it may write.
    pub fn leads(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Until when it may write.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Who holds the Lease, as far as is known; empty: nobody.
    pub fn holder(&self) -> &str {
        match &self.known {
            Known::Lease(Lease { record, .. }, _) | Known::Outdated(record, _) => &record.holder,
            Known::Nothing | Known::Absent => "",
        }
    }

    /// Whether the Lease has to be read before there can be a bid. One who leads tries without, as long as nobody else wrote.
    pub fn must_read(&self) -> bool {
        match &self.known {
            Known::Nothing | Known::Outdated(..) => true,
            Known::Absent => false,
            Known::Lease(Lease { record, .. }, _) => record.holder != *self.identity,
        }
    }

    /// When a Lease of another may be taken, if it is not renewed.
    pub fn free_at(&self) -> Option<Instant> {
        match &self.known {
            Known::Lease(Lease { record, .. }, since) if record.holder != *self.identity => {
                Some(*since + record.duration)
            }
            _ => None,
        }
    }

    /// This is what the API server has.
    pub fn saw(&mut self, found: Option<Lease>, now: Instant) {
        let before = std::mem::replace(&mut self.known, Known::Absent);
        let Some(lease) = found else { return };
        if lease.record.holder != *self.identity {
            self.until = None;
        }
        let since = match before {
            Known::Lease(Lease { record, .. }, since) | Known::Outdated(record, since)
                if record == lease.record =>
            {
                since
            }
            _ => now,
        };
        self.known = Known::Lease(lease, since);
    }

    /// What to write now, if anything; `clock` is for people who read the Lease.
    pub fn bid(&self, now: Instant, clock: SystemTime) -> Option<Bid> {
        let ours = |acquired, transitions| Record {
            holder: self.identity.to_string(),
            duration: self.terms.lease,
            acquired,
            renewed: clock,
            transitions,
        };
        match &self.known {
            Known::Nothing | Known::Outdated(..) => None,
            Known::Absent => Some(Bid::Create(ours(clock, 0))),
            Known::Lease(Lease { version, record }, since) => {
                let record = if record.holder == *self.identity {
                    ours(record.acquired, record.transitions)
                } else if record.holder.is_empty() || now >= *since + record.duration {
                    ours(clock, record.transitions.saturating_add(1))
                } else {
                    return None;
                };
                Some(Bid::Update(version.clone(), record))
            }
        }
    }

    /// A bid that was sent at `sent` was stored so.
    pub fn won(&mut self, stored: Lease, sent: Instant, now: Instant) {
        self.until = Some(sent + self.terms.deadline);
        self.known = Known::Lease(stored, now);
    }

    /// A bid failed, or it is not known whether it did. It still leads until its time is over.
    pub fn lost(&mut self) {
        self.known = match std::mem::replace(&mut self.known, Known::Nothing) {
            Known::Lease(Lease { record, .. }, since) => Known::Outdated(record, since),
            Known::Absent => Known::Nothing,
            other => other,
        };
    }

    /// Leads no more; what to write so that the next one need not wait, if the Lease is still held.
    pub fn resign(&mut self, clock: SystemTime) -> Option<Bid> {
        self.until = None;
        match &self.known {
            Known::Lease(Lease { version, record }, _) if record.holder == *self.identity => {
                let record = Record {
                    holder: String::new(),
                    duration: Duration::from_secs(1),
                    renewed: clock,
                    ..record.clone()
                };
                Some(Bid::Update(version.clone(), record))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
