//! A service under its name in the set of clusters: what crosses is what is exported, under that name only.

use anyhow::{Result, ensure};
use serde_json::Value;
use xds_tests::load::{Load, Target};
use xds_tests::mesh::Mesh;

use crate::lab::{PATIENCE, RATE, answered_from, none_failed, prepared_test, within};

const SET: &str = "backend.production.svc.clusterset.local";
/// What the client's cluster imports the service at; nothing has this address.
const VIP: [u8; 4] = [10, 96, 200, 7];

const EXPORT: &str = "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceExport\n\
    metadata: {name: backend, namespace: production}\n";
const IMPORT: &str = "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceImport\n\
    metadata: {name: backend, namespace: production}\n\
    spec: {type: ClusterSetIP, ips: [10.96.200.7], ports: [{name: http, port: 80, protocol: TCP}]}\n";

fn target() -> Target {
    Target { to: (VIP, 80).into(), host: SET.to_owned() }
}

/// What east's control plane knows of west's export.
async fn exported(mesh: &Mesh) -> Result<bool> {
    let all: Vec<Value> = serde_json::from_str(&mesh.server("east")?.monitoring("/debug/mcsz").await?)?;
    Ok(all.iter().any(|service| service["Cluster"] == "west" && service["Exported"] == true))
}

#[test]
fn the_name_of_the_set_is_answered_by_the_cluster_that_exports_the_service() {
    let name = "clusterset::the_name_of_the_set_is_answered_by_the_cluster_that_exports_the_service";
    prepared_test(name, vec![], async |mesh| {
        let flags = ["--enable-mcs-service-discovery", "--enable-mcs-host", "--enable-mcs-cluster-local"];
        mesh.serve_with(&flags);
        mesh.apply("east", "import.yaml", IMPORT)?;
        mesh.apply("west", "export.yaml", EXPORT)?;
        mesh.start_control_planes().await?;
        mesh.start_workloads().await?;
        let client = mesh.topology.pod("east", "client")?;
        let set = Load::start(&client.ns, target(), RATE)?;
        ensure!(set.settled(50, PATIENCE, |sample| answered_from(sample, "east")).await, "home is nearest");

        // Home empties: the other cluster answers under this name, and nobody under the cluster's own.
        mesh.withdraw_backends("east")?;
        ensure!(set.settled(50, PATIENCE, |sample| answered_from(sample, "west")).await, "west answers");
        let own = Load::start(&client.ns, mesh.target(), RATE)?;
        ensure!(own.settled(50, PATIENCE, |sample| sample.status == 503).await, "its own name crosses");
        none_failed(&set.finish())?;

        // Nobody exports it any more, and again somebody does.
        let set = Load::start(&client.ns, target(), RATE)?;
        std::fs::remove_file(mesh.config_dir("west").join("export.yaml"))?;
        within(PATIENCE, "the export is gone", async || Ok(!exported(mesh).await?)).await?;
        ensure!(set.settled(50, PATIENCE, |sample| sample.status == 503).await, "nothing is exported");
        mesh.apply("west", "export.yaml", EXPORT)?;
        ensure!(
            set.settled(50, PATIENCE, |sample| answered_from(sample, "west")).await,
            "west answers again"
        );
        ensure!(exported(mesh).await?);
        mesh.restore_backends("east")?;
        for load in [&set, &own] {
            ensure!(load.settled(50, PATIENCE, |sample| answered_from(sample, "east")).await, "home is back");
        }
        Ok(())
    });
}
