//! What proxies must be told of a mesh, by the rules of Kubernetes and Istio alone: worked out apart from any control plane.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddrV4,
};

use super::{
    address,
    world::{GATEWAY_PORT, Mesh, Pod, Service, cluster_name},
};

/// The load assignment of a port (and subset) of a service, as clients of one network see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Ready pods of the network: there, and healthy.
    pub ready: BTreeSet<SocketAddrV4>,
    /// Pods of the network that are not ready: not there, or marked as unhealthy.
    pub unready: BTreeSet<SocketAddrV4>,
    /// Gateways in front of ready pods of other networks: there, and not unhealthy.
    pub gateways: BTreeSet<SocketAddrV4>,
}

impl Mesh {
    /// The load assignments that clients in a namespace of a cluster see, by xDS name. Headless services have none.
    pub fn assignments(&self, cluster: usize, namespace: &str) -> BTreeMap<String, Assignment> {
        let mut all = BTreeMap::new();
        for service in self.all_services().filter(|s| !s.headless && s.seen_from(namespace)) {
            for subset in service.subsets() {
                for port in &service.ports {
                    let name = service.cluster_name(port.port, &subset);
                    all.insert(name, self.assignment(cluster, service, port.target, &subset));
                }
            }
        }
        all
    }

    /// The names of the outbound clusters that clients in a namespace see, those of headless services, too.
    pub fn cluster_names(&self, namespace: &str) -> BTreeSet<String> {
        let names_of = |service: &Service| {
            let ports = service.ports.iter().map(|p| p.port).collect::<Vec<_>>();
            let names = service.subsets().flat_map(|subset| {
                ports.iter().map(|port| service.cluster_name(*port, &subset)).collect::<Vec<_>>()
            });
            names.collect::<Vec<_>>()
        };
        self.all_services().filter(|s| s.seen_from(namespace)).flat_map(names_of).collect()
    }

    /// One assignment; `target` is the pods' port, `subset` is empty for all pods.
    pub fn assignment(&self, cluster: usize, service: &Service, target: u16, subset: &str) -> Assignment {
        let network = self.spec.network(cluster);
        let mut assignment = Assignment::default();
        for (other, backing) in &service.backing {
            let pods = backing.pods.iter().filter(|pod| is_in(pod, subset));
            if self.spec.network(*other) != network {
                if self.is_behind_gateway(*other, &backing.pods, subset) {
                    assignment.gateways.insert(gateway(*other));
                }
                continue;
            }
            for pod in pods {
                let set = if pod.ready { &mut assignment.ready } else { &mut assignment.unready };
                set.insert(SocketAddrV4::new(pod.address, target));
            }
        }
        assignment
    }

    /// Whether other networks reach some of these pods through their cluster's gateway: it forwards mutual TLS only.
    pub(super) fn is_behind_gateway(&self, cluster: usize, pods: &[Pod], subset: &str) -> bool {
        let there = self.gateway.as_ref().is_some_and(|g| g.backing.contains_key(&cluster));
        there && pods.iter().any(|pod| pod.ready && pod.sidecar && is_in(pod, subset))
    }

    /// `--files` arguments of `landbridge serve`: cluster and directory below `root`.
    pub fn directories<'a>(
        &'a self,
        root: &'a std::path::Path,
    ) -> impl Iterator<Item = (String, std::path::PathBuf)> + 'a {
        (0..self.spec.clusters).map(cluster_name).map(|name| (name.clone(), root.join(name)))
    }
}

/// Whether a subset (or the service as a whole) has the pod.
pub fn is_in(pod: &Pod, subset: &str) -> bool {
    subset.is_empty() || pod.version() == subset
}

/// How a cluster's gateway is called from other networks.
pub fn gateway(cluster: usize) -> SocketAddrV4 {
    SocketAddrV4::new(address::gateway(cluster), GATEWAY_PORT)
}
