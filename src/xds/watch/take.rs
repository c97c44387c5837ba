//! What goes into the next response: what others are given alike, as a whole, and what is pending, name by name.

use std::{collections::BTreeSet, sync::Arc};

use super::{Batch, Has, LEDS, Watch};
use crate::{
    snapshot::Encoded,
    xds::{Bundle, Bundles, Contents, contents::Of},
};

impl Watch {
    /// Takes what the client needs, up to about `budget` bytes, in the order of names; or `everything`, layer by layer, where
    /// the client has nothing. None: nothing is needed.
    pub fn take(&mut self, budget: usize, everything: bool, bundles: &Bundles) -> Option<Batch> {
        let answer = std::mem::take(&mut self.answer);
        let mut whole = self.take_whole(budget, everything, bundles);
        let mut left = budget - bytes(&whole);
        let (mut changed, mut removed, mut homeless) = (Vec::new(), Vec::new(), Vec::new());
        if everything && whole.is_empty() {
            left = self.take_root(&mut changed, budget);
        } else if self.kind == LEDS {
            left = self.take_collections(&mut whole, left, bundles);
        }
        while let Some((name, has)) = self.pending.pop_first() {
            let current = self.choose(&name, has);
            let size = current.as_ref().map_or(name.len(), |resource| resource.size()) + 8;
            match current {
                Some(resource) if has.is(resource.version) => {
                    self.has_table(&resource, true);
                    continue;
                }
                None if has == Has::Nothing || self.rare.spared.contains(&name) => continue,
                _ if (size > left && left < budget && self.may_split(&whole, &changed, &name))
                    || changed.len() >= self.at_once =>
                {
                    self.pending.each().insert(name, has);
                    break;
                }
                // A removal alone would be an answer to whoever waits for the collection.
                current if !self.has_place(&name) && (current.is_some() || self.kind == LEDS) => {
                    homeless.push((name, has));
                    continue;
                }
                Some(resource) => changed.push(resource),
                None => removed.push(name),
            }
            left = left.saturating_sub(size);
        }
        self.pending.each().extend(homeless);
        let changed = Contents::new(whole, changed);
        self.add_before_removing(&changed, &mut removed);
        let something = answer || !changed.is_empty() || !removed.is_empty();
        if !something {
            self.at_once = usize::MAX;
        }
        something.then_some(Batch { changed, removed, answer })
    }

    /// What the client, which has nothing, gets as everybody does who asks for the same; nothing if that is too much for one
    /// response. What is left is pending.
    fn take_whole(&mut self, budget: usize, everything: bool, bundles: &Bundles) -> Vec<Arc<Bundle>> {
        let names = self.pending.take_all();
        let mut found = Vec::new();
        if self.is_usual() && (everything || names.is_some()) {
            found = self.bundles(names.as_ref().map_or(Of::Everything, Of::Names), bundles);
        }
        let fits = |bundle: &Arc<Bundle>| {
            self.kind.whole().is_none()
                || bundle.prefixes().iter().all(|prefix| self.rare.open.contains(prefix))
        };
        if !found.iter().all(fits) || bytes(&found) > budget {
            found.clear();
        }
        if let Some(names) = names {
            // Most subscriptions name only what is there.
            let count: usize = found.iter().map(|bundle| bundle.resources().len()).sum();
            if count < names.len() {
                let root = self.rooted.get(self.kind);
                let missing = names.iter().filter(|name| found.is_empty() || root.get(name).is_none());
                self.pending.each().extend(missing.map(|name| (name.clone(), Has::Unknown)));
            }
        }
        found
    }

    /// What the root has of this, as others get it, too.
    fn bundles(&self, of: Of<'_>, bundles: &Bundles) -> Vec<Arc<Bundle>> {
        let all = self.root().layers().iter().map(|layer| bundles.get(of, layer));
        all.filter(|bundle| !bundle.resources().is_empty()).collect()
    }

    /// The root as far as it fits; the rest is pending. Returns what is left of the budget.
    fn take_root(&mut self, changed: &mut Vec<Arc<Encoded>>, budget: usize) -> usize {
        // Some of it may have no place.
        let (mut left, mut full) = (budget, self.kind.whole().is_some());
        for resource in self.rooted.get(self.kind).iter() {
            let size = resource.size() + 8;
            full |= (size > left && left < budget) || changed.len() >= self.at_once;
            if full {
                self.pending.each().insert(resource.name.clone(), Has::Nothing);
            } else {
                left = left.saturating_sub(size);
                changed.push(resource.clone());
            }
        }
        left
    }

    /// All that the client should have, in order: the resources of a complete response.
    pub fn everything(&self) -> Vec<Arc<Encoded>> {
        let mut names: BTreeSet<&Arc<str>> = self.subscription.names.iter().collect();
        if self.subscription.wildcard {
            names.extend(self.root().iter().map(|resource| &resource.name));
            names.extend(self.rare.held.keys());
        }
        names.into_iter().filter_map(|name| self.current(name)).collect()
    }

    /// Collections that are wanted as a whole, each whole or not at all: what its names would come to, without looking for each
    /// of thousands. Returns what is left of the budget.
    fn take_collections(&mut self, whole: &mut Vec<Arc<Bundle>>, budget: usize, bundles: &Bundles) -> usize {
        let mut left = budget;
        for prefix in std::mem::take(self.pending.collections()) {
            if !self.is_usual() {
                self.want_each_of(&prefix);
                continue;
            }
            if self.root().with_prefix(&prefix).next().is_none() {
                continue;
            }
            let found = self.has_place(&prefix).then(|| self.bundles(Of::Prefix(&prefix), bundles));
            let Some(found) = found.filter(|found| bytes(found) <= left || whole.is_empty()) else {
                self.pending.collections().insert(prefix);
                continue;
            };
            left = left.saturating_sub(bytes(&found));
            let each = self.pending.each();
            if !each.is_empty() {
                found.iter().flat_map(|bundle| bundle.resources()).for_each(|resource| {
                    each.remove(&resource.name);
                });
            }
            whole.extend(found);
        }
        left
    }

    /// Whether the client gets what others get: it has refused nothing, and keeps nothing that is gone.
    fn is_usual(&self) -> bool {
        self.at_once == usize::MAX && self.rare.refused.is_empty() && self.rare.held.is_empty()
    }
}

/// The sum of their sizes, with what comes with each resource in a response.
fn bytes(bundles: &[Arc<Bundle>]) -> usize {
    bundles.iter().map(|bundle| bundle.bytes()).sum()
}
