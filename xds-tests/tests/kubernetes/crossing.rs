//! What crosses from one cluster to another: exports and imports of the Multi-Cluster Services API on two API servers, with
//! their kinds installed late and taken away, `exportTo`, and cluster-local settings.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::api::DeleteParams;
use landbridge::app::clusters::Place;
use landbridge::model::mcs::{Api, Mcs};
use landbridge::snapshot::ResourceType;
use serde_json::Value;
use tokio::time::{Instant, timeout};
use xds_tests::client::{Client, Kind, Options, Protocol};
use xds_tests::kubernetes::{Cluster, cluster_test, crds, secret_file};

use super::plane::until;
use super::world::{PATIENCE, World, login, secret, two_clusters};

const OWN: &str = "outbound|80||backend.production.svc.cluster.local";
const SET: &str = "outbound|80||backend.production.svc.clusterset.local";
const EDS: Kind = Kind::Snapshot(ResourceType::Endpoint);
const HOUR: Duration = Duration::from_secs(3600);

const EXPORT: &str = "
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceExport
metadata: {name: backend, namespace: production}
";
const IMPORT: &str = "
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceImport
metadata: {name: backend, namespace: production}
spec: {type: ClusterSetIP, ips: [10.96.200.7], ports: [{name: http, port: 80, protocol: TCP}]}
";

/// The same kinds in another group, as a cloud provider's controller has them.
const ELSEWHERE: &[crds::Kind] = &[
    crds::Kind {
        group: "net.example",
        kind: "ServiceExport",
        plural: "serviceexports",
        short: &[],
        versions: &["v1"],
    },
    crds::Kind {
        group: "net.example",
        kind: "ServiceImport",
        plural: "serviceimports",
        short: &[],
        versions: &["v1"],
    },
];

fn elsewhere(manifest: &str) -> String {
    manifest.replace("multicluster.x-k8s.io/v1alpha1", "net.example/v1")
}

/// A sidecar of a cluster that follows the service under both names.
struct Proxy {
    client: Client,
    has: BTreeMap<String, Vec<u8>>,
}

impl Proxy {
    async fn of(cluster: &str, world: &World) -> Result<Self> {
        let mut options = Options::new(Protocol::Delta, "client");
        if let Some(node) = &mut options.node {
            let id = prost_types::value::Kind::StringValue(cluster.to_owned());
            let id = prost_types::Value { kind: Some(id) };
            node.metadata = Some(prost_types::Struct { fields: [("CLUSTER_ID".to_owned(), id)].into() });
        }
        let mut client = Client::connect(world.grpc, options).await?;
        client.request(EDS, &[OWN, SET]).await;
        let mut proxy = Self { client, has: BTreeMap::new() };
        proxy.take().await?;
        Ok(proxy)
    }

    async fn take(&mut self) -> Result<()> {
        let response = self.client.expect(EDS).await;
        self.client.ack(&response).await;
        for name in &response.removed {
            self.has.remove(name);
        }
        for name in response.names() {
            self.has.insert(name.to_owned(), response.get(name).context("it is named")?.to_vec());
        }
        Ok(())
    }

    /// Which of the clusters' endpoints it has, under the service's own name and under that of the set.
    fn sees(&self) -> [String; 2] {
        [OWN, SET].map(|name| {
            let bytes = self.has.get(name).map(Vec::as_slice).unwrap_or_default();
            let there = |address: &str| bytes.windows(address.len()).any(|w| w == address.as_bytes());
            let clusters = [("east", "10.9.0.1"), ("west", "10.9.0.2")].into_iter();
            Vec::from_iter(clusters.filter(|(_, ip)| there(ip)).map(|(cluster, _)| cluster)).join(" ")
        })
    }

    async fn until(&mut self, what: &str, expected: [&str; 2]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.sees() != expected {
            let taken = timeout(deadline.saturating_duration_since(Instant::now()), self.take()).await;
            taken.map_err(|_| anyhow::anyhow!("{what}: {:?} and not {expected:?}", self.sees()))??;
        }
        Ok(())
    }
}

async fn delete(cluster: &Cluster, kind: &str) -> Result<()> {
    let objects = cluster.objects("multicluster.x-k8s.io/v1alpha1", kind, Some("production")).await?;
    objects.delete("backend", &DeleteParams::default()).await?;
    Ok(())
}

/// A host as the control plane tells it to people.
async fn registered(world: &World, host: &str) -> Result<Option<Value>> {
    let url = format!("{}/debug/registryz?namespace=production", world.admin);
    let all: Vec<Value> = reqwest::get(url).await?.json().await?;
    Ok(all.into_iter().find(|service| service["hostname"] == host))
}

async fn until_registered(world: &World, host: &str, there: bool) -> Result<Option<Value>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = registered(world, host).await?;
        if found.is_some() == there {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("{host}: {found:#?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn only_what_is_exported_crosses_under_both_names() {
    let name = "crossing::only_what_is_exported_crosses_under_both_names";
    cluster_test(name, async |binaries, folder| {
        let [east, west] = two_clusters(binaries, &folder).await?;
        let path = folder.join("east.kubeconfig");
        secret_file(&path, &east.kubeconfig(east.admin())?)?;
        let place = Place::Kubeconfig(path);
        let world = World::serve_with(place, &folder, |config| config.mcs = Mcs::Hosts).await?;
        let kubeconfig = login(&west, "first", HOUR).await?;
        east.apply(&secret("remote", &[("west", &kubeconfig)])?).await?;
        // Kinds that nobody installed are no problem.
        world.until_synced().await?;
        let mut of_east = Proxy::of("east", &world).await?;
        let mut of_west = Proxy::of("west", &world).await?;
        of_east.until("nothing is exported", ["east", ""]).await?;
        of_west.until("nothing is exported", ["west", ""]).await?;

        // Found within seconds after somebody installed them.
        west.define(crds::MULTI_CLUSTER).await?;
        west.apply(EXPORT).await?;
        of_east.until("west exports", ["east west", ""]).await?;
        east.define(crds::MULTI_CLUSTER).await?;
        east.apply(IMPORT).await?;
        of_east.until("east imports", ["east west", "east west"]).await?;
        of_west.until("the set's name is everywhere", ["west", "west"]).await?;
        let set = until_registered(&world, "backend.production.svc.clusterset.local", true).await?;
        let set = set.context("it is there")?;
        let vips = serde_json::json!({ "east": ["10.96.200.7"] });
        ensure!(set["clusterVIPs"]["Addresses"] == vips, "{set:#}");
        ensure!(set["exportedBy"] == serde_json::json!(["west"]), "{set:#}");
        east.apply(EXPORT).await?;
        of_west.until("both export", ["east west", "east west"]).await?;

        // The mesh's settings are by host: the one stays within each cluster, the other crosses.
        let mesh = |settings: &str| {
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {settings}\n"
            )
        };
        let local =
            "serviceSettings: [{settings: {clusterLocal: true}, hosts: ['*.production.svc.cluster.local']}]";
        east.apply(&mesh(local)).await?;
        of_east.until("local to each cluster", ["east", "east west"]).await?;
        of_west.until("local to each cluster", ["west", "east west"]).await?;
        east.apply(&mesh("defaultServiceExportTo: [production]")).await?;
        // The proxies are of namespace shop.
        of_east.until("not for shop", ["", ""]).await?;
        east.apply(&mesh("{}")).await?;
        of_east.until("for all", ["east west", "east west"]).await?;

        // An export that is taken back, and kinds that are taken away with all their objects.
        delete(&west, "ServiceExport").await?;
        of_east.until("west exports no more", ["east", "east"]).await?;
        of_west.until("its own are its own", ["east west", "east west"]).await?;
        west.apply(EXPORT).await?;
        of_east.until("again", ["east west", "east west"]).await?;
        for kind in crds::MULTI_CLUSTER {
            west.undefine(kind).await?;
        }
        of_east.until("nobody can export in west", ["east", "east"]).await?;
        delete(&east, "ServiceImport").await?;
        of_east.until("nobody imports", ["east", ""]).await?;
        until_registered(&world, "backend.production.svc.clusterset.local", false).await?;
        world.until_synced().await
    });
}

#[test]
fn only_the_name_of_the_set_crosses_where_the_clusters_own_is_local() {
    let name = "crossing::only_the_name_of_the_set_crosses_where_the_clusters_own_is_local";
    cluster_test(name, async |binaries, folder| {
        let [east, west] = two_clusters(binaries, &folder).await?;
        for cluster in [&east, &west] {
            cluster.define(crds::MULTI_CLUSTER).await?;
            cluster.define(ELSEWHERE).await?;
        }
        let path = folder.join("east.kubeconfig");
        secret_file(&path, &east.kubeconfig(east.admin())?)?;
        let world = World::serve_with(Place::Kubeconfig(path), &folder, |config| {
            config.mcs = Mcs::ClusterLocal;
            config.mcs_api = Api { group: "net.example".into(), version: "v1".into() };
        })
        .await?;
        let kubeconfig = login(&west, "first", HOUR).await?;
        east.apply(&secret("remote", &[("west", &kubeconfig)])?).await?;
        world.until_synced().await?;
        let mut of_east = Proxy::of("east", &world).await?;
        let mut of_west = Proxy::of("west", &world).await?;

        // Those of the API's own group are somebody else's.
        west.apply(EXPORT).await?;
        east.apply(IMPORT).await?;
        west.apply(&elsewhere(EXPORT)).await?;
        let shown = async || -> Result<Value> {
            Ok(reqwest::get(format!("{}/debug/mcsz", world.admin)).await?.json().await?)
        };
        let mut entry = serde_json::json!({
            "Cluster": "west", "Namespace": "production", "Name": "backend", "Exported": true, "Imported": false,
            "ClusterSetVIP": "", "ClusterSetVIPs": [],
            "Discoverability": { "backend.production.svc.cluster.local": "DiscoverableFromSameCluster" },
        });
        until("west exports", async || Ok(shown().await? == serde_json::json!([entry]))).await?;
        ensure!(
            [of_east.sees(), of_west.sees()] == [["east", ""], ["west", ""]].map(|all| all.map(String::from))
        );
        east.apply(&elsewhere(IMPORT)).await?;
        of_east.until("east imports", ["east", "east west"]).await?;
        of_west.until("east exports nothing", ["west", "west"]).await?;
        entry["Discoverability"]["backend.production.svc.clusterset.local"] = "AlwaysDiscoverable".into();
        let import = serde_json::json!({
            "Cluster": "east", "Namespace": "production", "Name": "backend", "Exported": false, "Imported": true,
            "ClusterSetVIP": "10.96.200.7", "ClusterSetVIPs": ["10.96.200.7"], "Discoverability": null,
        });
        let all = shown().await?;
        ensure!(all == serde_json::json!([import, entry]), "{all:#}");
        east.apply(&elsewhere(EXPORT)).await?;
        of_west.until("east exports", ["west", "east west"]).await?;
        world.until_synced().await
    });
}
