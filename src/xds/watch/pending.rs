//! Names that a client has to be told about.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Has, collection};
use crate::xds::Names;

/// What is still to be sent, and what the client has of it.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// All that was asked for at first; then there is nothing else. It mostly goes out as a whole.
    all: Option<Arc<Names>>,
    /// The only one, which is what most changes come to.
    one: Option<(Arc<str>, Has)>,
    /// All that there is with names that begin so, of which nothing is known.
    collections: BTreeSet<Arc<str>>,
    each: BTreeMap<Arc<str>, Has>,
}

impl Pending {
    /// These names, of which nothing is known.
    pub fn all(names: Arc<Names>) -> Self {
        Self { all: (!names.is_empty()).then_some(names), ..Self::default() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        let Self { all, one, collections, each } = self;
        all.is_none() && one.is_none() && collections.is_empty() && each.is_empty()
    }

    /// Takes the names if they are still those of [`Self::all`].
    pub fn take_all(&mut self) -> Option<Arc<Names>> {
        self.all.take()
    }

    /// Whether this name is there.
    pub fn contains(&self, name: &str) -> bool {
        let is_all = self.all.as_ref().is_some_and(|all| all.contains(name));
        let is_one = || self.one.as_ref().is_some_and(|(one, _)| &**one == name);
        is_all || is_one() || self.is_in_collection(name) || self.each.contains_key(name)
    }

    /// Whether all that is in the same collection is there.
    pub fn is_in_collection(&self, name: &str) -> bool {
        !self.collections.is_empty() && self.collections.contains(collection(name))
    }

    /// Adds a name that is not there.
    pub fn add(&mut self, name: Arc<str>, has: Has) {
        if self.is_empty() {
            self.one = Some((name, has));
        } else {
            self.each().insert(name, has);
        }
    }

    /// What the client says that it has is sent all the same.
    pub fn await_said(&mut self) {
        for has in self.one.iter_mut().map(|(_, has)| has).chain(self.each.values_mut()) {
            if let Has::Said(version) = *has {
                *has = Has::Awaits(version);
            }
        }
    }

    /// Takes the first name.
    pub fn pop_first(&mut self) -> Option<(Arc<str>, Has)> {
        self.one.take().or_else(|| self.each().pop_first())
    }

    /// Collections, by what the names in them begin with.
    pub fn collections(&mut self) -> &mut BTreeSet<Arc<str>> {
        &mut self.collections
    }

    /// Name by name, but for what is in [`Self::collections`].
    pub fn each(&mut self) -> &mut BTreeMap<Arc<str>, Has> {
        if let Some(all) = self.all.take() {
            self.each = all.iter().map(|name| (name.clone(), Has::Unknown)).collect();
        }
        self.each.extend(self.one.take());
        &mut self.each
    }
}
