//! `landbridge service-map`: the services of every cluster, and those that several clusters have, as text or a picture.

mod html;
mod svg;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt::Write};

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::{admin::AdminArgs, table::Table};
use crate::admin::servicemap::{ClusterService, Count, ServiceMap, ServicePort};

/// The services of every cluster, and those that several clusters have.
#[derive(Args, Debug)]
pub struct ServiceMapArgs {
    /// Only this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Also the system namespaces: kube-*, default, local-path-storage
    #[arg(long)]
    all: bool,
    /// table, json, or a picture: svg, or html which opens in any browser
    #[arg(short, long, value_enum, default_value = "table")]
    output: Picture,
    #[command(flatten)]
    admin: AdminArgs,
}

/// How the map is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Picture {
    /// For people
    Table,
    /// For scripts; field names are stable
    Json,
    /// A picture
    Svg,
    /// A page with the picture and a table
    Html,
}

impl ServiceMapArgs {
    /// Asks and prints.
    pub fn run(self) -> Result<()> {
        let mut map: ServiceMap = self.admin.get("/debug/servicemap", &[])?;
        match &self.namespace {
            Some(wanted) => map.retain(|namespace| namespace == wanted),
            None if self.all => {}
            None => map.retain(|namespace| !is_system(namespace)),
        }
        match self.output {
            Picture::Table => print!("{}", text(&map)),
            Picture::Json => println!("{}", serde_json::to_string_pretty(&map)?),
            Picture::Svg => print!("{}", svg::draw(&map)),
            Picture::Html => print!("{}", html::page(&map, &now())),
        }
        Ok(())
    }
}

fn is_system(namespace: &str) -> bool {
    namespace.starts_with("kube-") || matches!(namespace, "default" | "local-path-storage")
}

fn now() -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    time::OffsetDateTime::now_utc().format(&format).unwrap_or_default()
}

/// `80/HTTP, 9090/TCP`.
fn ports(service: &ClusterService) -> String {
    let port = |p: &ServicePort| format!("{}/{}", p.port, protocol(&p.protocol));
    service.ports.iter().map(port).collect::<Vec<_>>().join(", ")
}

/// Istio calls a port that is sniffed an unsupported one.
fn protocol(name: &str) -> &str {
    if name == "UnsupportedProtocol" { "auto" } else { name }
}

fn ready(count: &Count) -> String {
    format!("{}/{}", count.ready, count.total)
}

fn text(map: &ServiceMap) -> String {
    let mut text = String::new();
    for cluster in &map.clusters {
        let network = if cluster.network.is_empty() { "unknown" } else { &cluster.network };
        let since = cluster.stale_since.as_ref().map(|s| format!(" since {s}")).unwrap_or_default();
        let _ = writeln!(text, "cluster {} (network {network}, {}{since})", cluster.cluster, cluster.state);
        if cluster.services.is_empty() {
            text.push_str("no services\n\n");
            continue;
        }
        let mut table = Table::new(&["NAMESPACE", "SERVICE", "TYPE", "PORTS", "READY"]);
        for s in &cluster.services {
            table.row([s.namespace.clone(), s.name.clone(), s.r#type.clone(), ports(s), ready(&s.endpoints)]);
        }
        let _ = writeln!(text, "{table}");
    }
    if map.overlaps.is_empty() {
        text.push_str("no service is in several clusters\n");
        return text;
    }
    text.push_str("in several clusters (ready/all endpoints of each)\n");
    let clusters: BTreeSet<&String> = map.overlaps.iter().flat_map(|o| o.clusters.keys()).collect();
    let header: Vec<&str> =
        ["NAMESPACE", "SERVICE"].into_iter().chain(clusters.iter().map(|c| c.as_str())).collect();
    let mut table = Table::new(&header);
    for overlap in &map.overlaps {
        let counts = clusters.iter().map(|c| overlap.clusters.get(*c).map(ready).unwrap_or_default());
        table.row([overlap.namespace.clone(), overlap.name.clone()].into_iter().chain(counts));
    }
    let _ = write!(text, "{table}");
    let conflicts = map.overlaps.iter().flat_map(|o| o.conflicts.iter().map(move |words| (o, words)));
    for (i, (overlap, words)) in conflicts.enumerate() {
        if i == 0 {
            text.push_str("\ndefinitions that contradict each other\n");
        }
        let _ = writeln!(text, "{}/{}: {words}", overlap.namespace, overlap.name);
    }
    text
}
