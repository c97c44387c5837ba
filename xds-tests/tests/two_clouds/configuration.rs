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

/// A rule that is valid YAML and valid to us, but names a file that this Envoy does not have: Envoy refuses the cluster. It
/// stays as it was, nobody sends it again, the reason and the rule are shown, and everything else goes on.
#[test]
fn what_envoy_refuses_is_quarantined() {
    let late = Workload::client("late", 21);
    prepared_test("configuration::what_envoy_refuses_is_quarantined", vec![late], async |mesh| {
        mesh.start_control_planes().await?;
        mesh.start_pods(&["east/client", "east/gateway", "west/gateway"].map(str::to_owned)).await?;
        let victim = "outbound|80||many-0.crowd.svc.cluster.local";
        mesh.apply("east", "victim.yaml", &many_services(1, 3))?;
        let envoy = mesh.envoy("east", "client")?;
        within(PATIENCE, "the victim is there", async || Ok(envoy.members(victim).await? == 3)).await?;

        mesh.apply("east", "refused.yaml", REFUSED)?;
        let rejected = async || envoy.stat("cluster_manager.cds.update_rejected").await;
        within(PATIENCE, "Envoy refuses", async || Ok(rejected().await? > 0)).await?;
        within(PATIENCE, "the refusal is shown with its rule", async || {
            let shown = mesh.server("east")?.monitoring("/debug/nackz").await?;
            Ok(shown.contains(victim) && shown.contains("DestinationRule/refused"))
        })
        .await?;
        let times = rejected().await?;

        // The victim still works as it was, and news of others arrive.
        mesh.apply("east", "more.yaml", &endpoint_slice("many-0", "2", &["10.1.200.1".to_owned()]))?;
        within(PATIENCE, "the victim's fourth endpoint", async || Ok(envoy.members(victim).await? == 4))
            .await?;
        mesh.withdraw_backends("west")?;
        within(PATIENCE, "west is withdrawn", async || Ok(backend_members(mesh).await? == 2)).await?;
        ensure!(rejected().await? == times, "the refused cluster was sent again");

        // A proxy that starts now gets the good one.
        mesh.start_pods(&["east/late".to_owned()]).await?;
        let (envoy, newcomer) = (mesh.envoy("east", "client")?, mesh.envoy("east", "late")?);
        within(PATIENCE, "the newcomer has the victim", async || Ok(newcomer.members(victim).await? == 4))
            .await?;
        ensure!(
            newcomer.stat("cluster_manager.cds.update_rejected").await? == 0,
            "the newcomer got bad bytes"
        );

        // The rule mended, the cluster changes again.
        mesh.apply("east", "refused.yaml", MENDED)?;
        within(PATIENCE, "the mended rule is in force", async || {
            let dump = envoy.config_dump().await?.to_string();
            Ok(dump.contains("\"max_connections\":77"))
        })
        .await
    });
}

const REFUSED: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
                       metadata: {name: refused, namespace: crowd}\n\
                       spec:\n  host: many-0.crowd.svc.cluster.local\n  trafficPolicy:\n    tls: {mode: SIMPLE, caCertificates: /no/such/file.pem}\n";
const MENDED: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
                      metadata: {name: refused, namespace: crowd}\n\
                      spec:\n  host: many-0.crowd.svc.cluster.local\n  trafficPolicy:\n    connectionPool: {tcp: {maxConnections: 77}}\n";
