//! A service's endpoints in one cluster, from its slices, pods and nodes.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    Delta, Index,
    inputs::{ClusterObjects, NETWORK_LABEL, NamespacedName},
};
use crate::model::{
    ClusterId, Labels, NetworkId,
    endpoint::{Endpoint, Health, ServiceEndpoints, Workload},
    kubernetes::{Pod, SliceEndpoint},
    locality::Locality,
    mesh::MeshConfig,
};

impl Index {
    /// Assembles a service's endpoints in one cluster again and records what that changes.
    pub(super) fn update_endpoints(&mut self, id: &ClusterId, name: &NamespacedName, delta: &mut Delta) {
        let key = self.service_key(name);
        let list =
            self.inputs.clusters.get(id).map(|c| assemble(id, c, name, &self.mesh)).unwrap_or_default();
        let old = self.endpoints.get(&key);
        let old_list = old.and_then(|e| e.clusters.get(id));
        if old_list.map_or(list.is_empty(), |old| **old == *list) {
            return;
        }
        let mut new = old.map(|e| (**e).clone()).unwrap_or_default();
        if list.is_empty() {
            new.clusters.remove(id);
        } else {
            new.clusters.insert(id.clone(), list.into());
        }
        let identities = new.iter().filter_map(|e| e.workload.identity.clone()).collect();
        let localities = new.iter().map(|e| e.workload.locality.clone()).collect();
        new.identities = identities;
        new.localities = localities;

        // What clusters and routes depend on, not only assignments: the identities that clients accept, whether failover
        // is possible, and (for headless services) whether every endpoint takes mutual TLS.
        let traits = |e: &ServiceEndpoints| {
            (e.localities.len() > 1, e.iter().all(|e| e.workload.accepts_mtls), e.clusters.is_empty())
        };
        if old.map(|e| (&e.identities, traits(e))) != Some((&new.identities, traits(&new))) {
            delta.services.insert(key.clone());
            if let Some(service) = self.services.get(&key) {
                delta.ports.extend(service.ports.iter().map(|p| p.number));
            }
        } else if let Some(service) = self.services.get(&key)
            && service.resolution == crate::model::service::Resolution::Passthrough
        {
            // Headless services have a listener for each endpoint.
            delta.ports.extend(service.ports.iter().map(|p| p.number));
        }
        self.counts.endpoints(old.map(|e| &**e), -1);
        self.counts.endpoints(Some(&new), 1);
        if new.clusters.is_empty() {
            self.endpoints.remove(&key);
        } else {
            self.endpoints.insert(key.clone(), Arc::new(new));
        }
        delta.endpoints.insert(key);
    }
}

fn assemble(
    id: &ClusterId,
    cluster: &ClusterObjects,
    name: &NamespacedName,
    mesh: &MeshConfig,
) -> Vec<Endpoint> {
    // Slices overlap while the controller moves endpoints between them: the first by name holds.
    let mut found: BTreeMap<(IpAddr, u16, Arc<str>), Endpoint> = BTreeMap::new();
    for slice in cluster.slices.get(name).into_iter().flat_map(BTreeMap::values) {
        for endpoint in &slice.endpoints {
            let Some(address) = endpoint.addresses.first().copied() else { continue };
            let pod = endpoint.pod.as_ref().and_then(|pod| cluster.pods.get(&(name.0.clone(), pod.clone())));
            let workload = Arc::new(workload(id, cluster, &name.0, endpoint, address, pod, mesh));
            for port in &slice.ports {
                found.entry((address, port.number, port.name.clone())).or_insert_with(|| Endpoint {
                    address,
                    port: port.number,
                    port_name: port.name.clone(),
                    health: health(endpoint),
                    weight: 1,
                    workload: workload.clone(),
                });
            }
        }
    }
    found.into_values().collect()
}

fn health(endpoint: &SliceEndpoint) -> Health {
    match (endpoint.ready, endpoint.terminating, endpoint.serving) {
        (true, _, _) => Health::Healthy,
        (false, true, true) => Health::Draining,
        (false, true, false) => Health::Terminating,
        (false, false, _) => Health::Unhealthy,
    }
}

fn workload(
    id: &ClusterId,
    cluster: &ClusterObjects,
    namespace: &Arc<str>,
    endpoint: &SliceEndpoint,
    address: IpAddr,
    pod: Option<&Arc<Pod>>,
    mesh: &MeshConfig,
) -> Workload {
    let node = pod.and_then(|p| p.node.as_ref()).or(endpoint.node.as_ref());
    let none = Labels::new();
    let pod_labels = pod.map_or(&none, |p| &p.meta.labels);
    let network = network_of(id, cluster, pod_labels, mesh);
    let locality = locality_of(cluster, pod_labels, node);
    let trust_domain = cluster.mesh.as_ref().map_or(&mesh.trust_domain, |m| &m.trust_domain);
    let identity =
        pod.map(|p| format!("spiffe://{trust_domain}/ns/{namespace}/sa/{}", p.service_account).into());
    let name: Arc<str> = pod.map_or_else(|| address.to_string().into(), |p| p.meta.name.clone());
    Workload {
        cluster: id.clone(),
        namespace: namespace.clone(),
        labels: with_topology(pod_labels, id, &network, &locality, node),
        network,
        locality,
        identity,
        accepts_mtls: pod_labels.get("security.istio.io/tlsMode").is_some_and(|mode| &**mode == "istio"),
        node: node.cloned(),
        workload: pod.map_or_else(|| name.clone(), |p| p.workload.clone()),
        name,
    }
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
pub(super) fn locality_of(cluster: &ClusterObjects, pod: &Labels, node: Option<&Arc<str>>) -> Locality {
    let own = ["topology.istio.io/locality", "istio-locality"].iter().find_map(|l| pod.get(*l));
    if let Some(text) = own.filter(|t| !t.is_empty()) {
        let text = if text.contains('/') { text.to_string() } else { text.replace('.', "/") };
        return text.parse().unwrap_or_default();
    }
    let Some(node) = node.and_then(|n| cluster.nodes.get(n)) else { return Locality::default() };
    let label = |names: &[&str]| {
        names.iter().find_map(|n| node.meta.labels.get(*n)).cloned().unwrap_or_else(|| "".into())
    };
    Locality {
        region: label(&["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]),
        zone: label(&["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]),
        subzone: label(&["topology.istio.io/subzone"]),
    }
}

/// Istio adds these to a workload's labels, so that subsets and `failoverPriority` can select by place.
pub(super) fn with_topology(
    labels: &Labels,
    cluster: &ClusterId,
    network: &NetworkId,
    locality: &Locality,
    node: Option<&Arc<str>>,
) -> Labels {
    let mut labels = labels.clone();
    let mut add = |name: &str, value: &Arc<str>| {
        if !value.is_empty() {
            labels.insert(name.into(), value.clone());
        }
    };
    add("topology.istio.io/cluster", &cluster.0);
    add(NETWORK_LABEL, &network.0);
    add("topology.kubernetes.io/region", &locality.region);
    add("topology.kubernetes.io/zone", &locality.zone);
    add("topology.istio.io/subzone", &locality.subzone);
    if let Some(node) = node {
        add("kubernetes.io/hostname", node);
    }
    labels
}

impl super::scope::Counts {
    fn endpoints(&mut self, endpoints: Option<&ServiceEndpoints>, by: i64) {
        if endpoints.is_some_and(|e| e.localities.len() > 1) {
            self.spanning += by;
        }
    }
}
