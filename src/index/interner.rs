//! Workloads, each kept once: whatever is equal is the same object, for as long as a shard uses it.

use std::{
    borrow::Cow,
    collections::hash_map::Entry,
    hash::BuildHasher,
    sync::{Arc, LazyLock},
};

use foldhash::{HashMap, fast::FixedState};

use crate::model::{ClusterId, Labels, NetworkId, kubernetes::Pod, locality::Locality, workload::Workload};

/// What makes a workload, borrowed from the objects that say it.
#[derive(Debug)]
pub struct Facts<'a> {
    pub cluster: &'a ClusterId,
    pub namespace: &'a Arc<str>,
    pub network: Cow<'a, NetworkId>,
    pub locality: Cow<'a, Locality>,
    pub trust_domain: &'a Arc<str>,
    pub pod: Option<&'a Pod>,
}

/// All workloads in use, with the number of shards that use them.
#[derive(Debug, Default)]
pub struct Workloads {
    by_hash: HashMap<u64, Vec<(Arc<Workload>, u32)>>,
}

static NO_LABELS: LazyLock<Labels> = LazyLock::new(Labels::new);

// === impl Facts ===

impl Facts<'_> {
    fn labels(&self) -> &Labels {
        self.pod.map_or(&NO_LABELS, |pod| &pod.meta.labels)
    }

    /// Whether these are the facts of a workload.
    pub fn are_of(&self, workload: &Workload) -> bool {
        let identity = match (self.pod, workload.identity.as_deref()) {
            (None, None) => true,
            (Some(pod), Some(identity)) => self.identity_is(identity, pod),
            _ => false,
        };
        identity
            && workload.cluster == *self.cluster
            && workload.namespace == *self.namespace
            && workload.network == *self.network
            && workload.locality == *self.locality
            && workload.name.as_ref() == self.pod.map(|pod| &pod.workload)
            && workload.labels == *self.labels()
    }

    /// Compared part by part: this is asked for every endpoint.
    fn identity_is(&self, identity: &str, pod: &Pod) -> bool {
        let parts = ["spiffe://", &**self.trust_domain, "/ns/", &**self.namespace, "/sa/"];
        let account = parts.iter().try_fold(identity, |rest, part| rest.strip_prefix(part));
        account == Some(&*pod.service_account)
    }

    fn hash(&self) -> u64 {
        let name = self.pod.map(|pod| &pod.workload);
        hash(self.cluster, self.namespace, &self.network, &self.locality, self.labels(), name)
    }

    fn workload(&self) -> Workload {
        let labels = self.labels();
        let identity = |pod: &Pod| {
            let (domain, namespace) = (self.trust_domain, self.namespace);
            format!("spiffe://{domain}/ns/{namespace}/sa/{}", pod.service_account).into()
        };
        let mut workload = Workload {
            cluster: self.cluster.clone(),
            network: self.network.clone().into_owned(),
            namespace: self.namespace.clone(),
            locality: self.locality.clone().into_owned(),
            identity: self.pod.map(identity),
            accepts_mtls: labels.get("security.istio.io/tlsMode").is_some_and(|mode| &**mode == "istio"),
            labels: labels.clone(),
            weight: 1,
            name: self.pod.map(|pod| pod.workload.clone()),
            telemetry: None,
        };
        workload.telemetry = workload.name.as_deref().map(|name| workload.telemetry_text(name).into());
        workload
    }
}

/// Of everything but the identity, which the rest nearly always decides.
fn hash(
    cluster: &ClusterId,
    namespace: &Arc<str>,
    network: &NetworkId,
    locality: &Locality,
    labels: &Labels,
    name: Option<&Arc<str>>,
) -> u64 {
    FixedState::default().hash_one((cluster, namespace, network, locality, labels, name))
}

// === impl Workloads ===

impl Workloads {
    /// The one workload with these facts. Every call of this for a shard is followed by [`Self::replace`] for the shard.
    pub fn intern(&mut self, facts: &Facts) -> Arc<Workload> {
        let known = self.by_hash.entry(facts.hash()).or_default();
        if let Some((workload, _)) = known.iter().find(|(workload, _)| facts.are_of(workload)) {
            return workload.clone();
        }
        let workload = Arc::new(facts.workload());
        known.push((workload.clone(), 0));
        workload
    }

    /// A shard uses other workloads from now on.
    pub fn replace(&mut self, old: &[Arc<Workload>], new: &[Arc<Workload>]) {
        if old.len() == new.len() && old.iter().zip(new).all(|(a, b)| Arc::ptr_eq(a, b)) {
            return;
        }
        for workload in new {
            let known = self.by_hash.get_mut(&hash_of(workload)).into_iter().flatten();
            for (_, uses) in known.filter(|(known, _)| Arc::ptr_eq(known, workload)) {
                *uses += 1;
            }
        }
        for workload in old {
            let Entry::Occupied(mut known) = self.by_hash.entry(hash_of(workload)) else { continue };
            for (_, uses) in known.get_mut().iter_mut().filter(|(known, _)| Arc::ptr_eq(known, workload)) {
                *uses -= 1;
            }
            known.get_mut().retain(|(_, uses)| *uses > 0);
            if known.get().is_empty() {
                known.remove();
            }
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_hash.values().map(Vec::len).sum()
    }
}

fn hash_of(workload: &Workload) -> u64 {
    let Workload { cluster, namespace, network, locality, labels, name, .. } = workload;
    hash(cluster, namespace, network, locality, labels, name.as_ref())
}
