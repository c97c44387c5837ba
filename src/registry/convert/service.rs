//! Service.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use serde::Deserialize;

use super::{
    check,
    finding::{Finding, Invalid, Result, Warnings},
    meta::{WireMeta, meta},
    missing,
    wire::{Flag, Int, Text, labels},
};
use crate::model::{
    ObjectKey,
    kubernetes::{Service, ServicePort, ServiceType},
    port::{TargetPort, Transport},
};

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
    r#type: Option<Text>,
    external_name: Option<Text>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<Text>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<Text>,
    ports: Vec<Port>,
    selector: BTreeMap<Text, Text>,
    internal_traffic_policy: Option<Text>,
    #[serde(rename = "externalIPs")]
    external_ips: Vec<Text>,
    publish_not_ready_addresses: Flag,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: Option<Text>,
    port: Int,
    protocol: Option<Text>,
    app_protocol: Option<Text>,
    target_port: Option<Text>,
    node_port: Option<Int>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    load_balancer: LoadBalancer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Vec<Ingress>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ingress {
    ip: Option<Text>,
    hostname: Option<Text>,
}

#[derive(Clone, Copy)]
enum Type {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

const TYPES: &[(&str, Type)] = &[
    ("ClusterIP", Type::ClusterIp),
    ("NodePort", Type::NodePort),
    ("LoadBalancer", Type::LoadBalancer),
    ("ExternalName", Type::ExternalName),
];

pub fn convert(key: &ObjectKey, wire: Wire, warnings: &mut Warnings) -> Result<Service> {
    let Wire { metadata, spec, status } = wire;
    if key.name.contains('.') || key.name.len() > 63 {
        let remedy = "write a single DNS label of at most 63 characters";
        return Err(Invalid::new("metadata.name", format!("{:?} is no name of a Service", key.name), remedy));
    }
    let kind = service_type(&spec)?;
    let alias = matches!(kind, ServiceType::ExternalName(_));
    let (cluster_ips, headless) = if alias { (Vec::new(), false) } else { cluster_ips(&spec)? };
    if !alias && !headless && cluster_ips.is_empty() {
        warnings.push(Finding::new(
            "spec.clusterIP",
            "is missing: an API server would have chosen one, a file has to say it. Nobody can call the service by \
             its address",
            "write an address, or clusterIP: None for a headless service",
        ));
    }
    let ports = ports(spec.ports, warnings)?;
    if ports.is_empty() && !alias && !headless && warnings.iter().all(|w| !w.field.starts_with("spec.ports"))
    {
        return Err(Invalid::new("spec.ports", "is empty", "write at least one port"));
    }
    let local = match spec.internal_traffic_policy.as_deref() {
        None => false,
        Some(policy) => {
            check::choice("spec.internalTrafficPolicy", policy, &[("Cluster", false), ("Local", true)])?
        }
    };
    Ok(Service {
        meta: meta(metadata, key),
        kind,
        cluster_ips,
        headless,
        ports,
        selector: labels(spec.selector),
        node_local: local,
        external_addresses: external_addresses(&status, spec.external_ips)?,
        publish_not_ready: spec.publish_not_ready_addresses.0,
    })
}

fn service_type(spec: &Spec) -> Result<ServiceType> {
    let kind = match spec.r#type.as_deref() {
        None | Some("") => Type::ClusterIp,
        Some(text) => check::choice("spec.type", text, TYPES)?,
    };
    Ok(match kind {
        Type::ClusterIp => ServiceType::ClusterIp,
        Type::NodePort => ServiceType::NodePort,
        Type::LoadBalancer => ServiceType::LoadBalancer,
        Type::ExternalName => {
            let name = spec.external_name.as_deref().ok_or_else(|| missing("spec.externalName"))?;
            ServiceType::ExternalName(check::host("spec.externalName", name.trim_end_matches('.'))?)
        }
    })
}

/// Addresses, and whether the service is headless.
fn cluster_ips(spec: &Spec) -> Result<(Vec<IpAddr>, bool)> {
    let (field, list) = match (&spec.cluster_ip, &spec.cluster_ips[..]) {
        (Some(one), []) => ("spec.clusterIP", std::slice::from_ref(one)),
        (_, many) => ("spec.clusterIPs", many),
    };
    if list.iter().chain(&spec.cluster_ip).any(|ip| &**ip == "None") {
        return Ok((Vec::new(), true));
    }
    let ips = list.iter().filter(|ip| !ip.is_empty()).map(|text| check::ip(field, text));
    Ok((ips.collect::<Result<_>>()?, false))
}

fn ports(wire: Vec<Port>, warnings: &mut Warnings) -> Result<Vec<ServicePort>> {
    let several = wire.len() > 1;
    let (mut names, mut numbers, mut ports) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for (i, port) in wire.into_iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{i}].{name}");
        let number = check::port(&field("port"), port.port)?;
        let name: Arc<str> = port.name.map_or_else(|| "".into(), |name| name.0);
        if several && name.is_empty() {
            let reason = "is missing: a service with several ports needs a name for each";
            return Err(Invalid::new(field("name"), reason, "add a name such as http-web or tcp-db"));
        }
        if !names.insert(name.clone()) {
            return Err(Invalid::new(
                field("name"),
                format!("{name:?} is there twice"),
                "give each port its own name",
            ));
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if !numbers.insert((number, protocol.to_owned())) {
            let reason = format!("{protocol} port {number} is there twice");
            return Err(Invalid::new(field("port"), reason, "remove one of the two"));
        }
        let known = [("TCP", Some(Transport::Tcp)), ("UDP", Some(Transport::Udp)), ("SCTP", None)];
        let Some(transport) = check::choice(&field("protocol"), protocol, &known)? else {
            warnings.push(Finding::new(
                field("protocol"),
                format!("SCTP port {number} is left out: Envoy cannot carry SCTP"),
                "nothing, if callers reach it without the mesh",
            ));
            continue;
        };
        ports.push(ServicePort {
            name,
            number,
            transport,
            app_protocol: port.app_protocol.map(|p| p.0).filter(|p| !p.is_empty()),
            target: target_port(&field("targetPort"), port.target_port, number)?,
            node_port: match port.node_port {
                Some(Int(0)) | None => 0,
                Some(node_port) => check::port(&field("nodePort"), node_port)?,
            },
        });
    }
    Ok(ports)
}

fn target_port(field: &str, wire: Option<Text>, number: u16) -> Result<TargetPort> {
    let Some(text) = wire.filter(|t| !t.is_empty() && &**t != "0") else {
        return Ok(TargetPort::Number(number));
    };
    match text.parse::<i64>() {
        Ok(n) => Ok(TargetPort::Number(check::port(field, Int(n))?)),
        Err(_) => Ok(TargetPort::Name(text.0)),
    }
}

fn external_addresses(status: &Status, external_ips: Vec<Text>) -> Result<Vec<Arc<str>>> {
    let mut addresses: Vec<Arc<str>> = Vec::new();
    for (i, ingress) in status.load_balancer.ingress.iter().enumerate() {
        let field = |name: &str| format!("status.loadBalancer.ingress[{i}].{name}");
        if let Some(ip) = ingress.ip.as_deref().filter(|ip| !ip.is_empty()) {
            addresses.push(check::ip(&field("ip"), ip)?.to_string().into());
        } else if let Some(name) = ingress.hostname.as_deref().filter(|name| !name.is_empty()) {
            addresses.push(check::host(&field("hostname"), name)?);
        }
    }
    for (i, ip) in external_ips.iter().enumerate() {
        let ip: Arc<str> = check::ip(&format!("spec.externalIPs[{i}]"), ip)?.to_string().into();
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    Ok(addresses)
}
