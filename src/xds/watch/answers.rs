//! Responses that left, and what the client says to them.

use std::{sync::Arc, time::Instant};

use super::{EDS, Has, Nonce, RDS, Refused, Step, Table, Watch};
use crate::{snapshot::Encoded, xds::Contents};

/// A response without an answer so far.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// Its nonce.
    pub nonce: Nonce,
    /// What it was built from.
    pub step: Arc<Step>,
    /// When it was handed to the transport.
    pub sent_at: Instant,
    /// Whether it was sent for an event, not for a request.
    pub push: bool,
    resources: Contents,
    removed: Vec<Arc<str>>,
}

impl Watch {
    /// A response leaves.
    pub fn sent(
        &mut self,
        nonce: Nonce,
        resources: Contents,
        removed: Vec<Arc<str>>,
        push: bool,
        now: Instant,
    ) {
        self.last_nonce = Some(nonce);
        let step = self.step.clone();
        self.in_flight = Some(InFlight { nonce, step, sent_at: now, push, resources, removed });
    }

    /// Nothing is needed under the current root.
    pub fn settle(&mut self) {
        self.settled = self.step.clone();
        // As it has all of it, older ones need not be kept.
        if self.pending.is_empty() && self.rare.refused.is_empty() {
            self.good = self.rooted.clone();
        }
    }

    /// The response in flight was accepted.
    pub fn acked(&mut self) -> Option<InFlight> {
        let answered = self.in_flight.take()?;
        // Most say nothing about tables, and most clients refuse nothing.
        let tables = self.has_tables() || answered.resources.waiting().next().is_some();
        let tell = (matches!(self.kind, EDS | RDS) && tables) || !self.rare.refused.is_empty();
        for resource in answered.resources.iter().take_while(|_| tell) {
            self.has_table(resource, false);
            if self.rare.refused.is_empty() {
                continue;
            }
            // Not the stand-in for a refused version: another version of the pipeline's, which is good.
            let sent = answered.step.get(self.kind).get(&resource.name).map(|r| self.spelt(r).version);
            if let Some(rare) = self.rare.some().filter(|_| sent == Some(resource.version)) {
                rare.refused.remove(&resource.name);
            }
        }
        self.good = answered.step.clone();
        self.answered(&answered);
        Some(answered)
    }

    /// The response in flight was refused for `culprit`'s choice of its resources. Envoy applies the others, and
    /// keeps what it had of these; or it applies nothing of it ([`Kind::is_atomic`]), and the others are sent again:
    /// where none is named as the culprit, in parts, until it stands alone.
    pub fn nacked(
        &mut self,
        culprits: impl FnOnce(&[Arc<Encoded>]) -> Vec<Arc<Encoded>>,
    ) -> Option<(InFlight, Vec<Arc<Encoded>>)> {
        let answered = self.in_flight.take()?;
        let resources: Vec<_> = answered.resources.iter().cloned().collect();
        let culprits = culprits(&resources);
        for resource in &culprits {
            let kept = match self.rare.refused.get(&resource.name) {
                Some(refused) => refused.kept.clone(),
                None => self.good.get(self.kind).get(&resource.name).map(|r| self.spelt(r).clone()),
            };
            let kept = kept.filter(|kept| kept.version != resource.version);
            let rare = self.rare.make();
            rare.refused.insert(resource.name.clone(), Refused { version: resource.version, kept });
            // An assignment that it had before it still has.
            if self.kind != EDS {
                rare.news.extend(rare.tables.remove(&resource.name).map(Table::Gone));
            }
        }
        if !self.kind.is_atomic() {
            let good = answered.resources.iter().filter(|r| !culprits.contains(r));
            good.for_each(|resource| self.has_table(resource, false));
            // It has those now: what stands in for a later refusal must not be older. What it refused has its own.
            self.good = answered.step.clone();
        } else {
            let others = answered.resources.iter().filter(|r| !culprits.contains(r)).map(|r| r.name.clone());
            let removed = answered.removed.iter().filter(|_| !answered.resources.is_empty()).cloned();
            self.pending.each().extend(others.chain(removed).map(|name| (name, Has::Unknown)));
            if culprits.is_empty() {
                self.at_once = (answered.resources.len() / 2).max(1);
            }
        }
        self.answered(&answered);
        Some((answered, culprits))
    }

    fn answered(&mut self, answered: &InFlight) {
        // With parts of the root still to come, the client is not there yet.
        if self.pending.is_empty() {
            self.settled = answered.step.clone();
        }
    }
}
