//! The control plane starts again while a cluster is away: it serves what it last knew, says how old that is, and takes away
//! only what the cluster says is gone when it is back.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::landbridge::snapshot::ResourceType;
use anyhow::{Context as _, Result, bail, ensure};
use kube::api::DeleteParams;

use landbridge_proto::envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};
use prost::Message as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use xds_tests::client::{Client, Kind, Options, Protocol};
use xds_tests::kubernetes::{Cluster, Settings, cluster_test, secret_file};
use xds_tests::landbridge;

use super::serving::{is_ready, own_address};
use super::world::{NAMESPACES, PATIENCE, SERVICE, login, secret, slice, two_clusters};

/// How long the control plane may take to serve although a cluster is away.
const READY: Duration = Duration::from_secs(2);
const CDS: Kind = Kind::Snapshot(ResourceType::Cluster);
const EDS: Kind = Kind::Snapshot(ResourceType::Endpoint);
const BACKEND: &str = "outbound|80||backend.production.svc.cluster.local";

/// `landbridge serve` of cluster east, as a process.
struct Running {
    child: Child,
    address: Ipv4Addr,
    /// From its start until it was ready.
    took: Duration,
}

impl Running {
    async fn start(binary: &Path, folder: &Path, address: Ipv4Addr) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args(["serve", "--cluster-id", "east", "--shutdown-duration", "1s", "--kubeconfig"]);
        command.arg(folder.join("east.kubeconfig")).env_remove("KUBECONFIG").kill_on_drop(true);
        command.arg("--kube").arg(format!("north={}", folder.join("north.kubeconfig").display()));
        command.arg("--state-dir").arg(folder.join("state"));
        command.args(["--stale-cluster", "west=deprioritise:1s,withdraw:1h"]);
        for (flag, port) in
            [("grpc", 15010), ("secure-grpc", 15012), ("http", 8080), ("monitoring", 15014), ("https", 15017)]
        {
            command.arg(format!("--{flag}-addr")).arg(SocketAddr::from((address, port)).to_string());
        }
        let log = std::fs::File::options().create(true).append(true).open(folder.join("landbridge.log"))?;
        let started = Instant::now();
        let mut child = command.stderr(log).spawn().context("start landbridge")?;
        while !is_ready(address).await {
            ensure!(started.elapsed() < PATIENCE, "not ready");
            if let Some(status) = child.try_wait()? {
                bail!("landbridge ended: {status}");
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(Self { child, address, took: started.elapsed() })
    }

    /// As Kubernetes ends it.
    async fn stop(mut self) -> Result<()> {
        let pid =
            self.child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).context("it has ended")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.child.wait().await?;
        ensure!(status.success(), "{status}");
        Ok(())
    }

    async fn page(&self, path: &str) -> Result<Value> {
        Ok(reqwest::get(format!("http://{}:15014{path}", self.address)).await?.json().await?)
    }

    async fn cluster(&self, id: &str) -> Result<Value> {
        let all = self.page("/debug/clusterz").await?;
        let found = all.as_array().into_iter().flatten().find(|cluster| cluster["id"] == id);
        Ok(found.cloned().unwrap_or_default())
    }

    async fn until(&self, what: &str, id: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let cluster = self.cluster(id).await?;
            if holds(&cluster) {
                return Ok(cluster);
            }
            ensure!(Instant::now() < deadline, "{what}: {cluster:#}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// All clusters are read, and on disk.
    async fn until_known(&self) -> Result<()> {
        for id in ["east", "west", "north"] {
            let known = |c: &Value| {
                c["syncStatus"] == "synced" && c["snapshotSeconds"].is_u64() && c["problem"].is_null()
            };
            self.until("known", id, known).await?;
        }
        Ok(())
    }

    /// Service, cluster and address of each endpoint.
    async fn endpoints(&self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let table = self.page("/debug/endpointz").await?;
        for (host, namespaces) in table.as_object().into_iter().flatten() {
            let shards = namespaces.as_object().into_iter().flatten().map(|(_, shards)| &shards["Shards"]);
            for (cluster, endpoints) in shards.flat_map(|shards| shards.as_object().into_iter().flatten()) {
                for endpoint in endpoints.as_array().into_iter().flatten() {
                    found.insert(format!("{host} {cluster} {}", endpoint["Addresses"][0]));
                }
            }
        }
        Ok(found)
    }
}

/// Until the endpoint with this address has this priority.
async fn until_priority(proxy: &mut Client, address: &str, wanted: u32) -> Result<()> {
    loop {
        let response = proxy.expect(EDS).await;
        proxy.ack(&response).await;
        let bytes = response.get(BACKEND).context("the assignment")?;
        let assignment = ClusterLoadAssignment::decode(bytes)?;
        let has_it = |group: &&LocalityLbEndpoints| {
            format!("{:?}", group.lb_endpoints).contains(&format!("{address:?}"))
        };
        let group = assignment.endpoints.iter().find(has_it).with_context(|| format!("no {address}"))?;
        if group.priority == wanted {
            return Ok(());
        }
    }
}

fn doomed(i: u8) -> String {
    let renamed = |text: &str| text.replace("backend", "doomed");
    format!("{}---\n{}", renamed(SERVICE), renamed(&slice(i)))
}

#[test]
fn a_restart_while_a_cluster_is_away_withdraws_nothing_and_what_is_gone_goes_when_it_is_back() {
    let name =
        "restart::a_restart_while_a_cluster_is_away_withdraws_nothing_and_what_is_gone_goes_when_it_is_back";
    cluster_test(name, async |binaries, folder| {
        let binary = landbridge::find()?;
        let [mut east, mut west] = two_clusters(binaries, &folder).await?;
        let north = Cluster::start(binaries, Settings::new("north", folder.join("north"))).await?;
        for text in [NAMESPACES, SERVICE, &slice(3)] {
            north.apply(text).await?;
        }
        west.apply(&doomed(4)).await?;
        for cluster in [&east, &north] {
            let path = folder.join(format!("{}.kubeconfig", cluster.name()));
            secret_file(&path, &cluster.kubeconfig(cluster.admin())?)?;
        }
        let kubeconfig = login(&west, "first", Duration::from_secs(3600)).await?;
        east.apply(&secret("remote", &[("west", &kubeconfig)])?).await?;

        let address = own_address()?;
        let start = async || Running::start(&binary, &folder, address).await;
        let running = start().await?;
        println!("ready {:?} after a start with nothing on disk", running.took);
        running.until_known().await?;
        let all = running.endpoints().await?;
        ensure!(all.len() == 4, "{all:?}");
        running.stop().await?;
        no_credentials(&folder.join("state/clusters"), &kubeconfig)?;

        // A remote cluster is away, and a service of it was deleted meanwhile.
        for (version, kind, name) in
            [("v1", "Service", "doomed"), ("discovery.k8s.io/v1", "EndpointSlice", "doomed-1")]
        {
            west.objects(version, kind, Some("production"))
                .await?
                .delete(name, &DeleteParams::default())
                .await?;
        }
        west.kill().await?;
        let running = start().await?;
        println!("ready {:?} after a start while a remote cluster is away", running.took);
        ensure!(running.took <= READY, "{:?}", running.took);
        ensure!(running.endpoints().await? == all, "{:?}", running.endpoints().await?);
        let stale = running.cluster("west").await?;
        let reason = stale["reason"].as_str().unwrap_or_default();
        ensure!(stale["syncStatus"] == "stale" && reason.contains("its durable snapshot"), "{stale:#}");
        ensure!(
            stale["staleSeconds"].is_u64() && stale["staleSeconds"] == stale["snapshotSeconds"],
            "{stale:#}"
        );
        let admin = format!("http://{address}:15014");
        let table = landbridge::command(&binary, ["remote-clusters", "--admin", &admin]).await?;
        ensure!(table.lines().any(|row| row.starts_with("west ") && row.contains("stale for ")), "{table}");

        let mut options = Options::new(Protocol::Delta, "client");
        if let Some(node) = &mut options.node {
            node.id = "sidecar~10.1.0.10~client.production~production.svc.cluster.local".into();
        }
        let mut proxy = Client::connect(SocketAddr::from((address, 15010)), options).await?;
        proxy.request(CDS, &[]).await;
        let first = proxy.expect(CDS).await;
        proxy.ack(&first).await;
        let gone = "outbound|80||doomed.production.svc.cluster.local";
        ensure!(first.names().contains(&gone), "{:?}", first.names());
        proxy.expect_nothing().await;

        // What it has comes after the others now, and is marked, until it is back.
        let mut options = Options::new(Protocol::Delta, "other");
        if let Some(node) = &mut options.node {
            node.id = "sidecar~10.1.0.11~other.production~production.svc.cluster.local".into();
        }
        let mut other = Client::connect(SocketAddr::from((address, 15010)), options).await?;
        other.request(EDS, &[BACKEND]).await;
        until_priority(&mut other, "10.9.0.2", 1).await?;
        let args = ["endpoints", "backend.production", "--from", "other", "--admin", &admin];
        let table = landbridge::command(&binary, args).await?;
        let row =
            |address: &str| table.lines().find(|row| row.starts_with(address)).unwrap_or_default().to_owned();
        let cells = |row: &str| {
            row.split("  ").map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        ensure!(cells(&row("10.9.0.1:"))[7] == "-" && cells(&row("10.9.0.2:"))[7].ends_with('s'), "{table}");
        west.revive().await?;
        until_priority(&mut other, "10.9.0.2", 0).await?;
        let response = proxy.expect(CDS).await;
        proxy.ack(&response).await;
        ensure!(response.removed == [gone] && response.resources.is_empty(), "{response:?}");
        running.until_known().await?;
        proxy.expect_nothing().await;
        let left: BTreeSet<_> = all.iter().filter(|e| !e.starts_with("doomed.")).cloned().collect();
        ensure!(left.len() == 3 && running.endpoints().await? == left, "{:?}", running.endpoints().await?);
        running.stop().await?;

        // The own cluster is away: neither the mesh's configuration nor the secret that names west can be read.
        let mut running = start().await?;
        running.until_known().await?;
        running.child.kill().await?;
        east.kill().await?;
        let running = start().await?;
        println!("ready {:?} after a kill and a start while the own cluster is away", running.took);
        ensure!(running.took <= READY, "{:?}", running.took);
        ensure!(running.endpoints().await? == left, "{:?}", running.endpoints().await?);
        let west_now = running.cluster("west").await?;
        let reason = west_now["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains("the secrets that name it cannot be read"), "{west_now:#}");
        east.revive().await?;
        running.until_known().await?;
        ensure!(running.endpoints().await? == left, "{:?}", running.endpoints().await?);

        // Taken away while nobody looks: its snapshot goes, too.
        running.stop().await?;
        let secrets = east.objects("v1", "Secret", Some("istio-system")).await?;
        secrets.delete("remote", &DeleteParams::default()).await?;
        let running = start().await?;
        let file: PathBuf = folder.join("state/clusters/west.snapshot");
        running.until("gone", "west", |west| west.is_null() && !file.exists()).await?;
        running.stop().await
    });
}

fn no_credentials(dir: &Path, kubeconfig: &str) -> Result<()> {
    let token = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("token: "));
    let token = token.context("a kubeconfig with a token")?.trim_matches('"');
    let mut snapshots = 0;
    for entry in std::fs::read_dir(dir)? {
        let text = std::fs::read_to_string(entry?.path())?;
        ensure!(text.starts_with("landbridge-snapshot/2 ") && !text.contains(token), "{text}");
        snapshots += 1;
    }
    ensure!(snapshots == 3, "{snapshots} snapshots");
    Ok(())
}
