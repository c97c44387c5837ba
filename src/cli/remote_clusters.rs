//! `landbridge remote-clusters`: the registered clusters, and how they are.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{
    admin::{AdminArgs, Output},
    table::{Table, age},
};
use crate::admin::{API_VERSION, topology::Cluster};

/// The registered clusters, which secret names each, and what was wrong last.
#[derive(Args, Debug)]
pub struct RemoteClustersArgs {
    /// table or json
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    admin: AdminArgs,
}

impl RemoteClustersArgs {
    /// Asks and prints.
    pub fn run(self) -> Result<()> {
        let clusters: Vec<Cluster> = self.admin.get("/debug/clusterz", &[])?;
        match self.output {
            Output::Json => {
                let list =
                    json!({ "apiVersion": API_VERSION, "kind": "RemoteClusterList", "items": clusters });
                println!("{}", serde_json::to_string_pretty(&list)?);
            }
            Output::Table => print!("{}", list(&clusters)),
        }
        Ok(())
    }
}

fn list(clusters: &[Cluster]) -> Table {
    let mut table = Table::new(&["NAME", "SECRET", "STATUS", "SERVER", "SNAPSHOT", "PROBLEM"]);
    for cluster in clusters {
        let status = match cluster.stale_seconds {
            Some(seconds) => format!("{} for {}", cluster.sync_status, age(seconds)),
            None => cluster.sync_status.to_string(),
        };
        let problem = cluster.problem.clone().or_else(|| cluster.reason.clone());
        table.row([
            cluster.id.to_string(),
            cluster.secret_name.clone(),
            status,
            cluster.server.clone().unwrap_or_default(),
            cluster.snapshot_seconds.map(age).unwrap_or_default(),
            problem.unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cluster_has_its_secret_its_state_and_what_is_wrong() {
        let json = json!([
            { "id": "east", "secretName": "", "syncStatus": "synced", "configCluster": true, "services": 3 },
            { "id": "west", "secretName": "istio-system/istio-remote-secret-west", "syncStatus": "stale",
              "staleSeconds": 700, "server": "https://192.0.2.1:6443/", "snapshotSeconds": 720, "reason": "silent", "problem": "data.west: no" },
            { "id": "north", "secretName": "istio-system/n", "syncStatus": "refused", "problem": "is no text" },
        ]);
        let clusters: Vec<Cluster> = serde_json::from_value(json).expect("the shape of /debug/clusterz");
        let text = list(&clusters).to_string();
        let rows: Vec<Vec<_>> =
            text.lines().map(|l| l.split("   ").map(str::trim).filter(|w| !w.is_empty()).collect()).collect();
        assert_eq!(rows[0], ["NAME", "SECRET", "STATUS", "SERVER", "SNAPSHOT", "PROBLEM"]);
        assert_eq!(rows[1], ["east", "-", "synced", "-", "-", "-"]);
        assert_eq!(
            rows[2],
            [
                "west",
                "istio-system/istio-remote-secret-west",
                "stale for 11m",
                "https://192.0.2.1:6443/",
                "12m",
                "data.west: no"
            ]
        );
        assert_eq!(rows[3], ["north", "istio-system/n", "refused", "-", "-", "is no text"]);
        assert_eq!([age(0), age(7_199), age(7_200), age(200_000)], ["0s", "119m", "2h", "2d"]);
    }
}
