//! The clusters of the tests are what a cluster is to its clients.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use tokio::time::{Instant, sleep, timeout};
use xds_tests::kubernetes::client::client;
use xds_tests::kubernetes::keys::{Authority, LEEWAY};
use xds_tests::kubernetes::kubeconfig::kubeconfig;
use xds_tests::kubernetes::{
    Cluster, Login, Place, Settings, binaries, cluster_lab_test, cluster_test, crds,
};
use xds_tests::netns::{self, Ns};

/// How long an API server may take to be itself again.
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn two_clouds_are_applied_to_two_servers_and_read_back() {
    cluster_test("fixture::two_clouds_are_applied_to_two_servers_and_read_back", async |binaries, folder| {
        let start = |name: &str| Cluster::start(binaries, Settings::new(name, folder.join(name)));
        let (east, west) = tokio::try_join!(start("east"), start("west"))?;
        for cluster in [&east, &west] {
            cluster.define(crds::ISTIO).await?;
            let examples = binaries::repository().join("deploy/examples/two-clouds").join(cluster.name());
            // Twice: what is there already is no error.
            cluster.apply_folder(&examples).await?;
            cluster.apply_folder(&examples).await?;
        }
        for (cluster, address, network) in
            [(&east, "10.1.0.11", "network-east"), (&west, "10.2.0.11", "network-west")]
        {
            let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), "production");
            let status = pods.get("backend-a").await?.status.context("a pod has a status")?;
            ensure!(status.pod_ip.as_deref() == Some(address), "{}: {status:?}", cluster.name());
            ensure!(status.phase.as_deref() == Some("Running"), "{}: {status:?}", cluster.name());

            let slices: Api<EndpointSlice> = Api::namespaced(cluster.client().clone(), "production");
            let slice = slices.get("backend-1").await?;
            ensure!(slice.endpoints.len() == 2, "{slice:?}");

            let services: Api<Service> = Api::namespaced(cluster.client().clone(), "istio-system");
            let gateway = services.get("istio-eastwestgateway").await?;
            ensure!(gateway.labels()["topology.istio.io/network"] == network);
            let ingress = gateway.status.and_then(|status| status.load_balancer?.ingress);
            ensure!(ingress.is_some_and(|all| all.len() == 1), "{} has no ingress", cluster.name());

            // Also in a version that the file does not name.
            let rules = cluster
                .objects("networking.istio.io/v1alpha3", "DestinationRule", Some("production"))
                .await?;
            let rule = rules.get("backend").await?;
            ensure!(rule.data["spec"]["host"] == "backend.production.svc.cluster.local", "{rule:?}");
        }
        Ok(())
    });
}

#[test]
fn outages_of_three_kinds_keep_the_data() {
    cluster_test("fixture::outages_of_three_kinds_keep_the_data", async |binaries, folder| {
        let mut cluster = Cluster::start(binaries, Settings::new("east", folder.join("east"))).await?;
        let written = cluster.apply(&config_map("kept", "before")).await?.remove(0);
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client().clone(), "default");
        let kept = async || -> Result<()> {
            let read = maps.get("kept").await?;
            ensure!(read.uid() == written.uid() && read.resource_version() == written.resource_version());
            Ok(())
        };
        kept().await?;
        suspended(&mut cluster, &kept).await.context("suspended")?;
        without_etcd(&mut cluster, &kept).await.context("without etcd")?;
        killed(&mut cluster, &kept).await.context("killed")?;
        cluster.apply(&config_map("kept", "after")).await?;
        Ok(())
    });
}

async fn suspended(cluster: &mut Cluster, kept: &impl AsyncFn() -> Result<()>) -> Result<()> {
    cluster.suspend();
    ensure!(timeout(Duration::from_secs(1), kept()).await.is_err(), "it answers");
    cluster.resume();
    cluster.await_ready(PATIENCE).await?;
    kept().await
}

async fn without_etcd(cluster: &mut Cluster, kept: &impl AsyncFn() -> Result<()>) -> Result<()> {
    let pid = cluster.process().pid();
    cluster.take_etcd();
    let deadline = Instant::now() + PATIENCE;
    while timeout(Duration::from_secs(1), kept()).await.is_ok_and(|read| read.is_ok()) {
        ensure!(Instant::now() < deadline, "it still reads");
        sleep(Duration::from_millis(100)).await;
    }
    cluster.give_etcd();
    cluster.await_ready(PATIENCE).await?;
    ensure!(cluster.process().pid() == pid, "it is another process");
    kept().await
}

async fn killed(cluster: &mut Cluster, kept: &impl AsyncFn() -> Result<()>) -> Result<()> {
    cluster.kill().await?;
    ensure!(kept().await.is_err(), "it answers");
    cluster.revive().await?;
    kept().await
}

#[test]
fn kinds_come_and_go() {
    cluster_test("fixture::kinds_come_and_go", async |binaries, folder| {
        let cluster = Cluster::start(binaries, Settings::new("east", folder.join("east"))).await?;
        let rules = "networking.istio.io/v1";
        let missing = cluster.objects(rules, "DestinationRule", None).await;
        ensure!(missing.is_err(), "Istio's kinds are there without having been defined");

        let kind = crds::ISTIO.iter().find(|kind| kind.kind == "DestinationRule").context("Istio has it")?;
        cluster.define([kind]).await?;
        cluster.apply(RULE).await?;
        ensure!(
            cluster.objects(rules, "Gateway", None).await.is_err(),
            "a kind that nobody defined is there"
        );

        let api = cluster.objects(rules, "DestinationRule", None).await?;
        ensure!(api.list(&ListParams::default()).await?.items.len() == 1);
        cluster.undefine(kind).await?;
        ensure!(cluster.objects(rules, "DestinationRule", None).await.is_err(), "a kind that went is there");

        cluster.define([kind]).await?;
        ensure!(api.list(&ListParams::default()).await?.items.is_empty(), "objects outlived their kind");
        cluster.define(crds::MULTI_CLUSTER).await?;
        cluster.apply(EXPORT).await?;
        Ok(())
    });
}

#[test]
fn a_cluster_behind_a_network_is_cut_off_with_it() {
    cluster_lab_test("fixture::a_cluster_behind_a_network_is_cut_off_with_it", async |binaries, folder| {
        let prefix = format!("lk{}", std::process::id());
        let (net, ns) = (netns::bridge(&format!("{prefix}-net"))?, Ns::create(&format!("{prefix}-api"))?);
        netns::plug(&net, &ns, "eth0", "10.3.0.6/24")?;
        let neighbour = Ns::create(&format!("{prefix}-you"))?;
        netns::plug(&net, &neighbour, "eth0", "10.3.0.7/24")?;

        let place = Place::Namespace(ns.clone(), vec![[10, 3, 0, 6].into()]);
        let settings = Settings { place, ..Settings::new("east", folder.join("east")) };
        let cluster = Cluster::start(binaries, settings).await?;
        let from_there = client(&cluster.kubeconfig(cluster.admin())?, Some(&neighbour)).await?;
        ensure!(may_list(&from_there, "default").await.is_ok(), "a neighbour does not reach it");

        ns.ip("link set eth0 down\n")?;
        let asked = timeout(Duration::from_secs(1), may_list(&from_there, "default")).await;
        ensure!(asked.is_err() || asked.is_ok_and(|answer| answer.is_err()), "it is reached without a link");
        ns.ip("link set eth0 up\n")?;
        ensure!(may_list(cluster.client(), "default").await.is_ok(), "it went with its network");
        Ok(())
    });
}

#[test]
fn logins_are_taken_refused_and_held_to_their_rights() {
    cluster_test("fixture::logins_are_taken_refused_and_held_to_their_rights", async |binaries, folder| {
        let cluster = Cluster::start(binaries, Settings::new("east", folder.join("east"))).await?;
        cluster.apply(ACCOUNTS).await?;
        signed_tokens(&cluster).await?;
        requested_tokens(&cluster).await?;
        rights(&cluster).await?;
        authorities(&cluster).await
    });
}

async fn signed_tokens(cluster: &Cluster) -> Result<()> {
    let now = SystemTime::now();
    let token = cluster.sign_token("default", "reader", now + Duration::from_secs(30)).await?;
    let review = cluster.review(&token, &[]).await?;
    let user = review.user.context("a token that was taken has a user")?;
    ensure!(review.authenticated == Some(true), "{:?}", review.error);
    ensure!(user.username.as_deref() == Some("system:serviceaccount:default:reader"), "{user:?}");

    let expired = now - LEEWAY - Duration::from_secs(1);
    let token = cluster.sign_token("default", "reader", expired).await?;
    let review = cluster.review(&token, &[]).await?;
    ensure!(review.authenticated != Some(true), "an expired token is taken");
    let refused = may_list(&cluster.client_as(Login::Token(token)).await?, "default").await;
    ensure!(refused.is_err_and(|code| code == 401), "an expired token opens the door");
    Ok(())
}

async fn requested_tokens(cluster: &Cluster) -> Result<()> {
    let lifetime = Duration::from_secs(600);
    let token = cluster.request_token("default", "reader", &["istio-ca"], lifetime).await?;
    let review = cluster.review(&token, &["istio-ca"]).await?;
    ensure!(review.authenticated == Some(true), "{:?}", review.error);
    ensure!(review.audiences.is_some_and(|audiences| audiences == ["istio-ca"]));
    let review = cluster.review(&token, &[]).await?;
    ensure!(review.authenticated != Some(true), "a token for istio-ca is taken for the API server");
    Ok(())
}

async fn rights(cluster: &Cluster) -> Result<()> {
    let until = SystemTime::now() + Duration::from_secs(300);
    let token = cluster.sign_token("default", "reader", until).await?;
    let certificate = cluster.authority().client("somebody", &["readers"])?;
    for login in [Login::Token(token), Login::Certificate(certificate)] {
        let client = cluster.client_as(login).await?;
        ensure!(may_list(&client, "default").await.is_ok(), "what is granted is refused");
        ensure!(may_list(&client, "kube-system").await.is_err_and(|code| code == 403), "RBAC is off");
    }
    Ok(())
}

async fn authorities(cluster: &Cluster) -> Result<()> {
    let mut context = cluster.context(cluster.admin())?;
    context.authority = Authority::new("another")?.certificate();
    let client = client(&kubeconfig(&[context])?, None).await?;
    ensure!(may_list(&client, "default").await.is_err_and(|code| code == 0), "any certificate is taken");
    Ok(())
}

/// The status code with which listing is refused, 0 if there was no answer.
async fn may_list(client: &Client, namespace: &str) -> Result<(), u16> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    match maps.list(&ListParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => Err(status.code),
        Err(_) => Err(0),
    }
}

fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{value: {value}}}\n")
}

/// An account and a group that may read ConfigMaps in namespace `default`.
const ACCOUNTS: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: default}
rules:
- {apiGroups: [''], resources: [configmaps], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects:
- {kind: ServiceAccount, name: reader, namespace: default}
- {kind: Group, name: readers, apiGroup: rbac.authorization.k8s.io}
";

const RULE: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: backend, namespace: default}
spec: {host: backend.default.svc.cluster.local}
";

const EXPORT: &str = "
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceExport
metadata: {name: backend, namespace: default}
status: {conditions: []}
";
