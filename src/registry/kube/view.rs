//! What is known of one cluster. Pure: pages and lines of watches in, changes out; the tasks only move bytes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{
    failure::Failure,
    selection::{Selection, Selectors},
    table::Table,
};
use crate::{
    model::{Change, ClusterId, Kind, Labels, Object, ObjectKey},
    registry::{
        Problem, Settings,
        convert::{
            Finding, Outcome,
            watched::{self, Decoder, Event, Line},
        },
        durable::Item,
    },
};

/// All of one cluster.
#[derive(Debug)]
pub struct View {
    cluster: ClusterId,
    root_namespace: Arc<str>,
    decoder: Decoder,
    tables: BTreeMap<Kind, Table>,
    /// What each namespace is called for selectors.
    labels: HashMap<Arc<str>, Labels>,
    selectors: Selectors,
    selection: Selection,
    /// Kinds of which something is selected now that was left out before.
    relist: BTreeSet<Kind>,
}

/// What a line of a watch was, for the task that reads it.
#[derive(Debug, PartialEq)]
pub enum Said {
    /// An object came, changed or went.
    Change(u64),
    /// Nothing before this version is still to come.
    Progress(u64),
    /// The streamed list is whole, as of this version.
    Listed(u64),
    /// Nothing.
    Nothing,
}

/// What a page of a list was.
#[derive(Debug)]
pub struct Paged {
    /// Of the whole list.
    pub version: u64,
    /// Where the next page begins; empty after the last.
    pub next: Box<str>,
}

impl View {
    pub fn new(cluster: ClusterId, settings: Settings, kinds: impl Iterator<Item = Kind>) -> Self {
        Self {
            root_namespace: settings.root_namespace.clone(),
            decoder: Decoder::new(cluster.clone(), settings),
            tables: kinds.map(|kind| (kind, Table::new(cluster.clone(), kind))).collect(),
            cluster,
            labels: HashMap::new(),
            selectors: Arc::default(),
            selection: Selection::All,
            relist: BTreeSet::new(),
        }
    }

    /// Takes in what was in force when the cluster was last seen whole. Before anything is listed: what the first whole lists
    /// do not have is gone.
    pub fn restore(&mut self, items: Vec<Item>, changes: &mut Vec<Change>) {
        let from = changes.len();
        for Item { namespace, name, mut object } in items {
            let kind = object.kind();
            let mut key = ObjectKey { cluster: self.cluster.clone(), kind, namespace, name };
            if let Some(table) = self.tables.get_mut(&kind) {
                self.decoder.adopt(&mut key, &mut object);
                table.restore(key, object, changes);
            }
        }
        self.note_namespaces(from, changes);
    }

    /// What is in force now, as pointers; without secrets.
    pub fn items(&self) -> Vec<Item> {
        let durable = self.tables.iter().filter(|(kind, _)| **kind != Kind::RemoteSecret);
        let objects = durable.flat_map(|(_, table)| table.objects());
        let item = |(namespace, name, object): (&Arc<str>, &Arc<str>, &Object)| Item {
            namespace: namespace.clone(),
            name: name.clone(),
            object: object.clone(),
        };
        objects.map(item).collect()
    }

    /// A whole list of a kind begins.
    pub fn begin(&mut self, kind: Kind) {
        self.relist.remove(&kind);
        if let Some(table) = self.tables.get_mut(&kind) {
            table.begin();
        }
    }

    /// The list was whole: what it did not have is gone.
    pub fn end(&mut self, kind: Kind, changes: &mut Vec<Change>) {
        let from = changes.len();
        if let Some(table) = self.tables.get_mut(&kind) {
            table.end(changes);
        }
        self.note_namespaces(from, changes);
    }

    /// Takes in a page of a list.
    pub fn page(&mut self, kind: Kind, body: &[u8], changes: &mut Vec<Change>) -> Result<Paged, Failure> {
        let from = changes.len();
        let page = watched::page(body).map_err(|invalid| Failure::Garbage(invalid.0.reason))?;
        for item in page.items {
            let (version, outcome) = self.decoder.item(kind, item);
            self.now(kind, version, outcome, changes);
        }
        self.note_namespaces(from, changes);
        Ok(Paged { version: page.version, next: page.next })
    }

    /// Takes in a line of a watch.
    pub fn line(&mut self, kind: Kind, line: &[u8], changes: &mut Vec<Change>) -> Result<Said, Failure> {
        let from = changes.len();
        let garbage = |invalid: crate::registry::convert::Invalid| Failure::Garbage(invalid.0.reason);
        let Line { version, event } = self.decoder.line(kind, line).map_err(garbage)?;
        let said = match event {
            Event::Now(outcome) => {
                self.now(kind, version, outcome, changes);
                Said::Change(version)
            }
            Event::Gone(key) => {
                if let Some(table) = self.tables.get_mut(&kind) {
                    table.gone(&key, changes);
                }
                Said::Change(version)
            }
            Event::Bookmark { listed: true } => {
                self.end(kind, changes);
                return Ok(Said::Listed(version));
            }
            Event::Bookmark { listed: false } => Said::Progress(version),
            Event::Error(status) => return Err(Failure::of_status(&status)),
            Event::Other(_) => Said::Nothing,
        };
        self.note_namespaces(from, changes);
        Ok(said)
    }

    fn now(&mut self, kind: Kind, version: u64, outcome: Outcome, changes: &mut Vec<Change>) {
        if let Some(table) = self.tables.get_mut(&kind) {
            table.now(version, outcome, &self.selection, changes);
        }
    }

    /// The mesh's discovery selectors are these now.
    pub fn select(&mut self, selectors: Selectors, changes: &mut Vec<Change>) {
        self.selectors = selectors;
        self.reselect(changes);
    }

    /// Namespaces among the changes since `from` may come to be selected, or not any more.
    fn note_namespaces(&mut self, from: usize, changes: &mut Vec<Change>) {
        let mut any = false;
        for change in &changes[from..] {
            match change {
                Change::Upsert(key, Object::Namespace(namespace)) => {
                    let labels = self.labels.insert(key.name.clone(), namespace.meta.labels.clone());
                    any |= labels.as_ref() != Some(&namespace.meta.labels);
                }
                Change::Remove(key) if key.kind == Kind::Namespace => {
                    any |= self.labels.remove(&key.name).is_some();
                }
                _ => {}
            }
        }
        if any {
            self.reselect(changes);
        }
    }

    fn reselect(&mut self, changes: &mut Vec<Change>) {
        let selection = if self.selectors.is_empty() {
            Selection::All
        } else {
            let selected = |labels: &Labels| self.selectors.iter().any(|s| s.matches(labels));
            let named =
                self.labels.iter().filter(|(_, labels)| selected(labels)).map(|(name, _)| name.clone());
            // What the mesh itself lives in is always read: gateways, policies.
            let mut names: HashSet<_> = named.collect();
            names.insert(self.root_namespace.clone());
            Selection::Only(names)
        };
        if selection == self.selection {
            return;
        }
        self.selection = selection;
        for (kind, table) in &mut self.tables {
            if table.select(&self.selection, changes) {
                self.relist.insert(*kind);
            }
        }
    }

    /// Kinds that have to be listed again.
    pub fn take_relists(&mut self) -> BTreeSet<Kind> {
        std::mem::take(&mut self.relist)
    }

    /// A kind's table, to compare with.
    pub fn table(&self, kind: Kind) -> Option<&Table> {
        self.tables.get(&kind)
    }

    /// Reads what the items of a list are called, and their versions; those that are selected.
    pub fn names(
        &mut self,
        kind: Kind,
        body: &[u8],
        into: &mut HashMap<ObjectKey, u64>,
    ) -> Result<Paged, Failure> {
        let page = watched::page(body).map_err(|invalid| Failure::Garbage(invalid.0.reason))?;
        for item in page.items {
            // One that cannot be named is not known either.
            if let Ok((key, version)) = self.decoder.name(kind, item)
                && self.selection.includes(kind, &key.namespace)
            {
                into.insert(key, version);
            }
        }
        Ok(Paged { version: page.version, next: page.next })
    }

    /// Objects in force, by kind.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let counts = self.tables.iter().map(|(kind, table)| (format!("{kind:?}"), table.in_force()));
        counts.filter(|(_, n)| *n > 0).collect()
    }

    /// What is wrong with objects.
    pub fn problems(&self) -> Vec<Problem> {
        let of_table = |(kind, table): (&Kind, &Table)| {
            let problem = |(key, severity, finding): (Option<ObjectKey>, _, &Finding)| {
                let object = key.map_or_else(
                    || format!("a {kind:?}"),
                    |key| {
                        key.to_string().split_once('/').map_or_else(String::new, |(_, name)| name.to_owned())
                    },
                );
                let Finding { field, reason, remedy } = finding.clone();
                Problem::of_object(&self.cluster.0, Some(object), field, severity, reason, remedy)
            };
            table.notes().map(problem).collect::<Vec<_>>()
        };
        self.tables.iter().flat_map(of_table).collect()
    }
}
