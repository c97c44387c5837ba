//! Derived tables: what the objects of all clusters mean together. Owned by the pipeline, its only writer; builders
//! read it.
//!
//! ```text
//! Change -> inputs (objects per cluster) -> services, endpoints, networks, rules, peers -> Delta (what to build again)
//! ```
//!
//! Each table is updated by key: the work of an update is proportional to what changed.

pub mod delta;
mod endpoints;
mod imports;
mod inputs;
mod interner;
mod names;
pub mod networks;
mod peers;
mod ports;
mod rules;
mod scope;
mod selectors;
mod services;
mod slices;
mod workloads;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

pub use delta::Delta;
use foldhash::HashMap;
pub use inputs::{ClusterObjects, Inputs};
pub use networks::{Addresses, Networks};
pub use rules::MergedRule;
pub use scope::Scope;
pub use workloads::Target;

use crate::model::{
    Change, ClusterId, NetworkId,
    change::ClusterState,
    endpoint::{NetworkGateway, ServiceEndpoints},
    gateway::Gateway,
    mcs::Mcs,
    mesh::MeshConfig,
    peer_authentication::MtlsMode,
    service::{ExportTo, Service, ServiceKey},
    staleness::Treatment,
    workload::Workload,
};

/// What the operator chose at start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster whose Istio objects and mesh configuration are in force.
    pub config_cluster: ClusterId,
    /// Services with endpoints in more than one locality fail over even without a DestinationRule; off gives Istio's
    /// defaults to the letter.
    pub failover_by_default: bool,
    /// Suffix of service hosts.
    pub domain: Arc<str>,
    /// What of the Multi-Cluster Services API is in force.
    pub mcs: Mcs,
}

/// The derived tables.
#[derive(Debug)]
pub struct Index {
    options: Options,
    mesh: Arc<MeshConfig>,
    inputs: Inputs,
    services: BTreeMap<ServiceKey, Arc<Service>>,
    by_port: BTreeMap<u16, ports::OnPort>,
    names: names::Names,
    endpoints: HashMap<ServiceKey, Arc<ServiceEndpoints>>,
    /// Hosts of the set of clusters, by the services whose endpoints they have.
    imported: imports::Imported,
    /// What endpoints share.
    workloads: interner::Workloads,
    networks: Networks,
    rules: rules::Rules,
    peers: peers::Peers,
    counts: scope::Counts,
    discriminators: scope::Discriminators,
    /// Clusters whose endpoints are not simply kept.
    treatments: BTreeMap<ClusterId, Treatment>,
    /// Gateways that are proven to be dead.
    dead_gateways: Arc<BTreeSet<SocketAddr>>,
    /// What the host names of gateways mean.
    gateway_addresses: Arc<Addresses>,
    no_endpoints: ServiceEndpoints,
}

impl Index {
    /// Empty tables.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            mesh: Arc::default(),
            inputs: Inputs::default(),
            services: BTreeMap::new(),
            by_port: BTreeMap::new(),
            names: names::Names::default(),
            endpoints: HashMap::default(),
            imported: imports::Imported::default(),
            workloads: interner::Workloads::default(),
            networks: Networks::default(),
            rules: rules::Rules::default(),
            peers: peers::Peers::default(),
            counts: scope::Counts::default(),
            discriminators: scope::Discriminators::default(),
            treatments: BTreeMap::new(),
            dead_gateways: Arc::default(),
            gateway_addresses: Arc::default(),
            no_endpoints: ServiceEndpoints::default(),
        }
    }

    /// Takes in a batch of changes and tells what has to be built again.
    pub fn update(&mut self, changes: impl IntoIterator<Item = Change>) -> Delta {
        let mut touched = inputs::Touched::default();
        for change in changes {
            if let Change::Forget(id) = &change {
                self.treatments.remove(id);
            }
            self.inputs.apply(change, &self.options.config_cluster, &mut touched);
        }
        touched.follow_nodes(&self.inputs);
        let mut delta = Delta::default();

        if touched.mesh {
            let mesh = self.inputs.mesh(&self.options.config_cluster);
            if mesh != self.mesh {
                self.mesh = mesh;
                delta.everything = true;
                // Export defaults, cluster-local hosts and trust domains are part of the tables below.
                touched.everything(&self.inputs);
            }
        }
        if touched.rules {
            self.rules.rebuild(&self.inputs, &self.options, &self.mesh, &self.services, &mut delta);
        }
        if !touched.peers.is_empty() {
            self.peers.rebuild(
                &self.inputs,
                &self.options,
                &self.mesh,
                &touched.peers,
                &self.services,
                &mut delta,
            );
        }
        if touched.networks {
            let networks = Networks::build(&self.inputs, &self.mesh, &self.gateway_addresses);
            if networks != self.networks {
                self.networks = networks;
                delta.everything = true;
            }
        }
        for name in &touched.services {
            self.update_service(name, &mut delta);
        }
        touched.slices.retain(|slice| !touched.joins.contains(slice));
        for slice in &touched.slices {
            self.update_slice(slice, false, &mut delta);
        }
        for slice in &touched.joins {
            self.update_slice(slice, true, &mut delta);
        }
        delta.proxies.pods.extend(touched.pods);
        delta.proxies.all |= touched.proxies;
        delta.proxies.all |= delta.everything;
        // Which attributes of a proxy matter may itself have changed.
        if std::mem::take(&mut self.counts.moved) || touched.rules || delta.everything {
            let discriminators = self.discriminate();
            delta.proxies.all |= self.discriminators != discriminators;
            self.discriminators = discriminators;
        }
        delta
    }

    /// Does something to the endpoints of clusters, and tells what has to be built again: assignments that have some of them.
    pub fn treat(&mut self, treatments: impl IntoIterator<Item = (ClusterId, Treatment)>) -> Delta {
        let mut delta = Delta::default();
        for (id, treatment) in treatments {
            let before = self.treatments.insert(id.clone(), treatment).unwrap_or_default();
            if treatment == Treatment::Keep {
                self.treatments.remove(&id);
            }
            if let Some(cluster) = self.inputs.clusters.get(&id).filter(|_| before != treatment) {
                let services = cluster.slices.iter().map(|s| (s.namespace.clone(), s.service.clone()));
                let keys: Vec<_> = services.map(|name| self.service_key(&name)).collect();
                delta.endpoints.extend(keys.iter().filter_map(|key| self.imported.host_of(key)).cloned());
                delta.endpoints.extend(keys);
            }
        }
        delta
    }

    /// Takes in which gateways are dead, and tells what has to be built again: assignments of services with endpoints in the
    /// networks of those that died or came back.
    pub fn set_dead_gateways(&mut self, dead: Arc<BTreeSet<SocketAddr>>) -> Delta {
        let before = std::mem::replace(&mut self.dead_gateways, dead);
        let changed: BTreeSet<_> = before.symmetric_difference(&self.dead_gateways).copied().collect();
        let of_changed = |gateway: &&NetworkGateway| gateway.socket().is_some_and(|at| changed.contains(&at));
        let networks =
            self.networks.iter().filter(of_changed).map(|gateway| gateway.network.clone()).collect();
        Delta { endpoints: self.services_in(&networks), ..Delta::default() }
    }

    /// Takes in what the host names of gateways mean, and tells what has to be built again: assignments of services with
    /// endpoints in networks that are entered in another way now.
    pub fn set_gateway_addresses(&mut self, addresses: Arc<Addresses>) -> Delta {
        self.gateway_addresses = addresses;
        let networks = Networks::build(&self.inputs, &self.mesh, &self.gateway_addresses);
        let before = std::mem::replace(&mut self.networks, networks);
        let changed = self.networks.changed_since(&before);
        Delta { endpoints: self.services_in(&changed), ..Delta::default() }
    }

    /// Services with endpoints in some of these networks.
    fn services_in(&self, networks: &BTreeSet<NetworkId>) -> BTreeSet<ServiceKey> {
        let is_there = |endpoints: &ServiceEndpoints| {
            let mut workloads = endpoints.shards().flat_map(|(_, shard)| shard.workloads());
            workloads.any(|workload| networks.contains(&workload.network))
        };
        if networks.is_empty() {
            return BTreeSet::new();
        }
        let there = self.endpoints.iter().filter(|(_, endpoints)| is_there(endpoints));
        // A host of the set of clusters has the endpoints of its service.
        there.flat_map(|(key, _)| [Some(key), self.imported.host_of(key)]).flatten().cloned().collect()
    }

    // === what builders and views read ===

    /// Whether a gateway is proven to be dead.
    pub fn is_dead_gateway(&self, at: &SocketAddr) -> bool {
        self.dead_gateways.contains(at)
    }

    /// What is done to the endpoints of a cluster.
    pub fn treatment(&self, cluster: &ClusterId) -> Treatment {
        self.treatments.get(cluster).copied().unwrap_or_default()
    }

    /// What the operator chose.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Mesh-wide settings.
    pub fn mesh(&self) -> &Arc<MeshConfig> {
        &self.mesh
    }

    /// The objects behind the tables.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// The clusters and what is known about each.
    pub fn clusters(&self) -> impl Iterator<Item = (&ClusterId, &ClusterState)> {
        self.inputs.clusters.iter().map(|(id, objects)| (id, &objects.state))
    }

    /// A service.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// Every service, by host.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// Whether a scope sees a service.
    pub fn sees(&self, scope: &Scope, service: &Service) -> bool {
        match scope.namespace() {
            Some(namespace) => service.export_to.includes(namespace),
            None => service.export_to == ExportTo::Public,
        }
    }

    /// The services that a scope sees, by host.
    pub fn visible(&self, scope: &Scope) -> Vec<&Arc<Service>> {
        self.services.values().filter(|s| self.sees(scope, s)).collect()
    }

    /// A service's endpoints; those of a host of the set of clusters are its service's.
    pub fn endpoints(&self, key: &ServiceKey) -> &ServiceEndpoints {
        let key = self.imported.service_of(key).unwrap_or(key);
        self.endpoints.get(key).map_or(&self.no_endpoints, |e| e)
    }

    /// Every service's endpoints, in no order.
    pub fn all_endpoints(&self) -> impl Iterator<Item = (&ServiceKey, &Arc<ServiceEndpoints>)> {
        self.endpoints.iter()
    }

    /// Whether a service is, or can be expected to be, in more than one place: its endpoints are in several localities, or
    /// several clusters define it. The latter holds on while a cluster has no endpoints, so that clusters and routes
    /// do not change in the moment of a failover.
    pub fn spans_localities(&self, service: &Service) -> bool {
        service.sources.len() > 1 || self.endpoints(&service.key).spans_localities()
    }

    /// How networks are entered.
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// The destination rule that clients in `scope` use for a service.
    pub fn rule(&self, scope: &Scope, service: &Service) -> Option<&MergedRule> {
        self.rules.lookup(scope, service, &self.mesh.root_namespace)
    }

    /// What a namespace's services accept, as clients see it without knowing the workload.
    pub fn service_mtls(&self, namespace: &str) -> MtlsMode {
        self.peers.namespace(namespace)
    }

    /// What a workload accepts on one of its ports.
    pub fn workload_mtls(&self, workload: &Workload, port: u16) -> MtlsMode {
        self.peers.workload(&workload.namespace, |name| workload.label(name)).mode(port)
    }

    /// The Gateways of the config cluster, oldest first.
    pub fn gateways(&self) -> Vec<&Arc<Gateway>> {
        let mut found: Vec<_> = self
            .inputs
            .clusters
            .get(&self.options.config_cluster)
            .map(|c| c.gateways.values().collect())
            .unwrap_or_default();
        found.sort_by_key(|g| (g.meta.created, g.meta.namespace.clone(), g.meta.name.clone()));
        found
    }
}
