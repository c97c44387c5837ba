//! The names that streams ask for. Most ask for the same: sets are shared.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Deref,
    sync::{Arc, LazyLock, OnceLock, Weak},
};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::snapshot::{Bits, Filter};

/// Names of resources, with a filter that passes most others over without looking at them.
#[derive(Clone, Debug, Default)]
pub struct Names {
    names: BTreeSet<Arc<str>>,
    filter: Filter,
    /// Whether [`SharedNames`] has it.
    shared: bool,
    /// How it came from one that [`SharedNames`] has.
    origin: Option<Box<Origin>>,
    /// Once somebody else has asked for the same.
    by_hash: OnceLock<ByHash>,
}

/// Names in the order of their hashes, in one piece: a thousand texts here and there take longer to fetch than to compare.
#[derive(Clone, Debug)]
struct ByHash {
    text: Box<str>,
    /// Where each of them ends.
    ends: Box<[usize]>,
}

/// A change of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These are in it, too.
    Added(Vec<Arc<str>>),
    /// These are not in it any more.
    Removed(BTreeSet<Arc<str>>),
}

#[derive(Clone, Debug)]
struct Origin {
    from: Weak<Names>,
    change: Change,
}

impl Names {
    /// No names, shared by all who ask for none.
    pub fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<Names>> = LazyLock::new(Arc::default);
        NONE.clone()
    }

    /// Adds a name.
    pub fn insert(&mut self, name: Arc<str>) {
        (self.shared, self.origin, self.by_hash) = (false, None, OnceLock::new());
        self.filter.add(&name, self.names.len());
        self.names.insert(name);
    }

    /// Keeps these. Takes time for each.
    pub fn retain(&mut self, keep: impl FnMut(&Arc<str>) -> bool) {
        let mut names = std::mem::take(&mut self.names);
        names.retain(keep);
        *self = names.into();
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Added(names) => names.iter().for_each(|name| self.insert(name.clone())),
            Change::Removed(names) => self.retain(|name| !names.contains(name)),
        }
    }

    /// Whether a name with these bits may be among them: no is certain.
    pub fn may_hold(&self, bits: Bits) -> bool {
        self.filter.may_hold(bits)
    }

    /// Whether they are these, in the order of [`Hashed`].
    fn are(&self, list: &[Hashed<'_>]) -> bool {
        let by_hash = self.by_hash.get_or_init(|| {
            let mut names: Vec<Hashed<'_>> = self.names.iter().map(|name| (hashed(name), &**name)).collect();
            names.sort_unstable();
            ByHash::new(&names)
        });
        by_hash.are(list)
    }

    /// The filter.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }
}

impl ByHash {
    fn new(names: &[Hashed<'_>]) -> Self {
        let mut text = String::with_capacity(names.iter().map(|(_, name)| name.len()).sum());
        let end = |(_, name): &Hashed<'_>| {
            text.push_str(name);
            text.len()
        };
        let ends = names.iter().map(end).collect();
        Self { text: text.into_boxed_str(), ends }
    }

    fn are(&self, list: &[Hashed<'_>]) -> bool {
        let starts = [0].iter().chain(&self.ends);
        let names = starts.zip(&self.ends).map(|(start, end)| &self.text.as_bytes()[*start..*end]);
        names.eq(list.iter().map(|(_, name)| name.as_bytes()))
    }
}

impl From<BTreeSet<Arc<str>>> for Names {
    fn from(names: BTreeSet<Arc<str>>) -> Self {
        let mut filter = Filter::default();
        names.iter().enumerate().for_each(|(before, name)| filter.add(name, before));
        Self { names, filter, ..Self::default() }
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
pub struct SharedNames {
    known: Mutex<HashMap<u64, Weak<Names>>>,
    /// When a service comes, every proxy that sees it adds the same name to the same set. By the place of the set and the hash
    /// of the change.
    steps: Mutex<HashMap<(usize, u64), Step>>,
}

/// From one set to another.
#[derive(Debug)]
struct Step {
    /// Held on to, so that no other set is in its place.
    origin: Box<Origin>,
    to: Weak<Names>,
}

impl SharedNames {
    /// Replaces a set by the one that others have, if it is equal. Takes time for each name; returns false if it did not.
    pub fn share(&self, names: &mut Arc<Names>) -> bool {
        if names.is_empty() || names.shared {
            return false;
        }
        let origin = Arc::get_mut(names).and_then(|names| names.origin.take());
        let key = key(names.iter().map(|name| &**name));
        match self.known(key) {
            Some(other) if other == *names => *names = other,
            Some(_) => return true,
            None => self.add(key, names),
        }
        if let Some(origin) = origin {
            let mut steps = self.steps.lock();
            if steps.len() == steps.capacity() {
                steps.retain(|_, step| step.is_alive());
            }
            steps.insert(origin.key(), Step { origin, to: Arc::downgrade(names) });
        }
        true
    }

    /// Changes a set. Takes no time for each name of it if another stream has changed the same set in the same way, and if
    /// nobody shares it.
    pub fn change(&self, names: &mut Arc<Names>, change: Change) {
        if !names.shared {
            return Arc::make_mut(names).apply(&change);
        }
        let origin = Box::new(Origin { from: Arc::downgrade(names), change });
        if let Some(known) = self.step(&origin) {
            *names = known;
            return;
        }
        let names = Arc::make_mut(names);
        names.apply(&origin.change);
        names.origin = Some(origin);
    }

    /// The set of these names. Where it is known, no name is copied.
    pub fn of<'a>(&self, list: impl Iterator<Item = &'a str>) -> Arc<Names> {
        // Clients ask in an order of their own. A thousand names that begin alike take a third of the time of sorting texts.
        let mut list: Vec<Hashed<'_>> = list.map(|name| (hashed(name), name)).collect();
        if list.is_empty() {
            return Names::none();
        }
        list.sort_unstable();
        list.dedup();
        let key = sum(list.iter().map(|(hash, _)| *hash));
        let known = self.known(key);
        if let Some(known) = &known
            && known.are(&list)
        {
            return known.clone();
        }
        let names: BTreeSet<Arc<str>> = list.into_iter().map(|(_, name)| Arc::from(name)).collect();
        let mut names = Arc::new(Names::from(names));
        if known.is_none() {
            self.add(key, &mut names);
        }
        names
    }

    fn step(&self, origin: &Origin) -> Option<Arc<Names>> {
        let steps = self.steps.lock();
        let step = steps.get(&origin.key()).filter(|step| step.origin.change == origin.change);
        step.and_then(|step| step.to.upgrade())
    }

    /// Lets go of sets that nobody has any more. A weak pointer keeps the room of what it points to.
    pub fn forget(&self) {
        let mut known = self.known.lock();
        known.retain(|_, names| names.strong_count() > 0);
        known.shrink_to_fit();
        let mut steps = self.steps.lock();
        steps.retain(|_, step| step.is_alive());
        steps.shrink_to_fit();
    }

    fn known(&self, key: u64) -> Option<Arc<Names>> {
        self.known.lock().get(&key).and_then(Weak::upgrade)
    }

    fn add(&self, key: u64, names: &mut Arc<Names>) {
        if let Some(names) = Arc::get_mut(names) {
            names.shared = true;
        }
        let mut known = self.known.lock();
        if known.len() == known.capacity() {
            known.retain(|_, names| names.strong_count() > 0);
        }
        known.insert(key, Arc::downgrade(names));
    }
}

impl Step {
    fn is_alive(&self) -> bool {
        self.origin.from.strong_count() > 0 && self.to.strong_count() > 0
    }
}

impl Origin {
    fn key(&self) -> (usize, u64) {
        let (seed, names): (_, &mut dyn Iterator<Item = &Arc<str>>) = match &self.change {
            Change::Added(names) => (0, &mut names.iter()),
            Change::Removed(names) => (1, &mut names.iter()),
        };
        (self.from.as_ptr().addr(), key(names.map(|name| &**name)) ^ seed)
    }
}

/// A name after its hash.
type Hashed<'a> = (Hash, &'a str);
type Hash = u64;

fn hashed(name: &str) -> Hash {
    xxh3_64(name.as_bytes())
}

/// Of names in any order.
fn key<'a>(names: impl Iterator<Item = &'a str>) -> Hash {
    sum(names.map(hashed))
}

/// The hash of all. Who likes may find other names with the same: it only says where to look.
fn sum(hashes: impl Iterator<Item = Hash>) -> Hash {
    hashes.fold(0, Hash::wrapping_add)
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
        assert_eq!(all.each_mut().map(|names| shared.share(names)), [true; 3]);
        assert!(Arc::ptr_eq(&all[0], &all[1]) && Arc::ptr_eq(&all[1], &all[2]));
        Arc::make_mut(&mut all[1]).insert("c".into());
        assert!(!all[0].contains("c") && all[1].contains("c"));
        Arc::make_mut(&mut all[1]).retain(|name| **name != *"c");
        shared.share(&mut all[1]);
        assert!(Arc::ptr_eq(&all[0], &all[1]));
        for i in 0..1000 {
            shared.share(&mut names(&i.to_string()));
        }
        assert!(shared.known.lock().len() < 100, "those that nobody has are forgotten");
        shared.forget();
        assert_eq!(shared.known.lock().len(), 1);
    }

    #[test]
    fn the_same_change_of_the_same_set_is_made_once() {
        let shared = SharedNames::default();
        let mut all: Vec<_> = (0..3).map(|_| shared.of(["a", "b"].into_iter())).collect();
        let changes = [
            (Change::Added(vec!["c".into(), "d".into()]), "a b c d"),
            (Change::Removed(BTreeSet::from(["a".into()])), "b c d"),
            (Change::Added(vec!["a".into()]), "a b c d"),
        ];
        for (change, expected) in changes {
            let before = all[0].clone();
            for (i, set) in all.iter_mut().enumerate() {
                shared.change(set, change.clone());
                assert_eq!(*set, names(expected));
                assert_eq!(shared.share(set), i == 0, "the others find what the first has made");
            }
            assert!(all.iter().all(|set| Arc::ptr_eq(set, &all[0])));
            assert!(!Arc::ptr_eq(&before, &all[0]));
        }
        // What was changed twice before it was shared is no step of either change.
        let mut twice = all[0].clone();
        shared.change(&mut twice, Change::Added(vec!["x".into()]));
        shared.change(&mut twice, Change::Added(vec!["y".into()]));
        shared.share(&mut twice);
        shared.change(&mut all[0], Change::Added(vec!["x".into()]));
        assert_eq!((&twice, &all[0]), (&names("a b c d x y"), &names("a b c d x")));
        drop((all, twice));
        shared.forget();
        assert!(shared.known.lock().is_empty() && shared.steps.lock().is_empty());
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
