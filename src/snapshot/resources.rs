//! Sets of resources and their differences.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock, OnceLock, Weak},
};

use super::{Bits, Encoded, ResourceSet};

/// Of larger changes each proxy gets so much that finding it is the least.
const FEW: usize = 256;

/// The resources of one type for one class of proxies: a few layers with disjoint names (what it shares with many, and
/// what is its workload's own), so that the large layers are shared between classes.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Shared: each type of each stream holds on to a few.
    layers: Arc<Layers>,
}

#[derive(Debug, Default)]
struct Layers {
    sets: Vec<ResourceSet>,
    /// What most who come here come from, only to be recognised.
    before: OnceLock<Weak<Layers>>,
    /// What leads here from there, found once for all streams that take this step. None: it is too much to be kept.
    differences: OnceLock<Option<Vec<(Bits, Difference)>>>,
}

/// What one resource needs so that a proxy which has `old` comes to `new`.
#[derive(Clone, Debug)]
pub enum Difference {
    /// Send it.
    Changed(Arc<Encoded>),
    /// Take it away.
    Removed(Arc<str>),
}

impl Difference {
    /// What it is called.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Changed(resource) => &resource.name,
            Self::Removed(name) => name,
        }
    }
}

impl Default for Resources {
    /// None. Streams hold on to many of them, so they are one.
    fn default() -> Self {
        static NONE: LazyLock<Arc<Layers>> = LazyLock::new(Arc::default);
        Self { layers: NONE.clone() }
    }
}

impl Resources {
    /// From layers with disjoint names.
    pub fn new(layers: Vec<ResourceSet>) -> Self {
        Self { layers: Arc::new(Layers { sets: layers, ..Layers::default() }) }
    }

    /// Says that most proxies have `before` now: what leads here from there, [`Self::diff_of`] looks for once. If it is said
    /// more than once, the first counts.
    pub fn follow(&self, before: &Self) {
        if !self.is_same(before) {
            self.layers.before.get_or_init(|| Arc::downgrade(&before.layers));
        }
    }

    /// The resource with this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Encoded>> {
        self.layers.sets.iter().find_map(|layer| layer.get(name))
    }

    /// Whether proxies of this class are given resources of the type at all. One that is not is told nothing, which is
    /// different from being told that there are none.
    pub fn is_served(&self) -> bool {
        !self.layers.sets.is_empty()
    }

    /// The layers.
    pub fn layers(&self) -> &[ResourceSet] {
        &self.layers.sets
    }

    /// Those whose names begin like this, layer by layer.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Encoded>> {
        self.layers.sets.iter().flat_map(move |layer| layer.with_prefix(prefix))
    }

    /// All of them: layer by layer, each in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Encoded>> {
        self.layers.sets.iter().flat_map(|layer| layer.values())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.layers.sets.iter().map(ResourceSet::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.layers.sets.iter().all(ResourceSet::is_empty)
    }

    /// Whether it is certain, at a glance, that nothing differs.
    pub fn is_same(&self, other: &Self) -> bool {
        let equal = |(a, b): (&ResourceSet, &ResourceSet)| a.is_same(b);
        let (sets, others) = (&self.layers.sets, &other.layers.sets);
        sets.len() == others.len() && sets.iter().zip(others).all(equal)
    }

    /// What leads from `old` to `self`. Takes time for what differs, not for what is there.
    pub fn diff(&self, old: &Self) -> Vec<Difference> {
        self.diff_of(old, |_, _| true).into_iter().map(Cow::into_owned).collect()
    }

    /// The same, of the names that are `wanted`.
    pub fn diff_of(&self, old: &Self, wanted: impl Fn(&str, Bits) -> bool) -> Vec<Cow<'_, Difference>> {
        match self.known_diff(old) {
            Some(all) => {
                let those = all.iter().filter(|(bits, difference)| wanted(difference.name(), *bits));
                those.map(|(_, difference)| Cow::Borrowed(difference)).collect()
            }
            None => self.find(old, wanted).into_iter().map(Cow::Owned).collect(),
        }
    }

    /// All that leads from `old` to `self`, with the bits of each name, if that is kept for all who come from there.
    fn known_diff(&self, old: &Self) -> Option<&[(Bits, Difference)]> {
        if self.layers.before.get().is_none_or(|before| before.as_ptr() != Arc::as_ptr(&old.layers)) {
            return None;
        }
        let with_bits = |difference: Difference| (Bits::of(difference.name()), difference);
        let differences = self.layers.differences.get_or_init(|| {
            let all = self.find(old, |_, _| true);
            (all.len() <= FEW).then(|| all.into_iter().map(with_bits).collect())
        });
        differences.as_deref()
    }

    fn find(&self, old: &Self, wanted: impl Fn(&str, Bits) -> bool) -> Vec<Difference> {
        let empty = ResourceSet::default();
        let mut found = Vec::new();
        let (sets, others) = (&self.layers.sets, &old.layers.sets);
        for i in 0..sets.len().max(others.len()) {
            let (before, after) = (others.get(i).unwrap_or(&empty), sets.get(i).unwrap_or(&empty));
            for pair in after.pairs(before, &wanted) {
                match pair {
                    (Some(old), Some(new)) if old.version == new.version => {}
                    (Some(_), Some(new)) => found.push(Difference::Changed(new.clone())),
                    // A name may move between layers when a proxy changes its class.
                    (None, Some(new)) => {
                        if old.get(&new.name).is_none_or(|old| old.version != new.version) {
                            found.push(Difference::Changed(new.clone()));
                        }
                    }
                    (Some(old), None) => {
                        if self.get(&old.name).is_none() {
                            found.push(Difference::Removed(old.name.clone()));
                        }
                    }
                    (None, None) => {}
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(items: &[(&str, &str)]) -> ResourceSet {
        items
            .iter()
            .map(|(n, v)| {
                (Arc::from(*n), Arc::new(Encoded::new(Arc::from(*n), "t", v.as_bytes(), None, Arc::new([]))))
            })
            .collect()
    }

    fn names(differences: Vec<Difference>) -> Vec<String> {
        differences
            .into_iter()
            .map(|d| match d {
                Difference::Changed(e) => format!("+{}", e.name),
                Difference::Removed(n) => format!("-{n}"),
            })
            .collect()
    }

    #[test]
    fn what_is_found_once_is_right_for_all_wherever_they_come_from() {
        let old = Resources::new(vec![set(&[("a", "1"), ("b", "1")]), set(&[("x", "1")])]);
        let aside = Resources::new(vec![set(&[("a", "2"), ("b", "2")]), set(&[])]);
        let new = Resources::new(vec![set(&[("a", "1"), ("b", "2")]), set(&[("y", "1")])]);
        let all = |old: &Resources| names(new.diff(old));
        let of_b = |old: &Resources| {
            names(new.diff_of(old, |name, _| name == "b").into_iter().map(Cow::into_owned).collect())
        };
        let before = [all(&old), of_b(&old), all(&aside), of_b(&aside)];
        new.follow(&old);
        new.follow(&aside);
        assert_eq!([all(&old), of_b(&old), all(&aside), of_b(&aside)], before);
        assert_eq!(before[1], ["+b"]);
        assert!(
            new.layers.differences.get().is_some_and(|all| all.as_ref().is_some_and(|all| all.len() == 3))
        );
    }

    #[test]
    fn differences_cross_layers() {
        let old = Resources::new(vec![set(&[("a", "1"), ("b", "1"), ("c", "1")]), set(&[("x", "1")])]);
        let new = Resources::new(vec![set(&[("a", "1"), ("b", "2")]), set(&[("c", "1"), ("y", "1")])]);
        assert_eq!(names(new.diff(&old)), ["+b", "-x", "+y"]);
        assert!(names(new.diff(&new)).is_empty());
        assert_eq!(names(old.diff(&Resources::default())), ["+a", "+b", "+c", "+x"]);
        assert_eq!(names(Resources::default().diff(&old)), ["-a", "-b", "-c", "-x"]);
    }
}
