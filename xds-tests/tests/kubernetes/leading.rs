//! Several replicas of a cluster's control plane, of which one writes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;
use xds_tests::kubernetes::{Cluster, Settings, cluster_test, secret_file};

use super::plane::{Plane, until};
use super::world::{NAMESPACES, login, secret, two_clusters};

const MAP: &str = "istio-ca-root-cert";
/// A Lease, and what an elector needs to notice and to write on a busy machine.
const ONE_LEASE: Duration = Duration::from_secs(15 + 3 + 4);

fn namespace(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

/// The roots in a namespace, if the ConfigMap is there with its label.
async fn roots(cluster: &Cluster, namespace: &str) -> Result<Option<String>> {
    let maps = cluster.objects("v1", "ConfigMap", Some(namespace)).await?;
    let Some(map) = maps.get_opt(MAP).await? else { return Ok(None) };
    let labelled = map.labels().get("istio.io/config").is_some_and(|value| value == "true");
    Ok(map.data["data"]["root-cert.pem"].as_str().filter(|_| labelled).map(str::to_owned))
}

async fn east(binaries: &xds_tests::kubernetes::Binaries, folder: &Path) -> Result<Cluster> {
    let east = Cluster::start(binaries, Settings::new("east", folder.join("east"))).await?;
    east.apply(NAMESPACES).await?;
    secret_file(&folder.join("east.kubeconfig"), &east.kubeconfig(east.admin())?)?;
    Ok(east)
}

/// Who holds the Lease, and how often it changed hands.
async fn lease(cluster: &Cluster) -> Result<(String, u64)> {
    let leases: Api<DynamicObject> =
        cluster.objects("coordination.k8s.io/v1", "Lease", Some("istio-system")).await?;
    let spec = leases.get("landbridge-leader").await?.data["spec"].clone();
    let holder = spec["holderIdentity"].as_str().unwrap_or_default().to_owned();
    Ok((holder, spec["leaseTransitions"].as_u64().unwrap_or(0)))
}

#[test]
fn a_leader_that_is_killed_is_followed_within_a_lease() {
    let name = "leading::a_leader_that_is_killed_is_followed_within_a_lease";
    cluster_test(name, async |binaries, folder| {
        let east = east(binaries, &folder).await?;
        let kubeconfig = folder.join("east.kubeconfig");
        // Neither has an authority, and both begin at once: one makes it, the other takes it.
        let mut planes =
            vec![Plane::start(0, &kubeconfig, &folder, &[])?, Plane::start(1, &kubeconfig, &folder, &[])?];
        for plane in &mut planes {
            plane.ready().await?;
        }
        let secrets = east.objects("v1", "Secret", Some("istio-system")).await?;
        let made = secrets.get("istio-ca-secret").await?;
        ensure!(made.data["type"] == "istio.io/ca-root", "{:?}", made.data["type"]);
        until("the roots are there", async || Ok(roots(&east, "production").await?.is_some())).await?;
        let first_roots = roots(&east, "production").await?;

        // They are asked again and again: no two ever say that they lead.
        let one_leader = async |planes: &[Plane]| -> Result<Option<usize>> {
            let mut leading = Vec::new();
            for (at, plane) in planes.iter().enumerate() {
                if plane.leads("east").await? {
                    leading.push(at);
                }
            }
            ensure!(leading.len() <= 1, "two lead");
            Ok(leading.first().copied())
        };
        let leader = one_leader(&planes).await?.context("one leads")?;
        let mut leader = planes.remove(leader);
        ensure!(lease(&east).await? == (leader.name.clone(), 0), "{:?}", lease(&east).await?);
        let killed = Instant::now();
        leader.process.kill().await?;
        east.apply(&namespace("after", "")).await?;
        until("it is written again", async || {
            one_leader(&planes).await?;
            Ok(roots(&east, "after").await?.is_some())
        })
        .await?;
        let took = killed.elapsed();
        println!("killed -9: writers resumed after {took:?}");
        ensure!(took < ONE_LEASE, "{took:?}");
        ensure!(took > Duration::from_secs(10), "{took:?}: the Lease was not waited for");
        ensure!(roots(&east, "after").await? == first_roots, "another root");

        // One that is stopped for longer than a Lease writes nothing when it goes on.
        planes.push(Plane::start(2, &kubeconfig, &folder, &[])?);
        planes[1].ready().await?;
        ensure!(roots(&east, "after").await? == first_roots);
        planes[0].process.suspend();
        let third = planes.split_off(1);
        until("the third leads", async || third[0].leads("east").await).await?;
        planes[0].process.resume();
        planes.extend(third);
        until("the one that slept knows", async || Ok(one_leader(&planes).await? == Some(1))).await?;
        ensure!(lease(&east).await? == (planes[1].name.clone(), 2), "{:?}", lease(&east).await?);

        // One that ends well gives the Lease back.
        let ended = Instant::now();
        planes[1].process.stop(Duration::from_secs(20)).await?;
        until("the other leads", async || planes[0].leads("east").await).await?;
        println!("ended well: the other led after {:?}", ended.elapsed());
        ensure!(ended.elapsed() < Duration::from_secs(12), "{:?}", ended.elapsed());
        let again = secrets.get("istio-ca-secret").await?;
        ensure!(again.uid() == made.uid() && again.resource_version() == made.resource_version());
        Ok(())
    });
}

#[test]
fn roots_are_kept_in_every_namespace_of_the_clusters_that_are_ours() {
    let name = "leading::roots_are_kept_in_every_namespace_of_the_clusters_that_are_ours";
    cluster_test(name, async |binaries, folder| {
        let [east, west] = two_clusters(binaries, &folder).await?;
        let kubeconfig = folder.join("east.kubeconfig");
        secret_file(&kubeconfig, &east.kubeconfig(east.admin())?)?;
        let mut plane = Plane::start(0, &kubeconfig, &folder, &[])?;
        plane.ready().await?;
        let here = async |cluster: &Cluster, namespace: &str| -> Result<bool> {
            Ok(roots(cluster, namespace).await?.is_some())
        };
        for namespace in ["default", "production", "istio-system", "kube-system"] {
            until(namespace, async || here(&east, namespace).await).await?;
        }
        ensure!(!here(&east, "kube-public").await?, "no workload runs there");
        let root = roots(&east, "production").await?.context("it is there")?;
        ensure!(root.contains("BEGIN CERTIFICATE"));

        // New, changed, deleted.
        east.apply(&namespace("new", "")).await?;
        until("a new namespace", async || here(&east, "new").await).await?;
        let maps: Api<DynamicObject> = east.objects("v1", "ConfigMap", Some("new")).await?;
        let change = json!({ "data": { "root-cert.pem": "mine" } });
        maps.patch(MAP, &PatchParams::default(), &Patch::Merge(&change)).await?;
        until("repaired", async || Ok(roots(&east, "new").await?.as_ref() == Some(&root))).await?;
        maps.delete(MAP, &DeleteParams::default()).await?;
        until("made again", async || Ok(roots(&east, "new").await?.as_ref() == Some(&root))).await?;
        let repaired = "landbridge_root_cert_configmaps_total{cluster=\"east\",result=\"repaired\"}";
        until("counted", async || Ok(plane.metric(repaired).await? == 2.0)).await?;

        // Selectors: nothing is taken away, nothing is put elsewhere.
        let mesh = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    discoverySelectors: [{matchLabels: {mesh: 'yes'}}]\n";
        east.apply(mesh).await?;
        until("selectors are read", async || Ok(plane.page("/debug/sourcez").await?.contains("MeshConfig")))
            .await?;
        east.apply(&namespace("out", "")).await?;
        east.apply(&namespace("in", "mesh: 'yes'")).await?;
        until("a selected namespace", async || here(&east, "in").await).await?;
        ensure!(!here(&east, "out").await?, "out is not of the mesh");
        ensure!(here(&east, "production").await?, "it was taken away");
        let all: Api<DynamicObject> = east.objects("v1", "ConfigMap", Some("istio-system")).await?;
        all.delete("istio", &DeleteParams::default()).await?;
        until("all are selected again", async || here(&east, "out").await).await?;

        // West has a control plane of its own, as far as is said.
        let reader = login(&west, "first", Duration::from_secs(3600)).await?;
        east.apply(&secret("remote", &[("west", &reader)])?).await?;
        let problem = async || -> Result<String> {
            let all: Vec<serde_json::Value> = serde_json::from_str(&plane.page("/debug/clusterz").await?)?;
            let west = all.into_iter().find(|cluster| cluster["id"] == "west").unwrap_or_default();
            ensure!(west["syncStatus"] != "stale", "{west}");
            Ok(if west["syncStatus"] == "synced" { west["problem"].to_string() } else { "syncing".into() })
        };
        until("west is read", async || Ok(problem().await? == "null")).await?;
        ensure!(!here(&west, "production").await?, "west is not ours");
        let mine = "apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system, annotations: {topology.istio.io/controlPlaneClusters: 'north, east'}}\n";
        west.apply(mine).await?;
        // It is ours, and the credentials only read: said there, and nothing else is hurt.
        until("what is not allowed is said", async || {
            let said = problem().await?;
            Ok(said.contains("Lease/landbridge-leader") && said.contains("403") && said.contains("allow"))
        })
        .await?;
        west.apply(LEASES).await?;
        until("ConfigMaps are not allowed", async || {
            let said = problem().await?;
            Ok(said.contains(MAP) && said.contains("403") && said.contains("patch"))
        })
        .await?;
        ensure!(plane.leads("east").await? && plane.leads("west").await?);
        west.apply(MAPS).await?;
        until("west has them", async || Ok(roots(&west, "production").await?.as_ref() == Some(&root)))
            .await?;
        until("nothing is wrong", async || Ok(problem().await? == "null")).await?;

        // Given to somebody else: the Lease is free, and nothing is written any more.
        west.apply(&mine.replace("north, east", "north")).await?;
        until("the Lease is given back", async || Ok(lease(&west).await?.0.is_empty())).await?;
        west.apply(&namespace("theirs", "")).await?;
        east.apply(&namespace("later", "")).await?;
        until("east is written to", async || here(&east, "later").await).await?;
        ensure!(!here(&west, "theirs").await?);
        plane.process.stop(Duration::from_secs(20)).await
    });
}

/// Whoever holds the Lease has a clock that is ten minutes behind, then one that is ten minutes ahead. What counts is whether it
/// goes on writing, as seen here.
#[test]
fn a_holder_with_another_clock_is_neither_robbed_nor_waited_for() {
    let name = "leading::a_holder_with_another_clock_is_neither_robbed_nor_waited_for";
    cluster_test(name, async |binaries, folder| {
        let east = east(binaries, &folder).await?;
        let kubeconfig = folder.join("east.kubeconfig");
        let renew = async |clock: time::Duration| -> Result<()> {
            let now = time::OffsetDateTime::now_utc() + clock;
            let format = time::macros::format_description!(
                "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
            );
            let now = now.format(&format)?;
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": { "name": "landbridge-leader", "namespace": "istio-system" },
                "spec": { "holderIdentity": "somebody", "leaseDurationSeconds": 15, "leaseTransitions": 3,
                    "acquireTime": now, "renewTime": now },
            });
            east.apply(&lease.to_string()).await?;
            Ok(())
        };
        let behind = time::Duration::minutes(-10);
        renew(behind).await?;
        // An authority of its own, as the holder writes none.
        let mut plane = Plane::start(0, &kubeconfig, &folder, &["--ca-secrets=false"])?;
        plane.ready().await?;
        let began = Instant::now();
        while began.elapsed() < ONE_LEASE {
            renew(behind).await?;
            ensure!(!plane.leads("east").await?, "it took the Lease of somebody who renews it");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // By its word it holds for ten more minutes, and nobody sees it write.
        let last = Instant::now();
        renew(time::Duration::minutes(10)).await?;
        until("it leads", async || plane.leads("east").await).await?;
        let took = last.elapsed();
        println!("led {took:?} after the last renewal by a clock that is ten minutes ahead");
        ensure!(took > Duration::from_secs(14) && took < ONE_LEASE, "{took:?}");
        ensure!(lease(&east).await? == (plane.name.clone(), 4), "{:?}", lease(&east).await?);
        plane.process.stop(Duration::from_secs(20)).await
    });
}

/// What the reader of west lacks for Leases.
pub const LEASES: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: leader, namespace: istio-system}
rules:
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create]}
- {apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [landbridge-leader], verbs: [get, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: leader, namespace: istio-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: leader}
subjects:
- {kind: ServiceAccount, name: first, namespace: istio-system}
";

/// And for ConfigMaps.
pub const MAPS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: root-certs}
rules:
- {apiGroups: [''], resources: [configmaps], verbs: [create]}
- {apiGroups: [''], resources: [configmaps], resourceNames: [istio-ca-root-cert], verbs: [get, list, watch, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: root-certs}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: root-certs}
subjects:
- {kind: ServiceAccount, name: first, namespace: istio-system}
";
