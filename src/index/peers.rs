//! Peer authentications: what workloads accept.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Delta, Options, inputs::Inputs};
use crate::model::{
    mesh::MeshConfig,
    name::selects_by,
    peer_authentication::{MtlsMode, PeerAuthentication},
    service::{Service, ServiceKey},
};

/// The policies of all namespaces.
#[derive(Debug, Default, PartialEq)]
pub struct Peers {
    mesh: Option<MtlsMode>,
    namespaces: BTreeMap<Arc<str>, NamespacePolicies>,
}

#[derive(Debug, Default, PartialEq)]
struct NamespacePolicies {
    /// Of the oldest policy without a selector.
    mode: Option<MtlsMode>,
    /// Those with one, oldest first.
    selected: Vec<Arc<PeerAuthentication>>,
}

/// What one workload accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadMtls {
    /// On ports without an exception.
    pub default: MtlsMode,
    /// Exceptions by the workload's port.
    pub ports: BTreeMap<u16, MtlsMode>,
}

impl WorkloadMtls {
    /// On this port.
    pub fn mode(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.default)
    }
}

// === impl Peers ===

impl Peers {
    /// Derives the policies again, and records what depends on the changed namespaces.
    pub fn rebuild(
        &mut self,
        inputs: &Inputs,
        options: &Options,
        mesh: &MeshConfig,
        changed: &BTreeSet<Arc<str>>,
        services: &BTreeMap<ServiceKey, Arc<Service>>,
        delta: &mut Delta,
    ) {
        let mut sorted: Vec<_> = inputs
            .clusters
            .get(&options.config_cluster)
            .into_iter()
            .flat_map(|c| c.peer_authentications.values())
            .collect();
        sorted.sort_by_key(|p| (p.meta.created, p.meta.name.clone()));

        let mut new = Self::default();
        for policy in sorted {
            let root = policy.meta.namespace == mesh.root_namespace;
            let selector = policy.selector.as_ref().filter(|s| !s.is_empty());
            let namespace = new.namespaces.entry(policy.meta.namespace.clone()).or_default();
            match selector {
                // In the root namespace a selector has no meaning beyond that namespace's own workloads.
                Some(_) => namespace.selected.push(policy.clone()),
                None if root => new.mesh = new.mesh.or(policy.mode),
                None => namespace.mode = namespace.mode.or(policy.mode),
            }
        }
        if self.mesh != new.mesh {
            delta.everything = true;
        }
        for namespace in changed {
            if self.namespaces.get(namespace) == new.namespaces.get(namespace) {
                continue;
            }
            delta.proxies.namespaces.insert(namespace.clone());
            let own = services.keys().filter(|k| k.namespace == *namespace).cloned();
            delta.services.extend(own);
        }
        *self = new;
    }

    /// What clients expect of a namespace's services.
    pub fn namespace(&self, namespace: &str) -> MtlsMode {
        self.namespaces.get(namespace).and_then(|n| n.mode).or(self.mesh).unwrap_or_default()
    }

    /// What a workload accepts: the oldest policy that selects it, else the namespace's, else the mesh's.
    pub fn workload<'a>(
        &self,
        namespace: &str,
        label: impl Fn(&str) -> Option<&'a Arc<str>>,
    ) -> WorkloadMtls {
        let inherited = self.namespace(namespace);
        let selected = self.namespaces.get(namespace).into_iter().flat_map(|n| &n.selected);
        let policy =
            selected.into_iter().find(|p| p.selector.as_ref().is_some_and(|s| selects_by(s, &label)));
        let Some(policy) = policy else { return WorkloadMtls { default: inherited, ports: BTreeMap::new() } };
        let default = policy.mode.unwrap_or(inherited);
        let ports = policy.ports.iter().map(|(port, mode)| (*port, mode.unwrap_or(default))).collect();
        WorkloadMtls { default, ports }
    }
}
