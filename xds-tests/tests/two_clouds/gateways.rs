//! Gateways die and come back while the endpoints behind them stay registered.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use xds_tests::load::Load;
use xds_tests::mesh::{Mesh, SERVICE};
use xds_tests::topology::{GATEWAY, gateway_address};

use crate::lab::{PATIENCE, RATE, answered_from, none_failed, prepared_test, within};

/// What the issue asks for: from the death of a gateway to the last Envoy that knows.
const SEEN_DEAD: Duration = Duration::from_secs(15);

/// Both clouds answer alike: no locality comes first.
const NO_LOCALITY: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
    metadata: {name: backend, namespace: production}\n\
    spec:\n  host: backend.production.svc.cluster.local\n  trafficPolicy:\n\
    \x20   connectionPool: {tcp: {connectTimeout: 1s}}\n\
    \x20   outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 3s}\n\
    \x20   loadBalancer: {localityLbSetting: {enabled: false}}\n";

/// How east's control plane sees a cloud's gateway.
async fn seen(mesh: &Mesh, cloud: &str) -> Result<Value> {
    let text = mesh.server("east")?.monitoring("/debug/gatewayz").await?;
    let all: Vec<Value> = serde_json::from_str(&text).context("a list of gateways")?;
    let address = gateway_address(cloud).to_string();
    let found = all.into_iter().find(|gateway| gateway["address"] == address.as_str());
    found.with_context(|| format!("{address} is in {text}"))
}

async fn is(mesh: &Mesh, cloud: &str, state: &str) -> Result<bool> {
    Ok(seen(mesh, cloud).await?["state"] == state)
}

/// The priority of west's gateway in the client's Envoy.
async fn priority(mesh: &Mesh) -> Result<Option<u64>> {
    let start = format!("outbound|80||{SERVICE}::{}:15443::priority::", gateway_address("west"));
    let page = mesh.envoy("east", "client")?.admin("/clusters").await?;
    let priority = page.lines().find_map(|line| line.strip_prefix(&start));
    priority.map(|number| number.parse().context("a number")).transpose()
}

/// Since then, until the client's Envoy has west's gateway at this priority.
async fn until_priority(mesh: &Mesh, expected: u64, since: Instant, limit: Duration) -> Result<Duration> {
    loop {
        let now = priority(mesh).await?;
        if now == Some(expected) {
            return Ok(since.elapsed());
        }
        if since.elapsed() > limit {
            let state = seen(mesh, "west").await?;
            bail!("west's gateway is at priority {now:?} and not at {expected} after {limit:?}: {state:#}");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn begin(mesh: &mut Mesh) -> Result<()> {
    mesh.apply("east", "policy.yaml", NO_LOCALITY)?;
    mesh.start_control_planes().await?;
    mesh.start_workloads().await?;
    for cloud in ["east", "west"] {
        within(PATIENCE, "a handshake with a backend behind each gateway was completed", async || {
            let gateway = seen(mesh, cloud).await?;
            Ok(gateway["state"] == "alive" && gateway["handshake"] == true)
        })
        .await?;
    }
    let west = seen(mesh, "west").await?;
    // The backend, and the gateway's own Service.
    ensure!(west["services"] == 2 && west["latencyMs"].as_f64().is_some_and(|ms| ms > 0.0), "{west:#}");
    ensure!(west["network"] == "network-west" && west["cluster"] == "west", "{west:#}");
    until_priority(mesh, 0, Instant::now(), PATIENCE).await?;
    Ok(())
}

#[test]
fn a_gateway_that_dies_draws_no_traffic_and_one_that_is_back_does() {
    let name = "gateways::a_gateway_that_dies_draws_no_traffic_and_one_that_is_back_does";
    prepared_test(name, vec![], async |mesh| {
        begin(mesh).await?;
        let client = mesh.topology.pod("east", "client")?;
        let load = Load::start(&client.ns, mesh.target(), RATE)?;
        let west = load.first(load.now(), PATIENCE, |sample| answered_from(sample, "west")).await;
        ensure!(west.is_some(), "west answers its share");

        // The port is closed.
        let killed = Instant::now();
        mesh.kill_proxy("west", GATEWAY.0).await?;
        let refused = until_priority(mesh, 1, killed, SEEN_DEAD).await?;
        ensure!(is(mesh, "west", "dead").await? && is(mesh, "east", "alive").await?);
        let dead = mesh.server("east")?.metric("landbridge_gateway_state", "state=\"dead\"").await?;
        ensure!(dead == 1.0, "{dead}");
        ensure!(
            load.settled(100, PATIENCE, |sample| answered_from(sample, "east")).await,
            "east answers alone"
        );
        let started = Instant::now();
        mesh.start_pods(&["west/gateway".to_owned()]).await?;
        let ready = started.elapsed();
        until_priority(mesh, 0, started, PATIENCE).await?;
        let restored = started.elapsed() - ready;
        let again = load.first(load.now(), PATIENCE, |sample| answered_from(sample, "west")).await;
        ensure!(again.is_some(), "west answers its share again");
        none_failed(&load.finish())?;

        // Nothing comes back at all.
        let gateway = mesh.topology.pod("west", GATEWAY.0)?;
        let cut = Instant::now();
        gateway.ns.ip("link set wan0 down\n")?;
        let silent = until_priority(mesh, 1, cut, SEEN_DEAD).await?;
        gateway.ns.ip("link set wan0 up\n")?;
        until_priority(mesh, 0, Instant::now(), PATIENCE).await?;
        println!(
            "dead gateway: at priority 1 after {refused:?} (port closed), {silent:?} (nothing comes back); restored {restored:?} after it was ready"
        );
        Ok(())
    });
}

/// From where nobody answers nothing can be said about anybody.
#[test]
fn when_no_gateway_answers_nothing_is_changed() {
    prepared_test("gateways::when_no_gateway_answers_nothing_is_changed", vec![], async |mesh| {
        begin(mesh).await?;
        let plane = mesh.topology.pod("east", "landbridge")?;
        // The control plane's own way to the gateways, and not that of the proxies.
        let rule = |action: &str| {
            plane.ns.iptables(&format!("*filter\n{action} OUTPUT -d 172.30.0.0/24 -j DROP\nCOMMIT\n"))
        };
        rule("-A")?;
        for cloud in ["east", "west"] {
            within(PATIENCE, "nothing is known of a gateway", async || is(mesh, cloud, "unknown").await)
                .await?;
        }
        let problem = seen(mesh, "west").await?["problem"].as_str().unwrap_or_default().to_owned();
        ensure!(problem.contains("our own network"), "{problem}");
        ensure!(priority(mesh).await? == Some(0), "nothing changed");
        rule("-D")?;
        for cloud in ["east", "west"] {
            within(PATIENCE, "it answers again", async || is(mesh, cloud, "alive").await).await?;
        }
        ensure!(priority(mesh).await? == Some(0), "nothing changed");
        Ok(())
    });
}
