//! After any history of events, broken lists, whole lists and selections, what was told is what a fresh list says. And nothing
//! is taken away that was always there.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{selection::Selectors, view::View};
use crate::{
    model::{Change, ClusterId, Kind, Object, ObjectKey, selector::LabelSelector},
    registry::{
        Settings,
        durable::format::{Header, decode, encode},
    },
};

const NAMESPACES: [&str; 3] = ["istio-system", "production", "shop"];
const NAMES: [&str; 3] = ["a", "b", "c"];
const KINDS: [Kind; 2] = [Kind::Namespace, Kind::Service];

#[derive(Clone, Debug)]
enum Step {
    /// A service; variant 3 cannot be used.
    Put(usize, usize, u8),
    Delete(usize, usize),
    /// A namespace, labelled or not.
    Namespace(usize, bool),
    DeleteNamespace(usize),
    /// The watch of a kind says so many things.
    Say(usize, usize),
    /// A list that breaks off after so many items.
    Broken(usize, usize),
    /// A whole list, in lines or pages.
    List(usize, bool),
    /// Garbage on a watch.
    Garbage(usize),
    /// Selectors come and go.
    Select(bool),
    /// The control plane starts again with what it had written.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (namespace, name, kind) = (0..NAMESPACES.len(), 0..NAMES.len(), 0..KINDS.len());
    let step = prop_oneof![
        8 => (namespace.clone(), name.clone(), 0..4u8).prop_map(|(ns, n, v)| Step::Put(ns, n, v)),
        4 => (namespace.clone(), name).prop_map(|(ns, n)| Step::Delete(ns, n)),
        3 => (namespace.clone(), any::<bool>()).prop_map(|(ns, v)| Step::Namespace(ns, v)),
        1 => namespace.prop_map(Step::DeleteNamespace),
        8 => (kind.clone(), 1..4usize).prop_map(|(k, n)| Step::Say(k, n)),
        2 => (kind.clone(), 0..5usize).prop_map(|(k, n)| Step::Broken(k, n)),
        2 => (kind.clone(), any::<bool>()).prop_map(|(k, pages)| Step::List(k, pages)),
        1 => kind.prop_map(Step::Garbage),
        1 => any::<bool>().prop_map(Step::Select),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

type Id = (Kind, &'static str, &'static str);

/// What an API server has, and has said.
#[derive(Default)]
struct Server {
    version: u64,
    objects: BTreeMap<Id, Value>,
    log: Vec<(u64, Kind, String)>,
    ever_deleted: BTreeSet<Id>,
}

impl Server {
    fn put(&mut self, id: Id, labels: Value, fields: Value) {
        self.version += 1;
        let (kind, namespace, name) = id;
        let version = self.version.to_string();
        let mut object = json!({ "metadata": { "namespace": namespace, "name": name, "labels": labels, "resourceVersion": version } });
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let word = if self.objects.contains_key(&id) { "MODIFIED" } else { "ADDED" };
        self.log.push((self.version, kind, json!({ "type": word, "object": object }).to_string()));
        self.objects.insert(id, object);
    }

    fn delete(&mut self, id: Id) {
        if let Some(mut object) = self.objects.remove(&id) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = self.version.to_string().into();
            self.log.push((self.version, id.0, json!({ "type": "DELETED", "object": object }).to_string()));
            self.ever_deleted.insert(id);
        }
    }

    fn of(&self, kind: Kind) -> Vec<&Value> {
        self.objects.iter().filter(|(id, _)| id.0 == kind).map(|(_, object)| object).collect()
    }
}

/// A source without its bytes: a view, where each watch is, and what was told.
struct Told {
    view: View,
    versions: BTreeMap<Kind, u64>,
    objects: BTreeMap<ObjectKey, Object>,
    removed: BTreeSet<ObjectKey>,
}

impl Told {
    fn new() -> Self {
        let view = View::new(ClusterId::from("east"), Settings::default(), KINDS.into_iter());
        Self { view, versions: BTreeMap::new(), objects: BTreeMap::new(), removed: BTreeSet::new() }
    }

    fn take(&mut self, changes: Vec<Change>) -> Result<(), TestCaseError> {
        for change in changes {
            match change {
                Change::Upsert(key, object) => drop(self.objects.insert(key, object)),
                Change::Remove(key) => {
                    prop_assert!(self.objects.remove(&key).is_some(), "{} was not there", key);
                    self.removed.insert(key);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        for kind in self.view.take_relists() {
            self.versions.remove(&kind);
        }
        Ok(())
    }

    fn list(
        &mut self,
        server: &Server,
        kind: Kind,
        pages: bool,
        until: Option<usize>,
    ) -> Result<(), TestCaseError> {
        let mut changes = Vec::new();
        self.view.begin(kind);
        let items = server.of(kind);
        let items = &items[..until.unwrap_or(items.len()).min(items.len())];
        if pages {
            for page in items.chunks(2) {
                let body = json!({ "metadata": { "resourceVersion": server.version.max(1).to_string() }, "items": page });
                self.view.page(kind, body.to_string().as_bytes(), &mut changes).unwrap();
            }
            if until.is_none() {
                self.view.end(kind, &mut changes);
            }
        } else {
            for item in items {
                let line = json!({ "type": "ADDED", "object": item }).to_string();
                self.view.line(kind, line.as_bytes(), &mut changes).unwrap();
            }
            if until.is_none() {
                let annotations = json!({ "k8s.io/initial-events-end": "true" });
                let end =
                    json!({ "type": "BOOKMARK", "object": { "metadata": { "annotations": annotations } } });
                self.view.line(kind, end.to_string().as_bytes(), &mut changes).unwrap();
            }
        }
        match until {
            None => drop(self.versions.insert(kind, server.version)),
            // What was known is in doubt: only a whole list helps.
            Some(_) => drop(self.versions.remove(&kind)),
        }
        self.take(changes)
    }

    fn say(&mut self, server: &Server, kind: Kind, most: usize) -> Result<(), TestCaseError> {
        let Some(from) = self.versions.get(&kind).copied() else {
            return self.list(server, kind, false, None);
        };
        let mut changes = Vec::new();
        for (version, _, line) in server.log.iter().filter(|(v, k, _)| *k == kind && *v > from).take(most) {
            self.view.line(kind, line.as_bytes(), &mut changes).unwrap();
            self.versions.insert(kind, *version);
        }
        self.take(changes)
    }

    fn select(&mut self, on: bool) -> Result<(), TestCaseError> {
        let mut changes = Vec::new();
        self.view.select(selectors(on), &mut changes);
        self.take(changes)
    }

    /// Everything is forgotten but what is on disk.
    fn restart(&mut self, selecting: bool) -> Result<(), TestCaseError> {
        let header = Header {
            control_plane: "east".into(),
            cluster: "east".into(),
            server: "".into(),
            joined: false,
            taken: 0,
            objects: 0,
        };
        let bytes = encode(&header, &self.view.items()).unwrap();
        let (_, items) = decode(&bytes).unwrap();
        let removed = self.removed.clone();
        let before = std::mem::replace(self, Self { removed, ..Self::new() });
        let mut changes = Vec::new();
        self.view.restore(items, &mut changes);
        self.take(changes)?;
        prop_assert_eq!(&before.objects, &self.objects);
        self.select(selecting)
    }

    /// Until nothing is left to be said.
    fn settle(&mut self, server: &Server) -> Result<(), TestCaseError> {
        for _ in 0..4 {
            for kind in KINDS {
                self.say(server, kind, usize::MAX)?;
            }
        }
        Ok(())
    }
}

fn selectors(on: bool) -> Selectors {
    let labels = [("in".into(), "yes".into())].into();
    if on { [LabelSelector { labels, expressions: Vec::new() }].into() } else { Selectors::default() }
}

fn play(history: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut server, mut told) = (Server::default(), Told::new());
    let (mut selecting, mut ever_selected) = (false, false);
    for step in history {
        match step {
            Step::Put(ns, n, variant) => {
                let port = if variant == 3 { 70_000 } else { 80 + u32::from(variant) };
                let fields = json!({ "spec": { "clusterIP": "None", "ports": [{ "port": port }] } });
                server.put((Kind::Service, NAMESPACES[ns], NAMES[n]), json!({}), fields);
            }
            Step::Delete(ns, n) => server.delete((Kind::Service, NAMESPACES[ns], NAMES[n])),
            Step::Namespace(ns, labelled) => {
                let labels = if labelled { json!({ "in": "yes" }) } else { json!({}) };
                server.put((Kind::Namespace, "", NAMESPACES[ns]), labels, json!({}));
            }
            Step::DeleteNamespace(ns) => server.delete((Kind::Namespace, "", NAMESPACES[ns])),
            Step::Say(kind, most) => told.say(&server, KINDS[kind], most)?,
            Step::Broken(kind, until) => told.list(&server, KINDS[kind], until % 2 == 0, Some(until))?,
            Step::List(kind, pages) => told.list(&server, KINDS[kind], pages, None)?,
            Step::Garbage(kind) => {
                let mut changes = Vec::new();
                let refused = told.view.line(KINDS[kind], b"{\"type\":\"ADDED\",\"obj", &mut changes);
                prop_assert!(refused.is_err());
                prop_assert!(changes.is_empty());
            }
            Step::Select(on) => {
                (selecting, ever_selected) = (on, ever_selected | on);
                told.select(on)?;
            }
            Step::Restart => told.restart(selecting)?,
        }
    }
    told.settle(&server)?;
    let mut fresh = Told::new();
    fresh.select(selecting)?;
    fresh.settle(&server)?;

    // An object that cannot be used now is as it last could, if it ever was told.
    let usable = |key: &ObjectKey| {
        let broken = |problem: &crate::registry::Problem| {
            problem.object.as_deref() == key.to_string().strip_prefix("east/")
        };
        !told.view.problems().iter().any(broken)
    };
    let mut usable_told = told.objects.clone();
    usable_told.retain(|key, _| usable(key));
    prop_assert_eq!(usable_told, fresh.objects);
    prop_assert_eq!(told.view.problems(), fresh.view.problems());
    if !ever_selected {
        for key in &told.removed {
            let deleted = server
                .ever_deleted
                .iter()
                .any(|id| id.0 == key.kind && *id.1 == *key.namespace && *id.2 == *key.name);
            prop_assert!(deleted, "{} was always there", key);
        }
    }
    let counted: usize = told.view.counts().values().sum();
    prop_assert_eq!(counted, told.objects.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_where_a_fresh_list_begins(history in steps()) {
        play(history)?;
    }
}
