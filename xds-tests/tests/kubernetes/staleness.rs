//! What a mesh says is done to the endpoints of a cluster that is away, when a real API server dies and comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use landbridge::app::clusters::Place;
use landbridge::model::staleness::{StalePolicies, StalePolicy};
use landbridge::snapshot::ResourceType;
use landbridge_proto::envoy::config::core::v3::address::Address;
use landbridge_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use landbridge_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use prost::Message as _;
use tokio::time::{Instant, timeout};
use xds_tests::client::{Client, Kind, Options, Protocol};
use xds_tests::kubernetes::{cluster_test, secret_file};

use super::world::{PATIENCE, World, login, secret, two_clusters};

const EDS: Kind = Kind::Snapshot(ResourceType::Endpoint);
const BOTH: &str = "outbound|80||backend.production.svc.cluster.local";
const WEST: &str = "outbound|80||ledger.production.svc.cluster.local";

const LEDGER: &str = "
apiVersion: v1
kind: Service
metadata: {name: ledger, namespace: production}
spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: ledger-1, namespace: production, labels: {kubernetes.io/service-name: ledger}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.9.1.2]}]
";

/// Of each service, the addresses with their priorities.
type Seen = BTreeMap<String, BTreeMap<String, u32>>;

fn read(bytes: &[u8]) -> Result<BTreeMap<String, u32>> {
    let mut found = BTreeMap::new();
    for group in ClusterLoadAssignment::decode(bytes)?.endpoints {
        for member in group.lb_endpoints {
            let Some(HostIdentifier::Endpoint(endpoint)) = member.host_identifier else { continue };
            if let Some(Address::SocketAddress(at)) = endpoint.address.and_then(|a| a.address) {
                found.insert(at.address, group.priority);
            }
        }
    }
    Ok(found)
}

async fn until(proxy: &mut Client, seen: &mut Seen, what: &str, expected: [&[(&str, u32)]; 2]) -> Result<()> {
    let [both, west] = expected.map(|of| of.iter().map(|(ip, p)| ((*ip).to_owned(), *p)).collect());
    let expected = Seen::from([(BOTH.to_owned(), both), (WEST.to_owned(), west)]);
    let deadline = Instant::now() + PATIENCE;
    while *seen != expected {
        let response = timeout(deadline.saturating_duration_since(Instant::now()), proxy.expect(EDS)).await;
        let response = response.map_err(|_| anyhow::anyhow!("{what}: {seen:?} and not {expected:?}"))?;
        proxy.ack(&response).await;
        for name in response.names() {
            seen.insert(name.to_owned(), read(response.get(name).context("it is named")?)?);
        }
    }
    Ok(())
}

#[test]
fn a_cluster_that_dies_is_withdrawn_where_others_are_and_is_back_at_once() {
    let name = "staleness::a_cluster_that_dies_is_withdrawn_where_others_are_and_is_back_at_once";
    cluster_test(name, async |binaries, folder| {
        let [east, mut west] = two_clusters(binaries, &folder).await?;
        west.apply(LEDGER).await?;
        let path = folder.join("east.kubeconfig");
        secret_file(&path, &east.kubeconfig(east.admin())?)?;
        let seconds = |n| Some(Duration::from_secs(n));
        let policy = StalePolicy { deprioritise: seconds(1), withdraw: seconds(5) };
        let set = |config: &mut landbridge::app::Config| {
            config.stale_clusters = StalePolicies {
                others: StalePolicy::default(),
                by_cluster: [("west".into(), policy)].into(),
            };
        };
        let world = World::serve_with(Place::Kubeconfig(path), &folder, set).await?;
        let kubeconfig = login(&west, "first", Duration::from_secs(3600)).await?;
        east.apply(&secret("remote", &[("west", &kubeconfig)])?).await?;
        world.until_synced().await?;

        let mut proxy = Client::connect(world.grpc, Options::new(Protocol::Delta, "client")).await?;
        proxy.request(EDS, &[BOTH, WEST]).await;
        let mut seen = Seen::new();
        let whole: [&[_]; 2] = [&[("10.9.0.1", 0), ("10.9.0.2", 0)], &[("10.9.1.2", 0)]];
        until(&mut proxy, &mut seen, "whole", whole).await?;
        for _ in 0..2 {
            west.kill().await?;
            let away =
                |west: Option<&serde_json::Value>| west.is_some_and(|west| west["syncStatus"] == "stale");
            world.until("away", away).await?;
            // Who has nothing else keeps what there was.
            let withdrawn: [&[_]; 2] = [&[("10.9.0.1", 0)], &[("10.9.1.2", 0)]];
            until(&mut proxy, &mut seen, "withdrawn", withdrawn).await?;
            west.revive().await?;
            // When it is looked for again is by chance.
            world.until_synced().await?;
            until(&mut proxy, &mut seen, "back", whole).await?;
        }
        Ok(())
    });
}
