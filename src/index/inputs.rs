//! The objects as the sources sent them, per cluster, with the few reverse look-ups that tell what an object touches.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::model::{
    Change, ClusterId, Labels, Object, ObjectKey,
    change::ClusterState,
    destination_rule::DestinationRule,
    gateway::Gateway,
    kubernetes::{EndpointSlice, Namespace, Node, Pod, Service, ServiceAccount, ServiceType},
    mesh::MeshConfig,
    peer_authentication::PeerAuthentication,
};

/// Label that names a network: on pods, on the system namespace, on gateway Services.
pub const NETWORK_LABEL: &str = "topology.istio.io/network";

/// Namespace and name.
pub type NamespacedName = (Arc<str>, Arc<str>);

/// All objects of all clusters.
#[derive(Debug, Default)]
pub struct Inputs {
    /// By cluster id.
    pub clusters: BTreeMap<ClusterId, ClusterObjects>,
}

/// The objects of one cluster.
#[derive(Debug)]
pub struct ClusterObjects {
    /// What is known about its source.
    pub state: ClusterState,
    /// By name.
    pub namespaces: BTreeMap<Arc<str>, Arc<Namespace>>,
    /// By name.
    pub nodes: HashMap<Arc<str>, Arc<Node>>,
    /// By namespace and name.
    pub service_accounts: BTreeMap<NamespacedName, Arc<ServiceAccount>>,
    /// By namespace and name.
    pub services: BTreeMap<NamespacedName, Arc<Service>>,
    /// By namespace and name.
    pub pods: HashMap<NamespacedName, Arc<Pod>>,
    /// By namespace and service, then by slice name.
    pub slices: BTreeMap<NamespacedName, BTreeMap<Arc<str>, Arc<EndpointSlice>>>,
    /// By namespace and name.
    pub gateways: BTreeMap<NamespacedName, Arc<Gateway>>,
    /// By namespace and name.
    pub destination_rules: BTreeMap<NamespacedName, Arc<DestinationRule>>,
    /// By namespace and name.
    pub peer_authentications: BTreeMap<NamespacedName, Arc<PeerAuthentication>>,
    /// The cluster's own mesh configuration.
    pub mesh: Option<Arc<MeshConfig>>,
    service_of_slice: HashMap<NamespacedName, Arc<str>>,
    services_of_pod: HashMap<NamespacedName, BTreeMap<Arc<str>, u32>>,
    services_of_node: HashMap<Arc<str>, BTreeMap<NamespacedName, u32>>,
}

/// What a batch of changes touched, before anything is derived.
#[derive(Debug, Default)]
pub struct Touched {
    pub mesh: bool,
    pub networks: bool,
    pub rules: bool,
    /// What any proxy belongs to may have changed: Gateways, a cluster's network.
    pub proxies: bool,
    /// Namespaces of changed peer authentications.
    pub peers: BTreeSet<Arc<str>>,
    /// Service definitions, by namespace and name.
    pub services: BTreeSet<NamespacedName>,
    /// Endpoints of a service in one cluster.
    pub endpoints: BTreeSet<(ClusterId, NamespacedName)>,
    /// Pods: cluster, namespace, name.
    pub pods: BTreeSet<(ClusterId, Arc<str>, Arc<str>)>,
}

// === impl Touched ===

impl Touched {
    /// Every table has to be derived again.
    pub fn everything(&mut self, inputs: &Inputs) {
        self.networks = true;
        self.rules = true;
        for (id, cluster) in &inputs.clusters {
            self.services.extend(cluster.services.keys().cloned());
            self.endpoints.extend(cluster.slices.keys().map(|s| (id.clone(), s.clone())));
            self.peers.extend(cluster.peer_authentications.keys().map(|(ns, _)| ns.clone()));
        }
    }

    fn endpoints_of_cluster(&mut self, id: &ClusterId, cluster: &ClusterObjects) {
        self.endpoints.extend(cluster.slices.keys().map(|s| (id.clone(), s.clone())));
    }
}

// === impl Inputs ===

impl Inputs {
    /// The mesh configuration in force.
    pub fn mesh(&self, config_cluster: &ClusterId) -> Arc<MeshConfig> {
        self.clusters.get(config_cluster).and_then(|c| c.mesh.clone()).unwrap_or_default()
    }

    /// Takes in one change; equal objects touch nothing.
    pub fn apply(&mut self, change: Change, config_cluster: &ClusterId, touched: &mut Touched) {
        match change {
            Change::Cluster(id, state) => self.cluster(&id).state = state,
            Change::Upsert(key, object) => {
                let config = key.cluster == *config_cluster;
                self.cluster(&key.cluster).put(&key, Some(object), config, touched);
            }
            Change::Remove(key) => {
                let config = key.cluster == *config_cluster;
                self.cluster(&key.cluster).put(&key, None, config, touched);
            }
        }
    }

    fn cluster(&mut self, id: &ClusterId) -> &mut ClusterObjects {
        self.clusters.entry(id.clone()).or_default()
    }
}

// === impl ClusterObjects ===

impl Default for ClusterObjects {
    fn default() -> Self {
        Self {
            state: ClusterState::Syncing,
            namespaces: BTreeMap::new(),
            nodes: HashMap::new(),
            service_accounts: BTreeMap::new(),
            services: BTreeMap::new(),
            pods: HashMap::new(),
            slices: BTreeMap::new(),
            gateways: BTreeMap::new(),
            destination_rules: BTreeMap::new(),
            peer_authentications: BTreeMap::new(),
            mesh: None,
            service_of_slice: HashMap::new(),
            services_of_pod: HashMap::new(),
            services_of_node: HashMap::new(),
        }
    }
}

/// Stores or removes; tells the old value if that changed anything.
fn swap<K: Ord + Clone, V: PartialEq>(
    map: &mut BTreeMap<K, Arc<V>>,
    key: &K,
    new: Option<Arc<V>>,
) -> Option<Option<Arc<V>>> {
    match new {
        Some(new) if map.get(key) == Some(&new) => None,
        Some(new) => Some(map.insert(key.clone(), new)),
        None => map.remove(key).map(Some),
    }
}

impl ClusterObjects {
    fn put(&mut self, key: &ObjectKey, object: Option<Object>, config: bool, touched: &mut Touched) {
        use crate::model::Kind;
        let id = || key.cluster.clone();
        let name: NamespacedName = (key.namespace.clone(), key.name.clone());
        macro_rules! typed {
            ($variant:ident) => {
                match object {
                    Some(Object::$variant(o)) => Some(o),
                    None => None,
                    // The kind in the key and the object's own are set together by the sources.
                    Some(_) => return,
                }
            };
        }
        match key.kind {
            Kind::Namespace => {
                let new = typed!(Namespace);
                let network = |n: &Option<Arc<Namespace>>| {
                    n.as_ref().and_then(|n| n.meta.labels.get(NETWORK_LABEL).cloned())
                };
                let after = network(&new);
                if let Some(old) = swap(&mut self.namespaces, &key.name, new)
                    && network(&old) != after
                {
                    touched.networks = true;
                    touched.proxies = true;
                    touched.endpoints_of_cluster(&key.cluster, self);
                }
            }
            Kind::Node => {
                let new = typed!(Node);
                if new.as_ref() == self.nodes.get(&key.name) {
                    return;
                }
                match new {
                    Some(node) => drop(self.nodes.insert(key.name.clone(), node)),
                    None => drop(self.nodes.remove(&key.name)),
                }
                touched.networks = true;
                let services = self.services_of_node.get(&key.name).into_iter().flat_map(BTreeMap::keys);
                touched.endpoints.extend(services.map(|s| (id(), s.clone())));
                // Proxies on it take its locality.
                let pods = self.pods.iter().filter(|(_, p)| p.node.as_ref() == Some(&key.name));
                touched.pods.extend(pods.map(|((ns, n), _)| (id(), ns.clone(), n.clone())));
            }
            Kind::ServiceAccount => drop(swap(&mut self.service_accounts, &name, typed!(ServiceAccount))),
            Kind::Service => {
                let new = typed!(Service);
                let is_gateway = |s: &Option<Arc<Service>>| {
                    s.as_ref().is_some_and(|s| s.meta.labels.contains_key(NETWORK_LABEL))
                };
                let after = is_gateway(&new);
                if let Some(old) = swap(&mut self.services, &name, new) {
                    touched.networks |= after || is_gateway(&old);
                    touched.services.insert(name);
                }
            }
            Kind::Pod => {
                let new = typed!(Pod);
                if new.as_ref() == self.pods.get(&name) {
                    return;
                }
                match new {
                    Some(pod) => drop(self.pods.insert(name.clone(), pod)),
                    None => drop(self.pods.remove(&name)),
                }
                let services = self.services_of_pod.get(&name).into_iter().flat_map(BTreeMap::keys);
                touched.endpoints.extend(services.map(|s| (id(), (name.0.clone(), s.clone()))));
                touched.pods.insert((id(), name.0, name.1));
            }
            Kind::EndpointSlice => self.put_slice(name, typed!(EndpointSlice), &key.cluster, touched),
            Kind::MeshConfig => {
                let new = typed!(MeshConfig);
                if self.mesh != new {
                    self.mesh = new;
                    touched.mesh |= config;
                    // Identities carry the trust domain of the endpoint's own cluster.
                    touched.endpoints_of_cluster(&key.cluster, self);
                }
            }
            Kind::Gateway => {
                let changed = swap(&mut self.gateways, &name, typed!(Gateway)).is_some();
                touched.proxies |= changed && config;
            }
            Kind::DestinationRule => {
                let changed = swap(&mut self.destination_rules, &name, typed!(DestinationRule)).is_some();
                touched.rules |= changed && config;
            }
            Kind::PeerAuthentication => {
                let changed =
                    swap(&mut self.peer_authentications, &name, typed!(PeerAuthentication)).is_some();
                if changed && config {
                    touched.peers.insert(name.0);
                }
            }
        }
    }

    fn put_slice(
        &mut self,
        name: NamespacedName,
        new: Option<Arc<EndpointSlice>>,
        id: &ClusterId,
        touched: &mut Touched,
    ) {
        let (namespace, slice_name) = name.clone();
        let old_service = self.service_of_slice.get(&name).cloned();
        let old = old_service.as_ref().and_then(|service| {
            self.slices.get(&(namespace.clone(), service.clone())).and_then(|s| s.get(&slice_name)).cloned()
        });
        if old == new {
            return;
        }
        if let (Some(old), Some(service)) = (&old, old_service) {
            let key = (namespace.clone(), service);
            if let Some(slices) = self.slices.get_mut(&key) {
                slices.remove(&slice_name);
                if slices.is_empty() {
                    self.slices.remove(&key);
                }
            }
            self.service_of_slice.remove(&name);
            self.count_slice(old, &key, false);
            touched.endpoints.insert((id.clone(), key));
        }
        if let Some(new) = new {
            let key = (namespace, new.service.clone());
            self.service_of_slice.insert(name, new.service.clone());
            self.count_slice(&new, &key, true);
            self.slices.entry(key.clone()).or_default().insert(slice_name, new);
            touched.endpoints.insert((id.clone(), key));
        }
    }

    /// Keeps the look-ups from pods and nodes to services.
    fn count_slice(&mut self, slice: &EndpointSlice, key: &NamespacedName, add: bool) {
        for endpoint in &slice.endpoints {
            if let Some(pod) = &endpoint.pod {
                let of_pod = self.services_of_pod.entry((key.0.clone(), pod.clone())).or_default();
                count(of_pod, &key.1, add);
                if of_pod.is_empty() {
                    self.services_of_pod.remove(&(key.0.clone(), pod.clone()));
                }
            }
            if let Some(node) = &endpoint.node {
                let of_node = self.services_of_node.entry(node.clone()).or_default();
                count(of_node, key, add);
                if of_node.is_empty() {
                    self.services_of_node.remove(node);
                }
            }
        }
    }

    /// The network label of the system namespace.
    pub fn namespace_network(&self, root_namespace: &str) -> Option<&Arc<str>> {
        self.namespaces.get(root_namespace).and_then(|n| n.meta.labels.get(NETWORK_LABEL))
    }

    /// Services of a namespace whose selector matches these labels.
    pub fn services_selecting<'a>(
        &'a self,
        namespace: &Arc<str>,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let from: NamespacedName = (namespace.clone(), "".into());
        let namespace = namespace.clone();
        self.services
            .range(from..)
            .take_while(move |((ns, _), _)| *ns == namespace)
            .map(|(_, s)| s)
            .filter(|s| !matches!(s.kind, ServiceType::ExternalName(_)))
            .filter(|s| !s.selector.is_empty() && crate::model::name::selects(&s.selector, labels))
    }
}

fn count<K: Ord + Clone>(counts: &mut BTreeMap<K, u32>, key: &K, add: bool) {
    if add {
        *counts.entry(key.clone()).or_default() += 1;
    } else if let Some(n) = counts.get_mut(key) {
        *n -= 1;
        if *n == 0 {
            counts.remove(key);
        }
    }
}
