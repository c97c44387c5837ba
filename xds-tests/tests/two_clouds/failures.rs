//! Home fails in all ways; under load, the other cloud answers, and later home again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xds_tests::load::{Load, Sample};
use xds_tests::mesh::Mesh;

use crate::lab::{PATIENCE, RATE, answered_from, mesh_test, none_failed, prepared_test};

/// One way in which home fails.
enum Failure {
    Answers500,
    AppsKilled,
    PodsKilled,
    Withdrawn,
    PodsKilledWithoutControlPlanes,
}

impl Failure {
    async fn strike(&self, mesh: &mut Mesh) -> Result<()> {
        match self {
            Self::Answers500 => mesh.backends_answer("east", "500"),
            Self::AppsKilled => mesh.kill_backend_apps("east").await,
            Self::PodsKilled => mesh.kill_backends("east").await,
            Self::Withdrawn => mesh.withdraw_backends("east"),
            Self::PodsKilledWithoutControlPlanes => {
                mesh.kill_control_planes().await?;
                mesh.kill_backends("east").await
            }
        }
    }

    async fn mend(&self, mesh: &mut Mesh) -> Result<()> {
        match self {
            Self::Answers500 => mesh.backends_answer("east", "ok"),
            Self::AppsKilled | Self::PodsKilled => mesh.start_backends("east").await,
            Self::Withdrawn => mesh.restore_backends("east"),
            Self::PodsKilledWithoutControlPlanes => {
                mesh.start_control_planes().await?;
                mesh.start_backends("east").await
            }
        }
    }
}

/// With retries, outlier detection and immediate health updates, no failure of home is seen by its caller.
#[test]
fn whatever_fails_at_home_the_other_cloud_answers() {
    mesh_test("failures::whatever_fails_at_home_the_other_cloud_answers", vec![], async |mesh| {
        for (name, failure) in [
            ("500s", Failure::Answers500),
            ("applications killed", Failure::AppsKilled),
            ("pods killed", Failure::PodsKilled),
            ("withdrawn", Failure::Withdrawn),
            ("pods killed while no control plane runs", Failure::PodsKilledWithoutControlPlanes),
        ] {
            moves_and_comes_back(mesh, name, failure).await.context(name)?;
        }
        Ok(())
    });
}

async fn moves_and_comes_back(mesh: &mut Mesh, name: &str, failure: Failure) -> Result<()> {
    let client = mesh.topology.pod("east", "client")?;
    let load = Load::start(&client.ns, mesh.target(), RATE)?;
    ensure!(load.settled(50, PATIENCE, |sample| answered_from(sample, "east")).await, "home does not answer");
    let struck = load.now();
    failure.strike(mesh).await?;
    let first = load.first(struck, PATIENCE, |sample| answered_from(sample, "west")).await;
    let first = first.context("west never answered")?;
    // Longer than the ejection time of 3 s: home is tried again, and must be left alone again.
    tokio::time::sleep(Duration::from_secs(4)).await;
    failure.mend(mesh).await?;
    let home = load.settled(50, PATIENCE * 2, |sample| answered_from(sample, "east")).await;
    ensure!(home, "traffic did not come home");
    let samples = load.finish();
    println!(
        "{name}: first answer from west after {:?}; {} requests, {} skipped",
        first.sent + first.took - struck,
        samples.len(),
        load.skipped()
    );
    none_failed(&samples)
}

/// A pulled cable gives no error that could be retried at once: what is in flight waits for its client's patience,
/// and new connections for the connect timeout (1 s by the example's DestinationRule). So failures are few, not none.
#[test]
fn pods_that_fall_silent_cost_only_what_is_in_flight() {
    mesh_test("failures::pods_that_fall_silent_cost_only_what_is_in_flight", vec![], async |mesh| {
        let client = mesh.topology.pod("east", "client")?;
        let load = Load::start(&client.ns, mesh.target(), RATE)?;
        ensure!(
            load.settled(50, PATIENCE, |sample| answered_from(sample, "east")).await,
            "home does not answer"
        );
        for pod in ["backend-a", "backend-b"] {
            mesh.topology.pod("east", pod)?.ns.ip("link set eth0 down\n")?;
        }
        let moved = load.settled(100, PATIENCE * 2, |sample| answered_from(sample, "west")).await;
        let samples = load.finish();
        let failed = samples.iter().filter(|sample| sample.failed()).count();
        println!("silent pods: {failed} of {} failed", samples.len());
        ensure!(moved, "traffic did not move to west ({failed} of {} failed)", samples.len());
        // Eight lanes with one request in flight each, a few times over until both pods are known to be gone.
        ensure!(failed <= 30, "{failed} of {} failed", samples.len());
        Ok(())
    });
}

/// Ours, unlike Istio's default: a service in two localities fails over without a DestinationRule.
#[test]
fn failover_needs_no_destination_rule() {
    prepared_test("failures::failover_needs_no_destination_rule", vec![], async |mesh| {
        for cloud in ["east", "west"] {
            mesh.apply(cloud, "policy.yaml", STRICT)?;
        }
        mesh.start_control_planes().await?;
        mesh.start_workloads().await?;
        let client = mesh.topology.pod("east", "client")?;
        let load = Load::start(&client.ns, mesh.target(), RATE)?;
        ensure!(
            load.settled(50, PATIENCE, |sample| answered_from(sample, "east")).await,
            "home does not answer"
        );
        mesh.kill_backends("east").await?;
        let from_west = |sample: &Sample| answered_from(sample, "west");
        ensure!(load.settled(100, PATIENCE, from_west).await, "west does not answer");
        none_failed(&load.finish())
    });
}

const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                      metadata: {name: default, namespace: production}\nspec: {mtls: {mode: STRICT}}\n";
