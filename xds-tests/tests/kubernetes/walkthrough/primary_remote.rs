//! Two clusters and one control plane: the remote cluster's proxies reach it through the primary's gateway.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xds_tests::topology::{CLOUDS, GATEWAY, api_server_address, gateway_address};

use super::{BACKEND, Walk, in_istiod, none_failed, settled, walk_test};

#[test]
fn two_clusters_with_one_control_plane() {
    let name = "walkthrough::primary_remote::two_clusters_with_one_control_plane";
    walk_test(name, "primary-remote", async |walk| {
        installed(walk).await?;
        served(walk).await?;
        walk.exercise().await?;
        the_primary_lost(walk).await?;
        the_remote_api_server_lost(walk).await
    });
}

/// Sections 1 to 5 of the README.
async fn installed(walk: &Walk) -> Result<()> {
    let server = api_server_address(CLOUDS[1]).to_string();
    let known = [("API-SERVER-2", &*server)];
    for section in ["1. ", "2. "] {
        walk.desk.follows(section, &known).await?;
    }
    walk.rolled_out("cluster1", "istio-system", "istiod").await?;
    walk.rolled_out("cluster1", "istio-system", "istio-eastwestgateway").await?;
    // "Write that address into cluster2/values.yaml".
    let address = gateway_address(CLOUDS[0]);
    walk.desk.types(&format!("sed -i 's/192.0.2.10/{address}/' cluster2/values.yaml")).await?;
    walk.desk.follows("3. ", &known).await?;
    let both = |said: &str| said.matches("\"syncStatus\": \"synced\"").count() == 2;
    walk.until("both clusters are read", &remote_clusters("-o json"), both).await?;
    for section in ["4. ", "5. "] {
        walk.desk.follows(section, &known).await?;
    }
    walk.rolled_out("cluster2", "istio-system", "istio-eastwestgateway").await?;
    walk.application_rolled_out("cluster1", &["backend", "frontend"]).await?;
    walk.application_rolled_out("cluster2", &["backend"]).await
}

fn remote_clusters(flags: &str) -> String {
    in_istiod("cluster1", &format!("landbridge remote-clusters {flags}"))
}

/// The proxies of both clusters are the primary's, and so are the roots that they trust.
async fn served(walk: &Walk) -> Result<()> {
    let status = in_istiod("cluster1", "landbridge proxy-status -o json");
    let said: Value = serde_json::from_str(&walk.desk.types(&status).await?)?;
    let text = said.to_string();
    for cluster in ["cluster1", "cluster2"] {
        let pods =
            format!("kubectl --context {cluster} get pods -A -o jsonpath='{{.items[*].metadata.name}}'");
        for pod in walk.desk.types(&pods).await?.split_whitespace().filter(|pod| !pod.starts_with("istiod")) {
            ensure!(text.contains(pod), "{pod} of {cluster} is not served: {text}");
        }
    }
    let root = async |cluster: &str| {
        let map = "get configmap istio-ca-root-cert -o jsonpath='{.data.root-cert\\.pem}'";
        walk.desk.types(&format!("kubectl --context {cluster} -n production {map}")).await
    };
    let (one, two) = (root("cluster1").await?, root("cluster2").await?);
    ensure!(one == two && one.contains("BEGIN CERTIFICATE"), "{one}\n{two}");
    Ok(())
}

/// Without the primary's control plane and API server everybody keeps what they were told, and fails over by it.
async fn the_primary_lost(walk: &mut Walk) -> Result<()> {
    let load = walk.load().await?;
    settled(&load, "cluster1").await?;
    walk.clusters[0].kill().await?;
    let node = walk.nodes[0].as_ref().context("cluster1 has a node")?;
    node.kill("istiod").await?;
    node.kill("backend").await?;
    settled(&load, "cluster2").await?;
    walk.clusters[0].revive().await?;
    settled(&load, "cluster1").await?;
    none_failed(&load.finish())?;
    // The remote proxies are back at the primary, through its gateway: what happens in their cluster is told to them again.
    let gateway = walk.proxy(CLOUDS[1], GATEWAY.0)?;
    walk.scaled_and_known("cluster2", &gateway, &format!("outbound_.80_._.{BACKEND}")).await
}

/// Of the remote cluster only the API server is away: nothing is withdrawn, and its proxies are served.
async fn the_remote_api_server_lost(walk: &mut Walk) -> Result<()> {
    let load = walk.load().await?;
    walk.clusters[1].kill().await?;
    walk.until("cluster2 is stale", &remote_clusters(""), |said| said.contains("stale for")).await?;
    walk.scale_backend("cluster1", 0).await?;
    settled(&load, "cluster2").await?;
    none_failed(&load.finish())
}
