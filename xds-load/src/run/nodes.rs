//! Who the simulated proxies are.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::scenario::Nodes;
use crate::{
    mesh::Mesh,
    wire::node::{Metadata, Node},
};

/// One proxy, before it is a message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub kind: String,
    pub namespace: String,
    pub service_account: String,
    /// The cluster's id.
    pub cluster: String,
    pub network: String,
    pub locality: [String; 3],
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
struct Pod {
    name: String,
    address: Ipv4Addr,
    /// The name of the node that it runs on.
    node: String,
    identity: Identity,
}

/// All proxies of a run, made one by one when they are needed.
#[derive(Clone, Debug)]
pub struct Roster {
    nodes: Nodes,
    /// Pods of a mesh, if there is one.
    pods: Vec<Pod>,
    proxies: usize,
}

impl Roster {
    /// `proxies` of them; pods of the mesh, if it is given, again and again if there are not enough.
    pub fn new(nodes: Nodes, mesh: Option<&Mesh>, proxies: usize) -> Self {
        let pods = mesh.map(|mesh| pods(mesh, proxies)).unwrap_or_default();
        Self { nodes, pods, proxies }
    }

    /// The `index`-th proxy's shape: two proxies with the same one must get the same.
    pub fn identity(&self, index: usize) -> Identity {
        if let Some(pod) = self.pod(index) {
            return pod.identity.clone();
        }
        let Nodes { kind, gateways, namespaces, clusters, networks, localities, labels, .. } = &self.nodes;
        let mut rest = index;
        let mut pick = |from: &[String]| -> (usize, String) {
            let at = rest % from.len().max(1);
            rest /= from.len().max(1);
            (at, from.get(at).cloned().unwrap_or_default())
        };
        let (_, namespace) = pick(namespaces);
        let (cluster_at, cluster) = pick(clusters);
        let (_, locality) = pick(localities);
        let (_, labels) = pick(labels);
        let mut parts = locality.split('/').map(str::to_owned);
        let is_gateway = index >= self.proxies.saturating_sub(*gateways);
        Identity {
            kind: if is_gateway { "router".into() } else { kind.clone() },
            namespace,
            service_account: self.nodes.service_account.clone(),
            cluster,
            network: networks.get(cluster_at).or(networks.last()).cloned().unwrap_or_default(),
            locality: std::array::from_fn(|_| parts.next().unwrap_or_default()),
            labels: pairs(&labels),
        }
    }

    /// The `index`-th proxy's node.
    pub fn node(&self, index: usize) -> Node {
        let identity = self.identity(index);
        let pod = self.pod(index);
        let (name, ip) = match pod {
            // A pod that is used again is another one with the same labels.
            Some(pod) if index < self.pods.len() => (pod.name.clone(), pod.address),
            Some(pod) => (format!("{}-{index}", pod.name), self.address(index)),
            None => (format!("proxy-{index}"), self.address(index)),
        };
        let Identity { kind, namespace, service_account, cluster, network, locality, labels } = &identity;
        let app = labels.get("app").cloned().unwrap_or_else(|| name.clone());
        let mut metadata = BTreeMap::from([
            ("NAME".to_owned(), Metadata::Text(name.clone())),
            ("NAMESPACE".to_owned(), namespace.as_str().into()),
            ("SERVICE_ACCOUNT".to_owned(), service_account.as_str().into()),
            ("CLUSTER_ID".to_owned(), cluster.as_str().into()),
            ("MESH_ID".to_owned(), self.nodes.trust_domain.as_str().into()),
            ("INSTANCE_IPS".to_owned(), Metadata::Text(ip.to_string())),
            ("LABELS".to_owned(), text_struct(labels)),
        ]);
        for (key, value) in [("NETWORK", network), ("NODE_NAME", pod.map_or(&String::new(), |pod| &pod.node))]
        {
            if !value.is_empty() {
                metadata.insert(key.to_owned(), value.as_str().into());
            }
        }
        if kind == "sidecar" {
            metadata.insert("INTERCEPTION_MODE".to_owned(), "REDIRECT".into());
        }
        if !self.nodes.istio_version.is_empty() {
            metadata.insert("ISTIO_VERSION".to_owned(), self.nodes.istio_version.as_str().into());
            let config = BTreeMap::from([("serviceCluster".to_owned(), app.clone())]);
            metadata.insert("PROXY_CONFIG".to_owned(), text_struct(&config));
        }
        let more = self.nodes.metadata.iter().flat_map(|pair| pairs(pair));
        metadata.extend(more.map(|(key, value)| (key, Metadata::Text(value))));
        Node {
            id: format!("{kind}~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local"),
            cluster: format!("{app}.{namespace}"),
            metadata,
            locality: locality.clone(),
        }
    }

    fn pod(&self, index: usize) -> Option<&Pod> {
        self.pods.get(index % self.pods.len().max(1))
    }

    fn address(&self, index: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.nodes.ip.to_bits().wrapping_add(index as u32))
    }
}

fn pods(mesh: &Mesh, proxies: usize) -> Vec<Pod> {
    let spec = mesh.spec();
    let identity = |proxy: &crate::mesh::Proxy| {
        let region = format!("region-{}", proxy.cluster % spec.regions);
        let zone = format!("{region}-{}", proxy.node % spec.zones);
        Identity {
            kind: "sidecar".into(),
            namespace: proxy.namespace.to_string(),
            service_account: proxy.service_account.to_string(),
            cluster: format!("cluster-{}", proxy.cluster),
            network: format!("network-{}", spec.network(proxy.cluster)),
            locality: [region, zone, String::new()],
            labels: BTreeMap::from([("app".to_owned(), proxy.app.to_string())]),
        }
    };
    let pod = |proxy: crate::mesh::Proxy| Pod {
        name: proxy.name.to_string(),
        address: proxy.address,
        node: format!("node-{}", proxy.node),
        identity: identity(&proxy),
    };
    mesh.proxies().take(proxies).map(pod).collect()
}

/// `a=1,b=2`
fn pairs(text: &str) -> BTreeMap<String, String> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key.trim().to_owned(), value.trim().to_owned())
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

fn text_struct(fields: &BTreeMap<String, String>) -> Metadata {
    Metadata::Struct(fields.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Nodes, Roster};
    use crate::mesh::{Mesh, Spec};

    #[test]
    fn proxies_are_all_combinations() {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let nodes = Nodes {
            namespaces: list(&["a", "b"]),
            clusters: list(&["east", "west"]),
            networks: list(&["n1", "n2"]),
            localities: list(&["r1/z1", "r1/z2/s"]),
            gateways: 1,
            ..Nodes::default()
        };
        let roster = Roster::new(nodes, None, 9);
        let shapes: BTreeSet<_> = (0..8).map(|index| roster.identity(index)).collect();
        assert_eq!(shapes.len(), 8);
        let seventh = roster.identity(7);
        assert_eq!((&*seventh.cluster, &*seventh.network), ("west", "n2"));
        assert_eq!(seventh.locality, ["r1", "z2", "s"]);
        assert_eq!(roster.identity(8).kind, "router");
        assert_eq!(roster.node(1).id, "sidecar~10.240.0.2~proxy-1.b~b.svc.cluster.local");
    }

    #[test]
    fn pods_of_a_mesh_are_proxies() {
        let mesh = Mesh::generate(Spec { services: 2, endpoints: 2, ..Spec::default() }).unwrap();
        let roster = Roster::new(Nodes::default(), Some(&mesh), 6);
        assert!(roster.node(0).id.contains(".namespace-"), "{}", roster.node(0).id);
        let ids: BTreeSet<_> = (0..6).map(|index| roster.node(index).id).collect();
        assert_eq!(ids.len(), 6, "no two proxies are the same one");
    }
}
