//! Names that a client has to be told about.

use std::{collections::BTreeMap, sync::Arc};

use super::Has;
use crate::xds::Names;

/// What is still to be sent, and what the client has of it.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// All that was asked for at first; then there is nothing else. It mostly goes out as a whole.
    all: Option<Arc<Names>>,
    /// The only one, which is what most changes come to.
    one: Option<(Arc<str>, Has)>,
    each: BTreeMap<Arc<str>, Has>,
}

impl Pending {
    /// These names, of which nothing is known.
    pub fn all(names: Arc<Names>) -> Self {
        Self { all: (!names.is_empty()).then_some(names), ..Self::default() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_none() && self.one.is_none() && self.each.is_empty()
    }

    /// Takes the names if they are still those of [`Self::all`].
    pub fn take_all(&mut self) -> Option<Arc<Names>> {
        self.all.take()
    }

    /// Whether this name is there.
    pub fn contains(&self, name: &str) -> bool {
        let is_all = self.all.as_ref().is_some_and(|all| all.contains(name));
        let is_one = || self.one.as_ref().is_some_and(|(one, _)| &**one == name);
        is_all || is_one() || self.each.contains_key(name)
    }

    /// Adds a name that is not there.
    pub fn add(&mut self, name: Arc<str>, has: Has) {
        if self.is_empty() {
            self.one = Some((name, has));
        } else {
            self.each().insert(name, has);
        }
    }

    /// Takes the first name.
    pub fn pop_first(&mut self) -> Option<(Arc<str>, Has)> {
        self.one.take().or_else(|| self.each().pop_first())
    }

    /// Name by name.
    pub fn each(&mut self) -> &mut BTreeMap<Arc<str>, Has> {
        if let Some(all) = self.all.take() {
            self.each = all.iter().map(|name| (name.clone(), Has::Unknown)).collect();
        }
        self.each.extend(self.one.take());
        &mut self.each
    }
}
