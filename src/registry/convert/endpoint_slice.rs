//! EndpointSlice.

use std::net::IpAddr;

use serde::Deserialize;

use super::{
    check,
    finding::{Finding, Invalid, Result, Warnings},
    meta::WireMeta,
    wire::{Flag, Int, Text},
};
use crate::model::{
    ObjectKey,
    endpoint::Health,
    kubernetes::{EndpointSlice, SliceEndpoint, SlicePort, SliceRows},
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
        let port = SlicePort { name: port.name.map_or_else(|| "".into(), |n| n.0), number };
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    let endpoints = wire.endpoints.into_iter().enumerate().map(|(i, e)| convert_endpoint(i, e));
    Ok(Some(EndpointSlice {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        service,
        ports: ports.into(),
        endpoints: endpoints.collect::<Result<SliceRows>>()?,
    }))
}

fn convert_endpoint(i: usize, wire: WireEndpoint) -> Result<SliceEndpoint<'static>> {
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(wire.addresses.len());
    for (a, text) in wire.addresses.iter().enumerate() {
        let ip = text.parse().or_else(|_| check::ip(&format!("endpoints[{i}].addresses[{a}]"), text))?;
        addresses.push(ip);
    }
    let Some(address) = addresses.first().copied() else {
        let field = format!("endpoints[{i}].addresses");
        return Err(Invalid::new(field, "is empty", "write the pod's address, or remove the endpoint"));
    };
    let ready = wire.conditions.ready.is_none_or(|f| f.0);
    let non_empty = |text: Option<Text>| text.map(|t| t.0).filter(|t| !t.is_empty());
    let pod = wire.target_ref.filter(|r| r.kind.as_deref() == Some("Pod")).and_then(|r| r.name);
    Ok(SliceEndpoint {
        address,
        health: Health::of(
            ready,
            wire.conditions.serving.map_or(ready, |f| f.0),
            wire.conditions.terminating.is_some_and(|f| f.0),
        ),
        node: non_empty(wire.node_name),
        pod: pod.map(|name| name.to_string().into()),
    })
}
