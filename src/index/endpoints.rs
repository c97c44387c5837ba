//! Endpoints slice by slice: a slice's rows joined with their pods and nodes.

use std::{borrow::Cow, sync::Arc};

use super::{
    Delta, Index,
    inputs::{ClusterObjects, SliceOf},
    interner::{Facts, Workloads},
};
use crate::model::{
    ClusterId, Labels, NetworkId,
    endpoint::{ServiceEndpoints, Shard},
    kubernetes::EndpointSlice,
    locality::Locality,
    mesh::MeshConfig,
    service::Resolution,
    workload::{NETWORK_LABEL, Workload},
};

/// So many of the workloads met last are compared before all are searched.
const NEAR: usize = 4;

impl Index {
    /// Joins a slice again and records what that changes. `again`: also who is behind rows that did not change.
    pub(super) fn update_slice(&mut self, of: &SliceOf, again: bool, delta: &mut Delta) {
        let key = self.service_key(&of.service);
        let endpoints = self.endpoints.get(&key);
        let old = endpoints.and_then(|e| e.shard(&of.cluster, &of.slice)).cloned();
        let slice = self.inputs.clusters.get(&of.cluster).and_then(|cluster| {
            let slice = cluster.slices.get(&(of.service.0.clone(), of.slice.clone()))?;
            // A slice may have gone over to another service; one without endpoints or ports is nothing.
            let counts =
                slice.service == of.service.1 && !slice.endpoints.is_empty() && !slice.ports.is_empty();
            counts.then_some((cluster, slice))
        });
        let new = slice.map(|(cluster, slice)| {
            let known = old.as_deref().filter(|_| !again);
            join(&of.cluster, cluster, slice, known, &self.mesh, &mut self.workloads)
        });
        let same_places = match (&old, &new) {
            (Some(old), Some(new)) => old.same_places(new),
            (old, new) => old.is_none() && new.is_none(),
        };
        let new = new.map(|shard| match old.as_deref().filter(|_| same_places) {
            Some(old) => shard.with_hidden(old.hidden().into()),
            None => shard,
        });
        let before = old.as_deref().map_or(&[][..], Shard::workloads);
        self.workloads.replace(before, new.as_ref().map_or(&[], Shard::workloads));
        if old.as_deref() == new.as_ref() {
            return;
        }

        let all = self.endpoints.entry(key.clone()).or_default();
        let endpoints = Arc::make_mut(all);
        let traits = |e: &ServiceEndpoints| (e.spans_localities(), e.all_accept_mtls(), e.is_empty());
        let before = traits(endpoints);
        let new = new.map(Arc::new);
        let identities = endpoints.put(&of.cluster, &of.slice, new.clone());
        if !same_places {
            hide_again(endpoints, of, [old.as_ref(), new.as_ref()]);
        }
        let after = traits(endpoints);
        self.counts.spans(before.0, after.0);
        if after.2 {
            self.endpoints.remove(&key);
        }

        let service = self.services.get(&key);
        let ports = service.into_iter().flat_map(|s| &s.ports).map(|p| p.number);
        let imported = self.imported.host_of(&key).cloned();
        // What clusters and routes depend on, not only assignments: the identities that clients accept, whether failover
        // is possible, and (for headless services) whether every endpoint takes mutual TLS.
        if identities || before != after {
            delta.services.extend(imported.clone());
            delta.services.insert(key.clone());
            delta.ports.extend(ports);
        }
        // A headless service has a listener for each endpoint.
        if service.is_some_and(|s| s.resolution == Resolution::Passthrough) {
            if !same_places {
                self.rename(&key, delta, |_| {});
            }
            delta.names.insert(key.clone());
        }
        delta.endpoints.extend(imported);
        delta.endpoints.insert(key);
    }
}

/// After a slice's addresses changed: what each slice of the cluster hides of those after it.
fn hide_again(endpoints: &mut ServiceEndpoints, of: &SliceOf, changed: [Option<&Arc<Shard>>; 2]) {
    let all: Vec<_> =
        endpoints.shards_of(&of.cluster).map(|(name, shard)| (name.clone(), shard.clone())).collect();
    for (i, (name, shard)) in all.iter().enumerate() {
        let concerned = *name == of.slice || changed.iter().flatten().any(|other| shard.overlaps(other));
        if !concerned {
            continue;
        }
        let hidden = shard.hide(all[..i].iter().map(|(_, earlier)| &**earlier));
        if *hidden != *shard.hidden() {
            let shard = Shard::new(shard.slice().clone(), shard.of_rows().cloned()).with_hidden(hidden);
            endpoints.put(&of.cluster, name, Some(Arc::new(shard)));
        }
    }
}

/// `known`: the shard before, whose pods and nodes are as they were.
fn join(
    id: &ClusterId,
    cluster: &ClusterObjects,
    slice: &Arc<EndpointSlice>,
    known: Option<&Shard>,
    mesh: &MeshConfig,
    workloads: &mut Workloads,
) -> Shard {
    let rows = &slice.endpoints;
    // What most changes come to.
    if let Some(known) = known.filter(|shard| shard.slice().endpoints.same_but_health(rows)) {
        return known.with_slice(slice.clone());
    }
    let trust_domain = cluster.mesh.as_ref().map_or(&mesh.trust_domain, |m| &m.trust_domain);
    let cluster_network = network_of(id, cluster, &Labels::new(), mesh);
    let pods = cluster.pods.get(&slice.namespace);
    let mut before = known.map(|shard| (shard, 0));
    let mut near: Vec<Arc<Workload>> = Vec::new();
    let mut name = String::new();
    let of_rows = (0..rows.len()).map(|row| {
        if let Some((shard, at)) = &mut before
            && let Some(workload) = shard.same_row(rows, row, at)
        {
            return workload.clone();
        }
        let pod = rows.pod(row).and_then(|pod| pods?.get(pod.text(&mut name)));
        let node = pod.and_then(|p| p.node.as_ref()).or(rows.node(row));
        let facts = match pod {
            Some(pod) => Facts {
                cluster: id,
                namespace: &slice.namespace,
                network: match pod.meta.labels.get(NETWORK_LABEL) {
                    Some(label) => Cow::Owned(NetworkId(label.clone())),
                    None => Cow::Borrowed(&cluster_network),
                },
                locality: locality_of(cluster, &pod.meta.labels, node),
                trust_domain,
                pod: Some(pod),
            },
            None => Facts {
                cluster: id,
                namespace: &slice.namespace,
                network: Cow::Borrowed(&cluster_network),
                locality: locality_of_node(cluster, node),
                trust_domain,
                pod: None,
            },
        };
        if let Some(workload) = near.iter().rev().find(|workload| facts.are_of(workload)) {
            return workload.clone();
        }
        let workload = workloads.intern(&facts);
        if near.len() == NEAR {
            near.remove(0);
        }
        near.push(workload.clone());
        workload
    });
    Shard::new(slice.clone(), of_rows)
}

/// Istio's order: the pod's label, the label of the cluster's system namespace, `meshNetworks` by registry.
pub(super) fn network_of(
    id: &ClusterId,
    cluster: &ClusterObjects,
    pod: &Labels,
    mesh: &MeshConfig,
) -> NetworkId {
    let label = pod.get(NETWORK_LABEL).or_else(|| cluster.namespace_network(&mesh.root_namespace));
    let by_registry = || {
        let (network, _) = mesh.networks.iter().find(|(_, n)| n.registries.iter().any(|r| **r == *id.0))?;
        Some(network.clone())
    };
    label.map(|n| NetworkId(n.clone())).or_else(by_registry).unwrap_or_else(|| NetworkId::from(""))
}

/// The pod's own label (with `.` for `/`, which label values cannot hold), else its node's labels.
pub(super) fn locality_of<'a>(
    cluster: &'a ClusterObjects,
    pod: &Labels,
    node: Option<&Arc<str>>,
) -> Cow<'a, Locality> {
    let own = ["topology.istio.io/locality", "istio-locality"].iter().find_map(|l| pod.get(*l));
    if let Some(text) = own.filter(|t| !t.is_empty()) {
        let text = if text.contains('/') { text.to_string() } else { text.replace('.', "/") };
        return Cow::Owned(text.parse().unwrap_or_default());
    }
    locality_of_node(cluster, node)
}

fn locality_of_node<'a>(cluster: &'a ClusterObjects, node: Option<&Arc<str>>) -> Cow<'a, Locality> {
    match node.and_then(|node| cluster.locality_of_node(node)) {
        Some(locality) => Cow::Borrowed(locality),
        None => Cow::Owned(Locality::default()),
    }
}
