//! `/debug/registryz`: the services, merged from all clusters.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use axum::extract::State;
use serde::Serialize;

use super::{
    AdminState,
    answer::{Answer, Asked, Refusal, json},
};
use crate::model::{
    ClusterId, Labels,
    service::{ExportTo, Resolution, Service},
};

/// A service. `hostname`, `ports`, `clusterVIPs` and `creationTime` are istiod's; the rest says what istiod leaves out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    hostname: &'a str,
    name: &'a str,
    namespace: &'a str,
    /// The clusters that define it.
    clusters: Vec<&'a ClusterId>,
    #[serde(rename = "clusterVIPs")]
    vips: Vips<'a>,
    ports: Vec<Port<'a>>,
    resolution: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias_of: Option<&'a str>,
    export_to: Vec<&'a str>,
    cluster_local: bool,
    /// The clusters that offer it to others, where that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    exported_by: Option<&'a BTreeSet<ClusterId>>,
    node_local: bool,
    labels: &'a Labels,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_time: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extra_identities: Vec<&'a str>,
    /// The objects that it was merged from, the oldest first.
    sources: Vec<String>,
    /// Where they contradict each other.
    conflicts: Vec<&'a str>,
}

#[derive(Serialize)]
struct Vips<'a> {
    #[serde(rename = "Addresses")]
    addresses: &'a BTreeMap<ClusterId, Vec<IpAddr>>,
}

#[derive(Serialize)]
struct Port<'a> {
    name: &'a str,
    port: u16,
    protocol: String,
}

/// Istio's spelling: `*`, `~`, or namespaces.
pub fn export_to(visibility: &ExportTo) -> Vec<&str> {
    match visibility {
        ExportTo::Public => vec!["*"],
        ExportTo::Nobody => vec!["~"],
        ExportTo::Namespaces(names) => names.iter().map(AsRef::as_ref).collect(),
    }
}

fn entry(service: &Service) -> Entry<'_> {
    let (resolution, alias_of) = match &service.resolution {
        Resolution::ClientSide => ("ClientSideLB", None),
        Resolution::Passthrough => ("Passthrough", None),
        Resolution::Alias(target) => ("Alias", Some(target.as_ref())),
    };
    let created =
        time::OffsetDateTime::from_unix_timestamp(service.created).ok().filter(|_| service.created != 0);
    Entry {
        hostname: &service.key.host,
        name: &service.name,
        namespace: &service.key.namespace,
        clusters: service.sources.iter().map(|s| &s.cluster).collect(),
        vips: Vips { addresses: &service.vips },
        ports: service
            .ports
            .iter()
            .map(|p| Port { name: &p.name, port: p.number, protocol: protocol(p.protocol) })
            .collect(),
        resolution,
        alias_of,
        export_to: export_to(&service.export_to),
        cluster_local: service.cluster_local,
        exported_by: service.exported_by.as_ref(),
        node_local: service.node_local,
        labels: &service.labels,
        creation_time: created.and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok()),
        extra_identities: service.extra_identities.iter().map(AsRef::as_ref).collect(),
        sources: service.sources.iter().map(ToString::to_string).collect(),
        conflicts: service.conflicts.iter().map(AsRef::as_ref).collect(),
    }
}

/// A protocol as Istio writes it.
pub fn protocol(protocol: crate::model::port::Protocol) -> String {
    use crate::model::port::Protocol;
    match protocol {
        Protocol::Auto => "UnsupportedProtocol".to_owned(),
        Protocol::GrpcWeb => "GRPC-Web".to_owned(),
        Protocol::HttpProxy => "HTTP_PROXY".to_owned(),
        Protocol::Mongo => "Mongo".to_owned(),
        Protocol::MySql => "MySQL".to_owned(),
        Protocol::Redis => "Redis".to_owned(),
        other => format!("{other:?}").to_ascii_uppercase(),
    }
}

/// Every service, by host; `?namespace=` narrows.
pub async fn registryz(State(admin): State<AdminState>, params: Asked) -> Answer {
    let services = admin.inspector.ask(|state| state.index.services().cloned().collect::<Vec<_>>()).await;
    let services = services.ok_or_else(Refusal::no_pipeline)?;
    let entries: Vec<_> = services
        .iter()
        .filter(|s| params.namespace.as_ref().is_none_or(|wanted| **wanted == *s.key.namespace))
        .map(|s| entry(s))
        .collect();
    json(&params, &entries)
}
