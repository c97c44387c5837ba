//! Networks and the gateways by which they are entered (Istio's rules: labelled Services of every cluster, and
//! `meshNetworks`).

use std::collections::{BTreeMap, BTreeSet};

use super::inputs::{ClusterObjects, Inputs};
use crate::model::{
    ClusterId, Labels, NetworkId,
    endpoint::NetworkGateway,
    kubernetes::{Service, ServiceType},
    mesh::MeshConfig,
    name::selects,
    workload::NETWORK_LABEL,
};

/// Label with the port that routes by SNI, if it is not 15443.
const GATEWAY_PORT_LABEL: &str = "networking.istio.io/gatewayPort";
/// For NodePort gateways: JSON labels of the nodes whose external addresses are used.
const NODE_SELECTOR_ANNOTATION: &str = "traffic.istio.io/nodeSelector";
const DEFAULT_GATEWAY_PORT: u16 = 15443;

/// Gateways by network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    by_network: BTreeMap<NetworkId, Vec<NetworkGateway>>,
    by_cluster: BTreeMap<(NetworkId, ClusterId), Vec<NetworkGateway>>,
}

impl Networks {
    /// Finds the gateways of all clusters. A gateway Service without an external address is none yet.
    pub fn build(inputs: &Inputs, mesh: &MeshConfig) -> Self {
        let mut all = BTreeSet::new();
        for (network, settings) in &mesh.networks {
            for (address, port) in &settings.gateways {
                all.insert(NetworkGateway {
                    network: network.clone(),
                    cluster: ClusterId::from(""),
                    address: address.clone(),
                    port: *port,
                });
            }
        }
        for (id, cluster) in &inputs.clusters {
            for service in cluster.services.values() {
                let Some(network) = service.meta.labels.get(NETWORK_LABEL) else { continue };
                for (address, port) in external_addresses(service, cluster) {
                    all.insert(NetworkGateway {
                        network: NetworkId(network.clone()),
                        cluster: id.clone(),
                        address,
                        port,
                    });
                }
            }
        }
        let mut networks = Self::default();
        for gateway in all {
            let key = (gateway.network.clone(), gateway.cluster.clone());
            networks.by_cluster.entry(key).or_default().push(gateway.clone());
            networks.by_network.entry(gateway.network.clone()).or_default().push(gateway);
        }
        networks
    }

    /// Whether any network has a gateway.
    pub fn any(&self) -> bool {
        !self.by_network.is_empty()
    }

    /// The gateways that lead to a cluster's endpoints in a network: the cluster's own, else any of the network.
    /// Ordered by cluster, address and port.
    pub fn gateways(&self, network: &NetworkId, cluster: &ClusterId) -> &[NetworkGateway] {
        self.by_cluster
            .get(&(network.clone(), cluster.clone()))
            .or_else(|| self.by_network.get(network))
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Every gateway, by network.
    pub fn iter(&self) -> impl Iterator<Item = &NetworkGateway> {
        self.by_network.values().flatten()
    }
}

fn external_addresses(service: &Service, cluster: &ClusterObjects) -> Vec<(std::sync::Arc<str>, u16)> {
    let wanted = service
        .meta
        .labels
        .get(GATEWAY_PORT_LABEL)
        .and_then(|p| p.parse().ok())
        .unwrap_or(DEFAULT_GATEWAY_PORT);
    let Some(port) = service.ports.iter().find(|p| p.number == wanted) else { return Vec::new() };
    if service.kind != ServiceType::NodePort {
        return service.external_addresses.iter().map(|a| (a.clone(), wanted)).collect();
    }
    let selector = service.meta.annotations.get(NODE_SELECTOR_ANNOTATION);
    let Some(selector) = selector.and_then(|s| serde_json::from_str::<Labels>(s).ok()) else {
        return Vec::new();
    };
    cluster
        .nodes
        .values()
        .filter(|node| selects(&selector, &node.meta.labels))
        .flat_map(|node| &node.external_ips)
        .map(|ip| (ip.to_string().into(), port.node_port))
        .filter(|(_, port)| *port != 0)
        .collect()
}
