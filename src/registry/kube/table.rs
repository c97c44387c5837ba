//! The objects of one kind of one cluster, as they were told to the pipeline. Pure: what API servers say in, changes out.
//!
//! Nothing goes but what is known to be gone: by a `DELETED`, or because a whole list did not have it. A list that breaks
//! off takes nothing along.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::selection::Selection;
use crate::{
    model::{Change, ClusterId, Kind, Object, ObjectKey},
    registry::{
        Severity,
        convert::{Finding, Outcome},
    },
};

/// Namespace and name.
type Name = (Arc<str>, Arc<str>);

/// What is known of the objects of a kind.
#[derive(Debug)]
pub struct Table {
    cluster: ClusterId,
    kind: Kind,
    entries: HashMap<Name, Entry>,
    /// Namespaces of which objects were left out.
    left_out: HashSet<Arc<str>>,
    /// Which list is being read, or was read last.
    list: u32,
    /// What there is to say about objects.
    notes: BTreeMap<Name, Vec<(Severity, Finding)>>,
    /// About objects that cannot even be named; since the last list.
    nameless: Vec<Finding>,
    in_force: usize,
}

#[derive(Debug)]
struct Entry {
    /// 0: not from a list or a watch.
    version: u64,
    /// The list that last had it.
    list: u32,
    /// The version of it that is in force, shared with the pipeline.
    object: Option<Object>,
}

/// So many mistakes without a name are kept; more would say the same.
const MOST_NAMELESS: usize = 20;

impl Table {
    pub fn new(cluster: ClusterId, kind: Kind) -> Self {
        Self {
            cluster,
            kind,
            entries: HashMap::new(),
            left_out: HashSet::new(),
            list: 0,
            notes: BTreeMap::new(),
            nameless: Vec::new(),
            in_force: 0,
        }
    }

    /// A whole list begins: what it will not have had at its end is gone.
    pub fn begin(&mut self) {
        self.list = self.list.wrapping_add(1);
        self.nameless.clear();
    }

    /// The list was whole.
    pub fn end(&mut self, changes: &mut Vec<Change>) {
        let gone: Vec<_> =
            self.entries.iter().filter(|(_, e)| e.list != self.list).map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| self.remove(name, changes));
    }

    /// An object, as a list or a watch has it now.
    pub fn now(&mut self, version: u64, outcome: Outcome, selection: &Selection, changes: &mut Vec<Change>) {
        let key = match &outcome {
            Outcome::Object(key, ..) | Outcome::Skipped(key, _) | Outcome::Invalid(Some(key), _) => {
                key.clone()
            }
            Outcome::Invalid(None, invalid) => {
                if self.nameless.len() < MOST_NAMELESS {
                    self.nameless.push((*invalid.0).clone());
                }
                return;
            }
            // An API server was asked for one kind.
            Outcome::NotRead(_) | Outcome::Items(_) => return,
        };
        let name = (key.namespace.clone(), key.name.clone());
        if !selection.includes(self.kind, &key.namespace) {
            self.left_out.insert(key.namespace);
            return self.remove(&name, changes);
        }
        let before = self.entries.get_mut(&name).and_then(|e| e.object.take());
        let was_in_force = before.is_some();
        let (object, notes) = match outcome {
            Outcome::Object(key, object, warnings) => {
                // Two equal ones are not both kept.
                let object = match before {
                    Some(before) if before == object => before,
                    _ => {
                        changes.push(Change::Upsert(key, object.clone()));
                        object
                    }
                };
                (Some(object), warnings.into_iter().map(|w| (Severity::Warning, w)).collect())
            }
            // The last good version stays.
            Outcome::Invalid(_, invalid) => (before, vec![(Severity::Error, *invalid.0)]),
            Outcome::Skipped(key, warnings) => {
                if was_in_force {
                    changes.push(Change::Remove(key));
                }
                (None, warnings.into_iter().map(|w| (Severity::Warning, w)).collect())
            }
            Outcome::NotRead(_) | Outcome::Items(_) => return,
        };
        self.note(&name, notes);
        self.in_force = self.in_force + usize::from(object.is_some()) - usize::from(was_in_force);
        self.entries.insert(name, Entry { version, list: self.list, object });
    }

    /// An object was in force when it was last seen. Before any list: the first one decides whether it still is.
    pub fn restore(&mut self, key: ObjectKey, object: Object, changes: &mut Vec<Change>) {
        let name = (key.namespace.clone(), key.name.clone());
        changes.push(Change::Upsert(key, object.clone()));
        let entry = Entry { version: 0, list: self.list, object: Some(object) };
        if self.entries.insert(name, entry).is_none_or(|before| before.object.is_none()) {
            self.in_force += 1;
        }
    }

    /// An object is known to be gone.
    pub fn gone(&mut self, key: &ObjectKey, changes: &mut Vec<Change>) {
        self.remove(&(key.namespace.clone(), key.name.clone()), changes);
    }

    /// Discovery selectors or namespaces changed: what is not selected any more goes. Whether a new list is needed, because
    /// something is selected that was left out.
    pub fn select(&mut self, selection: &Selection, changes: &mut Vec<Change>) -> bool {
        let kind = self.kind;
        let dropped: Vec<_> =
            self.entries.keys().filter(|(ns, _)| !selection.includes(kind, ns)).cloned().collect();
        for name in &dropped {
            self.remove(name, changes);
            self.left_out.insert(name.0.clone());
        }
        let before = self.left_out.len();
        self.left_out.retain(|namespace| !selection.includes(kind, namespace));
        self.left_out.len() < before
    }

    fn remove(&mut self, name: &Name, changes: &mut Vec<Change>) {
        self.notes.remove(name);
        if self.entries.remove(name).is_some_and(|e| e.object.is_some()) {
            self.in_force -= 1;
            changes.push(Change::Remove(self.key(name)));
        }
    }

    fn note(&mut self, name: &Name, notes: Vec<(Severity, Finding)>) {
        if notes.is_empty() {
            self.notes.remove(name);
        } else {
            self.notes.insert(name.clone(), notes);
        }
    }

    fn key(&self, (namespace, name): &Name) -> ObjectKey {
        ObjectKey {
            cluster: self.cluster.clone(),
            kind: self.kind,
            namespace: namespace.clone(),
            name: name.clone(),
        }
    }

    /// Whether nothing is known of the kind.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Objects in force.
    pub fn in_force(&self) -> usize {
        self.in_force
    }

    /// The objects in force, with namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, &Object)> {
        self.entries
            .iter()
            .filter_map(|((namespace, name), entry)| Some((namespace, name, entry.object.as_ref()?)))
    }

    /// The version in which an object is known, whether it is in force or not.
    pub fn version(&self, key: &ObjectKey) -> Option<u64> {
        self.entries.get(&(key.namespace.clone(), key.name.clone())).map(|e| e.version)
    }

    /// What is known: namespace and name, and version.
    pub fn versions(&self) -> impl Iterator<Item = (ObjectKey, u64)> {
        self.entries.iter().map(|(name, e)| (self.key(name), e.version))
    }

    /// What there is to say about objects; without a key, about one that cannot be named.
    pub fn notes(&self) -> impl Iterator<Item = (Option<ObjectKey>, Severity, &Finding)> {
        let named = self.notes.iter().flat_map(|(name, notes)| {
            notes.iter().map(|(severity, finding)| (Some(self.key(name)), *severity, finding))
        });
        named.chain(self.nameless.iter().map(|finding| (None, Severity::Error, finding)))
    }
}
