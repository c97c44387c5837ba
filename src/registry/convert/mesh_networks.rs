//! Istio's MeshNetworks.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;

use super::{
    check,
    finding::{Finding, Result, Warnings},
    wire::{Int, Text},
};
use crate::model::{NetworkId, mesh::Network};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wire {
    networks: BTreeMap<Text, WireNetwork>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireNetwork {
    endpoints: Vec<Endpoints>,
    gateways: Vec<Gateway>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Endpoints {
    from_registry: Option<Text>,
    from_cidr: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Gateway {
    address: Option<Text>,
    registry_service_name: Option<Text>,
    port: Option<Int>,
}

pub fn convert(wire: Wire, warnings: &mut Warnings) -> Result<BTreeMap<NetworkId, Network>> {
    let mut networks = BTreeMap::new();
    for (name, wire) in wire.networks {
        let field = format!("networks.{}", &*name);
        networks.insert(NetworkId(name.0), network(&field, wire, warnings)?);
    }
    Ok(networks)
}

fn network(at: &str, wire: WireNetwork, warnings: &mut Warnings) -> Result<Network> {
    let mut registries: Vec<Arc<str>> = Vec::new();
    for (i, endpoints) in wire.endpoints.into_iter().enumerate() {
        if endpoints.from_cidr.is_some() {
            warnings.push(Finding::new(
                format!("{at}.endpoints[{i}].fromCidr"),
                "is not supported yet and ignored",
                "write fromRegistry with the cluster's name, or label the pods with topology.istio.io/network",
            ));
        }
        registries.extend(endpoints.from_registry.map(|r| r.0));
    }
    let mut gateways = Vec::new();
    for (i, gateway) in wire.gateways.into_iter().enumerate() {
        let field = format!("{at}.gateways[{i}]");
        if gateway.registry_service_name.is_some() {
            warnings.push(Finding::new(
                format!("{field}.registryServiceName"),
                "is not supported yet and ignored",
                "label the gateway's Service with topology.istio.io/network, or write its address",
            ));
        }
        let Some(address) = gateway.address.filter(|a| !a.is_empty()) else { continue };
        let port = gateway.port.map_or(Ok(15443), |port| check::port(&format!("{field}.port"), port))?;
        let address = match address.parse::<std::net::IpAddr>() {
            Ok(ip) => ip.to_string().into(),
            Err(_) => check::host(&format!("{field}.address"), &address)?,
        };
        gateways.push((address, port));
    }
    Ok(Network { registries, gateways })
}
