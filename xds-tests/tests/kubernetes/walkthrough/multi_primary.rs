//! Two clusters with a control plane each, from nothing to the loss of one.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::time::{Duration, sleep};
use xds_tests::topology::{CLOUDS, api_server_address};

use super::{BACKEND, PATIENCE, Walk, answered_from, in_istiod, none_failed, settled, walk_test};

/// The DestinationRule that our first users bring, as they paste it, mistakes included; and a service that it is for.
const PASTED: &str = r#"
apiVersion: v1
kind: Service
metadata:
  name: payment-service
  namespace: production
spec:
  selector:
    app: backend
  ports:
  - name: http
    port: 80
    targetPort: 8080
---
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata:
  name: payment-service
  namespace: production
spec:
  host: payment-service.production.svc.cluster.local
  trafficPolicy:
    connectionPool:
      tcp:
        maxConnections: 100
      http:
        h2UpgradePolicy: DEFAULT
        maxRequestsPerConnection: 10
    outlierDetection:
      consecutive5xxErrors: 3
      interval: 10s
      baseEjectionTime: 30s
      maxEjectionPercent: 50
    loadBalancer:
      simple: LEAST_REQUEST
      localityLbSetting:
        enabled: true
        failover:
        - from: us-east-1
          to: us-central1
        - from: us-central1
          to: us-east-1
        failoverPriority:
        - topology.kubernetes.io/region
        - topology.kubernetes.io/zone
      warmupDurationSecs: 30
"#;

#[test]
fn two_clusters_with_a_control_plane_each() {
    let name = "walkthrough::multi_primary::two_clusters_with_a_control_plane_each";
    walk_test(name, "multi-primary", async |walk| {
        installed(walk).await?;
        pasted(walk).await?;
        walk.exercise().await?;
        mapped(walk).await?;
        the_own_cluster_without_its_servers(walk).await?;
        the_other_cluster_destroyed(walk).await
    });
}

/// Sections 1 to 5 of the README.
async fn installed(walk: &Walk) -> Result<()> {
    let servers = CLOUDS.map(|cloud| api_server_address(cloud).to_string());
    let known = [("API-SERVER-1", &*servers[0]), ("API-SERVER-2", &*servers[1])];
    let trust = walk.desk.follows("1. ", &known).await?;
    ensure!(trust.contains("shared root: all 2 directories trust"), "{trust}");
    for section in ["2. ", "3. ", "4. "] {
        walk.desk.follows(section, &known).await?;
    }
    for cluster in ["cluster1", "cluster2"] {
        walk.rolled_out(cluster, "istio-system", "istio-eastwestgateway").await?;
        let remote = in_istiod(cluster, "landbridge remote-clusters -o json");
        let both = |said: &str| said.matches("\"syncStatus\": \"synced\"").count() == 2;
        walk.until("both clusters are read", &remote, both).await?;
    }
    walk.desk.follows("5. ", &known).await?;
    walk.application_rolled_out("cluster1", &["backend", "frontend"]).await?;
    walk.application_rolled_out("cluster2", &["backend"]).await
}

/// Mistakes are taken as they were meant, and named.
async fn pasted(walk: &Walk) -> Result<()> {
    std::fs::write(walk.desk.example.join("payment-service.yaml"), PASTED)?;
    walk.desk
        .types("for c in cluster1 cluster2; do kubectl --context $c apply -f payment-service.yaml; done")
        .await?;
    let sources = in_istiod("cluster1", "curl -s localhost:15014/debug/sourcez");
    let named = |said: &str| {
        ["payment-service", "warmupDurationSecs", "failoverPriority"].iter().all(|word| said.contains(word))
    };
    walk.until("the mistakes are named", &sources, named).await?;

    let name = "outbound|80||payment-service.production.svc.cluster.local";
    let frontend = walk.proxy(CLOUDS[0], "frontend")?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let cluster = loop {
        let dump: Value = serde_json::from_str(&frontend.page("/config_dump?include_eds").await?)?;
        match (cluster_of(&dump, name), frontend.members(name).await?) {
            // Two pods at home, and the other network's gateway.
            (Some(cluster), 3) => break cluster,
            (_, members) => ensure!(tokio::time::Instant::now() < deadline, "{members} endpoints of {name}"),
        }
        sleep(Duration::from_millis(50)).await;
    };
    ensure!(cluster["outlier_detection"]["consecutive_5xx"] == 3, "{cluster}");
    ensure!(cluster["outlier_detection"]["max_ejection_percent"] == 50, "{cluster}");
    ensure!(cluster["circuit_breakers"]["thresholds"][0]["max_connections"] == 100, "{cluster}");
    ensure!(cluster.to_string().contains("\"slow_start_window\":\"30s\""), "{cluster}");
    Ok(())
}

fn cluster_of(dump: &Value, name: &str) -> Option<Value> {
    let configs = dump["configs"].as_array()?;
    let mut clusters =
        configs.iter().filter_map(|config| config["dynamic_active_clusters"].as_array()).flatten();
    clusters.find(|one| one["cluster"]["name"] == name).map(|one| one["cluster"].clone())
}

/// What there is in which cluster, as either says.
async fn mapped(walk: &Walk) -> Result<()> {
    for cluster in ["cluster1", "cluster2"] {
        let map = in_istiod(cluster, "landbridge service-map -o json");
        let map: Value = serde_json::from_str(&walk.desk.types(&map).await?)?;
        let overlap = map["overlaps"].as_array().into_iter().flatten().find(|one| one["name"] == "backend");
        let overlap = overlap.with_context(|| format!("backend is in both clusters: {map}"))?;
        for of in ["cluster1", "cluster2"] {
            ensure!(overlap["clusters"][of]["ready"] == 2, "{cluster}: {overlap}");
        }
        ensure!(!map.to_string().contains("kube-system"), "{map}");
    }
    Ok(())
}

/// cluster1 loses its API server, its control plane and its backends: the frontend's proxy has what it was told last.
async fn the_own_cluster_without_its_servers(walk: &mut Walk) -> Result<()> {
    let load = walk.load().await?;
    settled(&load, "cluster1").await?;
    walk.clusters[0].kill().await?;
    let node = walk.nodes[0].as_ref().context("cluster1 has a node")?;
    node.kill("istiod").await?;
    let lost = load.now();
    node.kill("backend").await?;
    let first = load.first(lost, PATIENCE, |sample| answered_from(sample, "cluster2")).await;
    let first = first.context("cluster2 never answered")?;
    println!("first answer from cluster2 {:?} after cluster1's backends", first.sent + first.took - lost);
    settled(&load, "cluster2").await?;
    walk.clusters[0].revive().await?;
    settled(&load, "cluster1").await?;
    none_failed(&load.finish())
}

/// Section 7: of cluster2 nothing is left. cluster1 serves, and says what it does not know.
async fn the_other_cluster_destroyed(walk: &mut Walk) -> Result<()> {
    let load = walk.load().await?;
    settled(&load, "cluster1").await?;
    let node = walk.nodes[1].take().context("cluster2 has a node")?;
    node.destroy().await?;
    walk.clusters[1].kill().await?;
    let remote = in_istiod("cluster1", "landbridge remote-clusters");
    let said = walk.until("cluster2 is stale", &remote, |said| said.contains("stale for")).await?;
    println!("{said}");
    let members = walk.proxy(CLOUDS[0], "frontend")?.members(&format!("outbound|80||{BACKEND}")).await?;
    ensure!(members == 3, "{members} endpoints: what cannot be seen is not gone");
    none_failed(&load.finish())
}
