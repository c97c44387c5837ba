//! An ordered map in one piece of memory, no larger than it must be. There is one for each service, mostly with a few
//! entries, and the smallest `BTreeMap` has room for eleven.

/// Entries, ordered by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    /// Where the key is, or belongs.
    fn find(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| own.cmp(key))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.find(key).ok().map(|at| &self.0[at].1)
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.find(key).ok().map(|at| &mut self.0[at].1)
    }

    /// Sets a key's value; the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                if self.0.len() == self.0.capacity() {
                    self.0.reserve_exact(1 + self.0.len() / 4);
                }
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    /// Takes a key out; its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.find(key).ok().map(|at| self.0.remove(at).1)
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Those from a key on.
    pub fn from<'a>(&'a self, key: &K) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V> {
        let at = self.find(key).unwrap_or_else(|at| at);
        self.0[at..].iter().map(|(key, value)| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(
            steps in proptest::collection::vec((0..20_u8, proptest::option::of(any::<u8>())), 0..60),
            from in 0..20_u8,
        ) {
            let mut map = SmallMap::default();
            let mut truth = BTreeMap::new();
            for (key, value) in steps {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), truth.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), truth.remove(&key)),
                }
                prop_assert_eq!(map.get(&key), truth.get(&key));
                prop_assert_eq!(map.get_mut(&key), truth.get_mut(&key));
                prop_assert_eq!((map.len(), map.is_empty()), (truth.len(), truth.is_empty()));
            }
            prop_assert!(map.iter().eq(truth.iter()));
            prop_assert!(map.from(&from).eq(truth.range(from..)));
        }
    }
}
