//! The objects as the sources sent them, per cluster, with the few reverse look-ups that tell what an object touches.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use foldhash::{HashMap, HashSet};

use super::{selectors::Selectors, slices::Slices};
use crate::model::{
    Change, ClusterId, Labels, Object, ObjectKey,
    change::ClusterState,
    destination_rule::DestinationRule,
    gateway::Gateway,
    kubernetes::{EndpointSlice, Meta, Namespace, Node, Pod, Service, ServiceAccount, ServiceType},
    locality::Locality,
    mcs::{ServiceExport, ServiceImport},
    mesh::MeshConfig,
    peer_authentication::PeerAuthentication,
    workload::{NETWORK_LABEL, REGION_LABEL, SUBZONE_LABEL, ZONE_LABEL},
};

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
    /// By namespace, then by name.
    pub pods: HashMap<Arc<str>, HashMap<Arc<str>, Arc<Pod>>>,
    /// By namespace and name.
    pub slices: Slices,
    /// By namespace and name.
    pub gateways: BTreeMap<NamespacedName, Arc<Gateway>>,
    /// By namespace and name.
    pub destination_rules: BTreeMap<NamespacedName, Arc<DestinationRule>>,
    /// By namespace and name.
    pub peer_authentications: BTreeMap<NamespacedName, Arc<PeerAuthentication>>,
    /// By namespace and name.
    pub exports: BTreeMap<NamespacedName, Arc<ServiceExport>>,
    /// By namespace and name.
    pub imports: BTreeMap<NamespacedName, Arc<ServiceImport>>,
    /// The cluster's own mesh configuration.
    pub mesh: Option<Arc<MeshConfig>>,
    /// By node: what its labels say.
    localities: HashMap<Arc<str>, Locality>,
    /// [`Self::services`] by what they select.
    selectors: Selectors,
}

/// A slice, as a part of a service in one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SliceOf {
    pub cluster: ClusterId,
    /// Namespace and name.
    pub service: NamespacedName,
    /// The slice's name.
    pub slice: Arc<str>,
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
    /// Slices that changed, came or went.
    pub slices: HashSet<SliceOf>,
    /// Slices of which a pod, a node or what is known of their cluster changed: who is behind each row is asked again.
    pub joins: HashSet<SliceOf>,
    /// Nodes whose localities changed.
    pub nodes: BTreeMap<ClusterId, HashSet<Arc<str>>>,
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
            self.joins.extend(cluster.slices.iter().map(|s| slice_of(id, s)));
            self.peers.extend(cluster.peer_authentications.keys().map(|(ns, _)| ns.clone()));
        }
    }

    fn endpoints_of_cluster(&mut self, id: &ClusterId, cluster: &ClusterObjects) {
        self.joins.extend(cluster.slices.iter().map(|s| slice_of(id, s)));
    }

    /// Follows nodes to the pods and endpoints on them; one look at all of a cluster for however many nodes of it.
    pub fn follow_nodes(&mut self, inputs: &Inputs) {
        for (id, nodes) in std::mem::take(&mut self.nodes) {
            let Some(cluster) = inputs.clusters.get(&id) else { continue };
            self.joins.extend(cluster.slices.on_nodes(&nodes).map(|s| slice_of(&id, s)));
            let on_one = |pod: &Pod| pod.node.as_ref().is_some_and(|node| nodes.contains(node));
            for pod in cluster.pods.values().flat_map(HashMap::values).filter(|pod| on_one(pod)) {
                let Meta { namespace, name, .. } = &pod.meta;
                let slices = cluster.slices.of_pod(namespace, name);
                self.joins.extend(slices.map(|s| slice_of(&id, s)));
                // Proxies on it take its locality.
                self.pods.insert((id.clone(), namespace.clone(), name.clone()));
            }
        }
    }
}

fn slice_of(id: &ClusterId, slice: &EndpointSlice) -> SliceOf {
    SliceOf {
        cluster: id.clone(),
        service: (slice.namespace.clone(), slice.service.clone()),
        slice: slice.name.clone(),
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
            Change::Forget(id) => {
                let Some(cluster) = self.clusters.get_mut(&id) else { return };
                for key in cluster.keys(&id) {
                    cluster.put(&key, None, id == *config_cluster, touched);
                }
                self.clusters.remove(&id);
            }
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
            nodes: HashMap::default(),
            service_accounts: BTreeMap::new(),
            services: BTreeMap::new(),
            pods: HashMap::default(),
            slices: Slices::default(),
            gateways: BTreeMap::new(),
            destination_rules: BTreeMap::new(),
            peer_authentications: BTreeMap::new(),
            exports: BTreeMap::new(),
            imports: BTreeMap::new(),
            mesh: None,
            localities: HashMap::default(),
            selectors: Selectors::default(),
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
                let locality = new.as_deref().map(locality_of_node);
                if self.localities.get(&key.name) != locality.as_ref() {
                    touched.nodes.entry(id()).or_default().insert(key.name.clone());
                }
                match locality {
                    Some(locality) => drop(self.localities.insert(key.name.clone(), locality)),
                    None => drop(self.localities.remove(&key.name)),
                }
                // Gateways of type NodePort are entered at the addresses of nodes.
                let addressed = |node: Option<&Arc<Node>>| node.is_some_and(|n| !n.external_ips.is_empty());
                touched.networks |= addressed(new.as_ref()) || addressed(self.nodes.get(&key.name));
                match new {
                    Some(node) => drop(self.nodes.insert(key.name.clone(), node)),
                    None => drop(self.nodes.remove(&key.name)),
                }
            }
            Kind::ServiceAccount => drop(swap(&mut self.service_accounts, &name, typed!(ServiceAccount))),
            Kind::Service => {
                let new = typed!(Service);
                let is_gateway = |s: &Option<Arc<Service>>| {
                    s.as_ref().is_some_and(|s| s.meta.labels.contains_key(NETWORK_LABEL))
                };
                let after = is_gateway(&new);
                if let Some(old) = swap(&mut self.services, &name, new) {
                    self.selectors
                        .replace(old.as_deref(), self.services.get(&name).map(|service| &**service));
                    touched.networks |= after || is_gateway(&old);
                    touched.services.insert(name);
                }
            }
            Kind::Pod => {
                let new = typed!(Pod);
                if new.as_ref() == self.pod(&name.0, &name.1) {
                    return;
                }
                match new {
                    Some(pod) => {
                        drop(self.pods.entry(name.0.clone()).or_default().insert(name.1.clone(), pod))
                    }
                    None => {
                        let others = self.pods.get_mut(&name.0).is_some_and(|pods| {
                            pods.remove(&name.1);
                            !pods.is_empty()
                        });
                        if !others {
                            self.pods.remove(&name.0);
                        }
                    }
                }
                let slices = self.slices.of_pod(&name.0, &name.1);
                touched.joins.extend(slices.map(|s| slice_of(&key.cluster, s)));
                touched.pods.insert((id(), name.0, name.1));
            }
            Kind::EndpointSlice => {
                let new = typed!(EndpointSlice);
                if let Some(old) = self.slices.put(&name, new.clone()) {
                    let both = [old, new].into_iter().flatten();
                    touched.slices.extend(both.map(|s| slice_of(&key.cluster, &s)));
                }
            }
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
            Kind::ServiceExport => {
                let new = typed!(ServiceExport);
                let exists = new.is_some();
                if swap(&mut self.exports, &name, new).is_some_and(|old| old.is_some() != exists) {
                    touched.services.insert(name);
                }
            }
            Kind::ServiceImport => {
                if swap(&mut self.imports, &name, typed!(ServiceImport)).is_some() {
                    touched.services.insert(name);
                }
            }
            // Credentials are nothing to derive from: sources keep them apart.
            Kind::RemoteSecret => {}
        }
    }

    /// All of its objects.
    fn keys(&self, id: &ClusterId) -> Vec<ObjectKey> {
        use crate::model::Kind;
        let mut keys = Vec::new();
        let mut add = |kind, namespace: &Arc<str>, name: &Arc<str>| {
            let (cluster, namespace, name) = (id.clone(), namespace.clone(), name.clone());
            keys.push(ObjectKey { cluster, kind, namespace, name });
        };
        let nowhere = Arc::from("");
        self.service_accounts.keys().for_each(|(ns, name)| add(Kind::ServiceAccount, ns, name));
        self.services.keys().for_each(|(ns, name)| add(Kind::Service, ns, name));
        self.slices.iter().for_each(|s| add(Kind::EndpointSlice, &s.namespace, &s.name));
        self.pods.iter().for_each(|(ns, pods)| pods.keys().for_each(|name| add(Kind::Pod, ns, name)));
        self.gateways.keys().for_each(|(ns, name)| add(Kind::Gateway, ns, name));
        self.destination_rules.keys().for_each(|(ns, name)| add(Kind::DestinationRule, ns, name));
        self.peer_authentications.keys().for_each(|(ns, name)| add(Kind::PeerAuthentication, ns, name));
        self.exports.keys().for_each(|(ns, name)| add(Kind::ServiceExport, ns, name));
        self.imports.keys().for_each(|(ns, name)| add(Kind::ServiceImport, ns, name));
        self.nodes.keys().for_each(|name| add(Kind::Node, &nowhere, name));
        self.namespaces.keys().for_each(|name| add(Kind::Namespace, &nowhere, name));
        add(Kind::MeshConfig, &nowhere, &nowhere);
        keys
    }

    /// A pod.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        self.pods.get(namespace)?.get(name)
    }

    /// What a node's labels say of its place.
    pub fn locality_of_node(&self, node: &str) -> Option<&Locality> {
        self.localities.get(node)
    }

    /// The network label of the system namespace.
    pub fn namespace_network(&self, root_namespace: &str) -> Option<&Arc<str>> {
        self.namespaces.get(root_namespace).and_then(|n| n.meta.labels.get(NETWORK_LABEL))
    }

    /// Services of a namespace whose selector matches these labels.
    pub fn services_selecting<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let candidates = self.selectors.candidates(namespace, labels);
        candidates
            .filter_map(|name| self.services.get(&(namespace.clone(), name.clone())))
            .filter(|s| !matches!(s.kind, ServiceType::ExternalName(_)))
            .filter(|s| crate::model::name::selects(&s.selector, labels))
    }
}

fn locality_of_node(node: &Node) -> Locality {
    let label = |names: &[&str]| {
        names.iter().find_map(|n| node.meta.labels.get(*n)).cloned().unwrap_or_else(|| "".into())
    };
    Locality {
        region: label(&[REGION_LABEL, "failure-domain.beta.kubernetes.io/region"]),
        zone: label(&[ZONE_LABEL, "failure-domain.beta.kubernetes.io/zone"]),
        subzone: label(&[SUBZONE_LABEL]),
    }
}
