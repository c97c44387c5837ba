//! Istio's Gateway.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;

use super::{
    check,
    finding::{Finding, Invalid, Result, Warnings},
    meta::{WireMeta, meta},
    missing,
    wire::{Int, Text, labels},
};
use crate::model::{
    ObjectKey,
    gateway::{Gateway, Server, ServerTlsMode},
};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wire {
    metadata: WireMeta,
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    selector: BTreeMap<Text, Text>,
    servers: Vec<WireServer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireServer {
    port: Option<Port>,
    hosts: Vec<Text>,
    tls: Option<Tls>,
}

#[derive(Debug, Deserialize)]
struct Port {
    number: Int,
    name: Option<Text>,
    protocol: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tls {
    mode: Option<Text>,
}

const TLS_MODES: &[(&str, ServerTlsMode)] = &[
    ("PASSTHROUGH", ServerTlsMode::Passthrough),
    ("SIMPLE", ServerTlsMode::Simple),
    ("MUTUAL", ServerTlsMode::Mutual),
    ("AUTO_PASSTHROUGH", ServerTlsMode::AutoPassthrough),
    ("ISTIO_MUTUAL", ServerTlsMode::IstioMutual),
    ("OPTIONAL_MUTUAL", ServerTlsMode::OptionalMutual),
];

const PROTOCOLS: &[(&str, ())] = &[
    ("HTTP", ()),
    ("HTTPS", ()),
    ("HTTP2", ()),
    ("GRPC", ()),
    ("GRPC-WEB", ()),
    ("HTTP_PROXY", ()),
    ("TLS", ()),
    ("TCP", ()),
    ("MONGO", ()),
    ("MYSQL", ()),
    ("REDIS", ()),
    ("UDP", ()),
];

pub fn convert(key: &ObjectKey, wire: Wire, warnings: &mut Warnings) -> Result<Gateway> {
    let Wire { metadata, spec } = wire;
    if spec.servers.is_empty() {
        return Err(Invalid::new(
            "spec.servers",
            "is empty: the gateway would listen nowhere",
            "add a server",
        ));
    }
    let servers = spec.servers.into_iter().enumerate().map(|(i, server)| convert_server(i, server, key));
    let servers: Vec<Server> = servers.collect::<Result<_>>()?;
    warnings.extend(servers.iter().enumerate().filter_map(|(i, server)| not_served(i, server)));
    Ok(Gateway { meta: meta(metadata, key), selector: labels(spec.selector), servers })
}

fn convert_server(i: usize, wire: WireServer, key: &ObjectKey) -> Result<Server> {
    let field = |name: &str| format!("spec.servers[{i}].{name}");
    let port = wire.port.ok_or_else(|| missing(&field("port")))?;
    let protocol = port.protocol.to_ascii_uppercase();
    check::choice(&field("port.protocol"), &protocol, PROTOCOLS)?;
    let tls = match wire.tls {
        None => None,
        // PASSTHROUGH is what Istio's API defaults to; a plain HTTP server has `tls` only to redirect to HTTPS.
        Some(tls) => match tls.mode {
            None if protocol == "HTTP" => None,
            None => Some(ServerTlsMode::Passthrough),
            Some(mode) => Some(check::choice(&field("tls.mode"), &mode, TLS_MODES)?),
        },
    };
    if tls.is_none() && matches!(&*protocol, "HTTPS" | "TLS") {
        return Err(Invalid::new(
            field("tls"),
            format!("is missing: a server of protocol {protocol} has to say what becomes of TLS"),
            "add tls.mode: AUTO_PASSTHROUGH for an east-west gateway, SIMPLE to terminate TLS",
        ));
    }
    if wire.hosts.is_empty() {
        return Err(Invalid::new(field("hosts"), "is empty", "add hosts, e.g. \"*.local\""));
    }
    let hosts =
        wire.hosts.iter().enumerate().map(|(h, text)| host(&field(&format!("hosts[{h}]")), text, key));
    Ok(Server {
        port: check::port(&field("port.number"), port.number)?,
        port_name: port.name.map_or_else(|| "".into(), |name| name.0),
        protocol: protocol.into(),
        tls,
        hosts: hosts.collect::<Result<_>>()?,
    })
}

/// What a server's users would otherwise find out by a refused connection.
fn not_served(i: usize, server: &Server) -> Option<Finding> {
    let Server { port, tls, .. } = server;
    let remedy = match (tls, port) {
        (Some(ServerTlsMode::AutoPassthrough), _) => return None,
        // Istio's sample `expose-istiod`: its VirtualService is not read.
        (Some(ServerTlsMode::Passthrough), 15012 | 15017) => {
            "for the way to the control plane, set exposeControlPlane: true in the values of chart eastwest-gateway, \
             or `landbridge bootstrap gateway --forward 15012=HOST:15012`, and remove this server"
        }
        _ => "keep Istio's gateway for it, or remove the server",
    };
    let reason =
        format!("is not served: nothing listens on port {port} because of it, only AUTO_PASSTHROUGH is done");
    Some(Finding::new(format!("spec.servers[{i}]"), reason, remedy))
}

/// `namespace/host`, of which the namespace may be `*` or `.`, or just the host.
fn host(field: &str, text: &str, key: &ObjectKey) -> Result<(Arc<str>, Arc<str>)> {
    let (namespace, host) = text.split_once('/').unwrap_or(("*", text));
    let namespace: Arc<str> = match namespace {
        "." => key.namespace.clone(),
        "*" => "*".into(),
        other => check::dns_name(field, other).map(|()| other.into())?,
    };
    Ok((namespace, check::host(field, host)?))
}
