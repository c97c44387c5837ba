//! EndpointSlice.

use std::net::IpAddr;

use serde::Deserialize;

use super::{
    check,
    finding::{Finding, Invalid, Result, Warnings},
    meta::{WireMeta, meta},
    wire::{Flag, Int, Text},
};
use crate::model::{
    ObjectKey,
    kubernetes::{EndpointSlice, SliceEndpoint, SlicePort},
};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Wire {
    metadata: WireMeta,
    address_type: Option<Text>,
    endpoints: Vec<WireEndpoint>,
    ports: Vec<Port>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireEndpoint {
    addresses: Vec<Text>,
    conditions: Conditions,
    target_ref: Option<TargetRef>,
    node_name: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<Flag>,
    serving: Option<Flag>,
    terminating: Option<Flag>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    kind: Option<Text>,
    name: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    name: Option<Text>,
    port: Option<Int>,
}

/// Passes over slices that Istio passes over: those of no service, of multi-cluster service imports, of DNS names.
pub fn convert(key: &ObjectKey, wire: Wire, warnings: &mut Warnings) -> Result<Option<EndpointSlice>> {
    if wire.metadata.label("multicluster.kubernetes.io/service-name").is_some() {
        return Ok(None);
    }
    let service = match wire.metadata.label("kubernetes.io/service-name") {
        Some(service) if !service.is_empty() => service.into(),
        _ => return Ok(None),
    };
    if wire.address_type.as_deref() == Some("FQDN") {
        warnings.push(Finding::new(
            "addressType",
            "slices of DNS names are passed over, by Istio as well",
            "write IP addresses with addressType IPv4 or IPv6, or use an ExternalName Service",
        ));
        return Ok(None);
    }
    let mut ports = Vec::new();
    for (i, port) in wire.ports.into_iter().enumerate() {
        let Some(number) = port.port else { continue };
        let number = check::port(&format!("ports[{i}].port"), number)?;
        ports.push(SlicePort { name: port.name.map_or_else(|| "".into(), |n| n.0), number });
    }
    let mut endpoints = Vec::with_capacity(wire.endpoints.len());
    for (i, endpoint) in wire.endpoints.into_iter().enumerate() {
        endpoints.push(convert_endpoint(i, endpoint)?);
    }
    Ok(Some(EndpointSlice { meta: meta(wire.metadata, key), service, ports, endpoints }))
}

fn convert_endpoint(i: usize, wire: WireEndpoint) -> Result<SliceEndpoint> {
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(wire.addresses.len());
    for (a, text) in wire.addresses.iter().enumerate() {
        let ip = text.parse().or_else(|_| check::ip(&format!("endpoints[{i}].addresses[{a}]"), text))?;
        addresses.push(ip);
    }
    if addresses.is_empty() {
        let field = format!("endpoints[{i}].addresses");
        return Err(Invalid::new(field, "is empty", "write the pod's address, or remove the endpoint"));
    }
    let ready = wire.conditions.ready.is_none_or(|f| f.0);
    let non_empty = |text: Option<Text>| text.map(|t| t.0).filter(|t| !t.is_empty());
    Ok(SliceEndpoint {
        addresses,
        ready,
        serving: wire.conditions.serving.map_or(ready, |f| f.0),
        terminating: wire.conditions.terminating.is_some_and(|f| f.0),
        node: non_empty(wire.node_name),
        pod: wire.target_ref.filter(|r| r.kind.as_deref() == Some("Pod")).and_then(|r| non_empty(r.name)),
    })
}
