//! The leader makes a ServiceExport for every Service (`ENABLE_MCS_AUTO_EXPORT`), where that kind is installed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use serde_json::Value;
use xds_tests::kubernetes::{Cluster, cluster_test, crds, secret_file};

use super::leading::{LEASES, MAPS};
use super::plane::{Plane, until};
use super::world::{login, secret, two_clusters};

const API: &str = "multicluster.x-k8s.io/v1alpha1";
const HOUR: Duration = Duration::from_secs(3600);

/// What the reader of west lacks for exports.
const EXPORTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: exports}
rules:
- {apiGroups: [multicluster.x-k8s.io], resources: [serviceexports], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: exports}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: exports}
subjects:
- {kind: ServiceAccount, name: first, namespace: istio-system}
";

fn service(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---\napiVersion: v1\nkind: Service\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n"
    )
}

fn mesh(settings: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {settings}\n"
    )
}

async fn export(cluster: &Cluster, namespace: &str, name: &str) -> Result<Option<DynamicObject>> {
    Ok(cluster.objects(API, "ServiceExport", Some(namespace)).await?.get_opt(name).await?)
}

async fn until_exported(cluster: &Cluster, namespace: &str, name: &str) -> Result<DynamicObject> {
    until(&format!("{namespace}/{name} is exported"), async || {
        Ok(export(cluster, namespace, name).await?.is_some())
    })
    .await?;
    export(cluster, namespace, name).await?.context("it was there just now")
}

/// `namespace/name` of all exports, ordered.
async fn exports(cluster: &Cluster) -> Result<Vec<String>> {
    let all = cluster.objects(API, "ServiceExport", None).await?.list(&ListParams::default()).await?;
    let names = all.items.iter().map(|o| format!("{}/{}", o.namespace().unwrap_or_default(), o.name_any()));
    let mut names = Vec::from_iter(names);
    names.sort();
    Ok(names)
}

#[test]
fn every_service_is_exported_once_the_kind_is_there() {
    let name = "exporting::every_service_is_exported_once_the_kind_is_there";
    cluster_test(name, async |binaries, folder| {
        let [east, west] = two_clusters(binaries, &folder).await?;
        let kubeconfig = folder.join("east.kubeconfig");
        secret_file(&kubeconfig, &east.kubeconfig(east.admin())?)?;
        east.apply(&service("kube-system", "dns")).await?;
        east.apply(&service("private", "cart")).await?;
        let private =
            "serviceSettings: [{settings: {clusterLocal: true}, hosts: ['*.private.svc.cluster.local']}]";
        east.apply(&mesh(private)).await?;
        let mut plane = Plane::start(0, &kubeconfig, &folder, &["--enable-mcs-auto-export"])?;
        plane.ready().await?;
        until("it leads", async || plane.leads("east").await).await?;
        let said = plane.page("/debug/sourcez").await?;
        ensure!(!said.contains("ServiceExport"), "a kind that nobody installed is a problem: {said}");

        // Somebody installs it, and has an export already.
        east.define(crds::MULTI_CLUSTER).await?;
        let by_hand = format!(
            "apiVersion: {API}\nkind: ServiceExport\nmetadata: {{name: early, namespace: production, labels: {{by: hand}}}}\n"
        );
        east.apply(&by_hand).await?;
        let made = until_exported(&east, "production", "backend").await?;
        let of = east.objects("v1", "Service", Some("production")).await?.get("backend").await?;
        let owner = made.owner_references().first().context("it has an owner")?;
        ensure!(
            (&*owner.kind, &*owner.name, Some(&owner.uid)) == ("Service", "backend", of.uid().as_ref()),
            "{owner:?}"
        );

        // A Service that comes later, and one whose export was made by hand.
        east.apply(&service("production", "early")).await?;
        east.apply(&service("production", "late")).await?;
        until_exported(&east, "production", "late").await?;
        let early = export(&east, "production", "early").await?.context("it is there")?;
        ensure!(
            early.labels().get("by").is_some_and(|by| by == "hand") && early.owner_references().is_empty()
        );
        let expected = ["production/backend", "production/early", "production/late"];
        ensure!(exports(&east).await? == expected, "{:?}", exports(&east).await?);

        // What is deleted comes again, and what the mesh allows comes.
        let all = east.objects(API, "ServiceExport", Some("production")).await?;
        all.delete("late", &DeleteParams::default()).await?;
        until("late is exported again", async || {
            let now = export(&east, "production", "late").await?;
            Ok(now.is_some_and(|export| export.metadata.deletion_timestamp.is_none()))
        })
        .await?;
        east.apply(&mesh("{}")).await?;
        until_exported(&east, "private", "cart").await?;
        let written = "landbridge_service_exports_total{cluster=\"east\",result=\"written\"}";
        until("each is counted", async || Ok(plane.metric(written).await? == 4.0)).await?;
        elsewhere(&plane, &east, &west).await?;

        // The kind is taken away with all exports, and comes back.
        for kind in crds::MULTI_CLUSTER {
            east.undefine(kind).await?;
        }
        east.define(crds::MULTI_CLUSTER).await?;
        until_exported(&east, "production", "backend").await?;
        until_exported(&east, "production", "early").await?;
        plane.process.stop(Duration::from_secs(20)).await
    });
}

/// A cluster that is read, then one that is ours to write to, with credentials that allow it in the end.
async fn elsewhere(plane: &Plane, east: &Cluster, west: &Cluster) -> Result<()> {
    west.define(crds::MULTI_CLUSTER).await?;
    let reader = login(west, "first", HOUR).await?;
    east.apply(&secret("remote", &[("west", &reader)])?).await?;
    let problem = async || -> Result<String> {
        let all: Vec<Value> = serde_json::from_str(&plane.page("/debug/clusterz").await?)?;
        let west = all.into_iter().find(|cluster| cluster["id"] == "west").unwrap_or_default();
        Ok(if west["syncStatus"] == "synced" { west["problem"].to_string() } else { "syncing".into() })
    };
    until("west is read", async || Ok(problem().await? == "null")).await?;
    ensure!(exports(west).await?.is_empty(), "west is not ours");
    west.apply(LEASES).await?;
    west.apply(MAPS).await?;
    west.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system, annotations: {topology.istio.io/controlPlaneClusters: east}}\n").await?;
    until("what is not allowed is said", async || {
        let said = problem().await?;
        let words = ["production/backend", "403", "create on serviceexports.multicluster.x-k8s.io"];
        Ok(words.iter().all(|word| said.contains(word)))
    })
    .await?;
    west.apply(EXPORTS).await?;
    until_exported(west, "production", "backend").await?;
    until("nothing is wrong", async || Ok(problem().await? == "null")).await.map(drop)
}
