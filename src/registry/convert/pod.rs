//! Pod.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;

use super::{
    check,
    finding::Result,
    meta::seconds,
    strings::Strings,
    wire::{Flag, Int, Str, or_empty},
};
use crate::model::{
    ObjectKey,
    kubernetes::{Meta, Pod},
};

/// Borrowed from the JSON: pods are large, and little of them is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wire<'a> {
    #[serde(borrow)]
    pub metadata: WireMeta<'a>,
    #[serde(borrow)]
    spec: Spec<'a>,
    #[serde(borrow)]
    status: Status<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WireMeta<'a> {
    #[serde(borrow)]
    pub name: Option<Str<'a>>,
    #[serde(borrow)]
    pub namespace: Option<Str<'a>>,
    #[serde(borrow)]
    pub resource_version: Option<Str<'a>>,
    #[serde(borrow)]
    labels: Option<BTreeMap<Str<'a>, Str<'a>>>,
    #[serde(borrow)]
    creation_timestamp: Option<Str<'a>>,
    #[serde(borrow, deserialize_with = "or_empty")]
    owner_references: Vec<Owner<'a>>,
}

#[derive(Debug, Deserialize)]
struct Owner<'a> {
    #[serde(borrow)]
    kind: Str<'a>,
    #[serde(borrow)]
    name: Str<'a>,
    #[serde(default)]
    controller: Flag,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow)]
    service_account_name: Option<Str<'a>>,
    #[serde(borrow)]
    node_name: Option<Str<'a>>,
    #[serde(borrow, deserialize_with = "or_empty")]
    containers: Vec<Container<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Container<'a> {
    #[serde(borrow, deserialize_with = "or_empty")]
    ports: Vec<ContainerPort<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort<'a> {
    #[serde(borrow)]
    name: Option<Str<'a>>,
    container_port: Int,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status<'a> {
    #[serde(borrow)]
    phase: Option<Str<'a>>,
    #[serde(borrow, rename = "podIP")]
    pod_ip: Option<Str<'a>>,
    #[serde(borrow, rename = "podIPs", deserialize_with = "or_empty")]
    pod_ips: Vec<PodIp<'a>>,
}

#[derive(Debug, Deserialize)]
struct PodIp<'a> {
    #[serde(borrow)]
    ip: Str<'a>,
}

pub fn convert(key: &ObjectKey, wire: Wire, strings: &mut Strings) -> Result<Pod> {
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
                named_ports.push((strings.get(name), check::port(&field, port.container_port)?));
            }
        }
    }
    let workload = workload(&wire.metadata, key, strings);
    let labels = wire.metadata.labels.unwrap_or_default();
    let mut non_empty = |text: Option<Str>| text.filter(|t| !t.is_empty()).map(|t| strings.get(&t));
    Ok(Pod {
        service_account: non_empty(wire.spec.service_account_name).unwrap_or_else(|| "default".into()),
        node: non_empty(wire.spec.node_name),
        meta: Meta {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            labels: labels.iter().map(|(k, v)| (strings.get(k), strings.get(v))).collect(),
            annotations: BTreeMap::new(),
            created: seconds(wire.metadata.creation_timestamp.as_deref()),
        },
        ips,
        named_ports,
        workload,
        finished: matches!(wire.status.phase.as_deref(), Some("Succeeded" | "Failed")),
    })
}

/// Who made the pod, as Istio names it: a Deployment is its ReplicaSet's name without the hash, a CronJob its Job's
/// without the time.
fn workload(metadata: &WireMeta, key: &ObjectKey, strings: &mut Strings) -> Arc<str> {
    let Some(owner) = metadata.owner_references.iter().find(|o| o.controller.0) else {
        return key.name.clone();
    };
    let label = |name: &str| {
        let labels = metadata.labels.iter().flatten();
        labels.into_iter().find(|(key, _)| &***key == name).map(|(_, value)| &**value)
    };
    let cut = match &*owner.kind {
        "ReplicaSet" => {
            let hash = label("pod-template-hash");
            hash.and_then(|hash| owner.name.strip_suffix(hash)).and_then(|name| name.strip_suffix('-'))
        }
        "Job" => owner.name.rsplit_once('-').and_then(|(name, at)| {
            (matches!(at.len(), 8 | 10) && at.bytes().all(|b| b.is_ascii_digit())).then_some(name)
        }),
        _ => None,
    };
    strings.get(cut.filter(|name| !name.is_empty()).unwrap_or(&owner.name))
}
