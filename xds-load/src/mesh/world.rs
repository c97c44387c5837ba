//! A mesh as data.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use super::{
    address::Pool,
    seed,
    spec::{Port, Spec},
};

/// A mesh: what its spec says, and what changes made of it.
#[derive(Clone, Debug)]
pub struct Mesh {
    pub(super) spec: Arc<Spec>,
    /// By id; none was removed.
    pub(super) services: Vec<Option<Service>>,
    /// The east-west gateways: one service that each cluster with a gateway has.
    pub(super) gateway: Option<Service>,
    pub(super) clients: Vec<Proxy>,
    pub(super) pods: Vec<Pool>,
    pub(super) addresses: Vec<Pool>,
    /// Clusters whose directory is away.
    pub(super) away: Vec<bool>,
}

/// Numbers the services of a mesh: `service-17` is 17. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub usize);

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its short name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// In the order of the spec.
    pub ports: Vec<Port>,
    /// Without a virtual address: clients get no load assignment.
    pub headless: bool,
    /// Only its own namespace sees it.
    pub private: bool,
    /// Its DestinationRule.
    pub rule: Option<Rule>,
    /// What each cluster that defines it has of it.
    pub backing: BTreeMap<usize, Backing>,
    /// Pods that it ever had: the next one's number.
    pub(super) next_pod: u64,
}

/// A service in one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Backing {
    /// Its virtual address; none if headless.
    pub address: Option<Ipv4Addr>,
    /// By place: a pod that replaces another one takes its place.
    pub pods: Vec<Pod>,
}

/// A pod of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Part of its name.
    pub number: u64,
    /// Its address.
    pub address: Ipv4Addr,
    /// Where it runs.
    pub node: usize,
    /// Whether it may be called.
    pub ready: bool,
    /// Accepts mutual TLS.
    pub sidecar: bool,
}

/// A DestinationRule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Milliseconds. Changes of configuration change this.
    pub connect_timeout: u32,
    /// Has the subsets v1 and v2.
    pub subsets: bool,
}

/// A place of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The service.
    pub service: ServiceId,
    /// The cluster.
    pub cluster: usize,
    /// In [`Backing::pods`].
    pub place: usize,
}

/// A pod as the proxy beside it introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The pod's name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The cluster's number.
    pub cluster: usize,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// The identity it may ask for.
    pub service_account: Arc<str>,
    /// Label `app`.
    pub app: Arc<str>,
    /// The number of the node.
    pub node: usize,
}

/// The number of subsets of a rule that has them.
pub const SUBSETS: u64 = 2;
/// Where Istio's own objects are.
pub const ROOT_NAMESPACE: &str = "istio-system";
/// The gateways' name.
pub const GATEWAY: &str = "istio-eastwestgateway";
/// The port of a gateway that forwards by SNI.
pub const GATEWAY_PORT: u16 = 15443;

// === impl Mesh ===

impl Mesh {
    /// What it was made from.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// A service that is there.
    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(id.0)?.as_ref()
    }

    /// The services that are there, without the gateways.
    pub fn services(&self) -> impl Iterator<Item = (ServiceId, &Service)> {
        self.services.iter().enumerate().filter_map(|(i, s)| Some((ServiceId(i), s.as_ref()?)))
    }

    /// All services, the gateways, too.
    pub fn all_services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().flatten().chain(&self.gateway)
    }

    /// The pod in a place.
    pub fn pod(&self, slot: Slot) -> Option<&Pod> {
        self.service(slot.service)?.backing.get(&slot.cluster)?.pods.get(slot.place)
    }

    /// Every pod with a proxy: the clients first, then those of services. For node templates of simulated proxies.
    pub fn proxies(&self) -> impl Iterator<Item = Proxy> {
        let of_services = self.services.iter().flatten().flat_map(|service| {
            service.backing.iter().flat_map(move |(cluster, backing)| {
                backing.pods.iter().filter(|pod| pod.sidecar).map(move |pod| Proxy {
                    name: service.pod_name(pod).into(),
                    namespace: service.namespace.clone(),
                    cluster: *cluster,
                    address: pod.address,
                    service_account: service.name.clone(),
                    app: service.name.clone(),
                    node: pod.node,
                })
            })
        });
        self.clients.iter().cloned().chain(of_services)
    }

    /// Endpoints of all services, ready or not.
    pub fn endpoints(&self) -> usize {
        self.services.iter().flatten().flat_map(|s| s.backing.values()).map(|b| b.pods.len()).sum()
    }

    /// Makes the next pod of a service in a cluster.
    pub(super) fn new_pod(spec: &Spec, pool: &mut Pool, service: usize, number: u64, cluster: usize) -> Pod {
        let n = (service as u64) << 32 | number;
        Pod {
            number,
            address: pool.next(),
            // Neighbours are on different nodes, and services begin on different ones.
            node: (seed::below(spec.seed, "node", (service as u64) << 8 | cluster as u64, spec.nodes)
                + usize::try_from(number).unwrap_or_default())
                % spec.nodes,
            ready: true,
            sidecar: seed::chosen(spec.seed, "sidecar", n & 0xffff_ffff, spec.sidecars),
        }
    }
}

// === impl Service ===

impl Service {
    /// Its name in the mesh.
    pub fn host(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.name, self.namespace)
    }

    /// The xDS name of a port's cluster, and of its load assignment.
    pub fn cluster_name(&self, port: u16, subset: &str) -> String {
        format!("outbound|{port}|{subset}|{}", self.host())
    }

    /// The names of a pod.
    pub fn pod_name(&self, pod: &Pod) -> String {
        format!("{}-{}", self.name, pod.number)
    }

    /// All pods, or those of one subset, are chosen by the empty or the subset's name.
    pub fn subsets(&self) -> impl Iterator<Item = String> + use<> {
        let named = if self.rule.is_some_and(|r| r.subsets) { SUBSETS } else { 0 };
        std::iter::once(String::new()).chain((1..=named).map(|n| format!("v{n}")))
    }

    /// Whether `namespace` sees it.
    pub fn seen_from(&self, namespace: &str) -> bool {
        !self.private || *self.namespace == *namespace
    }
}

// === impl Pod ===

impl Pod {
    /// Label `version`, by which subsets choose.
    pub fn version(&self) -> String {
        format!("v{}", 1 + self.number % SUBSETS)
    }
}

/// `cluster-3`.
pub fn cluster_name(cluster: usize) -> String {
    format!("cluster-{cluster}")
}

/// `network-1`.
pub fn network_name(network: usize) -> String {
    format!("network-{network}")
}
