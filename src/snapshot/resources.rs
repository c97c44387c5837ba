//! Sets of resources and their differences.

use std::sync::{Arc, OnceLock, Weak};

use super::{Bits, Encoded, ResourceSet};

/// Of larger changes each proxy gets so much that finding it is the least.
const FEW: usize = 256;

/// The resources of one type for one class of proxies: a few layers with disjoint names (what it shares with many, and
/// what is its workload's own), so that the large layers are shared between classes.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Shared: each type of each stream holds on to a few.
    layers: Arc<Layers>,
}

#[derive(Debug, Default)]
struct Layers {
    sets: Vec<ResourceSet>,
    /// What most who come here come from.
    before: OnceLock<Before>,
}

/// What leads here from the resources before, found once for all streams that take this step.
#[derive(Debug)]
struct Before {
    /// Only to be recognised.
    layers: Weak<Layers>,
    differences: Vec<(Bits, Difference)>,
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

impl Resources {
    /// From layers with disjoint names.
    pub fn new(layers: Vec<ResourceSet>) -> Self {
        Self { layers: Arc::new(Layers { sets: layers, before: OnceLock::new() }) }
    }

    /// Remembers what leads here from `before`, which most proxies have now, so that [`Self::diff_of`] finds it at once. Takes as
    /// long as [`Self::diff`].
    pub fn remember(&self, before: &Self) {
        if self.is_same(before) || before.is_empty() {
            return;
        }
        let differences = self.diff(before);
        if differences.len() <= FEW {
            let with_bits = |difference: Difference| (Bits::of(difference.name()), difference);
            let differences = differences.into_iter().map(with_bits).collect();
            // Whoever was first, if it is shared.
            let _ = self.layers.before.set(Before { layers: Arc::downgrade(&before.layers), differences });
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
        self.diff_of(old, |_, _| true)
    }

    /// The same, of the names that are `wanted`.
    pub fn diff_of(&self, old: &Self, wanted: impl Fn(&str, Bits) -> bool) -> Vec<Difference> {
        if let Some(before) = self.layers.before.get()
            && before.layers.as_ptr() == Arc::as_ptr(&old.layers)
        {
            let those =
                before.differences.iter().filter(|(bits, difference)| wanted(difference.name(), *bits));
            return those.map(|(_, difference)| difference.clone()).collect();
        }
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
    fn what_is_remembered_is_found_for_those_who_come_from_there() {
        let old = Resources::new(vec![set(&[("a", "1"), ("b", "1")]), set(&[("x", "1")])]);
        let aside = Resources::new(vec![set(&[("a", "2"), ("b", "2")]), set(&[])]);
        let new = Resources::new(vec![set(&[("a", "1"), ("b", "2")]), set(&[("y", "1")])]);
        let all = |old: &Resources| names(new.diff(old));
        let of_b = |old: &Resources| names(new.diff_of(old, |name, _| name == "b"));
        let before = [all(&old), of_b(&old), all(&aside), of_b(&aside)];
        new.remember(&old);
        new.remember(&aside);
        assert!(new.layers.before.get().is_some_and(|before| before.differences.len() == 3));
        assert_eq!([all(&old), of_b(&old), all(&aside), of_b(&aside)], before);
        assert_eq!(before[1], ["+b"]);
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
