//! The names that streams ask for. Most ask for the same: sets are shared.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Deref,
    sync::{Arc, LazyLock, Weak},
};

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3Default;

use crate::snapshot::{Bits, Filter};

/// Names of resources, with a filter that passes most others over without looking at them.
#[derive(Clone, Debug, Default)]
pub struct Names {
    names: BTreeSet<Arc<str>>,
    filter: Filter,
    /// Whether [`SharedNames`] has it.
    shared: bool,
}

impl Names {
    /// No names, shared by all who ask for none.
    pub fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<Names>> = LazyLock::new(Arc::default);
        NONE.clone()
    }

    /// Adds a name.
    pub fn insert(&mut self, name: Arc<str>) {
        self.shared = false;
        self.filter.add(&name, self.names.len());
        self.names.insert(name);
    }

    /// Keeps these. Takes time for each.
    pub fn retain(&mut self, keep: impl FnMut(&Arc<str>) -> bool) {
        let mut names = std::mem::take(&mut self.names);
        names.retain(keep);
        *self = names.into();
    }

    /// Whether a name with these bits may be among them: no is certain.
    pub fn may_hold(&self, bits: Bits) -> bool {
        self.filter.may_hold(bits)
    }

    /// The filter.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }
}

impl From<BTreeSet<Arc<str>>> for Names {
    fn from(names: BTreeSet<Arc<str>>) -> Self {
        let mut filter = Filter::default();
        names.iter().enumerate().for_each(|(before, name)| filter.add(name, before));
        Self { names, filter, shared: false }
    }
}

impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names
    }
}

impl Eq for Names {}

impl Deref for Names {
    type Target = BTreeSet<Arc<str>>;

    fn deref(&self) -> &Self::Target {
        &self.names
    }
}

/// The sets of names that streams ask for, each once.
#[derive(Debug, Default)]
pub struct SharedNames(Mutex<HashMap<u64, Weak<Names>>>);

impl SharedNames {
    /// Replaces a set by the one that others have, if it is equal. Takes time for each name.
    pub fn share(&self, names: &mut Arc<Names>) {
        if names.is_empty() || names.shared {
            return;
        }
        let key = key(names.iter().map(|name| &**name));
        match self.known(key) {
            Some(other) if other == *names => *names = other,
            Some(_) => {}
            None => self.add(key, names),
        }
    }

    /// The set of these names. Where it is known, no name is copied.
    pub fn of<'a>(&self, list: impl Iterator<Item = &'a str>) -> Arc<Names> {
        let mut list: Vec<&str> = list.collect();
        if list.is_empty() {
            return Names::none();
        }
        // Mostly, it is in order.
        list.sort();
        list.dedup();
        let key = key(list.iter().copied());
        let known = self.known(key);
        if let Some(known) = &known
            && known.iter().map(|name| &**name).eq(list.iter().copied())
        {
            return known.clone();
        }
        let names: BTreeSet<Arc<str>> = list.into_iter().map(Arc::from).collect();
        let mut names = Arc::new(Names::from(names));
        if known.is_none() {
            self.add(key, &mut names);
        }
        names
    }

    /// Lets go of sets that nobody has any more. A weak pointer keeps the room of what it points to.
    pub fn forget(&self) {
        let mut known = self.0.lock();
        known.retain(|_, names| names.strong_count() > 0);
        known.shrink_to_fit();
    }

    fn known(&self, key: u64) -> Option<Arc<Names>> {
        self.0.lock().get(&key).and_then(Weak::upgrade)
    }

    fn add(&self, key: u64, names: &mut Arc<Names>) {
        if let Some(names) = Arc::get_mut(names) {
            names.shared = true;
        }
        let mut known = self.0.lock();
        if known.len() == known.capacity() {
            known.retain(|_, names| names.strong_count() > 0);
        }
        known.insert(key, Arc::downgrade(names));
    }
}

/// Of names in their order.
fn key<'a>(names: impl Iterator<Item = &'a str>) -> u64 {
    let mut hash = Xxh3Default::new();
    for name in names {
        hash.update(&name.len().to_le_bytes());
        hash.update(name.as_bytes());
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &str) -> Arc<Names> {
        let mut names = Names::default();
        words.split_whitespace().for_each(|word| names.insert(word.into()));
        Arc::new(names)
    }

    #[test]
    fn equal_sets_are_one_until_one_of_them_changes() {
        let shared = SharedNames::default();
        let mut all = [names("a b"), names("a b"), names("a b")];
        all.iter_mut().for_each(|names| shared.share(names));
        assert!(Arc::ptr_eq(&all[0], &all[1]) && Arc::ptr_eq(&all[1], &all[2]));
        Arc::make_mut(&mut all[1]).insert("c".into());
        assert!(!all[0].contains("c") && all[1].contains("c"));
        Arc::make_mut(&mut all[1]).retain(|name| **name != *"c");
        shared.share(&mut all[1]);
        assert!(Arc::ptr_eq(&all[0], &all[1]));
        for i in 0..1000 {
            shared.share(&mut names(&i.to_string()));
        }
        assert!(shared.0.lock().len() < 100, "those that nobody has are forgotten");
        shared.forget();
        assert_eq!(shared.0.lock().len(), 1);
    }

    #[test]
    fn what_is_there_passes_the_filter() {
        let mut few = Names::default();
        for i in 0..300 {
            few.insert(i.to_string().into());
            assert!(few.iter().all(|name| few.may_hold(Bits::of(name))), "{i}");
        }
        assert!(few.may_hold(Bits::of("another")), "too many to tell");
        few.retain(|name| name.len() == 1);
        assert!(few.iter().all(|name| few.may_hold(Bits::of(name))));
        assert!(!few.may_hold(Bits::of("another")), "few again");
        assert_eq!(few, *names("0 1 2 3 4 5 6 7 8 9"));
    }
}
