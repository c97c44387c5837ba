//! The EndpointSlices of one cluster, and which of them name a pod or a node.

use std::{collections::BTreeSet, sync::Arc};

use foldhash::{HashMap, HashSet};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::inputs::NamespacedName;
use crate::model::kubernetes::EndpointSlice;

/// A cluster's slices.
#[derive(Debug, Default)]
pub struct Slices {
    ids: HashMap<NamespacedName, u32>,
    slots: Vec<Option<Arc<EndpointSlice>>>,
    free: Vec<u32>,
    /// From the hash of a pod ([`hash_in`]) to slices that name it. Eight bytes for an endpoint, where maps of names take
    /// hundreds; two pods of one hash cost a slice that is looked at in vain.
    by_pod: BTreeSet<(u32, u32)>,
}

impl Slices {
    /// Replaces a slice; tells the old one if that changed anything.
    pub fn put(
        &mut self,
        name: &NamespacedName,
        new: Option<Arc<EndpointSlice>>,
    ) -> Option<Option<Arc<EndpointSlice>>> {
        let id = match (self.ids.get(name), &new) {
            (Some(id), _) => *id,
            (None, None) => return None,
            (None, Some(_)) => {
                let id = self.free.pop().unwrap_or(self.slots.len() as u32);
                if id as usize == self.slots.len() {
                    self.slots.push(None);
                }
                self.ids.insert(name.clone(), id);
                id
            }
        };
        let slot = &mut self.slots[id as usize];
        if *slot == new {
            return None;
        }
        if new.is_none() {
            self.ids.remove(name);
            self.free.push(id);
        }
        let old = std::mem::replace(slot, new.clone());
        let both = old.as_ref().zip(new.as_ref());
        if both.is_none_or(|(old, new)| !old.endpoints.same_pods(&new.endpoints)) {
            self.count_pods(id, old.as_deref(), new.as_deref());
        }
        Some(old)
    }

    fn count_pods(&mut self, id: u32, old: Option<&EndpointSlice>, new: Option<&EndpointSlice>) {
        let hashes = |slice: Option<&EndpointSlice>| {
            let of = |s: &EndpointSlice| {
                let hash = hash_in(&s.namespace);
                let mut room = String::new();
                let mut all = Vec::with_capacity(s.endpoints.len());
                all.extend(s.endpoints.pods().map(|pod| hash(pod.text(&mut room))));
                all
            };
            let mut found: Vec<u32> = slice.map(of).unwrap_or_default();
            found.sort_unstable();
            found
        };
        let (old, new) = (hashes(old), hashes(new));
        for pod in old.iter().filter(|pod| new.binary_search(pod).is_err()) {
            self.by_pod.remove(&(*pod, id));
        }
        self.by_pod.extend(new.iter().filter(|pod| old.binary_search(pod).is_err()).map(|pod| (*pod, id)));
    }

    /// A slice.
    pub fn get(&self, name: &NamespacedName) -> Option<&Arc<EndpointSlice>> {
        self.slots[*self.ids.get(name)? as usize].as_ref()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.slots.iter().flatten()
    }

    /// Those that may name a pod.
    pub fn of_pod(&self, namespace: &str, pod: &str) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        let hash = hash_in(namespace)(pod);
        self.by_pod
            .range((hash, 0)..=(hash, u32::MAX))
            .filter_map(|(_, id)| self.slots[*id as usize].as_ref())
    }

    /// Those with an endpoint on one of these nodes. Looks at all: nodes hardly ever move.
    pub fn on_nodes(&self, nodes: &HashSet<Arc<str>>) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        let on_one = |slice: &EndpointSlice| {
            let rows = &slice.endpoints;
            (0..rows.len()).any(|row| rows.node(row).is_some_and(|node| nodes.contains(node)))
        };
        self.iter().filter(move |slice| on_one(slice))
    }
}

/// The hash of a pod's name in a namespace. The upper half is that of what it shares with the pods of its ReplicaSet,
/// which are mostly in one slice: they lie beside each other in a map.
fn hash_in(namespace: &str) -> impl Fn(&str) -> u32 {
    let seed = xxh3_64(namespace.as_bytes());
    let hash = move |text: &str| xxh3_64_with_seed(text.as_bytes(), seed) as u32;
    move |pod| {
        let (of, own) = pod.rsplit_once('-').unwrap_or((pod, ""));
        hash(of) & 0xffff_0000 | hash(own) & 0xffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kubernetes::SliceEndpoint;

    fn slice(name: &str, pods: &[&str]) -> Arc<EndpointSlice> {
        let endpoint = |(pod, i): (&&str, u8)| SliceEndpoint {
            pod: Some((*pod).to_owned().into()),
            node: Some(format!("on-{pod}").into()),
            ..SliceEndpoint::at([10, 0, 0, i])
        };
        Arc::new(EndpointSlice {
            namespace: "ns".into(),
            name: name.into(),
            endpoints: pods.iter().zip(0..).map(endpoint).collect(),
            ..EndpointSlice::default()
        })
    }

    #[test]
    fn pods_and_nodes_lead_to_the_slices_that_name_them() {
        let mut slices = Slices::default();
        let name = |name: &str| -> NamespacedName { ("ns".into(), name.into()) };
        let of = |slices: &Slices, pod: &str| -> Vec<String> {
            slices.of_pod("ns", pod).map(|s| s.name.to_string()).collect()
        };
        assert_eq!(slices.put(&name("a"), Some(slice("a", &["p", "q"]))), Some(None));
        assert_eq!(slices.put(&name("a"), Some(slice("a", &["p", "q"]))), None, "an equal one is no change");
        slices.put(&name("b"), Some(slice("b", &["q"])));
        assert_eq!((of(&slices, "p"), of(&slices, "q")), (vec!["a".into()], vec!["a".into(), "b".into()]));
        let nodes = HashSet::from_iter(["on-p".into()]);
        assert_eq!(slices.on_nodes(&nodes).count(), 1);

        slices.put(&name("a"), Some(slice("a", &["q"])));
        assert_eq!((of(&slices, "p"), of(&slices, "q").len()), (vec![], 2));
        slices.put(&name("a"), None);
        slices.put(&name("c"), Some(slice("c", &["p"])));
        assert_eq!((of(&slices, "p"), of(&slices, "q")), (vec!["c".into()], vec!["b".into()]));
        assert!(slices.get(&name("a")).is_none() && slices.iter().count() == 2);
    }
}
