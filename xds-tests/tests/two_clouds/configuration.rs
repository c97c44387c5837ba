//! Files that are broken, and files that hold a great deal.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::time::Instant;
use xds_tests::http;
use xds_tests::mesh::{Mesh, SERVICE, Workload};

use crate::lab::{
    PATIENCE, backend_members, endpoint_slice, many_services, mesh_test, prepared_test, within,
};

/// A file that is half written, one that is no YAML, and an object that makes no sense: the rest goes on flowing.
#[test]
fn a_broken_file_holds_up_nothing() {
    mesh_test("configuration::a_broken_file_holds_up_nothing", vec![], async |mesh| {
        let endpoints = mesh.config_dir("east").join("backend-endpoints.yaml");
        let whole = std::fs::read_to_string(&endpoints)?;
        mesh.apply("east", "broken.yaml", "kind: Service\n  metadata: [")?;
        mesh.apply("east", "nonsense.yaml", NONSENSE)?;
        std::fs::write(&endpoints, &whole[..whole.len() / 2])?; // in place: an editor that does not rename
        mesh.withdraw_backends("west")?;
        within(PATIENCE, "west is withdrawn", async || Ok(backend_members(mesh).await? == 2)).await?;
        let client = mesh.topology.pod("east", "client")?;
        let answer = http::fetch(&client.ns, mesh.target().to, SERVICE, "/", Duration::from_secs(3)).await?;
        ensure!(answer.status() == 200, "home answers {}", answer.status());
        std::fs::write(&endpoints, whole)?;
        mesh.restore_backends("west")?;
        within(PATIENCE, "west is back", async || Ok(backend_members(mesh).await? == 3)).await
    });
}

const NONSENSE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: odd, namespace: production}\n\
                        spec: {clusterIP: 10.96.0.99, ports: [{name: http, port: 99999999}]}\n";

/// With both variants of the protocol; then one endpoint changes, and where the protocol can, only that is sent.
#[test]
fn a_thousand_services_in_one_proxy() {
    let sotw = Workload { protocol: "sotw", ..Workload::client("client-sotw", 20) };
    prepared_test("configuration::a_thousand_services_in_one_proxy", vec![sotw], async |mesh| {
        mesh.apply("east", "many.yaml", &many_services(1000, 10))?;
        mesh.start_control_planes().await?;
        for client in ["client", "client-sotw"] {
            let start = Instant::now();
            mesh.start_pods(&[format!("east/{client}")]).await?;
            println!("{client}: 1,000 services of 10 endpoints, ready after {:?}", start.elapsed());
            holds_a_thousand(mesh, client).await?;
        }
        let before = mesh.envoy("east", "client")?.stats("update_success$").await?;
        mesh.apply("east", "one-more.yaml", &endpoint_slice("many-500", "2", &["10.1.200.1".to_owned()]))?;
        let change = Instant::now();
        for client in ["client", "client-sotw"] {
            let envoy = mesh.envoy("east", client)?;
            let cluster = "outbound|80||many-500.crowd.svc.cluster.local";
            within(PATIENCE, "the eleventh endpoint", async || Ok(envoy.members(cluster).await? == 11))
                .await?;
            println!("{client}: one endpoint more is there after {:?}", change.elapsed());
        }
        let after = mesh.envoy("east", "client")?.stats("update_success$").await?;
        let sent: Vec<_> = after.iter().filter(|(name, n)| before.get(*name) != Some(n)).collect();
        if sent.len() != 1 {
            bail!("one endpoint changed, and the Delta client took {sent:?}");
        }
        Ok(())
    });
}

async fn holds_a_thousand(mesh: &Mesh, client: &str) -> Result<()> {
    let envoy = mesh.envoy("east", client)?;
    let active = envoy.stat("cluster_manager.active_clusters").await?;
    ensure!(active > 1000, "{client} has only {active} clusters");
    for zero in [
        "cluster_manager.warming_clusters",
        "cluster_manager.cds.update_rejected",
        "listener_manager.lds.update_rejected",
    ] {
        ensure!(envoy.stat(zero).await? == 0, "{client}: {zero} is {}", envoy.stat(zero).await?);
    }
    Ok(())
}
