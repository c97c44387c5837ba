//! From a spec to a mesh.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    address::Pool,
    seed,
    spec::{Port, Spec, SpecError},
    world::{Backing, GATEWAY, GATEWAY_PORT, Mesh, Proxy, ROOT_NAMESPACE, Rule, Service},
};

/// Milliseconds: what a rule says before anything changes.
const CONNECT_TIMEOUT: u32 = 1_000;

impl Mesh {
    /// The mesh that a spec describes.
    pub fn generate(spec: Spec) -> Result<Self, SpecError> {
        spec.check()?;
        let pools = |of: fn(usize, usize) -> Pool| (0..spec.clusters).map(|c| of(c, spec.clusters)).collect();
        let mut mesh = Self {
            pods: pools(Pool::pods),
            addresses: pools(Pool::services),
            away: vec![false; spec.clusters],
            services: Vec::with_capacity(spec.services),
            gateway: None,
            clients: Vec::with_capacity(spec.clients),
            spec: Arc::new(spec),
        };
        mesh.gateway = mesh.spec.gateways.then(|| mesh.new_gateway());
        for index in 0..mesh.spec.clients {
            let client = mesh.new_client(index);
            mesh.clients.push(client);
        }
        for index in 0..mesh.spec.services {
            let service = mesh.new_service(index, true);
            mesh.services.push(Some(service));
        }
        for (pods, addresses) in mesh.pods.iter().zip(&mesh.addresses) {
            pods.check("endpoints")?;
            addresses.check("services")?;
        }
        Ok(mesh)
    }

    /// The service with this number, with pods. One that comes later (`first` is false) is for everybody and without extras, so
    /// that everybody sees that it is there.
    pub(super) fn new_service(&mut self, index: usize, first: bool) -> Service {
        let spec = self.spec.clone();
        let n = index as u64;
        let chosen = |what, share| seed::chosen(spec.seed, what, n, share);
        let namespace = index % spec.namespaces;
        let large = index < spec.large.services;
        let endpoints = if large { spec.large.endpoints } else { spec.endpoints };
        let headless = first && chosen("headless", spec.headless);
        let clusters: Vec<_> = if !first || chosen("everywhere", spec.everywhere) {
            (0..spec.clusters).collect()
        } else {
            vec![seed::below(spec.seed, "home", n, spec.clusters)]
        };
        let mut service = Service {
            name: format!("service-{index}").into(),
            namespace: format!("namespace-{namespace}").into(),
            ports: spec.ports[index % spec.ports.len()].clone(),
            headless,
            private: first && is_private(&spec, index),
            rule: (first && chosen("rule", spec.rules))
                .then(|| Rule { connect_timeout: CONNECT_TIMEOUT, subsets: chosen("subsets", spec.subsets) }),
            backing: clusters
                .iter()
                .map(|c| {
                    let address = (!headless).then(|| self.addresses[*c].next());
                    (*c, Backing { address, pods: Vec::new() })
                })
                .collect(),
            next_pod: 0,
        };
        for i in 0..endpoints {
            let cluster = clusters[i % clusters.len()];
            let pod = Self::new_pod(&spec, &mut self.pods[cluster], index, service.next_pod, cluster);
            service.next_pod += 1;
            if let Some(backing) = service.backing.get_mut(&cluster) {
                backing.pods.push(pod);
            }
        }
        service
    }

    fn new_gateway(&mut self) -> Service {
        let port = |name: &str, port| Port { name: name.into(), port, target: port };
        let spec = self.spec.clone();
        let mut backing = BTreeMap::new();
        for cluster in 0..spec.clusters {
            let mut pod = Self::new_pod(&spec, &mut self.pods[cluster], usize::MAX >> 33, 0, cluster);
            pod.sidecar = false;
            backing
                .insert(cluster, Backing { address: Some(self.addresses[cluster].next()), pods: vec![pod] });
        }
        Service {
            name: GATEWAY.into(),
            namespace: ROOT_NAMESPACE.into(),
            ports: vec![port("status-port", 15021), port("tls", GATEWAY_PORT)],
            headless: false,
            private: false,
            rule: None,
            backing,
            next_pod: 1,
        }
    }

    fn new_client(&mut self, index: usize) -> Proxy {
        let spec = &self.spec;
        let cluster = index % spec.clusters;
        let namespace = index / spec.clusters % spec.namespaces;
        Proxy {
            name: format!("client-{index}").into(),
            namespace: format!("namespace-{namespace}").into(),
            cluster,
            address: self.pods[cluster].next(),
            service_account: "client".into(),
            app: "client".into(),
            node: seed::below(spec.seed, "client", index as u64, spec.nodes),
        }
    }
}

/// The first namespaces keep some of their services to themselves, at least the first one of each.
fn is_private(spec: &Spec, index: usize) -> bool {
    let (namespace, nth) = (index % spec.namespaces, index / spec.namespaces);
    namespace < spec.scopes && (nth == 0 || seed::chosen(spec.seed, "private", nth as u64, spec.private))
}
