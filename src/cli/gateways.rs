//! `landbridge gateways`: the gateways of networks, and whether they are alive.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{
    admin::{AdminArgs, Output},
    table::{Table, age},
};
use crate::admin::{API_VERSION, gatewayz::Gateway};

/// The gateways through which networks are entered: alive or dead, how far away, and how many services lie behind each.
#[derive(Args, Debug)]
pub struct GatewaysArgs {
    /// table or json
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    admin: AdminArgs,
}

impl GatewaysArgs {
    /// Asks and prints.
    pub fn run(self) -> Result<()> {
        let gateways: Vec<Gateway> = self.admin.get("/debug/gatewayz", &[])?;
        match self.output {
            Output::Json => {
                let list = json!({ "apiVersion": API_VERSION, "kind": "GatewayList", "items": gateways });
                println!("{}", serde_json::to_string_pretty(&list)?);
            }
            Output::Table if gateways.is_empty() => println!(
                "No network has a gateway: label a gateway's Service topology.istio.io/network=NETWORK and give it an external address."
            ),
            Output::Table => print!("{}", list(&gateways)),
        }
        Ok(())
    }
}

fn list(gateways: &[Gateway]) -> Table {
    let mut table = Table::new(&["NETWORK", "GATEWAY", "CLUSTER", "STATE", "LATENCY", "SERVICES", "PROBLEM"]);
    for gateway in gateways {
        let at = match gateway.address.contains(':') {
            true => format!("[{}]:{}", gateway.address, gateway.port),
            false => format!("{}:{}", gateway.address, gateway.port),
        };
        let at = match &gateway.host {
            Some(host) if *host != gateway.address => format!("{at} ({host})"),
            _ => at,
        };
        let state = match gateway.since_seconds {
            Some(seconds) => format!("{} for {}", gateway.state, age(seconds)),
            None => gateway.state.clone(),
        };
        let latency = gateway.latency_ms.zip(gateway.smoothed_latency_ms);
        let latency = latency.map(|(last, smoothed)| format!("{last:.1}ms (avg {smoothed:.1}ms)"));
        table.row([
            gateway.network.clone(),
            at,
            gateway.cluster.clone(),
            state,
            latency.unwrap_or_default(),
            gateway.services.to_string(),
            gateway.problem.clone().unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gateway_has_its_state_its_latency_and_what_lies_behind_it() {
        let json = json!([
            { "network": "n1", "cluster": "east", "address": "172.30.0.1", "port": 15443, "state": "alive", "sinceSeconds": 700,
              "handshake": true, "latencyMs": 1.25, "smoothedLatencyMs": 1.5, "services": 3 },
            { "network": "n2", "cluster": "west", "address": "2001:db8::1", "host": "gw.west.example.com", "port": 15443, "state": "dead", "sinceSeconds": 5,
              "services": 12, "problem": "no connection: refused" },
            { "network": "n3", "address": "gw.example.com", "port": 443, "state": "unknown", "services": 0 },
        ]);
        let gateways: Vec<Gateway> = serde_json::from_value(json).expect("the shape of /debug/gatewayz");
        let text = list(&gateways).to_string();
        let rows: Vec<Vec<_>> =
            text.lines().map(|l| l.split("   ").map(str::trim).filter(|w| !w.is_empty()).collect()).collect();
        assert_eq!(
            rows,
            [
                vec!["NETWORK", "GATEWAY", "CLUSTER", "STATE", "LATENCY", "SERVICES", "PROBLEM"],
                vec!["n1", "172.30.0.1:15443", "east", "alive for 11m", "1.2ms (avg 1.5ms)", "3", "-"],
                vec![
                    "n2",
                    "[2001:db8::1]:15443 (gw.west.example.com)",
                    "west",
                    "dead for 5s",
                    "-",
                    "12",
                    "no connection: refused"
                ],
                vec!["n3", "gw.example.com:443", "-", "unknown", "-", "0", "-"],
            ]
        );
    }
}
