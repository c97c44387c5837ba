//! A source on a real API server: what is written there comes as a change, and as bytes to a proxy.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use landbridge::model::{Kind, Object};
use tokio::time::Instant;
use xds_tests::kubernetes::{Cluster, Settings, binaries, cluster_test, crds};

use crate::reading::{Reading, config};

/// One object of each kind: its kind, `apiVersion`, namespace and name, the first and the second version of it.
const EACH: &[(Kind, &str, &str, &str, &str, &str)] = &[
    (
        Kind::Node,
        "v1",
        "",
        "node-1",
        "metadata: {labels: {topology.kubernetes.io/zone: a}}",
        "metadata: {labels: {topology.kubernetes.io/zone: b}}",
    ),
    (
        Kind::ServiceAccount,
        "v1",
        "shop",
        "web",
        "metadata: {labels: {v: '1'}}",
        "metadata: {labels: {v: '2'}}",
    ),
    (Kind::Service, "v1", "shop", "web", "spec: {ports: [{port: 80}]}", "spec: {ports: [{port: 81}]}"),
    (
        Kind::Pod,
        "v1",
        "shop",
        "web-0",
        "metadata: {labels: {v: '1'}}\nspec: {containers: [{name: a, image: b}]}",
        "metadata: {labels: {v: '2'}}\nspec: {containers: [{name: a, image: b}]}",
    ),
    (
        Kind::EndpointSlice,
        "discovery.k8s.io/v1",
        "shop",
        "web-1",
        "metadata: {labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.1.0.1]}]",
        "metadata: {labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.1.0.2]}]",
    ),
    (
        Kind::MeshConfig,
        "v1",
        "istio-system",
        "istio",
        "data: {mesh: 'trustDomain: one'}",
        "data: {mesh: 'trustDomain: two'}",
    ),
    (
        Kind::Gateway,
        "networking.istio.io/v1",
        "istio-system",
        "cross-network-gateway",
        "spec: {selector: {istio: a}, servers: [{port: {number: 15443, name: tls, protocol: TLS}, tls: {mode: AUTO_PASSTHROUGH}, hosts: ['*.local']}]}",
        "spec: {selector: {istio: b}, servers: [{port: {number: 15443, name: tls, protocol: TLS}, tls: {mode: AUTO_PASSTHROUGH}, hosts: ['*.local']}]}",
    ),
    (
        Kind::DestinationRule,
        "networking.istio.io/v1",
        "shop",
        "web",
        "spec: {host: web}",
        "spec: {host: web, trafficPolicy: {outlierDetection: {}}}",
    ),
    (
        Kind::PeerAuthentication,
        "security.istio.io/v1",
        "shop",
        "default",
        "spec: {mtls: {mode: STRICT}}",
        "spec: {mtls: {mode: PERMISSIVE}}",
    ),
];

/// The metadata of `more` are merged into it.
fn yaml(kind: Kind, api: &str, namespace: &str, name: &str, more: &str) -> String {
    let kind = if kind == Kind::MeshConfig { "ConfigMap".to_owned() } else { format!("{kind:?}") };
    let namespace = if namespace.is_empty() { String::new() } else { format!("namespace: {namespace}, ") };
    let (labels, rest) = match more.strip_prefix("metadata: {") {
        Some(rest) => {
            let (labels, rest) = rest.split_once('\n').unwrap_or((rest, ""));
            (format!(", {}", labels.strip_suffix('}').unwrap_or(labels)), rest)
        }
        None => (String::new(), more),
    };
    format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{{namespace}name: {name}{labels}}}\n{rest}\n")
}

fn namespaces(names: &[&str]) -> String {
    names.iter().map(|n| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {n}}}\n---\n")).collect()
}

#[test]
fn every_kind_comes_changes_and_goes() {
    cluster_test("watching::every_kind_comes_changes_and_goes", async |binaries, folder| {
        let cluster = Cluster::start(binaries, Settings::new("east", folder.join("east"))).await?;
        let mut r = Reading::start(&config(&cluster, cluster.admin(), None).await?, |_| {})?;
        // Istio's kinds are not there yet, and that is no error.
        r.synced().await?;
        ensure!(r.problems().is_empty(), "{:?}", r.problems());
        r.until("what a cluster has", |r| r.get(Kind::Namespace, "kube-system").is_some()).await?;
        cluster.define(crds::ISTIO).await?;
        cluster.apply(&namespaces(&["shop", "istio-system"])).await?;
        for (kind, api, namespace, name, first, second) in EACH {
            let what = |step: &str| format!("{kind:?} {step}");
            cluster.apply(&yaml(*kind, api, namespace, name, first)).await?;
            r.until(&what("created"), |r| r.get(*kind, name).is_some()).await?;
            let created = r.get(*kind, name).cloned();
            cluster.apply(&yaml(*kind, api, namespace, name, second)).await?;
            r.until(&what("changed"), |r| r.get(*kind, name) != created.as_ref()).await?;
            let of = (!namespace.is_empty()).then_some(*namespace);
            let word = if *kind == Kind::MeshConfig { "ConfigMap".to_owned() } else { format!("{kind:?}") };
            let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            cluster.objects(api, &word, of).await?.delete(name, &at_once).await?;
            r.until(&what("deleted"), |r| r.get(*kind, name).is_none()).await?;
        }
        ensure!(r.removed.len() == EACH.len(), "{:?}", r.removed);

        // What the API server takes and landbridge does not understand: named, and everything else goes on.
        let rule = |name: &str, spec: &str| {
            yaml(Kind::DestinationRule, "networking.istio.io/v1", "shop", name, spec)
        };
        cluster.apply(&rule("web", "spec: {host: web}")).await?;
        r.until("a good rule", |r| r.get(Kind::DestinationRule, "web").is_some()).await?;
        let good = r.get(Kind::DestinationRule, "web").cloned();
        cluster.apply(&rule("web", "spec: {host: web, trafficPolicy: 7}")).await?;
        cluster.apply(&rule("other", "spec: {host: other}")).await?;
        r.until("named", |r| {
            r.problems().iter().any(|p| p.contains("shop/DestinationRule/web: spec.trafficPolicy"))
        })
        .await?;
        r.until("the others", |r| r.get(Kind::DestinationRule, "other").is_some()).await?;
        ensure!(r.get(Kind::DestinationRule, "web") == good.as_ref(), "the last good version stays");

        // A kind is taken away with its objects, and comes back.
        let rules = crds::ISTIO.iter().find(|k| k.kind == "DestinationRule").context("is defined")?;
        cluster.undefine(rules).await?;
        r.until("no rules", |r| r.get(Kind::DestinationRule, "web").is_none()).await?;
        r.until("no problem", |r| r.problems().is_empty()).await?;
        cluster.define([rules]).await?;
        cluster.apply(&rule("web", "spec: {host: web}")).await?;
        r.until("rules again", |r| r.get(Kind::DestinationRule, "web").is_some()).await?;
        r.synced().await
    });
}

/// What is read of the example's API server is what its files say.
#[test]
fn an_api_server_reads_as_the_files_that_it_was_given() {
    let name = "watching::an_api_server_reads_as_the_files_that_it_was_given";
    cluster_test(name, async |binaries, folder| {
        let cluster = Cluster::start(binaries, Settings::new("east", folder.join("east"))).await?;
        cluster.define(crds::ISTIO).await?;
        let example = binaries::repository().join("deploy/examples/two-clouds/east");
        cluster.apply_folder(&example).await?;
        let mut r = Reading::start(&config(&cluster, cluster.admin(), None).await?, |_| {})?;
        r.synced().await?;
        for file in std::fs::read_dir(&example)? {
            for (key, definition) in landbridge::registry::file::parse(&std::fs::read(file?.path())?).objects
            {
                let found =
                    r.objects.get(&landbridge::model::ObjectKey { cluster: "east".into(), ..key.clone() });
                let found = found.with_context(|| format!("{key} is not read"))?;
                ensure!(alike(found, &definition.object), "{key}:\n{found:#?}\n{:#?}", definition.object);
            }
        }
        Ok(())
    });
}

/// But for what an API server adds.
fn alike(read: &Object, written: &Object) -> bool {
    match (read, written) {
        (Object::Service(a), Object::Service(b)) => {
            a.selector == b.selector && a.meta.labels == b.meta.labels && a.ports.len() == b.ports.len()
        }
        (Object::Pod(a), Object::Pod(b)) => (&a.ips, &a.node, &a.workload) == (&b.ips, &b.node, &b.workload),
        (Object::EndpointSlice(a), Object::EndpointSlice(b)) => a == b,
        (Object::MeshConfig(a), Object::MeshConfig(b)) => a == b,
        (Object::Gateway(a), Object::Gateway(b)) => a.servers == b.servers && a.selector == b.selector,
        (Object::Node(a), Object::Node(b)) => {
            b.meta.labels.iter().all(|(k, v)| a.meta.labels.get(k) == Some(v))
        }
        (a, b) => a.kind() == b.kind(),
    }
}

/// Beside it, what the API server itself takes until its watch says what was written.
#[test]
fn a_written_slice_comes_at_once() {
    cluster_test("watching::a_written_slice_comes_at_once", async |binaries, folder| {
        let cluster = Cluster::start(binaries, Settings::new("east", folder.join("east"))).await?;
        cluster.apply(&namespaces(&["shop"])).await?;
        let mut r = Reading::start(&config(&cluster, cluster.admin(), None).await?, |_| {})?;
        r.synced().await?;
        let mut times = Vec::new();
        for i in 1..=60 {
            let slice = format!(
                "metadata: {{labels: {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{{addresses: [10.1.0.{i}]}}]"
            );
            let written = Instant::now();
            let stored = cluster
                .apply(&yaml(Kind::EndpointSlice, "discovery.k8s.io/v1", "shop", "web-1", &slice))
                .await?;
            let answered = written.elapsed();
            r.until("the change", |r| r.addresses("web-1") == [format!("10.1.0.{i}")]).await?;
            times.push((written.elapsed(), answered));
            ensure!(stored[0].resource_version().is_some());
        }
        times.sort();
        let (seen, answered) = times[times.len() / 2];
        println!("written to change: median {seen:?}; the API server answered the writer after {answered:?}");
        ensure!(seen < Duration::from_secs(1), "{times:?}");
        Ok(())
    });
}
