//! Endpoints one by one (LEDS) in a stock Envoy: thousands of them, whatever happens to them, and what becomes of traffic.
//!
//! Three proxies see the same service: one takes its endpoints one by one, one whole, and one by the state of the world. What
//! the first balances over has to be what the others do, with priorities, localities and health.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::time::Instant;
use xds_tests::envoy::Envoy;
use xds_tests::load::Load;
use xds_tests::mesh::{Mesh, SERVICE, Workload};

use crate::lab::{PATIENCE, RATE, answered_from, none_failed, prepared_test, within};

const MANY: usize = 2_000;
const CLUSTER: &str = "outbound|80||big.crowd.svc.cluster.local";
const PROXIES: [&str; 3] = ["client", "client-whole", "client-sotw"];

/// A node in another zone of the same region.
const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata:\n  name: east-node-2\n  labels:\n    \
    topology.kubernetes.io/region: us-east1\n    topology.kubernetes.io/zone: us-east1-b\n---\n";

/// Endpoints of the service: their nodes, and whether they are ready.
#[derive(Clone, Default)]
struct Big(BTreeMap<String, (u8, bool)>);

impl Big {
    /// Three of four in the clients' own zone.
    fn new(count: usize) -> Self {
        let endpoint = |i: usize| (address(i), (if i % 4 == 3 { 2 } else { 1 }, true));
        Self((0..count).map(endpoint).collect())
    }

    fn manifest(&self) -> String {
        let mut text = format!(
            "{NODE}apiVersion: v1\nkind: Service\nmetadata: {{name: big, namespace: crowd}}\n\
             spec: {{clusterIP: 10.99.1.1, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n"
        );
        // Most of them in slices that do not change.
        for (slice, range) in [("a", 0..1_000), ("b", 1_000..1_900), ("c", 1_900..usize::MAX)] {
            let _ = write!(
                text,
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {{name: big-{slice}, namespace: crowd, labels: {{kubernetes.io/service-name: big}}}}\n\
                 addressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n"
            );
            let mut count = 0;
            for (address, (node, ready)) in self.0.iter().filter(|(a, _)| range.contains(&number(a))) {
                let _ = writeln!(
                    text,
                    "- {{addresses: [{address}], conditions: {{ready: {ready}}}, nodeName: east-node-{node}}}"
                );
                count += 1;
            }
            if count == 0 {
                text.truncate(text.len() - 1);
                text.push_str(" []\n");
            }
        }
        text
    }
}

fn address(i: usize) -> String {
    format!("10.1.{}.{}", 16 + i / 250, 1 + i % 250)
}

fn number(address: &str) -> usize {
    let mut parts = address.rsplit('.').map(|part| part.parse::<usize>().expect("an address"));
    let (low, high) = (parts.next().expect("four parts"), parts.next().expect("four parts"));
    (high - 16) * 250 + low - 1
}

/// What Envoy balances over: by address, the priority, the locality, the weight and the health.
async fn hosts(envoy: &Envoy, cluster: &str) -> Result<BTreeMap<String, String>> {
    let page: Value = serde_json::from_str(&envoy.admin("/clusters?format=json").await?)?;
    let found = page["cluster_statuses"].as_array().into_iter().flatten().find(|c| c["name"] == cluster);
    let hosts = found.and_then(|c| c["host_statuses"].as_array()).into_iter().flatten();
    let host = |host: &Value| {
        let socket = &host["address"]["socket_address"];
        let text = format!(
            "priority {} in {} weight {} health {}",
            host["priority"], host["locality"], host["weight"], host["health_status"]
        );
        (socket["address"].as_str().unwrap_or_default().to_owned(), text)
    };
    Ok(hosts.map(host).collect())
}

/// Waits until all three proxies balance over what there is, in the same way.
async fn agree(mesh: &Mesh, big: &Big, what: &str) -> Result<()> {
    let start = Instant::now();
    let same = async || {
        let mut all = Vec::new();
        for pod in PROXIES {
            let hosts = hosts(mesh.envoy("east", pod)?, CLUSTER).await?;
            let there = hosts.len();
            ensure!(hosts.keys().eq(big.0.keys()), "{pod} has {there}, there are {}", big.0.len());
            for (address, (_, ready)) in &big.0 {
                let host = &hosts[address];
                ensure!(host.contains("UNHEALTHY") != *ready, "{pod}: {address}: {host}");
            }
            all.push(hosts);
        }
        for (address, host) in &all[0] {
            ensure!(all[1][address] == *host, "{address}: {host}, whole: {}", all[1][address]);
            ensure!(all[2][address] == *host, "{address}: {host}, sotw: {}", all[2][address]);
        }
        Ok(true)
    };
    within(PATIENCE * 3, what, same).await?;
    println!("{what}: agreed after {:?}", start.elapsed());
    for pod in PROXIES {
        let refused = mesh.envoy("east", pod)?.stats("update_rejected$").await?;
        ensure!(refused.values().all(|n| *n == 0), "{pod} refused: {refused:?}");
    }
    Ok(())
}

/// Bytes of all responses so far on the stream of a proxy.
async fn sent(mesh: &Mesh, pod: &str) -> Result<u64> {
    let shown: Value = serde_json::from_str(&mesh.server("east")?.monitoring("/debug/syncz").await?)?;
    let id = format!("{pod}.production");
    let found = shown.as_array().into_iter().flatten().find(|p| p["proxy"] == id.as_str());
    found.and_then(|p| p["bytes_sent"].as_u64()).context("the proxy is not connected")
}

async fn apply(mesh: &Mesh, big: &Big, what: &str) -> Result<[u64; 2]> {
    let before = [sent(mesh, "client").await?, sent(mesh, "client-whole").await?];
    mesh.apply("east", "big.yaml", &big.manifest())?;
    agree(mesh, big, what).await?;
    let after = [sent(mesh, "client").await?, sent(mesh, "client-whole").await?];
    let cost = [after[0] - before[0], after[1] - before[1]];
    println!("{what}: {} bytes one by one, {} whole", cost[0], cost[1]);
    Ok(cost)
}

fn others() -> Vec<Workload> {
    vec![
        Workload { enable_leds: Some(false), ..Workload::client("client-whole", 20) },
        Workload { protocol: "sotw", ..Workload::client("client-sotw", 21) },
    ]
}

async fn start(mesh: &mut Mesh, big: &Big) -> Result<()> {
    mesh.apply("east", "big.yaml", &big.manifest())?;
    mesh.start_control_planes().await?;
    let pods: Vec<String> = PROXIES.iter().map(|pod| format!("east/{pod}")).collect();
    mesh.start_pods(&pods).await?;
    agree(mesh, big, "at the start").await?;
    let collections = mesh.envoy("east", "client")?.stats("leds.*update_success$").await?;
    ensure!(collections.values().any(|n| *n > 0), "the endpoints did not come one by one: {collections:?}");
    Ok(())
}

#[test]
fn one_of_thousands_changes() {
    prepared_test("single_endpoints::one_of_thousands_changes", others(), async |mesh| {
        let mut big = Big::new(MANY);
        start(mesh, &big).await?;
        let shown = mesh.server("east")?.monitoring("/debug/edsz?proxyID=client.production").await?;
        ensure!(shown.contains(&address(MANY - 1)), "the control plane's dump has no endpoints");

        big.0.insert(address(MANY), (1, true));
        let [added, whole] = apply(mesh, &big, "one is added").await?;
        ensure!(added <= 400 && whole > 100 * added, "{added} bytes, whole {whole}");
        big.0.insert(address(MANY - 7), (1, false));
        let [removed, _] = apply(mesh, &big, "one is not ready").await?;
        ensure!((1..=400).contains(&removed), "{removed} bytes");
        big.0.remove(&address(MANY));
        big.0.insert(address(MANY - 7), (1, true));
        apply(mesh, &big, "one goes, one comes back").await?;
        // From one collection to the other.
        let (near, far) = (address(MANY - 2), address(MANY - 1));
        let places = [big.0.insert(near, (2, true)), big.0.insert(far, (1, true))];
        ensure!(places == [Some((1, true)), Some((2, true))], "they are in {places:?}");
        let [moved, _] = apply(mesh, &big, "two change places").await?;
        ensure!((1..=800).contains(&moved), "{moved} bytes");
        // The own zone is emptied, fills again, and the other one is emptied.
        let full = big.clone();
        big.0.retain(|_, (node, _)| *node == 2);
        apply(mesh, &big, "the own zone is empty").await?;
        big = full.clone();
        apply(mesh, &big, "the own zone is back").await?;
        big.0.retain(|_, (node, _)| *node == 1);
        apply(mesh, &big, "the other zone is empty").await?;
        big.0.clear();
        apply(mesh, &big, "all are gone").await?;
        big = full;
        apply(mesh, &big, "all are back").await?;
        // Below the threshold, and over it again.
        let full = big.clone();
        big.0.retain(|address, _| number(address) < 150);
        apply(mesh, &big, "few are left").await?;
        big = full;
        apply(mesh, &big, "they are many again").await?;
        let changed = apply(mesh, &big, "nothing changes").await?;
        ensure!(changed[0] == 0, "{changed:?}");

        // The cluster itself is sent again, and waits for endpoints that did not change.
        for connections in [100, 200] {
            mesh.apply("east", "rule.yaml", &rule(connections))?;
            let envoy = mesh.envoy("east", "client")?;
            let taken = async || {
                let dump = envoy.admin("/config_dump?resource=dynamic_active_clusters").await?;
                Ok(dump.contains(&format!("\"max_connections\": {connections},")))
            };
            within(PATIENCE, "the changed cluster is in use", taken).await?;
            agree(mesh, &big, "the cluster has changed").await?;
        }
        big.0.insert(address(MANY), (1, true));
        let [added, _] = apply(mesh, &big, "one is added to the changed cluster").await?;
        ensure!(added <= 400, "{added} bytes");
        Ok(())
    });
}

fn rule(connections: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: big, namespace: crowd}}\n\
         spec:\n  host: big.crowd.svc.cluster.local\n  trafficPolicy:\n    \
         connectionPool: {{tcp: {{maxConnections: {connections}}}}}\n"
    )
}

/// Envoy says nothing of the endpoints that it has, and would keep for ever what went while its stream was down.
#[test]
fn what_goes_during_an_outage_is_gone_after_it() {
    let name = "single_endpoints::what_goes_during_an_outage_is_gone_after_it";
    prepared_test(name, others(), async |mesh| {
        let mut big = Big::new(MANY);
        start(mesh, &big).await?;
        for round in 0..3 {
            mesh.kill_control_planes().await?;
            for i in 0..4 {
                big.0.remove(&address(100 * (round + 1) + i));
            }
            big.0.insert(address(MANY + round), (1, true));
            mesh.apply("east", "big.yaml", &big.manifest())?;
            mesh.start_control_planes().await?;
            agree(mesh, &big, &format!("after outage {round}")).await?;
            big.0.remove(&address(50 + round));
            let what = format!("one goes after outage {round}");
            let [removed, _] = apply(mesh, &big, &what).await?;
            ensure!(removed <= 400, "{removed} bytes");
        }
        // The other way, and back again, in proxies that go on running.
        for enabled in ["false", "true"] {
            mesh.kill_control_planes().await?;
            big.0.remove(&address(if enabled == "true" { 7 } else { 8 }));
            mesh.apply("east", "big.yaml", &big.manifest())?;
            let flag = format!("--enable-leds={enabled}");
            mesh.serve_with(&[&flag]);
            mesh.start_control_planes().await?;
            agree(mesh, &big, &flag).await?;
            big.0.remove(&address(if enabled == "true" { 10 } else { 11 }));
            let [bytes, _] = apply(mesh, &big, "one goes").await?;
            ensure!((bytes <= 400) == (enabled == "true"), "{bytes} bytes with {flag}");
        }
        Ok(())
    });
}

/// Every assignment of the mesh in pieces, the smallest too: home is withdrawn, killed and restored, and control planes
/// restart, without a failed request.
#[test]
fn traffic_does_not_notice() {
    prepared_test("single_endpoints::traffic_does_not_notice", vec![], async |mesh| {
        mesh.serve_with(&["--leds-above=0"]);
        mesh.start_control_planes().await?;
        mesh.start_workloads().await?;
        let client = mesh.topology.pod("east", "client")?;
        let load = Load::start(&client.ns, mesh.target(), RATE)?;
        let answers = async |cloud: &str| load.settled(50, PATIENCE, |s| answered_from(s, cloud)).await;
        ensure!(answers("east").await, "home does not answer");
        let cluster = format!("outbound|80||{SERVICE}");
        let collections = mesh.envoy("east", "client")?.stats("leds.*update_success$").await?;
        ensure!(collections.keys().any(|name| name.contains(SERVICE)), "whole: {collections:?}");

        mesh.withdraw_one_backend("east")?;
        let two = async || Ok(hosts(mesh.envoy("east", "client")?, &cluster).await?.len() == 2);
        within(PATIENCE, "one backend and the other cloud's gateway", two).await?;
        mesh.withdraw_backends("east")?;
        ensure!(answers("west").await, "the other cloud does not answer");
        mesh.restore_backends("east")?;
        ensure!(answers("east").await, "home does not answer again");
        mesh.kill_backends("east").await?;
        ensure!(answers("west").await, "the other cloud does not answer for killed pods");
        mesh.start_backends("east").await?;
        ensure!(answers("east").await, "home does not answer after its pods started");
        mesh.kill_control_planes().await?;
        mesh.withdraw_one_backend("east")?;
        mesh.start_control_planes().await?;
        let one = async || Ok(hosts(mesh.envoy("east", "client")?, &cluster).await?.len() == 2);
        within(PATIENCE * 3, "what went during the outage", one).await?;
        none_failed(&load.finish())
    });
}
