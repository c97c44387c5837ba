//! A ServiceExport for every Service that is not local to its cluster: what is due. Pure: time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    model::{Labels, mcs::Api, mesh::MeshConfig},
    registry::kubernetes::Failure,
};

/// Between two that are made, at least: a cluster's first thousand takes twenty seconds, and nothing else is held up by it.
const PACE: Duration = Duration::from_millis(20);
/// After a failure: what befell one probably befalls the next.
const REST: Duration = Duration::from_secs(1);
/// After a failure, or before what was deleted is made again: at first and at most; twice as long from time to time.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// After so long it begins anew.
const PEACE: Duration = Duration::from_secs(600);

/// Namespace and name.
pub type Name = (Arc<str>, Arc<str>);

/// A Service, ServiceExport or Namespace, as far as it matters.
#[derive(Clone, Debug, Deserialize)]
pub struct Object {
    metadata: Meta,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    name: Arc<str>,
    namespace: Arc<str>,
    uid: Arc<str>,
    labels: Option<Labels>,
    resource_version: String,
    deletion_timestamp: Option<String>,
}

/// A ServiceExport to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Of the Service and of its export.
    pub name: Name,
    /// The Service's.
    pub uid: Arc<str>,
}

/// What is known of a cluster, and what follows. Nothing follows from what is unknown.
#[derive(Debug)]
pub struct Plan {
    root_namespace: Arc<str>,
    domain: Arc<str>,
    mesh: Option<Arc<MeshConfig>>,
    namespaces: Option<BTreeMap<Arc<str>, Labels>>,
    /// With their UIDs.
    services: Option<BTreeMap<Name, Arc<str>>>,
    /// With their versions. None, too, where the kind is not installed.
    exports: Option<BTreeMap<Name, u64>>,
    tries: BTreeMap<Name, Try>,
    /// Services that want one, by when that is due.
    queue: BTreeSet<(Instant, Name)>,
    /// When each of them is due.
    queued: BTreeMap<Name, Instant>,
    under_way: Option<Name>,
    not_before: Option<Instant>,
}

/// What was done for a Service.
#[derive(Debug)]
struct Try {
    at: Instant,
    /// In a row, each soon after the one before.
    times: u32,
    failure: Option<Failure>,
    /// When the API server wants to be asked again.
    not_before: Option<Instant>,
}

// === impl Plan ===

impl Plan {
    pub fn new(root_namespace: Arc<str>, domain: Arc<str>) -> Self {
        Self {
            root_namespace,
            domain,
            mesh: None,
            namespaces: None,
            services: None,
            exports: None,
            tries: BTreeMap::new(),
            queue: BTreeSet::new(),
            queued: BTreeMap::new(),
            under_way: None,
            not_before: None,
        }
    }

    pub fn set_mesh(&mut self, mesh: Option<Arc<MeshConfig>>, now: Instant) {
        self.mesh = mesh;
        self.judge_all(now);
    }

    pub fn all_namespaces(&mut self, all: Vec<Object>, now: Instant) {
        let labels = |Meta { name, labels, .. }| (name, labels.unwrap_or_default());
        self.namespaces = Some(all.into_iter().map(|namespace| labels(namespace.metadata)).collect());
        self.judge_all(now);
    }

    pub fn namespace(&mut self, Object { metadata }: Object, now: Instant) {
        let Some(all) = &mut self.namespaces else { return };
        let labels = metadata.labels.unwrap_or_default();
        if all.insert(metadata.name.clone(), labels.clone()) != Some(labels) {
            self.judge_namespace(&metadata.name, now);
        }
    }

    pub fn no_namespace(&mut self, namespace: &Object, now: Instant) {
        if let Some(all) = &mut self.namespaces {
            all.remove(&namespace.metadata.name);
            self.judge_namespace(&namespace.metadata.name, now);
        }
    }

    pub fn all_services(&mut self, all: Vec<Object>, now: Instant) {
        let there = all.into_iter().filter(|service| service.metadata.deletion_timestamp.is_none());
        let there: BTreeMap<_, _> = there.map(|service| (service.name(), service.metadata.uid)).collect();
        self.tries.retain(|name, _| there.contains_key(name));
        self.services = Some(there);
        self.judge_all(now);
    }

    /// One that came or changed. One that is being deleted takes nothing any more.
    pub fn service(&mut self, service: Object, now: Instant) {
        if service.metadata.deletion_timestamp.is_some() {
            return self.no_service(&service, now);
        }
        let Some(all) = &mut self.services else { return };
        let name = service.name();
        let uid = service.metadata.uid;
        if all.insert(name.clone(), uid.clone()) != Some(uid) {
            self.judge(&name, now);
        }
    }

    pub fn no_service(&mut self, service: &Object, now: Instant) {
        let name = service.name();
        if let Some(all) = &mut self.services {
            all.remove(&name);
            self.tries.remove(&name);
            self.judge(&name, now);
        }
    }

    pub fn all_exports(&mut self, all: Vec<Object>, now: Instant) {
        self.exports = Some(all.iter().map(|export| (export.name(), export.version())).collect());
        self.judge_all(now);
    }

    /// One that came or changed.
    pub fn export(&mut self, export: &Object, now: Instant) {
        if let Some(all) = &mut self.exports {
            let version = all.entry(export.name()).or_default();
            *version = export.version().max(*version);
            self.judge(&export.name(), now);
        }
    }

    /// One that is gone. What is older than what is known, because it was made again meanwhile, says nothing.
    pub fn no_export(&mut self, export: &Object, now: Instant) {
        if let Some(all) = &mut self.exports
            && all.get(&export.name()).is_some_and(|known| *known <= export.version())
        {
            all.remove(&export.name());
            self.judge(&export.name(), now);
        }
    }

    /// The kind is not installed, or not any more.
    pub fn no_kind(&mut self, now: Instant) {
        self.exports = None;
        self.judge_all(now);
    }

    /// The next one to make, if it is time and none is under way.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        if self.under_way.is_some() || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        let (_, name) = self.queue.first().filter(|(at, _)| *at <= now)?.clone();
        let uid = self.services.as_ref()?.get(&name)?.clone();
        self.unqueue(&name);
        (self.under_way, self.not_before) = (Some(name.clone()), Some(now + PACE));
        Some(Due { name, uid })
    }

    /// When there is something to be done that there is not now.
    pub fn next(&self) -> Option<Instant> {
        let (at, _) = self.queue.first().filter(|_| self.under_way.is_none())?;
        Some(self.not_before.map_or(*at, |pace| pace.max(*at)))
    }

    /// How making it ended: with the object as it is now, or why not.
    pub fn done(&mut self, due: &Due, result: Result<&Object, Failure>, now: Instant) {
        self.under_way = None;
        // The Service may have gone meanwhile.
        if self.services.as_ref().is_some_and(|all| all.contains_key(&due.name)) {
            let before = self.tries.get(&due.name).filter(|tried| now < tried.at + PEACE);
            let times = before.map_or(0, |tried| tried.times) + 1;
            let failure = result.as_ref().err().cloned();
            let not_before = failure.as_ref().and_then(Failure::retry_after).map(|after| now + after);
            self.tries.insert(due.name.clone(), Try { at: now, times, failure, not_before });
        }
        match result {
            Ok(stored) => self.export(stored, now),
            Err(_) => {
                self.not_before = Some(now + REST);
                self.judge(&due.name, now);
            }
        }
    }

    /// It was not made after all, because this replica may not write any more.
    pub fn put_back(&mut self, due: &Due, now: Instant) {
        (self.under_way, self.not_before) = (None, Some(now + REST));
        self.judge(&due.name, now);
    }

    /// Failures that stand, by what they are, with their Services.
    pub fn failures(&self) -> BTreeMap<String, (Failure, Vec<&Name>)> {
        let mut all = BTreeMap::<String, (Failure, Vec<&Name>)>::new();
        for name in self.queued.keys() {
            // The first one may be that of a namespace that is about to go.
            let Some(tried) = self.tries.get(name).filter(|tried| tried.times > 1) else { continue };
            let Some(failure) = &tried.failure else { continue };
            // The sentence names the object: what is equal is the code.
            let what = failure.code().map_or_else(|| failure.to_string(), |code| code.to_string());
            all.entry(what).or_insert_with(|| (failure.clone(), Vec::new())).1.push(name);
        }
        all
    }

    fn judge_all(&mut self, now: Instant) {
        let names: Vec<_> = self.services.iter().flat_map(BTreeMap::keys).cloned().collect();
        self.queue.clear();
        self.queued.clear();
        names.iter().for_each(|name| self.judge(name, now));
    }

    fn judge_namespace(&mut self, namespace: &Arc<str>, now: Instant) {
        let from = (namespace.clone(), Arc::default());
        let names = self.services.iter().flat_map(|all| all.range(from.clone()..)).map(|(name, _)| name);
        let names: Vec<_> = names.take_while(|(ns, _)| ns == namespace).cloned().collect();
        names.iter().for_each(|name| self.judge(name, now));
    }

    /// Whether a Service wants an export, and since when it may have one.
    fn judge(&mut self, name: &Name, now: Instant) {
        if self.under_way.as_ref() == Some(name) {
            // Decided when that has ended.
            return;
        }
        match (self.wants(name), self.queued.get(name)) {
            (true, None) => {
                let at = self.tries.get(name).map_or(now, |tried| tried.again(now));
                self.queue.insert((at, name.clone()));
                self.queued.insert(name.clone(), at);
            }
            (false, Some(_)) => self.unqueue(name),
            _ => {}
        }
    }

    fn unqueue(&mut self, name: &Name) {
        if let Some(at) = self.queued.remove(name) {
            self.queue.remove(&(at, name.clone()));
        }
    }

    fn wants(&self, name: &Name) -> bool {
        let (Some(mesh), Some(namespaces), Some(services), Some(exports)) =
            (&self.mesh, &self.namespaces, &self.services, &self.exports)
        else {
            return false;
        };
        let (namespace, short) = name;
        let is_selected = || {
            let selectors = &mesh.discovery_selectors;
            let matches = |labels| selectors.iter().any(|selector| selector.matches(labels));
            selectors.is_empty()
                || *namespace == self.root_namespace
                || namespaces.get(namespace).is_some_and(matches)
        };
        let host = || format!("{short}.{namespace}.svc.{}", self.domain);
        services.contains_key(name)
            && !exports.contains_key(name)
            && is_selected()
            && !mesh.is_cluster_local(&host(), &self.domain)
    }
}

// === impl Try ===

impl Try {
    /// When the next one may follow.
    fn again(&self, now: Instant) -> Instant {
        if now >= self.at + PEACE {
            return now;
        }
        let wait = RETRY.0.saturating_mul(1 << (self.times - 1).min(16)).min(RETRY.1);
        now.max(self.at + wait).max(self.not_before.unwrap_or(now))
    }
}

// === impl Object ===

impl Object {
    fn name(&self) -> Name {
        (self.metadata.namespace.clone(), self.metadata.name.clone())
    }

    fn version(&self) -> u64 {
        self.metadata.resource_version.parse().unwrap_or(0)
    }
}

/// The object. It goes with its Service, by the cluster's garbage collector.
pub fn object(due: &Due, api: &Api) -> Value {
    let Due { name: (namespace, name), uid } = due;
    let owner = json!({ "apiVersion": "v1", "kind": "Service", "name": name, "uid": uid });
    json!({
        "apiVersion": format!("{}/{}", api.group, api.version), "kind": "ServiceExport",
        "metadata": { "name": name, "namespace": namespace, "ownerReferences": [owner] },
    })
}
