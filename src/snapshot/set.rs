//! A set of resources that knows what changed in it last.
//!
//! Two versions of a large set can be compared by walking their trees, which takes time for all that changed between them. A
//! stream sees little of that: names that changed are quickly passed over, leaves of trees are not.

use std::{
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use imbl::{OrdMap, Vector, ordmap::DiffItem};

use super::{Bits, Encoded};

/// So many changes are remembered. A stream that does not see them takes them in when it is its turn, at the latest after 512
/// commits.
const REMEMBERED: usize = 1_024;

/// Stamps of changes, each given once: versions of a set have a change in common if they have its stamp. That of no change is 0.
static STAMPS: AtomicU64 = AtomicU64::new(1);

/// Resources by name. A changed set shares every subtree that did not change with the one before.
#[derive(Clone, Debug, Default)]
pub struct ResourceSet {
    resources: OrdMap<Arc<str>, Arc<Encoded>>,
    /// The last changes, oldest first.
    recent: Vector<Change>,
    stamp: u64,
}

/// Something happened to the resource of this name.
#[derive(Clone, Debug)]
struct Change {
    stamp: u64,
    bits: Bits,
    name: Arc<str>,
}

/// A resource before and after.
pub(super) type Pair<'a> = (Option<&'a Arc<Encoded>>, Option<&'a Arc<Encoded>>);

impl ResourceSet {
    /// The resource with this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Encoded>> {
        self.resources.get(name)
    }

    /// Puts a resource in; returns what was in its place.
    pub fn insert(&mut self, name: Arc<str>, resource: Arc<Encoded>) -> Option<Arc<Encoded>> {
        self.note(name.clone());
        self.resources.insert(name, resource)
    }

    /// Takes a resource out.
    pub fn remove(&mut self, name: &Arc<str>) -> Option<Arc<Encoded>> {
        let removed = self.resources.remove(name);
        if removed.is_some() {
            self.note(name.clone());
        }
        removed
    }

    /// All of them, in the order of names.
    pub fn values(&self) -> impl Iterator<Item = &Arc<Encoded>> {
        self.resources.values()
    }

    /// Those whose names begin like this, in order.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Encoded>> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let names_on = self.resources.range::<_, str>(from).map(|(_, resource)| resource);
        names_on.take_while(move |resource| resource.name.starts_with(prefix))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// What tells this set, as it is, from all others but its copies.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Whether it is certain, at a glance, that nothing differs.
    pub fn is_same(&self, other: &Self) -> bool {
        self.resources.ptr_eq(&other.resources)
    }

    /// What may differ from `old`, of the names that are `wanted`, in the order of names.
    pub(super) fn pairs<'a>(&'a self, old: &'a Self, wanted: impl Fn(&str, Bits) -> bool) -> Vec<Pair<'a>> {
        if self.is_same(old) {
            return Vec::new();
        }
        if let Some(changes) = self.since(old) {
            let changes = changes.filter(|change| wanted(&change.name, change.bits));
            let mut names: Vec<&str> = changes.map(|change| &*change.name).collect();
            names.sort_unstable();
            names.dedup();
            return names.into_iter().map(|name| (old.get(name), self.get(name))).collect();
        }
        let pair = |item| match item {
            DiffItem::Update { old: (name, old), new: (_, new) } => (name, (Some(old), Some(new))),
            DiffItem::Add(name, new) => (name, (None, Some(new))),
            DiffItem::Remove(name, old) => (name, (Some(old), None)),
        };
        let all = old.resources.diff(&self.resources).map(pair);
        all.filter(|(name, _)| wanted(name, Bits::of(name))).map(|(_, pair)| pair).collect()
    }

    /// The changes since `old`, if that is an earlier version of this set and all of them are remembered.
    fn since<'a>(&'a self, old: &Self) -> Option<impl Iterator<Item = &'a Change> + use<'a>> {
        let last = old.recent.last()?.stamp;
        let common = self.recent.binary_search_by_key(&last, |change| change.stamp).ok()?;
        Some(self.recent.focus().narrow(common + 1..).into_iter())
    }

    fn note(&mut self, name: Arc<str>) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        let (stamp, bits) = (STAMPS.fetch_add(1, Relaxed), Bits::of(&name));
        self.recent.push_back(Change { stamp, bits, name });
        self.stamp = stamp;
    }
}

impl FromIterator<(Arc<str>, Arc<Encoded>)> for ResourceSet {
    fn from_iter<T: IntoIterator<Item = (Arc<str>, Arc<Encoded>)>>(resources: T) -> Self {
        let stamp = STAMPS.fetch_add(1, Relaxed);
        Self { resources: resources.into_iter().collect(), recent: Vector::new(), stamp }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(set: &mut ResourceSet, name: u8, content: u8) {
        let name: Arc<str> = format!("{name:02}").into();
        match content {
            0 => drop(set.remove(&name)),
            _ => drop(
                set.insert(name.clone(), Arc::new(Encoded::new(name, "t", &[content], None, Arc::new([])))),
            ),
        }
    }

    /// What really differs, as names with their versions.
    fn differing(pairs: Vec<Pair<'_>>) -> Vec<(String, Option<u64>, Option<u64>)> {
        let version = |resource: Option<&Arc<Encoded>>| resource.map(|r| r.version.0);
        let said = pairs.into_iter().filter(|(old, new)| version(*old) != version(*new));
        said.map(|(old, new)| {
            (old.or(new).map_or(String::new(), |r| r.name.to_string()), version(old), version(new))
        })
        .collect()
    }

    proptest! {
        /// However two versions came about, from one another or from a common one, remembered changes say what the trees say.
        #[test]
        fn changes_say_what_trees_say(
            common in prop::collection::vec((0u8..40, 0u8..4), 0..60),
            one in prop::collection::vec((0u8..40, 0u8..4), 0..REMEMBERED + 200),
            other in prop::collection::vec((0u8..40, 0u8..4), 0..40),
        ) {
            let mut old = ResourceSet::default();
            common.iter().for_each(|(name, content)| put(&mut old, *name, *content));
            let (mut new, mut aside) = (old.clone(), old.clone());
            one.iter().for_each(|(name, content)| put(&mut new, *name, *content));
            other.iter().for_each(|(name, content)| put(&mut aside, *name, *content));
            for (old, new) in [(&old, &new), (&aside, &new), (&new, &old), (&new, &aside)] {
                let forgetful = |set: &ResourceSet| ResourceSet { recent: Vector::new(), ..set.clone() };
                let (plain_old, plain_new) = (forgetful(old), forgetful(new));
                let wanted = |name: &str, _| !name.ends_with('7');
                prop_assert_eq!(
                    differing(new.pairs(old, wanted)),
                    differing(plain_new.pairs(&plain_old, wanted))
                );
            }
        }
    }

    #[test]
    fn an_earlier_version_is_recognised_and_a_stranger_is_not() {
        let mut old = ResourceSet::default();
        put(&mut old, 1, 1);
        let mut new = old.clone();
        put(&mut new, 2, 1);
        put(&mut new, 1, 2);
        let since = |new: &ResourceSet, old: &ResourceSet| new.since(old).map(Iterator::count);
        assert_eq!(since(&new, &old), Some(2));
        assert_eq!(since(&old, &new), None, "a later one");
        let mut aside = old.clone();
        put(&mut aside, 3, 1);
        assert_eq!(since(&new, &aside), None, "another branch");
        (0..REMEMBERED).for_each(|_| put(&mut new, 5, 1));
        assert_eq!(since(&new, &old), None, "too long ago");
    }
}
