//! How long it takes from an EndpointSlice that is written to an API server with 1,000 services until a real Envoy has
//! acknowledged it, beside the API server's own watch in the same run.
//!
//! ```text
//! test --PATCH--> API server --watch--> test: (a) the API server's own latency
//!                      \--watch--> landbridge --> Tap --> Envoy --ACK--> Tap: (b) what Envoy has accepted
//! ```
//!
//! Envoy does not say when it accepts something; the tap sees the request that says so, as it comes from Envoy.

mod tap;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use xds_tests::envoy;
use xds_tests::kubernetes::{Cluster, Settings, binaries, cluster_test, crds, secret_file};
use xds_tests::netns::means;
use xds_tests::process::Process;

use super::plane::{Plane, until};
use super::world::{NAMESPACES, PATIENCE};
use tap::Tap;

const SERVICES: usize = 1000;
const ENDPOINTS: usize = 10;
const CHANGES: usize = 300;
/// Written at a time while the cluster is filled.
const AT_ONCE: usize = 16;

fn name(service: usize) -> String {
    format!("svc-{service:04}")
}

/// The first address says which change it is.
fn endpoints(service: usize, change: usize) -> Value {
    let address = |i: usize| match i {
        0 => format!("10.250.{}.{}", change / 250, change % 250 + 1),
        _ => format!("10.200.{}.{}", service % 250, service / 250 * 20 + i),
    };
    (0..ENDPOINTS).map(|i| json!({ "addresses": [address(i)], "conditions": { "ready": true } })).collect()
}

async fn fill(cluster: &Cluster) -> Result<Api<EndpointSlice>> {
    let services: Api<Service> = Api::namespaced(cluster.client().clone(), "production");
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client().clone(), "production");
    let make = async |i: usize| -> Result<()> {
        let name = name(i);
        let service = json!({ "metadata": { "name": name }, "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] } });
        services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
        let slice = json!({ "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
            "addressType": "IPv4", "ports": [{ "name": "http", "port": 8080 }], "endpoints": endpoints(i, 0) });
        slices.create(&PostParams::default(), &serde_json::from_value(slice)?).await?;
        Ok(())
    };
    stream::iter(0..SERVICES).map(make).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(slices)
}

const PLAIN: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: plain, namespace: istio-system}
spec: {host: '*.local', trafficPolicy: {tls: {mode: DISABLE}}}
";

/// When the API server's own watch said the last version of a slice.
fn observe(slices: Api<EndpointSlice>, from: String) -> watch::Receiver<(String, Instant)> {
    let (said, receiver) = watch::channel((String::new(), Instant::now()));
    tokio::spawn(async move {
        let Ok(stream) = slices.watch(&WatchParams::default(), &from).await else { return };
        let mut stream = std::pin::pin!(stream);
        while let Ok(Some(event)) = stream.try_next().await {
            let now = Instant::now();
            if let WatchEvent::Modified(slice) = event {
                said.send_replace((slice.metadata.resource_version.unwrap_or_default(), now));
            }
        }
    });
    receiver
}

/// An Envoy with the clusters and endpoints of a sidecar, without listeners: nothing is sent through it.
fn start_envoy(folder: &Path, control_plane: std::net::SocketAddr) -> Result<Process> {
    let ads = json!({ "ads": {}, "resource_api_version": "V3" });
    let bootstrap = json!({
        "node": { "id": "sidecar~10.1.0.10~client.production~production.svc.cluster.local", "cluster": "client.production",
            "metadata": { "CLUSTER_ID": "east", "NAMESPACE": "production" } },
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
        "dynamic_resources": { "cds_config": ads, "ads_config": { "api_type": "DELTA_GRPC", "transport_api_version": "V3",
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds" } }] } },
        "static_resources": { "clusters": [{
            "name": "xds", "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} } } },
            "load_assignment": { "cluster_name": "xds", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": {
                "socket_address": { "address": control_plane.ip(), "port_value": control_plane.port() } } } }] }] },
        }] },
    });
    let path = folder.join("envoy.json");
    std::fs::write(&path, bootstrap.to_string())?;
    let mut command = Command::new(envoy::find(&binaries::repository())?);
    command.arg("--config-path").arg(path).arg("--admin-address-path").arg(folder.join("admin"));
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
    Process::start_at(None, "envoy", command, &folder.join("envoy.log"))
}

async fn admin(folder: &Path, page: &str) -> Result<String> {
    let address = std::fs::read_to_string(folder.join("admin"))?;
    Ok(reqwest::get(format!("http://{address}{page}")).await?.error_for_status()?.text().await?)
}

/// Milliseconds.
struct Figures(Vec<f64>);

impl Figures {
    fn at(&self, share: f64) -> f64 {
        let mut all = self.0.clone();
        all.sort_by(f64::total_cmp);
        all[((all.len() as f64 * share) as usize).min(all.len() - 1)]
    }

    fn print(&self, what: &str) {
        println!("{what}: p50 {:.2} ms, p99 {:.2} ms", self.at(0.5), self.at(0.99));
    }
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(after) => after.as_secs_f64() * 1e3,
        None => from.duration_since(to).as_secs_f64() * -1e3,
    }
}

#[test]
fn an_endpoint_written_is_acknowledged_by_envoy_about_when_a_watch_says_it() {
    let name = "latency::an_endpoint_written_is_acknowledged_by_envoy_about_when_a_watch_says_it";
    if let Err(error) = envoy::find(&binaries::repository()) {
        return means::skip(name, &format!("{error:#}"));
    }
    cluster_test(name, async |binaries, folder| {
        let east = Cluster::start(binaries, Settings::new("east", folder.join("east"))).await?;
        east.apply(NAMESPACES).await?;
        east.define(crds::ISTIO).await?;
        // An Envoy without an identity is given no certificates, and its clusters would wait for them.
        east.apply(PLAIN).await?;
        let slices = fill(&east).await?;
        let kubeconfig = folder.join("east.kubeconfig");
        secret_file(&kubeconfig, &east.kubeconfig(east.admin())?)?;
        let mut plane = Plane::start(0, &kubeconfig, &folder, &[])?;
        plane.ready().await?;
        let tap = Tap::to((plane.address, 15010).into()).await?;
        let _envoy = start_envoy(&folder, tap.address)?;
        let has_all = async || {
            let stats =
                admin(&folder, "/stats?filter=cluster_manager.active_clusters").await.unwrap_or_default();
            let count = stats.trim().rsplit(' ').next().and_then(|count| count.parse::<usize>().ok());
            Ok(count.is_some_and(|count| count > SERVICES))
        };
        until("Envoy has all clusters", has_all).await?;
        tap.quiet(Duration::from_millis(500), PATIENCE).await?;

        let from = slices.list(&Default::default()).await?.metadata.resource_version.context("a version")?;
        let mut watched = observe(slices.clone(), from);
        let (mut watch, mut push, mut ack, mut beside) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let load = std::fs::read_to_string("/proc/loadavg")?;
        for change in 1..=CHANGES {
            let service = change * 7 % SERVICES;
            let patch = json!({ "endpoints": endpoints(service, change) });
            let written = Instant::now();
            let (object, params) = (self::name(service), PatchParams::default());
            let stored = slices.patch(&object, &params, &Patch::Merge(&patch)).await?;
            let version = stored.metadata.resource_version.context("a version")?;
            let (pushed, acked) = timeout(PATIENCE, tap.acknowledged_since(written)).await??;
            let said = timeout(PATIENCE, watched.wait_for(|(said, _)| *said == version)).await??.1;
            watch.push(milliseconds(written, said));
            push.push(milliseconds(written, pushed));
            ack.push(milliseconds(written, acked));
            beside.push(milliseconds(said, acked));
            // Nobody is still busy with the one before.
            sleep(Duration::from_millis(5)).await;
        }
        // What was acknowledged is what was written.
        let clusters = admin(&folder, "/clusters").await?;
        for change in [CHANGES / 2, CHANGES] {
            let address = format!(
                "svc-{:04}.production.svc.cluster.local::10.250.{}.{}:8080",
                change * 7 % SERVICES,
                change / 250,
                change % 250 + 1
            );
            ensure!(clusters.contains(&address), "Envoy has no {address}");
        }
        let rejected = admin(&folder, "/stats?filter=update_rejected&usedonly").await?;
        ensure!(rejected.lines().all(|line| line.ends_with(": 0")), "{rejected}");

        let [watch, push, ack, beside] = [watch, push, ack, beside].map(Figures);
        println!(
            "{CHANGES} changes of an endpoint, {SERVICES} services of {ENDPOINTS}; load {}",
            load.trim()
        );
        watch.print("write to the API server's own watch");
        push.print("write to landbridge's bytes");
        ack.print("write to Envoy's ACK");
        beside.print("watch to Envoy's ACK");
        // An idle machine is far below: this is for two busy cores and a build without optimisation.
        ensure!(beside.at(0.5) < 100.0, "{:?}", beside.0);
        plane.process.stop(Duration::from_secs(20)).await
    });
}
