//! The whole control plane on real API servers, seen by a proxy; and clusters that come and go while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::TryStreamExt as _;
use kube::api::{Api, DynamicObject, WatchEvent, WatchParams};
use landbridge::app::clusters::{Clusters, Place};
use landbridge::app::{self, Config};
use landbridge::index::Options;
use landbridge::model::ClusterId;
use landbridge::model::change::ClusterState;
use landbridge::model::mcs::Mcs;
use landbridge::model::staleness::StalePolicies;
use landbridge::pipeline::{Inspector, Pipeline};
use landbridge::registry::{self, kubernetes::Allowed};
use landbridge::snapshot::{Attacher, ResourceType};
use landbridge_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use xds_tests::client::{Client, Kind, Options as ClientOptions, Protocol};
use xds_tests::kubernetes::{Cluster, Settings, binaries, cluster_test, crds, secret_file};
use xds_tests::process::resident_bytes;

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// An address of this machine that nobody else uses.
pub fn own_address() -> Result<Ipv4Addr> {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let mut addresses = (0..100_u8).map(|i| Ipv4Addr::new(127, (a ^ i) & 63 | 128, b, c.clamp(1, 254)));
    let free = |address: &Ipv4Addr| TcpListener::bind((*address, 15010)).is_ok();
    addresses.find(free).context("no loopback address is free")
}

pub fn serve_config(address: Ipv4Addr, state_dir: &Path, clusters: BTreeMap<ClusterId, Place>) -> Config {
    let at = |port| SocketAddr::from((address, port));
    Config {
        cluster_id: "east".into(),
        clusters,
        remote_cluster_timeout: Some(Duration::from_secs(30)),
        stale_clusters: StalePolicies::default(),
        remote_kubeconfigs: Allowed::default(),
        namespace: "istio-system".into(),
        pod_name: None,
        state_dir: state_dir.to_owned(),
        ca_dir: None,
        ca_secrets: true,
        grpc_addr: at(15010),
        secure_grpc_addr: at(15012),
        http_addr: at(8080),
        monitoring_addr: at(15014),
        https_addr: at(15017),
        dev_token_issuer: false,
        token_issuers: Vec::new(),
        jwks_ca_file: None,
        trusted_gateways: Default::default(),
        token_audiences: vec!["istio-ca".into()],
        workload_cert_ttl: Duration::from_secs(3600),
        max_workload_cert_ttl: Duration::from_secs(7200),
        custom_hosts: Vec::new(),
        probe_gateways: false,
        events: true,
        validation_webhooks: true,
        failover_by_default: true,
        mcs: Mcs::default(),
        mcs_api: Default::default(),
        mcs_auto_export: false,
        enable_vhds: true,
        enable_leds: true,
        leds_above: 100,
        domain: "cluster.local".into(),
        max_connection_age: Duration::from_secs(3600),
        memory_limit: None,
        max_streams: None,
        shutdown_duration: Duration::from_secs(1),
    }
}

const EDS: &str = "outbound|80||backend.production.svc.cluster.local";

fn slice(i: u32) -> String {
    let [_, _, a, b] = i.to_be_bytes();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: backend-1\n  namespace: production\n  labels: {{kubernetes.io/service-name: backend}}\naddressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints: [{{addresses: [10.9.{a}.{b}]}}]\n"
    )
}

/// When the API server's own watch said each version of the slice.
async fn observe(cluster: &Cluster) -> Result<watch::Receiver<BTreeMap<String, Instant>>> {
    let slices: Api<DynamicObject> =
        cluster.objects("discovery.k8s.io/v1", "EndpointSlice", Some("production")).await?;
    let params = WatchParams::default().fields("metadata.name=backend-1");
    let stream = slices.watch(&params, "0").await?;
    let (seen, receiver) = watch::channel(BTreeMap::new());
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Ok(Some(event)) = stream.try_next().await {
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event {
                let version = object.metadata.resource_version.unwrap_or_default();
                seen.send_modify(|seen| seen.extend([(version, Instant::now())]));
            }
        }
    });
    Ok(receiver)
}

#[test]
fn a_slice_written_to_one_of_two_clusters_becomes_bytes() {
    let name = "serving::a_slice_written_to_one_of_two_clusters_becomes_bytes";
    cluster_test(name, async |binaries, folder| {
        let start = |name: &str| Cluster::start(binaries, Settings::new(name, folder.join(name)));
        let (east, west) = tokio::try_join!(start("east"), start("west"))?;
        let mut clusters = BTreeMap::new();
        for cluster in [&east, &west] {
            cluster.define(crds::ISTIO).await?;
            let example = binaries::repository().join("deploy/examples/two-clouds").join(cluster.name());
            cluster.apply_folder(&example).await?;
            let path = folder.join(format!("{}.kubeconfig", cluster.name()));
            secret_file(&path, &cluster.kubeconfig(cluster.admin())?)?;
            clusters.insert(ClusterId::from(cluster.name()), Place::Kubeconfig(path));
        }
        let address = own_address()?;
        let config = serve_config(address, &folder.join("state"), clusters);
        let grpc = config.grpc_addr;
        let started = Instant::now();
        let serving = tokio::spawn(app::serve(config));
        while TcpListener::bind(grpc).is_ok() || !is_ready(address).await {
            ensure!(!serving.is_finished(), "it ended: {:?}", serving.await);
            ensure!(started.elapsed() < PATIENCE, "not ready");
            sleep(Duration::from_millis(20)).await;
        }
        println!("ready {:?} after its start", started.elapsed());

        let mut options = ClientOptions::new(Protocol::Delta, "client");
        if let Some(node) = &mut options.node {
            let network = prost_types::value::Kind::StringValue("network-east".into());
            let network = prost_types::Value { kind: Some(network) };
            node.metadata = Some(prost_types::Struct { fields: [("NETWORK".to_owned(), network)].into() });
            node.id = "sidecar~10.1.0.10~client.production~production.svc.cluster.local".into();
        }
        let mut proxy = Client::connect(grpc, options).await?;
        let eds = Kind::Snapshot(ResourceType::Endpoint);
        proxy.request(eds, &[EDS]).await;
        let first = proxy.expect_ack(eds, &[EDS]).await;
        ensure!(!first.get(EDS).context("an assignment")?.is_empty());

        let observed = observe(&east).await?;
        let mut ours = Vec::new();
        for i in 1..=100 {
            let stored = east.apply(&slice(i)).await?.remove(0);
            let version = stored.metadata.resource_version.context("a version")?;
            let response = proxy.expect(eds).await;
            let received = Instant::now();
            proxy.ack(&response).await;
            let bytes = response.get(EDS).context("the assignment")?;
            let [_, _, a, b] = i.to_be_bytes();
            let expected = format!("10.9.{a}.{b}");
            let found = bytes.windows(expected.len()).any(|w| w == expected.as_bytes());
            ensure!(found, "no {expected} in {:?}", ClusterLoadAssignment::decode(bytes)?);
            let mut observed = observed.clone();
            let said = observed.wait_for(|seen| seen.contains_key(&version)).await?[&version];
            // Ours may be the earlier one.
            ours.push(received.saturating_duration_since(said));
        }
        ours.sort();
        println!(
            "the API server's own watch to the proxy's bytes: median {:?}, p99 {:?}",
            ours[ours.len() / 2],
            ours[ours.len() - 2]
        );
        ensure!(ours[ours.len() / 2] < Duration::from_millis(100), "{ours:?}");
        serving.abort();
        Ok(())
    });
}

pub async fn is_ready(address: Ipv4Addr) -> bool {
    let url = format!("http://{address}:8080/ready");
    reqwest::get(url).await.is_ok_and(|answer| answer.status().is_success())
}

/// Clusters, as many as come and go.
#[test]
fn a_thousand_clusters_come_and_go_and_leave_nothing() {
    let name = "serving::a_thousand_clusters_come_and_go_and_leave_nothing";
    cluster_test(name, async |binaries, folder| {
        let cluster = Cluster::start(binaries, Settings::new("east", folder.join("east"))).await?;
        cluster.apply_folder(&binaries::repository().join("deploy/examples/two-clouds/east")).await.ok();
        let path = folder.join("kubeconfig");
        secret_file(&path, &cluster.kubeconfig(cluster.admin())?)?;
        let home = folder.join("home");
        std::fs::create_dir_all(&home)?;

        let (changes, batches) = mpsc::channel(1024);
        let (inspector, inspections) = Inspector::new();
        let (_attacher, commands) = Attacher::new();
        let options = Options {
            config_cluster: "home".into(),
            failover_by_default: true,
            domain: "cluster.local".into(),
            mcs: Mcs::default(),
        };
        let (pipeline, _ready) = Pipeline::new(options, BTreeSet::new(), batches, commands, inspections);
        tokio::spawn(pipeline.run());
        let mut clusters = Clusters::new("home".into(), registry::Settings::default(), None, changes);
        clusters.add("home".into(), &Place::Files(home)).await?;
        let mut baseline = None;
        let started = Instant::now();
        for round in 0..20 {
            let ids: Vec<ClusterId> = (0..50).map(|i| format!("c{round}-{i}").as_str().into()).collect();
            for id in &ids {
                clusters.add(id.clone(), &Place::Kubeconfig(path.clone())).await?;
            }
            let all_synced = |found: &BTreeMap<ClusterId, (ClusterState, usize)>| {
                ids.iter().all(|id| {
                    found
                        .get(id)
                        .is_some_and(|(state, services)| *state == ClusterState::Synced && *services > 1)
                })
            };
            until(&inspector, "all are read", all_synced).await?;
            for id in &ids {
                ensure!(clusters.remove(id).await, "{id} was not there");
            }
            until(&inspector, "all are gone", |found| found.len() <= 1).await?;
            let tasks = settled_tasks(baseline.map(|(tasks, _)| tasks)).await?;
            if round == 1 {
                baseline = Some((tasks, resident_bytes()? / 1024));
            }
        }
        let (tasks, memory) = baseline.context("there were rounds")?;
        let (after_tasks, after) = (settled_tasks(Some(tasks)).await?, resident_bytes()? / 1024);
        println!(
            "1,000 clusters in {:?}: {tasks} tasks and {memory} KiB after 100, {after_tasks} tasks and {after} KiB at the end",
            started.elapsed()
        );
        ensure!(after_tasks <= tasks, "{after_tasks} tasks, {tasks} before");
        ensure!(after < memory + 16 * 1024, "{after} KiB, {memory} KiB before");
        Ok(())
    });
}

async fn until(
    inspector: &Inspector,
    what: &str,
    holds: impl Fn(&BTreeMap<ClusterId, (ClusterState, usize)>) -> bool,
) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = inspector.ask(|state| {
            let of = |(id, objects): (&ClusterId, &landbridge::index::ClusterObjects)| {
                (id.clone(), (objects.state.clone(), objects.services.len()))
            };
            state.index.inputs().clusters.iter().map(of).collect()
        });
        let found = found.await.context("the pipeline does not answer")?;
        if holds(&found) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{what}: {found:?}");
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Connections end a moment after their clients; down to `expected`, or until it stays the same.
async fn settled_tasks(expected: Option<usize>) -> Result<usize> {
    let metrics = tokio::runtime::Handle::current().metrics();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut last = usize::MAX;
    loop {
        let now = metrics.num_alive_tasks();
        let done = expected.map_or(now == last, |expected| now <= expected);
        if done || Instant::now() > deadline {
            return Ok(now);
        }
        last = now;
        sleep(Duration::from_millis(300)).await;
    }
}
