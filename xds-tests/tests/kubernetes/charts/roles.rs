//! A control plane with the rights that its chart gives it, started as the chart starts it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use xds_tests::kubernetes::charts::Release;
use xds_tests::kubernetes::{Cluster, Login, chart_test, secret_file};
use xds_tests::landbridge;
use xds_tests::process::Process;

use crate::serving::{is_ready, own_address};

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_control_plane_needs_no_more_than_its_roles() {
    let name = "charts::roles::a_control_plane_needs_no_more_than_its_roles";
    chart_test(name, async |binaries, helm, folder| {
        let (cluster, kubectl) = super::cluster(binaries, &folder).await?;
        for file in ["cross-network-gateway.yaml", "failover.yaml", "cluster1/backend.yaml"] {
            kubectl.run(&["apply", "-f", &format!("deploy/examples/multi-primary/{file}")], "").await?;
        }
        let release = Release::control_plane(&["deploy/examples/multi-primary/cluster1/values.yaml"]);
        let rendered = helm.objects(&release).await?;
        for object in rendered.iter().filter(|object| is_of_rights(object)) {
            cluster.apply(&object.to_string()).await?;
        }
        let kubeconfig = async |account: &str, file: &str| -> Result<_> {
            let path = folder.join(file);
            secret_file(&path, &cluster.kubeconfig(login(&cluster, account).await?)?)?;
            Ok(path)
        };
        let own = kubeconfig("istiod", "own.kubeconfig").await?;
        // The same API server once more, as a control plane of another cluster reads it.
        let other = kubeconfig("istio-reader-service-account", "other.kubeconfig").await?;
        serves(&cluster, &rendered, &own, &other, &folder).await?;
        may(&cluster, "istiod", OF_THE_CONTROL_PLANE).await?;
        may(&cluster, "istio-reader-service-account", OF_READERS).await?;
        denied(&cluster).await?;

        // What is switched on needs more, and what is elsewhere is read there.
        let release =
            release.with("pilot.env.ENABLE_MCS_AUTO_EXPORT=true").with("pilot.env.MCS_API_GROUP=net.example");
        for object in helm.objects(&release).await?.iter().filter(|object| is_of_rights(object)) {
            cluster.apply(&object.to_string()).await?;
        }
        may(&cluster, "istiod", OF_EXPORTERS).await
    });
}

fn is_of_rights(object: &Value) -> bool {
    let kind = object["kind"].as_str().unwrap_or_default();
    kind == "ServiceAccount" || kind.contains("Role")
}

async fn login(cluster: &Cluster, account: &str) -> Result<Login> {
    let until = SystemTime::now() + Duration::from_secs(3600);
    Ok(Login::Token(cluster.sign_token("istio-system", account, until).await?))
}

/// Runs what the Deployment runs, with other folders, addresses and a kubeconfig instead of a pod's service account.
async fn serves(
    cluster: &Cluster,
    rendered: &[Value],
    own: &Path,
    other: &Path,
    folder: &Path,
) -> Result<()> {
    let deployment = rendered.iter().find(|o| o["kind"] == "Deployment").context("a Deployment")?;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let mut command = Command::new(landbridge::find()?);
    command.env_clear();
    for argument in container["args"].as_array().context("args")? {
        command.arg(argument.as_str().context("a string")?);
    }
    for item in container["env"].as_array().context("env")? {
        let name = item["name"].as_str().context("a name")?;
        let field = item["valueFrom"]["fieldRef"]["fieldPath"].as_str();
        let value = match (item["value"].as_str(), field) {
            (Some(value), _) if value.starts_with('/') => folder.join(&value[1..]).display().to_string(),
            (Some(value), _) => value.to_owned(),
            (None, Some("metadata.name")) => "istiod-0".to_owned(),
            (None, Some("metadata.namespace")) => "istio-system".to_owned(),
            _ => anyhow::bail!("{item}"),
        };
        command.env(name, value);
    }
    let address = own_address()?;
    for (name, port) in
        [("GRPC", 15010), ("SECURE_GRPC", 15012), ("HTTP", 8080), ("MONITORING", 15014), ("HTTPS", 15017)]
    {
        command.env(format!("LANDBRIDGE_{name}_ADDR"), format!("{address}:{port}"));
    }
    // The chart's own, by address instead of by a Service: nobody forwards those here.
    let mut webhook = rendered.iter().find(|o| o["kind"] == WEBHOOK).context("a webhook")?.clone();
    webhook["webhooks"][0]["clientConfig"] = json!({ "url": format!("https://{address}:15017/validate") });
    cluster.apply(&webhook.to_string()).await?;
    command.env("ISTIOD_CUSTOM_HOST", address.to_string());
    command.env("LANDBRIDGE_KUBECONFIG", own);
    command.env("LANDBRIDGE_KUBE", format!("other={}", other.display()));
    let log = folder.join("landbridge.log");
    let mut process = Process::start_at(None, "landbridge", command, &log)?;

    let started = Instant::now();
    while !is_ready(address).await {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        ensure!(started.elapsed() < PATIENCE, "not ready: {said}");
        sleep(Duration::from_millis(50)).await;
    }
    // What only a writer makes: the authority, the Lease of the one that writes, and the roots in every namespace.
    let made = [
        ("v1", "Secret", "istio-system", "istio-ca-secret"),
        ("v1", "ConfigMap", "istio-system", "istio-ca-root-cert"),
        ("v1", "ConfigMap", "production", "istio-ca-root-cert"),
    ];
    for (version, kind, namespace, name) in made {
        let objects = cluster.objects(version, kind, Some(namespace)).await?;
        while objects.get_opt(name).await?.is_none() {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            ensure!(started.elapsed() < PATIENCE, "no {kind} {namespace}/{name}: {said}");
            sleep(Duration::from_millis(50)).await;
        }
    }
    let webhooks = cluster.objects("admissionregistration.k8s.io/v1", WEBHOOK, None).await?;
    while webhooks.get("istio-validator-istio-system").await?.data["webhooks"][0]["failurePolicy"] != "Fail" {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        ensure!(started.elapsed() < PATIENCE, "the webhook is not strict: {said}");
        sleep(Duration::from_millis(50)).await;
    }
    // The probes of the chart.
    for probe in ["readinessProbe", "livenessProbe"] {
        let get = &container[probe]["httpGet"];
        let ports = container["ports"].as_array().context("ports")?;
        let port = ports.iter().find(|port| port["name"] == get["port"]).context("the probe's port")?;
        let url =
            format!("http://{address}:{}{}", port["containerPort"], get["path"].as_str().context("path")?);
        ensure!(reqwest::get(&url).await?.status().is_success(), "{url}");
    }
    let sources = reqwest::get(format!("http://{address}:15014/debug/sourcez")).await?.text().await?;
    let said = std::fs::read_to_string(&log)?;
    for text in [&sources, &said] {
        // By the word: the number is in many a time of day.
        let line = text.lines().find(|line| line.to_lowercase().contains("forbidden"));
        ensure!(line.is_none(), "{line:?}");
    }
    ensure!(sources.contains("\"other\"") && !sources.to_lowercase().contains("stale"), "{sources}");
    process.stop(Duration::from_secs(20)).await
}

const WEBHOOK: &str = "ValidatingWebhookConfiguration";

/// (verb, group, resource, name, namespace, whether)
type Right = (&'static str, &'static str, &'static str, &'static str, &'static str, bool);

const OF_THE_CONTROL_PLANE: &[Right] = &[
    ("list", "", "secrets", "", "istio-system", true),
    ("watch", "", "secrets", "", "istio-system", true),
    ("create", "", "secrets", "", "istio-system", true),
    ("update", "", "secrets", "istio-ca-secret", "istio-system", true),
    ("update", "", "secrets", "cacerts", "istio-system", false),
    ("delete", "", "secrets", "istio-ca-secret", "istio-system", false),
    ("get", "", "secrets", "", "production", false),
    ("list", "", "secrets", "", "", false),
    ("create", "", "secrets", "", "production", false),
    ("create", "", "configmaps", "", "production", true),
    ("patch", "", "configmaps", "istio-ca-root-cert", "production", true),
    ("patch", "", "configmaps", "settings", "production", false),
    ("list", "", "configmaps", "", "production", false),
    ("list", "", "configmaps", "istio", "istio-system", true),
    ("update", "", "configmaps", "istio", "istio-system", false),
    ("create", "coordination.k8s.io", "leases", "", "istio-system", true),
    ("update", "coordination.k8s.io", "leases", "leader", "istio-system", true),
    ("update", "coordination.k8s.io", "leases", "leader", "kube-system", false),
    ("create", "authentication.k8s.io", "tokenreviews", "", "", true),
    ("watch", "", "pods", "", "", true),
    ("watch", "multicluster.x-k8s.io", "serviceimports", "", "", true),
    ("update", "multicluster.x-k8s.io", "serviceimports", "", "production", false),
    ("create", "multicluster.x-k8s.io", "serviceexports", "", "production", false),
    ("create", "", "pods", "", "istio-system", false),
    ("delete", "", "pods", "", "production", false),
    ("create", "", "serviceaccounts/token", "", "istio-system", false),
    ("update", "networking.istio.io", "destinationrules", "", "production", false),
    ("create", "events.k8s.io", "events", "", "production", true),
    ("patch", "events.k8s.io", "events", "payment.1", "production", true),
    ("list", "events.k8s.io", "events", "", "production", false),
    ("delete", "events.k8s.io", "events", "payment.1", "production", false),
    ("watch", "admissionregistration.k8s.io", "validatingwebhookconfigurations", "", "", true),
    (
        "update",
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        "istio-validator-istio-system",
        "",
        true,
    ),
    ("update", "admissionregistration.k8s.io", "validatingwebhookconfigurations", "policies", "", false),
    ("create", "admissionregistration.k8s.io", "validatingwebhookconfigurations", "", "", false),
    ("list", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", "", "", false),
    ("create", "networking.istio.io", "gateways", "", "istio-system", true),
    ("create", "networking.istio.io", "gateways", "", "production", false),
    ("update", "networking.istio.io", "gateways", "", "istio-system", false),
    ("escalate", "rbac.authorization.k8s.io", "clusterroles", "", "", false),
];

const OF_EXPORTERS: &[Right] = &[
    ("create", "net.example", "serviceexports", "", "production", true),
    ("watch", "net.example", "serviceexports", "", "", true),
    ("delete", "net.example", "serviceexports", "backend", "production", false),
    ("create", "net.example", "serviceimports", "", "production", false),
    ("watch", "multicluster.x-k8s.io", "serviceexports", "", "", false),
    ("get", "apiextensions.k8s.io", "customresourcedefinitions", "serviceimports.net.example", "", true),
];

const OF_READERS: &[Right] = &[
    ("watch", "multicluster.x-k8s.io", "serviceexports", "", "", true),
    ("list", "multicluster.x-k8s.io", "serviceimports", "", "", true),
    ("create", "multicluster.x-k8s.io", "serviceexports", "", "production", false),
    ("watch", "", "services", "", "", true),
    ("watch", "discovery.k8s.io", "endpointslices", "", "", true),
    ("create", "authentication.k8s.io", "tokenreviews", "", "", true),
    ("list", "", "configmaps", "istio", "istio-system", true),
    ("list", "", "secrets", "", "istio-system", false),
    ("create", "", "configmaps", "", "production", false),
    ("create", "coordination.k8s.io", "leases", "", "istio-system", false),
    ("update", "", "services", "backend", "production", false),
    ("create", "events.k8s.io", "events", "", "production", false),
];

/// Asks the API server's authorizer, as the account.
async fn may(cluster: &Cluster, account: &str, rights: &[Right]) -> Result<()> {
    let reviews: Api<SelfSubjectAccessReview> =
        Api::all(cluster.client_as(login(cluster, account).await?).await?);
    for right in rights {
        let (verb, group, resource, name, namespace, expected) = *right;
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes = ResourceAttributes {
            verb: some(verb),
            group: some(group),
            resource: some(resource),
            subresource: some(subresource),
            name: some(name),
            namespace: some(namespace),
            ..Default::default()
        };
        let spec =
            SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..Default::default() };
        let answer = reviews.create(&PostParams::default(), &review).await?;
        let status = answer.status.context("a review is answered in its status")?;
        ensure!(status.allowed == expected, "{account}: {right:?}: {status:?}");
    }
    Ok(())
}

/// Not only by the authorizer's word.
async fn denied(cluster: &Cluster) -> Result<()> {
    let client = cluster.client_as(login(cluster, "istiod").await?).await?;
    let secrets = |namespace: &str| Api::<Secret>::namespaced(client.clone(), namespace);
    secrets("istio-system").list(&ListParams::default()).await?;
    match secrets("production").list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
        other => anyhow::bail!("Secrets of production: {other:?}"),
    }
}
