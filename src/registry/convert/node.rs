//! Node.

use serde::Deserialize;

use super::{
    check,
    finding::Result,
    meta::{WireMeta, meta},
    wire::Text,
};
use crate::model::{ObjectKey, kubernetes::Node};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wire {
    metadata: WireMeta,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    addresses: Vec<Address>,
}

#[derive(Debug, Deserialize)]
struct Address {
    r#type: Text,
    address: Text,
}

pub fn convert(key: &ObjectKey, wire: Wire) -> Result<Node> {
    let mut external_ips = Vec::new();
    for (i, address) in wire.status.addresses.iter().enumerate().filter(|(_, a)| &*a.r#type == "ExternalIP") {
        external_ips.push(check::ip(&format!("status.addresses[{i}].address"), &address.address)?);
    }
    Ok(Node { meta: meta(wire.metadata, key), external_ips })
}
