//! Pod.

use std::sync::Arc;

use serde::Deserialize;

use super::{
    check,
    finding::Result,
    meta::{WireMeta, meta},
    wire::{Int, Text},
};
use crate::model::{ObjectKey, kubernetes::Pod};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wire {
    metadata: WireMeta,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    service_account_name: Option<Text>,
    node_name: Option<Text>,
    containers: Vec<Container>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    ports: Vec<ContainerPort>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    name: Option<Text>,
    container_port: Int,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: Option<Text>,
    #[serde(rename = "podIP")]
    pod_ip: Option<Text>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Debug, Deserialize)]
struct PodIp {
    ip: Text,
}

pub fn convert(key: &ObjectKey, wire: Wire) -> Result<Pod> {
    let mut ips = Vec::new();
    for (i, address) in wire.status.pod_ips.iter().enumerate() {
        ips.push(check::ip(&format!("status.podIPs[{i}].ip"), &address.ip)?);
    }
    if let (true, Some(ip)) = (ips.is_empty(), wire.status.pod_ip.as_deref().filter(|ip| !ip.is_empty())) {
        ips.push(check::ip("status.podIP", ip)?);
    }
    let mut named_ports = Vec::new();
    for (c, container) in wire.spec.containers.iter().enumerate() {
        for (p, port) in container.ports.iter().enumerate() {
            if let Some(name) = &port.name {
                let field = format!("spec.containers[{c}].ports[{p}].containerPort");
                named_ports.push((name.0.clone(), check::port(&field, port.container_port)?));
            }
        }
    }
    let non_empty = |text: Option<Text>| text.map(|t| t.0).filter(|t| !t.is_empty());
    let workload = workload(&wire.metadata, key);
    Ok(Pod {
        meta: meta(wire.metadata, key),
        ips,
        service_account: non_empty(wire.spec.service_account_name).unwrap_or_else(|| "default".into()),
        node: non_empty(wire.spec.node_name),
        named_ports,
        workload,
        finished: matches!(wire.status.phase.as_deref(), Some("Succeeded" | "Failed")),
    })
}

/// Who made the pod, as Istio names it: a Deployment is its ReplicaSet's name without the hash, a CronJob its Job's
/// without the time.
fn workload(metadata: &WireMeta, key: &ObjectKey) -> Arc<str> {
    let Some(owner) = metadata.owner_references.iter().find(|o| o.controller.0) else {
        return key.name.clone();
    };
    let cut = match &*owner.kind {
        "ReplicaSet" => {
            let hash = metadata.label("pod-template-hash");
            hash.and_then(|hash| owner.name.strip_suffix(hash)).and_then(|name| name.strip_suffix('-'))
        }
        "Job" => owner.name.rsplit_once('-').and_then(|(name, at)| {
            (matches!(at.len(), 8 | 10) && at.bytes().all(|b| b.is_ascii_digit())).then_some(name)
        }),
        _ => None,
    };
    cut.filter(|name| !name.is_empty()).map_or_else(|| owner.name.0.clone(), Into::into)
}
