//! `landbridge endpoints SERVICE --from PROXY`: which endpoints a proxy gets, and why not the others.

use std::fmt::Write;

use anyhow::Result;
use clap::Args;

use super::{
    admin::{AdminArgs, Output},
    table::{Table, age},
};
use crate::admin::endpoints::{Chosen, Endpoints, PortEndpoints};

/// Which endpoints of a service a proxy gets, and why it does not get the others.
#[derive(Args, Debug)]
pub struct EndpointsArgs {
    /// The service: NAME, NAME.NAMESPACE or the whole host, each with :PORT or without
    service: String,
    /// The proxy that asks: POD.NAMESPACE or a part of it
    #[arg(long, value_name = "PROXY")]
    from: String,
    /// table or json
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    admin: AdminArgs,
}

impl EndpointsArgs {
    /// Asks and prints; an unknown service or proxy is an error.
    pub fn run(self) -> Result<()> {
        let query = [("service", self.service.as_str()), ("proxyID", self.from.as_str())];
        let found: Endpoints = self.admin.get("/debug/endpoints", &query)?;
        match self.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&found)?),
            Output::Table => print!("{}", render(&found)),
        }
        Ok(())
    }
}

fn render(found: &Endpoints) -> String {
    let known = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
    let mut text = format!(
        "{} as seen by {} (cluster {}, network {}, locality {})\n",
        found.service,
        found.proxy,
        known(&found.proxy_cluster),
        known(&found.proxy_network),
        known(&found.proxy_locality),
    );
    if let Some(note) = &found.note {
        let _ = writeln!(text, "{note}");
    }
    for port in &found.ports {
        let _ = write!(text, "\n{}", of_port(port));
    }
    text
}

fn of_port(port: &PortEndpoints) -> String {
    let mut text = format!("port {} ({}) {}\n", port.port, port.protocol, port.envoy_cluster);
    if port.endpoints.is_empty() {
        text.push_str("  the proxy gets no endpoint: requests are answered with 503\n");
    } else {
        let mut table = Table::new(&[
            "ADDRESS",
            "CLUSTER",
            "NETWORK",
            "LOCALITY",
            "PRIORITY",
            "WEIGHT",
            "HEALTH",
            "STALE",
            "MTLS",
            "STANDS FOR",
        ]);
        for e in &port.endpoints {
            let mtls = if e.mtls { "yes" } else { "no" };
            let [priority, weight] = [e.priority, e.weight].map(|n| n.to_string());
            let stale = e.stale_seconds.map(age).unwrap_or_default();
            let head =
                [&e.address, &e.cluster, &e.network, &e.locality, &priority, &weight, &e.health, &stale]
                    .map(Clone::clone);
            table.row(head.into_iter().chain([mtls.to_owned(), stands_for(e)]));
        }
        let _ = write!(text, "{table}");
    }
    if !port.excluded.is_empty() {
        let _ = writeln!(text, "\nnot given to this proxy: {}", port.excluded.len());
        let mut table = Table::new(&[
            "ADDRESS", "CLUSTER", "NETWORK", "LOCALITY", "HEALTH", "STALE", "POD", "REASON", "WHY",
        ]);
        for e in &port.excluded {
            let stale = e.stale_seconds.map(age).unwrap_or_default();
            let place = [&e.address, &e.cluster, &e.network, &e.locality, &e.health];
            let cells = place.into_iter().chain([&stale, &e.pod, &e.reason, &e.message]);
            table.row(cells.cloned());
        }
        let _ = write!(text, "{table}");
    }
    text
}

fn stands_for(endpoint: &Chosen) -> String {
    match (&endpoint.stands_for, &endpoint.pod) {
        (Some(behind), _) => {
            let dead = if endpoint.dead { "dead " } else { "" };
            format!("{dead}gateway for {} endpoints: {}", behind.len(), behind.join(", "))
        }
        (None, Some(pod)) => format!("pod {pod}"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn gateways_say_what_they_stand_for_and_the_missing_say_why() {
        let found = json!({
            "apiVersion": "landbridge/v1", "kind": "Endpoints", "service": "backend.production.svc.cluster.local",
            "proxy": "web-1.production", "proxyCluster": "east", "proxyNetwork": "net-east", "proxyLocality": "",
            "ports": [{
                "port": 80, "name": "http", "protocol": "HTTP", "envoyCluster": "outbound|80||backend",
                "endpoints": [
                    { "address": "10.10.0.1:8080", "cluster": "east", "network": "net-east", "locality": "r/z",
                      "priority": 0, "weight": 1, "health": "Healthy", "mtls": true, "pod": "backend-1" },
                    { "address": "203.0.113.2:15443", "cluster": "west", "network": "net-west", "locality": "s/z",
                      "priority": 1, "weight": 2, "health": "Healthy", "mtls": true, "staleSeconds": 700,
                      "standsFor": ["10.20.0.1:8080", "10.20.0.2:8080"] }
                ],
                "excluded": [{ "address": "10.20.0.3:8080", "cluster": "west", "network": "net-west", "locality": "",
                    "health": "Unhealthy", "pod": "backend-c", "reason": "not-ready", "details": {}, "message": "not ready" }]
            }]
        });
        let text = render(&serde_json::from_value(found).expect("the shape of /debug/endpoints"));
        for part in [
            "as seen by web-1.production (cluster east, network net-east, locality unknown)",
            "gateway for 2 endpoints: 10.20.0.1:8080, 10.20.0.2:8080",
            "pod backend-1",
            "11m",
            "not given to this proxy: 1",
            "not-ready",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        let none = PortEndpoints {
            port: 80,
            name: String::new(),
            protocol: "HTTP".into(),
            envoy_cluster: "c".into(),
            endpoints: vec![],
            excluded: vec![],
        };
        assert!(of_port(&none).contains("503"));
    }
}
