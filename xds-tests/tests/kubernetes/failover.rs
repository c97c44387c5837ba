//! Two clouds whose control planes read real API servers: what is written there moves traffic, and what happens to the
//! servers themselves moves nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::time::{Instant, sleep};
use xds_tests::load::{Load, Sample};
use xds_tests::mesh::{Mesh, SERVICE, Workload};
use xds_tests::topology::API_SERVER;

use crate::lab::{api_servers_test, api_servers_test_with};

const RATE: u32 = 100;
/// How long anything may take that takes well under a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn endpoints_that_leave_the_api_server_move_traffic_and_come_back() {
    let name = "failover::endpoints_that_leave_the_api_server_move_traffic_and_come_back";
    api_servers_test(name, async |mesh, _| {
        let load = start(mesh).await?;
        let (slices, all) = backends(mesh, "east").await?;
        let none = json!({ "endpoints": [] });
        let left = load.now();
        slices.patch("backend-1", &PatchParams::default(), &Patch::Merge(none)).await?;
        let first = load.first(left, PATIENCE, |sample| answered_from(sample, "west")).await;
        let first = first.context("west never answered")?;
        ensure!(
            load.settled(50, PATIENCE, |sample| answered_from(sample, "west")).await,
            "home still answers"
        );

        slices.patch("backend-1", &PatchParams::default(), &Patch::Merge(&all)).await?;
        ensure!(load.settled(50, PATIENCE, |sample| answered_from(sample, "east")).await, "home stays empty");
        println!("first answer from west {:?} after the write", first.sent + first.took - left);
        none_failed(&load.finish())
    });
}

/// Endpoints in the other cloud stay what they were while nobody can say what they are.
#[test]
fn an_api_server_that_is_lost_withdraws_nothing() {
    api_servers_test("failover::an_api_server_that_is_lost_withdraws_nothing", async |mesh, _| {
        let load = start(mesh).await?;
        ensure!(members(mesh).await? == 3, "the client does not know two pods and a gateway");
        for (name, loss) in [
            ("suspended", Loss::Suspended),
            ("network cut", Loss::NetworkCut),
            ("without etcd", Loss::WithoutEtcd),
            ("killed", Loss::Killed),
        ] {
            lost_and_found(mesh, &loss).await.context(name)?;
        }
        none_failed(&load.finish())
    });
}

/// One way to lose an API server.
enum Loss {
    Suspended,
    NetworkCut,
    WithoutEtcd,
    Killed,
}

impl Loss {
    async fn strike(&self, mesh: &mut Mesh) -> Result<()> {
        match self {
            Self::Suspended => mesh.cluster("west")?.suspend(),
            Self::NetworkCut => links(mesh, "down")?,
            Self::WithoutEtcd => mesh.cluster("west")?.take_etcd(),
            Self::Killed => mesh.cluster_mut("west")?.kill().await?,
        }
        Ok(())
    }

    async fn mend(&self, mesh: &mut Mesh) -> Result<()> {
        match self {
            Self::Suspended => mesh.cluster("west")?.resume(),
            Self::NetworkCut => links(mesh, "up")?,
            Self::WithoutEtcd => mesh.cluster("west")?.give_etcd(),
            Self::Killed => mesh.cluster_mut("west")?.revive().await?,
        }
        mesh.cluster_mut("west")?.await_ready(Duration::from_secs(90)).await
    }
}

/// Its two networks: its cloud's and the one between the clouds.
fn links(mesh: &Mesh, state: &str) -> Result<()> {
    let pod = mesh.topology.pod("west", API_SERVER.0)?;
    pod.ns.ip(&format!("link set eth0 {state}\nlink set wan0 {state}\n"))
}

/// While west's API server is lost, everything stays; once it is back, a change there arrives without anybody's doing.
async fn lost_and_found(mesh: &mut Mesh, loss: &Loss) -> Result<()> {
    let (slices, all) = backends(mesh, "west").await?;
    loss.strike(mesh).await?;
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        ensure!(members(mesh).await? == 3, "endpoints were withdrawn");
        sleep(Duration::from_millis(200)).await;
    }
    loss.mend(mesh).await?;
    for (change, expected) in [(&json!({ "endpoints": [] }), 2), (&all, 3)] {
        slices.patch("backend-1", &PatchParams::default(), &Patch::Merge(change)).await?;
        let deadline = Instant::now() + Duration::from_secs(90);
        while members(mesh).await? != expected {
            ensure!(
                Instant::now() < deadline,
                "a change of west did not arrive after its API server came back"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Starts what is missing, and a steady load from east's client, which home answers.
async fn start(mesh: &mut Mesh) -> Result<Load> {
    mesh.start_control_planes().await?;
    mesh.start_workloads().await?;
    let client = mesh.topology.pod("east", "client")?;
    let load = Load::start(&client.ns, mesh.target(), RATE)?;
    let home = load.settled(50, PATIENCE, |sample| answered_from(sample, "east")).await;
    ensure!(home, "home does not answer");
    Ok(load)
}

/// A cloud's slices, and the endpoints of the backend's as a patch.
async fn backends(mesh: &Mesh, cloud: &str) -> Result<(Api<EndpointSlice>, serde_json::Value)> {
    let slices: Api<EndpointSlice> = Api::namespaced(mesh.cluster(cloud)?.client().clone(), "production");
    let slice = slices.get("backend-1").await?;
    Ok((slices, json!({ "endpoints": slice.endpoints })))
}

/// How many endpoints the client in east knows of the backend: its own cloud's pods, and the other's gateway.
async fn members(mesh: &Mesh) -> Result<u64> {
    mesh.envoy("east", "client")?.members(&format!("outbound|80||{SERVICE}")).await
}

fn answered_from(sample: &Sample, cloud: &str) -> bool {
    !sample.failed() && sample.by.starts_with(cloud)
}

fn none_failed(samples: &[Sample]) -> Result<()> {
    let failed = Vec::from_iter(samples.iter().filter(|sample| sample.failed()));
    ensure!(failed.is_empty(), "{} of {} failed, the first: {:?}", failed.len(), samples.len(), failed[0]);
    Ok(())
}

/// West's API server and its control plane are gone for good. East serves, also to its proxies what is in west; and west's
/// proxies, the gateway among them, go on with what they had.
#[test]
fn a_primary_that_is_destroyed_leaves_the_other_and_its_own_proxies_at_work() {
    let name = "failover::a_primary_that_is_destroyed_leaves_the_other_and_its_own_proxies_at_work";
    let client = Workload { cloud: "west", ..Workload::client("client", 10) };
    api_servers_test_with(name, vec![client], async |mesh, _| {
        let load = start(mesh).await?;
        let client = mesh.topology.pod("west", "client")?;
        let in_west = Load::start(&client.ns, mesh.target(), RATE)?;
        let home = in_west.settled(50, PATIENCE, |sample| answered_from(sample, "west")).await;
        ensure!(home, "home does not answer in west");
        let of_west = async |mesh: &Mesh| -> Result<BTreeMap<String, u64>> {
            let taken = mesh.taken().await?.into_iter();
            Ok(taken.filter(|(name, _)| name.starts_with("west/")).collect())
        };
        let before = of_west(mesh).await?;

        mesh.cluster_mut("west")?.kill().await?;
        mesh.kill_control_plane("west").await?;
        let deadline = Instant::now() + PATIENCE;
        while mesh.envoy("west", "client")?.connected().await {
            ensure!(Instant::now() < deadline, "west's client is connected to nobody's control plane");
            sleep(Duration::from_millis(50)).await;
        }
        // East's control plane works: its home empties, and west's gateway and pods answer without theirs.
        let (slices, all) = backends(mesh, "east").await?;
        slices.patch("backend-1", &PatchParams::default(), &Patch::Merge(json!({ "endpoints": [] }))).await?;
        ensure!(load.settled(50, PATIENCE, |sample| answered_from(sample, "west")).await, "west is lost");
        slices.patch("backend-1", &PatchParams::default(), &Patch::Merge(&all)).await?;
        ensure!(load.settled(50, PATIENCE, |sample| answered_from(sample, "east")).await, "home stays empty");
        ensure!(members(mesh).await? == 3, "endpoints of west were withdrawn");
        ensure!(in_west.settled(50, PATIENCE, |sample| answered_from(sample, "west")).await, "west's own");
        ensure!(of_west(mesh).await? == before, "west's proxies took something from somewhere");
        none_failed(&in_west.finish())?;
        none_failed(&load.finish())
    });
}
