//! One type on one stream: what the client wants, what it has, and what it is owed.
//!
//! The client has `root`, restricted to its subscription, except for the names in `pending`. So a stream remembers a
//! root and its few exceptions, never a map of all that it sent.

mod answers;
mod parts;
mod pending;
mod rare;
mod take;

use std::{collections::BTreeSet, sync::Arc, time::Instant};

pub use answers::InFlight;
pub use parts::Table;
pub(super) use parts::collection;
use pending::Pending;
use rare::{Held, Owed, Rarely, Refused};

use super::{
    Nonce,
    contents::Contents,
    kind::{EDS, Kind, LEDS, RDS},
    names::Names,
    placeholder::placeholder,
    subscription::Subscription,
};
use crate::snapshot::{Difference, Encoded, Resources, Snapshot, Version};

/// What a stream could send at one time, with its place in the order in which this stream saw them. Epochs do not serve for
/// that: a proxy that moves to another class may meet an older one.
///
/// A stream's types hold on to several of them for each push. What they share is the stream's own: to count who holds on to
/// what all streams share, processors would have to take it from each other each time.
#[derive(Clone, Debug)]
pub struct Step {
    /// Counts the snapshots that this stream saw.
    pub sequence: u64,
    /// The resources.
    pub snapshot: Arc<Snapshot>,
    /// The secrets of the stream's identity.
    pub secrets: Resources,
}

impl Step {
    /// What there is of a type.
    pub fn get(&self, kind: Kind) -> &Resources {
        match kind {
            Kind::Snapshot(of) => self.snapshot.get(of),
            Kind::Secret => &self.secrets,
        }
    }
}

/// What a client has of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Has {
    /// Nothing: a removal need not be sent.
    Nothing,
    /// This version: it need not be sent again.
    Version(Version),
    /// This version, as it says when it connects.
    Said(Version),
    /// This version, as it says when it connects; and it waits to be sent one, be it the same.
    Awaits(Version),
    /// It asked, or refused something: whatever is right is sent.
    Unknown,
}

impl Has {
    fn is(self, version: Version) -> bool {
        matches!(self, Self::Version(has) | Self::Said(has) if has == version)
    }
}

/// What goes into one response.
#[derive(Debug, Default)]
pub struct Batch {
    /// New or changed for this client.
    pub changed: Contents,
    /// To be taken away.
    pub removed: Vec<Arc<str>>,
    /// Whether it must be sent although nothing is in it.
    pub answer: bool,
}

/// The state of one type on one stream.
#[derive(Debug)]
pub struct Watch {
    kind: Kind,
    /// Whether the client ever asked for this type.
    pub started: bool,
    /// What the client wants.
    pub subscription: Subscription,
    /// The nonce of the newest response; requests with another one are stale.
    pub last_nonce: Option<Nonce>,
    /// The response that waits for its answer.
    pub in_flight: Option<InFlight>,
    /// The step that was looked at last.
    pub step: Arc<Step>,
    /// The newest step which the client has answered for in full.
    pub settled: Arc<Step>,
    /// The step whose resources are the root: the same, unless the type was not served there.
    rooted: Arc<Step>,
    /// The step of the last root that the client has accepted.
    good: Arc<Step>,
    pending: Pending,
    answer: bool,
    rare: Rarely,
    /// So many resources go into one response: fewer and fewer while the client refuses one that it does not name.
    at_once: usize,
}

impl Watch {
    /// Nothing wanted, nothing sent.
    pub fn new(kind: Kind, start: Arc<Step>) -> Self {
        Self {
            kind,
            started: false,
            subscription: Subscription::default(),
            last_nonce: None,
            in_flight: None,
            step: start.clone(),
            settled: start.clone(),
            rooted: start.clone(),
            good: start,
            pending: Pending::default(),
            answer: false,
            rare: Rarely::default(),
            at_once: usize::MAX,
        }
    }

    /// What the client has, restricted to what it asks for, but for what is pending.
    pub(super) fn root(&self) -> &Resources {
        self.rooted.get(self.kind)
    }

    /// What the client should have of `name` under the current root.
    pub fn current(&self, name: &Arc<str>) -> Option<Arc<Encoded>> {
        if !self.covers(name) {
            return None;
        }
        let there = self.root().get(name).map(|resource| self.spelt(resource));
        let found = there.or_else(|| self.rare.held.get(name).map(|held| &held.resource));
        let found = found.and_then(|resource| match self.rare.refused.get(name) {
            Some(refused) if refused.version == resource.version => refused.kept.clone(),
            _ => Some(resource.clone()),
        });
        let empty = || self.subscription.names.contains(name) && !self.rare.spared.contains(name);
        found.or_else(|| empty().then(|| placeholder(self.kind, name)).flatten())
    }

    fn has(&self, name: &Arc<str>) -> Has {
        match self.current(name) {
            _ if self.rare.refused.contains_key(name) => Has::Unknown,
            Some(resource) => Has::Version(resource.version),
            None => Has::Nothing,
        }
    }

    /// Marks a name for the next response. `has` counts only if nothing is known to be missing yet.
    pub fn want(&mut self, name: Arc<str>, has: Has) {
        match has {
            Has::Unknown => self.forget_table(&name),
            Has::Version(_) | Has::Said(_) if self.kind == RDS => {
                self.rare.make().spared.insert(name.clone());
            }
            Has::Version(_) | Has::Said(_) | Has::Awaits(_) | Has::Nothing => {}
        }
        let pending = self.pending.each();
        pending
            .entry(name)
            .and_modify(|known| {
                if has == Has::Unknown {
                    *known = has;
                }
            })
            .or_insert(has);
    }

    /// The first names that the client asks for, and what it `has` of them.
    pub fn begin(&mut self, names: Arc<Names>, has: impl Fn(&str) -> Has) {
        self.subscription.names = names.clone();
        let nothing = names.iter().all(|name| has(name) == Has::Unknown);
        // Nobody else gets the same secrets.
        let alike = self.kind.whole().is_none() && self.kind != Kind::Secret;
        if nothing && alike && self.pending.is_empty() {
            self.pending = Pending::all(names);
        } else {
            names.iter().for_each(|name| self.want_named(name.clone(), has(name)));
        }
    }

    /// The client asks for the first time. `says`: it said what it has, which does not count where a cluster waits for it.
    pub fn pay(&mut self, says: bool) {
        let owed = self.rare.some().map(|rare| std::mem::take(&mut rare.owed)).unwrap_or_default();
        match owed {
            Owed::These(clusters) if says => self.owe_all(&clusters),
            Owed::Everything if says => {
                let names: Vec<_> = self.pending.each().keys().cloned().collect();
                names.into_iter().for_each(|name| self.want(name, Has::Unknown));
            }
            Owed::Nothing | Owed::These(_) | Owed::Everything => {}
        }
    }

    /// Everything that there is, again. `known`: what the client says that it has.
    pub fn want_all(&mut self, known: impl IntoIterator<Item = (Arc<str>, Has)>) {
        for (name, has) in known {
            self.want(name, has);
        }
        // From nothing to the root again: each name that the client did not list is missing.
        let names: Vec<Arc<str>> = self.root().iter().map(|r| r.name.clone()).collect();
        for name in names {
            if self.subscription.covers(&name) {
                self.want(name, Has::Nothing);
            }
        }
    }

    /// The client waits for all that it asks for by name, whatever it says that it has.
    pub fn await_all(&mut self) {
        self.pending.await_said();
        for name in self.subscription.names.clone().iter() {
            if !self.pending.contains(name) {
                self.want(name.clone(), Has::Unknown);
            }
        }
    }

    /// The next response is sent even if it is empty: clients wait for the first one.
    pub fn must_answer(&mut self) {
        self.answer = true;
    }

    /// No longer asked for by name: the client has dropped it, unless a wildcard covers it.
    pub fn forget(&mut self, name: &Arc<str>) {
        if self.kind == LEDS && name.ends_with('*') {
            return self.forget_collection(name);
        }
        self.forget_table(name);
        if self.covers(name) {
            self.want(name.clone(), Has::Unknown);
        } else {
            // What it refused stays refused when it asks again.
            self.pending.each().remove(name);
            self.release_one(name);
        }
    }

    /// The end of a wildcard subscription: only what was asked for by name stays.
    pub fn forget_wildcard(&mut self) {
        let Self { subscription, pending, rare, .. } = self;
        pending.each().retain(|name, _| subscription.covers(name));
        pending.collections().retain(|prefix| subscription.covers(&format!("{prefix}*")));
        if let Some(rare) = rare.some() {
            rare.held.retain(|name, _| subscription.covers(name));
        }
    }

    /// Clusters were sent (again): the assignments that they wait for are sent after them, changed or not.
    pub fn owe(&mut self, clusters: &Contents) {
        if self.started {
            return self.owe_all(clusters);
        }
        if clusters.waiting().next().is_some() {
            let owed = match self.rare.owed {
                Owed::Nothing => Owed::These(clusters.clone()),
                Owed::These(_) | Owed::Everything => Owed::Everything,
            };
            self.rare.make().owed = owed;
        }
    }

    fn owe_all(&mut self, clusters: &Contents) {
        for name in clusters.waiting().filter_map(|cluster| cluster.waits_for.as_ref()) {
            if self.covers(name) {
                self.want(name.clone(), Has::Unknown);
            }
        }
    }

    /// Moves to a step in which this type is not served: nothing is said about it.
    pub fn skip(&mut self, step: &Arc<Step>) {
        (self.answer, self.step, self.settled) = (false, step.clone(), step.clone());
        self.pending = Pending::default();
        if let Some(rare) = self.rare.some() {
            rare.awaited.clear();
        }
    }

    /// Moves to a step in which nothing of this type is different, where nothing is to be said.
    pub fn pass(&mut self, step: &Arc<Step>) {
        (self.step, self.rooted) = (step.clone(), step.clone());
        self.settle();
    }

    /// Moves to a newer root. `hold`: what vanished stays with the client until [`Self::release`]. Tells whether the client
    /// wants everything and has nothing, for [`Self::take`]: then nothing is noted name by name.
    #[must_use]
    pub fn advance(&mut self, step: &Arc<Step>, hold: bool, now: Instant) -> bool {
        let everything = self.subscription.wildcard;
        if self.step.sequence == 0 && self.is_all_pending() {
            (self.rooted, self.step) = (step.clone(), step.clone());
            return everything;
        }
        let root = step.get(self.kind);
        let (mut vanished, mut back) = (BTreeSet::new(), BTreeSet::new());
        // The names of collections stand for others.
        let may_cover = |bits| everything || self.kind == LEDS || self.subscription.names.may_hold(bits);
        for difference in root.diff_of(self.root(), |name, bits| may_cover(bits) && self.covers(name)) {
            let (name, gone) = match &*difference {
                Difference::Changed(resource) => (&resource.name, None),
                Difference::Removed(name) => (name, self.root().get(name)),
            };
            let (name, gone) = (name.clone(), gone.cloned());
            if self.kind == LEDS {
                // A collection goes with the assignment that named it, and Envoy drops it then. Until it does, its endpoints
                // are those that it has.
                if gone.is_some() && root.with_prefix(collection(&name)).next().is_none() {
                    vanished.insert(collection(&name).to_owned());
                    continue;
                }
                if self.rare.vanished.contains_key(collection(&name)) {
                    back.insert(collection(&name).to_owned());
                }
            }
            let has = (!self.pending.contains(&name)).then(|| self.has(&name));
            if gone.is_some() && self.pending.is_in_collection(&name) {
                // The client may have it, and the collection does not tell any more.
                self.pending.each().insert(name.clone(), Has::Unknown);
            }
            let kept = self.kind == RDS && gone.as_ref().is_some_and(|gone| gone.waits_for.is_some());
            match gone {
                Some(_) if hold || kept => {
                    if let Some(resource) = self.current(&name) {
                        let held = Held { resource, gone_in: step.sequence, since: now, kept };
                        self.rare.make().held.insert(name.clone(), held);
                    }
                }
                _ => self.release_one(&name),
            }
            if let Some(has) = has {
                self.pending.add(name, has);
            }
        }
        back.iter().for_each(|collection| self.come_back(collection));
        vanished.into_iter().for_each(|collection| self.remember(collection));
        (self.step, self.rooted) = (step.clone(), step.clone());
        false
    }

    /// Whether a client that was sent nothing so far will be sent all that it wants without looking for it.
    fn is_all_pending(&self) -> bool {
        match (self.subscription.wildcard, self.kind) {
            (true, _) => self.pending.is_empty() && self.waits_for_all(),
            (false, LEDS) => self.subscription.names.iter().all(|name| self.pending.contains(name)),
            // What is asked for by name is pending until it is answered.
            (false, _) => true,
        }
    }

    /// Lets go of what vanished in a step up to `settled`, or longer ago than `patience`.
    pub fn release(&mut self, settled: u64, expired: impl Fn(Instant) -> bool) {
        let free: Vec<Arc<str>> = self
            .rare
            .held
            .iter()
            .filter(|(_, held)| !held.kept && (held.gone_in <= settled || expired(held.since)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in free {
            let has = self.has(&name);
            self.release_one(&name);
            self.pending.each().entry(name).or_insert(has);
        }
    }

    fn release_one(&mut self, name: &Arc<str>) {
        if let Some(rare) = self.rare.some() {
            rare.held.remove(name);
        }
    }

    /// Whether there is nothing to say under the current root.
    pub fn is_at_rest(&self) -> bool {
        self.settled.sequence == self.step.sequence
            && !self.answer
            && self.at_once == usize::MAX
            && self.pending.is_empty()
            && self.rare.held.is_empty()
            && self.rare.awaited.is_empty()
    }

    /// Since when something has been held, if anything is.
    pub fn held_since(&self) -> Option<Instant> {
        self.rare.held.values().filter(|held| !held.kept).map(|held| held.since).min()
    }

    /// Whether a part of the current root still waits for the response before it.
    pub fn is_partial(&self) -> bool {
        !self.pending.is_empty()
    }
}
