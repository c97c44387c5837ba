//! The ConfigMap with the roots, in every namespace: what is due. Pure: time is an argument.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::metrics::Outcome;
use crate::{
    model::Labels,
    registry::kubernetes::{Failure, Selectors},
};

/// The ConfigMap that pods mount as their trust in the mesh.
pub const NAME: &str = "istio-ca-root-cert";
const KEY: &str = "root-cert.pem";
const LABEL: (&str, &str) = ("istio.io/config", "true");
/// No workload of the mesh runs there. As with istiod, kube-system is not among them: agents of nodes run there.
const SKIPPED: [&str; 3] = ["kube-public", "kube-node-lease", "local-path-storage"];

/// After a failure, at first and at most; twice as long from time to time.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// So many repairs are made at once; then they become rare: somebody else is at work.
const PATIENT: u32 = 3;
/// Between repairs in a fight, at most.
const TRUCE: Duration = Duration::from_secs(300);
/// What stays as it was written for so long is not fought about.
const PEACE: Duration = Duration::from_secs(600);

/// A Namespace, as far as it matters.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Namespace {
    metadata: Meta,
}

/// A ConfigMap of the name.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Map {
    metadata: Meta,
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    name: String,
    namespace: String,
    labels: Option<Labels>,
    resource_version: String,
    deletion_timestamp: Option<String>,
    managed_fields: Vec<ManagedFields>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
struct ManagedFields {
    manager: String,
    time: Option<String>,
}

/// Something to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Where.
    pub namespace: String,
    /// What it is, if it works.
    pub outcome: Outcome,
    /// The roots.
    pub roots: Arc<str>,
}

/// What is known of a cluster, and what follows.
#[derive(Debug)]
pub struct Plan {
    root_namespace: Arc<str>,
    /// None until there is an authority.
    roots: Option<Arc<str>>,
    /// None until the mesh's configuration is known.
    selectors: Option<Selectors>,
    /// None until they were listed: what is unknown is not missing.
    namespaces: Option<BTreeMap<String, Labels>>,
    maps: Option<BTreeMap<String, Map>>,
    tries: BTreeMap<String, Try>,
}

/// What was done in a namespace.
#[derive(Debug, Default)]
struct Try {
    under_way: bool,
    /// What was written last, and when.
    last: Option<(Arc<str>, Instant)>,
    /// Repairs that followed soon on what was written before.
    fights: u32,
    /// Failures in a row, and the last one.
    failures: u32,
    failure: Option<Failure>,
    not_before: Option<Instant>,
    /// Who had changed it.
    rival: Option<String>,
}

// === impl Plan ===

impl Plan {
    pub fn new(root_namespace: Arc<str>) -> Self {
        Self {
            root_namespace,
            roots: None,
            selectors: None,
            namespaces: None,
            maps: None,
            tries: BTreeMap::new(),
        }
    }

    pub fn set_roots(&mut self, roots: Option<Arc<str>>) {
        self.roots = roots;
    }

    pub fn set_selectors(&mut self, selectors: Option<Selectors>) {
        self.selectors = selectors;
    }

    pub fn all_namespaces(&mut self, all: Vec<Namespace>) {
        self.namespaces = Some(BTreeMap::new());
        all.into_iter().for_each(|namespace| self.namespace(namespace));
        let Self { namespaces, tries, .. } = self;
        tries.retain(|name, _| namespaces.as_ref().is_some_and(|all| all.contains_key(name)));
    }

    /// One that came or changed. One that is being deleted takes nothing any more.
    pub fn namespace(&mut self, Namespace { metadata }: Namespace) {
        if metadata.deletion_timestamp.is_some() {
            self.no_namespace(&metadata.name);
        } else if let Some(all) = &mut self.namespaces {
            all.insert(metadata.name, metadata.labels.unwrap_or_default());
        }
    }

    pub fn no_such_namespace(&mut self, namespace: &Namespace) {
        self.no_namespace(&namespace.metadata.name);
    }

    fn no_namespace(&mut self, name: &str) {
        if let Some(all) = &mut self.namespaces {
            all.remove(name);
        }
        self.tries.remove(name);
    }

    pub fn all_maps(&mut self, all: Vec<Map>) {
        self.maps = Some(all.into_iter().map(|map| (map.metadata.namespace.clone(), map)).collect());
    }

    /// One that came or changed. What is older than what is known, because we wrote meanwhile, says nothing.
    pub fn map(&mut self, map: Map) {
        let Some(all) = &mut self.maps else { return };
        let known = all.get(&map.metadata.namespace).map_or(0, Map::version);
        if map.version() >= known {
            all.insert(map.metadata.namespace.clone(), map);
        }
    }

    pub fn no_map(&mut self, map: &Map) {
        if let Some(all) = &mut self.maps
            && all.get(&map.metadata.namespace).is_some_and(|known| known.version() <= map.version())
        {
            all.remove(&map.metadata.namespace);
        }
    }

    /// What is to be written now; each is under way until [`Plan::done`].
    pub fn due(&mut self, now: Instant) -> Vec<Due> {
        let wanting: Vec<_> = self.wanting().map(|(name, rival)| (name.to_owned(), rival)).collect();
        let Some(roots) = self.roots.clone() else { return Vec::new() };
        let mut due = Vec::new();
        for (namespace, rival) in wanting {
            let tried = self.tries.entry(namespace.clone()).or_default();
            if tried.under_way || tried.not_before.is_some_and(|at| now < at) {
                continue;
            }
            let repaired = tried.last.as_ref().is_some_and(|(last, _)| *last == roots);
            if repaired && tried.failures == 0 && tried.not_before.take().is_none() {
                let soon = tried.last.as_ref().is_some_and(|(_, at)| now < *at + PEACE);
                tried.fights = if soon { tried.fights.saturating_add(1) } else { 0 };
                tried.rival = rival;
                if tried.fights > PATIENT {
                    let wait = Duration::from_secs(1 << (tried.fights - PATIENT).min(16)).min(TRUCE);
                    tried.not_before = Some(now + wait);
                    continue;
                }
            }
            tried.under_way = true;
            let outcome = if repaired { Outcome::Repaired } else { Outcome::Written };
            due.push(Due { namespace, outcome, roots: roots.clone() });
        }
        due
    }

    /// How writing ended: the object as it is now, or why not.
    pub fn done(&mut self, due: &Due, result: Result<Value, Failure>, now: Instant) {
        match result {
            Ok(stored) => {
                if let Ok(map) = Map::deserialize(stored) {
                    self.map(map);
                }
                // The namespace may have gone meanwhile.
                if let Some(tried) = self.tries.get_mut(&due.namespace) {
                    tried.last = Some((due.roots.clone(), now));
                    (tried.under_way, tried.failures, tried.failure, tried.not_before) =
                        (false, 0, None, None);
                }
            }
            Err(failure) => {
                if let Some(tried) = self.tries.get_mut(&due.namespace) {
                    let wait = RETRY.0.saturating_mul(1 << tried.failures.min(16)).min(RETRY.1);
                    tried.under_way = false;
                    tried.failures = tried.failures.saturating_add(1);
                    tried.not_before = Some(now + failure.retry_after().unwrap_or_default().max(wait));
                    tried.failure = Some(failure);
                }
            }
        }
    }

    /// It was not written after all, because this replica may not write any more.
    pub fn put_back(&mut self, due: &Due, now: Instant) {
        if let Some(tried) = self.tries.get_mut(&due.namespace) {
            (tried.under_way, tried.not_before) = (false, Some(now + RETRY.0));
        }
    }

    /// When there is something to be done that there is not now.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let tries = self.wanting().filter_map(|(name, _)| self.tries.get(name)?.not_before);
        let fought = self.tries.values().filter(|tried| tried.fights > PATIENT);
        let peace = fought.filter_map(|tried| Some(tried.last.as_ref()?.1 + PEACE));
        tries.chain(peace).filter(|at| *at > now).min()
    }

    /// Failures that stand, by what they are, with their namespaces.
    pub fn failures(&self) -> BTreeMap<String, (Failure, Vec<&str>)> {
        let mut all = BTreeMap::<String, (Failure, Vec<&str>)>::new();
        for (name, tried) in &self.tries {
            // The first one may be that of a namespace that is about to go.
            let Some(failure) = tried.failure.as_ref().filter(|_| tried.failures > 1) else { continue };
            // The sentence names the namespace: what is equal is the code.
            let what = failure.code().map_or_else(|| failure.to_string(), |code| code.to_string());
            all.entry(what).or_insert_with(|| (failure.clone(), Vec::new())).1.push(name);
        }
        all
    }

    /// Where somebody changes it again and again, and who that is.
    pub fn fights(&self, now: Instant) -> Vec<(&str, &str)> {
        let is_recent = |tried: &Try| tried.last.as_ref().is_some_and(|(_, at)| now < *at + PEACE);
        let fought = self.tries.iter().filter(|(_, tried)| tried.fights > PATIENT && is_recent(tried));
        fought.map(|(name, tried)| (name.as_str(), tried.rival.as_deref().unwrap_or("unknown"))).collect()
    }

    /// Namespaces whose ConfigMap is missing or not as it should be, and who changed it last.
    fn wanting(&self) -> impl Iterator<Item = (&str, Option<String>)> {
        let known = self.roots.as_ref().zip(self.selectors.as_ref());
        let tables = self.namespaces.as_ref().zip(self.maps.as_ref());
        let all = known.zip(tables).into_iter();
        all.flat_map(move |((roots, selectors), (namespaces, maps))| {
            namespaces.iter().filter_map(move |(name, labels)| {
                let is_selected = selectors.is_empty()
                    || **name == *self.root_namespace
                    || selectors.iter().any(|selector| selector.matches(labels));
                if SKIPPED.contains(&name.as_str()) || !is_selected {
                    return None;
                }
                match maps.get(name) {
                    Some(map) if map.holds(roots) => None,
                    Some(map) => Some((name.as_str(), map.changed_by())),
                    None => Some((name.as_str(), None)),
                }
            })
        })
    }
}

// === impl Map ===

impl Map {
    fn version(&self) -> u64 {
        self.metadata.resource_version.parse().unwrap_or(0)
    }

    fn holds(&self, roots: &str) -> bool {
        let label = self.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL.0));
        let data = self.data.as_ref().and_then(|data| data.get(KEY));
        data.is_some_and(|data| data == roots) && label.is_some_and(|value| **value == *LABEL.1)
    }

    fn changed_by(&self) -> Option<String> {
        let last = self.metadata.managed_fields.iter().max_by_key(|fields| fields.time.as_deref());
        last.map(|fields| fields.manager.clone()).filter(|manager| !manager.is_empty())
    }
}

/// The object, to be applied.
pub fn object(due: &Due) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": NAME, "namespace": due.namespace, "labels": { LABEL.0: LABEL.1 } },
        "data": { KEY: &*due.roots },
    })
}

#[cfg(test)]
mod tests;
