//! Networks and the gateways by which they are entered (Istio's rules: labelled Services of every cluster, and
//! `meshNetworks`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

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

/// What host names mean; those that are not here are not resolved.
pub type Addresses = BTreeMap<Arc<str>, Vec<IpAddr>>;

/// Host names of gateways: of which clusters (empty: of `meshNetworks`), into which networks.
pub type HostNames = BTreeMap<Arc<str>, BTreeSet<(ClusterId, NetworkId)>>;

/// Gateways by network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    by_network: BTreeMap<NetworkId, Vec<NetworkGateway>>,
    by_cluster: BTreeMap<(NetworkId, ClusterId), Vec<NetworkGateway>>,
}

impl Networks {
    /// Finds the gateways of all clusters. A gateway Service without an external address is none yet. A host name is a gateway
    /// at each of its addresses; one that is not resolved is one that cannot be used.
    pub fn build(inputs: &Inputs, mesh: &MeshConfig, resolved: &Addresses) -> Self {
        let mut all = BTreeSet::new();
        let mut add = |network: &NetworkId, cluster: &ClusterId, address: &Arc<str>, port: u16| {
            let gateway = NetworkGateway {
                network: network.clone(),
                cluster: cluster.clone(),
                address: address.clone(),
                host: None,
                port,
            };
            if address.parse::<IpAddr>().is_ok() {
                all.insert(gateway);
                return;
            }
            let gateway = NetworkGateway { host: Some(address.clone()), ..gateway };
            match resolved.get(address) {
                Some(ips) => all.extend(
                    ips.iter().map(|ip| NetworkGateway { address: ip.to_string().into(), ..gateway.clone() }),
                ),
                None => drop(all.insert(gateway)),
            }
        };
        for (network, settings) in &mesh.networks {
            for (address, port) in &settings.gateways {
                add(network, &ClusterId::from(""), address, *port);
            }
        }
        for (id, cluster) in &inputs.clusters {
            for service in cluster.services.values() {
                let Some(network) = service.meta.labels.get(NETWORK_LABEL) else { continue };
                for (address, port) in external_addresses(service, cluster) {
                    add(&NetworkId(network.clone()), id, &address, port);
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

    /// The host names of gateways.
    pub fn host_names(&self) -> HostNames {
        let mut names = HostNames::new();
        for gateway in self.iter() {
            if let Some(host) = &gateway.host {
                let of = (gateway.cluster.clone(), gateway.network.clone());
                names.entry(host.clone()).or_default().insert(of);
            }
        }
        names
    }

    /// Those of them that are not resolved.
    pub fn unresolved(&self) -> BTreeSet<Arc<str>> {
        let open = self.iter().filter(|gateway| gateway.host.as_ref() == Some(&gateway.address));
        open.map(|gateway| gateway.address.clone()).collect()
    }

    /// Networks that are entered in another way than in `before`.
    pub fn changed_since(&self, before: &Self) -> BTreeSet<NetworkId> {
        let all: BTreeSet<_> = self.by_network.keys().chain(before.by_network.keys()).collect();
        let changed =
            |network: &&&NetworkId| self.by_network.get(**network) != before.by_network.get(**network);
        all.iter().filter(changed).map(|network| (*network).clone()).collect()
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
