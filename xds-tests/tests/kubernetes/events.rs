//! What is wrong with an object is said at the object, as an Event.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::process::Command;
use xds_tests::kubernetes::charts::{Said, said};
use xds_tests::kubernetes::{Binaries, Cluster, Login, Settings, cluster_test, crds, secret_file};

use super::leading::{LEASES, MAPS};
use super::plane::{Plane, until};
use super::world::{NAMESPACES, READERS, login, secret};

/// Nobody may read this anywhere.
const HUSH: &str = "hunter2";

pub fn rule(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: production}}\nspec: {spec}\n"
    )
}

pub const GOOD: &str = "{host: backend.production.svc.cluster.local}";
pub const BROKEN: &str = "{host: ''}";
pub const ODD: &str = "{host: backend.production.svc.cluster.local, trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST, warmupDurationSecs: 30}}}";

pub async fn east(binaries: &Binaries, folder: &Path) -> Result<Cluster> {
    // Logs of the runs before it are no part of this one.
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let east = Cluster::start(binaries, Settings::new("east", folder.join("east"))).await?;
    east.apply(NAMESPACES).await?;
    east.define(crds::ISTIO).await?;
    secret_file(&folder.join("east.kubeconfig"), &east.kubeconfig(east.admin())?)?;
    Ok(east)
}

/// Of an Event what a person sees, and what tells whether it was written again.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    kind: String,
    reason: String,
    note: String,
    by: String,
    count: u64,
    version: String,
}

/// Those of landbridge, by the object that they are about. That there is one of each is looked at here.
async fn events(cluster: &Cluster) -> Result<BTreeMap<String, Seen>> {
    let all = cluster.objects("events.k8s.io/v1", "Event", None).await?.list(&ListParams::default()).await?;
    let mut found = BTreeMap::new();
    for event in all.items.into_iter().filter(|event| event.data["reportingController"] == "landbridge") {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let data = &event.data;
        ensure!(!data.to_string().contains(HUSH) && data["type"] == "Warning", "{data}");
        let seen = Seen {
            kind: text(&data["regarding"]["kind"]),
            reason: text(&data["reason"]),
            note: text(&data["note"]),
            by: text(&data["reportingInstance"]),
            count: data["series"]["count"].as_u64().unwrap_or(1),
            version: event.metadata.resource_version.unwrap_or_default(),
        };
        // A connection that breaks on the way to a refusal is said, too.
        if seen.note.contains("cannot be reached") {
            continue;
        }
        let twice = found.insert(text(&data["regarding"]["name"]), seen);
        ensure!(twice.is_none(), "two Events of one object: {twice:?} {data}");
    }
    Ok(found)
}

async fn said_of(cluster: &Cluster, objects: &[&str]) -> Result<BTreeMap<String, Seen>> {
    until(&format!("Events about {objects:?}"), async || {
        let events = events(cluster).await?;
        Ok(objects.iter().all(|object| events.contains_key(*object)))
    })
    .await?;
    events(cluster).await
}

/// Those of which nothing changes after they are written first: `broken` is mended, and how often `west` is said depends on how
/// its connections break.
fn others(first: &BTreeMap<String, Seen>) -> impl Iterator<Item = &String> {
    first.keys().filter(|object| !["broken", "west"].contains(&object.as_str()))
}

/// The rules of which something is in force.
async fn rules_in_force(plane: &Plane) -> Result<u64> {
    let sources: Vec<Value> = serde_json::from_str(&plane.page("/debug/sourcez").await?)?;
    let east = sources.iter().find(|source| source["cluster"] == "east").context("east is read")?;
    Ok(east["objects"]["DestinationRule"].as_u64().unwrap_or(0))
}

async fn told(plane: &Plane, result: &str) -> Result<f64> {
    plane.metric(&format!("landbridge_events_total{{cluster=\"east\",result=\"{result}\"}}")).await
}

#[test]
fn mistakes_are_said_at_the_object_once_by_one_replica_until_they_are_mended() {
    let name = "events::mistakes_are_said_at_the_object_once_by_one_replica_until_they_are_mended";
    cluster_test(name, async |binaries, folder| {
        let east = east(binaries, &folder).await?;
        let kubeconfig = folder.join("east.kubeconfig");
        let mut planes =
            vec![Plane::start(0, &kubeconfig, &folder, &[])?, Plane::start(1, &kubeconfig, &folder, &[])?];
        for plane in &mut planes {
            plane.ready().await?;
        }
        east.apply(&secret("north", &[("north", &format!("{HUSH}: ["))])?).await?;
        // A kubeconfig that is good, of credentials that are not.
        let unknown = Login::Token("nobody".to_owned());
        east.apply(&secret("west", &[("west", &east.kubeconfig(unknown)?)])?).await?;
        let files = ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"];
        let cacerts = json!({ "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "cacerts", "namespace": "istio-system" },
            "stringData": files.map(|file| (file.to_owned(), HUSH)).into_iter().collect::<BTreeMap<_, _>>() });
        east.apply(&cacerts.to_string()).await?;
        for (name, spec) in [("good", GOOD), ("broken", BROKEN), ("odd", ODD)] {
            east.apply(&rule(name, spec)).await?;
        }
        let first = said_of(&east, &["north", "west", "cacerts", "broken", "odd"]).await?;
        ensure!(first.len() == 5, "{first:#?}");
        for (object, kind, reason) in [
            ("north", "Secret", "NotApplied"),
            ("west", "Secret", "NotApplied"),
            ("cacerts", "Secret", "NotApplied"),
            ("broken", "DestinationRule", "NotApplied"),
            ("odd", "DestinationRule", "PartlyApplied"),
        ] {
            let event = &first[object];
            ensure!(event.kind == kind && event.reason == reason && event.count == 1, "{object}: {event:?}");
        }
        ensure!(first["north"].note.starts_with("data.north: "), "{:?}", first["north"]);
        ensure!(
            first["west"].note.starts_with("data.west: ") && first["west"].note.contains("401"),
            "{:?}",
            first["west"]
        );
        ensure!(first["odd"].note.contains("warmupDurationSecs"), "{:?}", first["odd"]);

        // As a person sees it.
        let typed = async |args: &[&str]| -> Result<String> {
            let mut command = Command::new(&binaries.kubectl);
            command.arg("--kubeconfig").arg(&kubeconfig).args(args);
            let Said { success, out, err } = said(command, "").await?;
            ensure!(success, "kubectl {args:?}: {err}");
            println!("{out}");
            Ok(out)
        };
        for (args, object) in [
            (["describe", "destinationrules.networking.istio.io", "broken", "-nproduction"], "broken"),
            (["events", "--for", "secret/north", "-nistio-system"], "north"),
        ] {
            let out = typed(&args).await?;
            ensure!(out.contains("NotApplied") && out.contains(&first[object].note), "{out}");
        }

        // Others are served, by both; one of the two wrote.
        for plane in &planes {
            until("rules are in force", async || Ok(rules_in_force(plane).await? == 2)).await?;
        }
        let leader = if planes[0].leads("east").await? { 0 } else { 1 };
        let mut leader = planes.remove(leader);
        ensure!(first.values().all(|event| event.by == leader.name), "{first:#?}");
        ensure!(told(&leader, "written").await? >= 5.0 && told(&leader, "failed").await? == 0.0);
        ensure!(told(&planes[0], "written").await? == 0.0);

        // The next one goes on with the Events of the one before it.
        leader.process.stop(Duration::from_secs(20)).await?;
        east.apply(&rule("zz-late", BROKEN)).await?;
        let then = said_of(&east, &["zz-late"]).await?;
        ensure!(then["zz-late"].by == planes[0].name, "{then:#?}");
        let same =
            |object: &str| then[object].by == first[object].by && then[object].note == first[object].note;
        ensure!(first.keys().all(|object| same(object)), "{first:#?} {then:#?}");
        ensure!(others(&first).all(|object| then[object] == first[object]), "{first:#?} {then:#?}");
        until("it is told", async || Ok(told(&planes[0], "written").await? >= 1.0)).await?;

        // Mended, and wrong again: the same Event, which counts.
        let before = rules_in_force(&planes[0]).await?;
        east.apply(&rule("broken", GOOD)).await?;
        until("it is in force", async || Ok(rules_in_force(&planes[0]).await? == before + 1)).await?;
        // The writer looks every second; what came and went between two looks is nothing to it.
        tokio::time::sleep(Duration::from_secs(3)).await;
        east.apply(&rule("broken", BROKEN)).await?;
        let counted = until("it is counted", async || Ok(events(&east).await?["broken"].count == 2)).await;
        let now = events(&east).await?;
        counted.with_context(|| format!("{now:#?}"))?;
        ensure!(now.len() == 6 && now["broken"].note == first["broken"].note, "{now:#?}");
        ensure!(others(&first).all(|object| now[object] == first[object]), "{first:#?} {now:#?}");
        // The Event is seen before the answer is that says to its writer that it was written.
        until("it is told", async || Ok(told(&planes[0], "repeated").await? >= 1.0)).await?;
        ensure!(told(&planes[0], "failed").await? == 0.0);
        planes[0].process.stop(Duration::from_secs(20)).await
    });
}

/// The right to write Events.
const EVENTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: events}
rules:
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: events}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: events}
subjects:
- {kind: ServiceAccount, name: first, namespace: istio-system}
";

#[test]
fn events_that_are_not_allowed_are_named_and_hurt_nothing() {
    cluster_test(
        "events::events_that_are_not_allowed_are_named_and_hurt_nothing",
        async |binaries, folder| {
            let east = east(binaries, &folder).await?;
            for rights in [READERS, LEASES, MAPS] {
                east.apply(rights).await?;
            }
            let kubeconfig = folder.join("first.kubeconfig");
            secret_file(&kubeconfig, &login(&east, "first", Duration::from_secs(3600)).await?)?;
            east.apply(&rule("broken", BROKEN)).await?;
            let mut plane = Plane::start(0, &kubeconfig, &folder, &["--ca-secrets=false"])?;
            plane.ready().await?;
            let named = async |plane: &Plane| -> Result<usize> {
                Ok(plane.page("/debug/sourcez").await?.matches("create and patch on events").count())
            };
            until("it is named", async || Ok(named(&plane).await? == 1)).await?;
            ensure!(told(&plane, "failed").await? >= 1.0 && events(&east).await?.is_empty());
            // What else is written is.
            let maps = east.objects("v1", "ConfigMap", Some("production")).await?;
            until("the roots are there", async || Ok(maps.get_opt("istio-ca-root-cert").await?.is_some()))
                .await?;
            let log = std::fs::read_to_string(plane.process.log())?;
            let lines = log.lines().filter(|line| line.contains("create and patch on events")).count();
            ensure!(lines == 1, "named {lines} times: {log}");
            east.apply(EVENTS).await?;
            said_of(&east, &["broken"]).await?;
            until("nothing is named", async || Ok(named(&plane).await? == 0)).await?;
            plane.process.stop(Duration::from_secs(20)).await?;

            // And nobody writes them who is told not to.
            east.apply(&rule("zz-late", BROKEN)).await?;
            let mut plane = Plane::start(1, &kubeconfig, &folder, &["--ca-secrets=false", "--events=false"])?;
            plane.ready().await?;
            until("it leads", async || plane.leads("east").await).await?;
            ensure!(plane.page("/debug/sourcez").await?.contains("zz-late"), "it knows");
            // Whoever writes Events looks every second.
            tokio::time::sleep(Duration::from_secs(3)).await;
            ensure!(!events(&east).await?.contains_key("zz-late"));
            ensure!(!plane.page("/metrics").await?.contains("landbridge_events_total{"));
            plane.process.stop(Duration::from_secs(20)).await
        },
    );
}
