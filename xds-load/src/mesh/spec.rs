//! What a mesh looks like: a small YAML file.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A mesh. Every field has a default, so that a file says only what differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Spec {
    /// Other seeds place pods and choose services in another way; sizes stay.
    pub seed: u64,
    /// Clusters `cluster-0`, `cluster-1`, …, at most 64.
    pub clusters: usize,
    /// Networks `network-0`, …; cluster i is in network i modulo this. Pods of one network reach each other directly.
    pub networks: usize,
    /// Regions `region-0`, …; cluster i is in region i modulo this.
    pub regions: usize,
    /// Zones of each region.
    pub zones: usize,
    /// Nodes of each cluster, spread over the zones.
    pub nodes: usize,
    /// Namespaces `namespace-0`, …, the same in each cluster; service i is in namespace i modulo this.
    pub namespaces: usize,
    /// Services `service-0`, … in all.
    pub services: usize,
    /// Share of the services that every cluster defines; each other one is in one cluster.
    pub everywhere: f64,
    /// Pods of each service, over all its clusters.
    pub endpoints: usize,
    /// The first services may be larger.
    pub large: Large,
    /// Sets of ports; service i has set i modulo their number.
    pub ports: Vec<Vec<Port>>,
    /// Share of services without a virtual address.
    pub headless: f64,
    /// Share of pods with a proxy: those that accept mutual TLS.
    pub sidecars: f64,
    /// Pods `client-0`, … without a service, in all, spread over clusters and namespaces: for the proxies that a test simulates.
    pub clients: usize,
    /// Namespaces (the first ones) that have services of their own: each is a class of proxies that see the same.
    pub scopes: usize,
    /// Share of these namespaces' services that nobody else sees (`networking.istio.io/exportTo: .`); at least one each.
    pub private: f64,
    /// Whether each cluster has an east-west gateway; without one, other networks' pods cannot be reached.
    pub gateways: bool,
    /// Share of services with a DestinationRule: outlier detection and a connect timeout.
    pub rules: f64,
    /// Share of the rules that also have the subsets v1 and v2.
    pub subsets: f64,
    /// Share of namespaces that demand mutual TLS.
    pub strict: f64,
    /// Endpoints of one EndpointSlice, which is one file.
    pub slice: usize,
    /// Istio's MeshConfig.
    pub mesh_config: serde_json::Map<String, serde_json::Value>,
}

/// The first services of a mesh, which may be larger than the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Large {
    /// How many.
    pub services: usize,
    /// Pods of each.
    pub endpoints: usize,
}

/// A port of a service. Istio takes the protocol from the name: `http`, `grpc-web`, `tcp-db`, …
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// The service's port.
    pub port: u16,
    /// The pods' port.
    pub target: u16,
}

/// A field that makes no sense.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{field} of the mesh's spec {reason}; {remedy}")]
pub struct SpecError {
    /// As it is written.
    pub field: &'static str,
    /// What is wrong.
    pub reason: String,
    /// What would be right.
    pub remedy: &'static str,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            seed: 1,
            clusters: 1,
            networks: 1,
            regions: 1,
            zones: 3,
            nodes: 12,
            namespaces: 10,
            services: 100,
            everywhere: 1.0,
            endpoints: 10,
            large: Large::default(),
            ports: vec![vec![Port { name: "http".into(), port: 80, target: 8080 }]],
            headless: 0.0,
            sidecars: 1.0,
            clients: 0,
            scopes: 0,
            private: 0.0,
            gateways: true,
            rules: 0.0,
            subsets: 0.0,
            strict: 0.0,
            slice: 100,
            mesh_config: serde_json::Map::new(),
        }
    }
}

/// Address bits that tell clusters apart.
const MAX_CLUSTERS: usize = 64;

impl Spec {
    /// Says what is wrong with the first field that makes no sense.
    pub fn check(&self) -> Result<(), SpecError> {
        let error = |field, reason: String, remedy| Err(SpecError { field, reason, remedy });
        let at_least_one = [
            ("clusters", self.clusters),
            ("networks", self.networks),
            ("regions", self.regions),
            ("zones", self.zones),
            ("nodes", self.nodes),
            ("namespaces", self.namespaces),
            ("ports", self.ports.len()),
            ("slice", self.slice),
        ];
        if let Some((field, _)) = at_least_one.into_iter().find(|(_, n)| *n == 0) {
            return error(field, "is 0".into(), "write 1 or more");
        }
        if self.clusters > MAX_CLUSTERS {
            return error("clusters", format!("is {}", self.clusters), "write at most 64");
        }
        if self.scopes > self.namespaces {
            let reason = format!("is {}, and there are {} namespaces", self.scopes, self.namespaces);
            return error("scopes", reason, "write at most as many as namespaces");
        }
        let shares = [
            ("everywhere", self.everywhere),
            ("headless", self.headless),
            ("sidecars", self.sidecars),
            ("private", self.private),
            ("rules", self.rules),
            ("subsets", self.subsets),
            ("strict", self.strict),
        ];
        if let Some((field, share)) = shares.into_iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            return error(field, format!("is {share}"), "write a share from 0.0 to 1.0");
        }
        for set in &self.ports {
            let distinct = |of: fn(&Port) -> String| {
                set.iter().map(of).collect::<std::collections::BTreeSet<_>>().len() == set.len()
            };
            if set.is_empty() || !distinct(|p| p.name.clone()) || !distinct(|p| p.port.to_string()) {
                let reason = "has an empty set, or one with a name or number twice".into();
                return error("ports", reason, "give each port of a set its own name and number");
            }
            if set.iter().any(|p| p.port == 0 || p.target == 0 || !is_label(&p.name)) {
                let remedy = "write numbers from 1, and names of at most 15 of a-z, 0-9 and -";
                return error("ports", "has a port 0 or a name that Kubernetes refuses".into(), remedy);
            }
        }
        Ok(())
    }

    /// The network of a cluster.
    pub fn network(&self, cluster: usize) -> usize {
        cluster % self.networks
    }
}

fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=15).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name.chars().any(|c| c.is_ascii_lowercase())
}
