//! ServiceExport and ServiceImport of the Multi-Cluster Services API.

use serde::Deserialize;

use super::{
    check,
    finding::Result,
    meta::{WireMeta, meta},
    wire::{Text, or_empty},
};
use crate::model::{
    ObjectKey,
    mcs::{ServiceExport, ServiceImport},
};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Export {
    metadata: WireMeta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Import {
    metadata: WireMeta,
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    #[serde(deserialize_with = "or_empty")]
    ips: Vec<Text>,
}

pub fn export(key: &ObjectKey, wire: Export) -> ServiceExport {
    ServiceExport { meta: meta(wire.metadata, key) }
}

pub fn import(key: &ObjectKey, wire: Import) -> Result<ServiceImport> {
    let ips = wire.spec.ips.iter().enumerate();
    let ips = ips.map(|(i, ip)| check::ip(&format!("spec.ips[{i}]"), ip));
    let mut ips = ips.collect::<Result<Vec<_>>>()?;
    // Their order is whoever wrote them's own.
    ips.sort_unstable();
    ips.dedup();
    Ok(ServiceImport { meta: meta(wire.metadata, key), ips })
}
