//! A real API server asks landbridge before it stores an object.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::process::Command;
use xds_tests::kubernetes::charts::{Said, said};
use xds_tests::kubernetes::{Cluster, cluster_test};

use super::events::{BROKEN, GOOD, ODD, east, rule};
use super::plane::{Plane, until};

const KIND: &str = "ValidatingWebhookConfiguration";
const NAME: &str = "istio-validator-istio-system";

/// As the chart has it, by address instead of by a Service: nobody forwards those here.
fn configuration(plane: &Plane) -> String {
    let url = format!("https://{}:15017/validate", plane.address);
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": KIND,
        "metadata": { "name": NAME, "labels": { "istio.io/rev": "default" } },
        "webhooks": [{
            "name": "rev.validation.istio.io", "clientConfig": { "url": url }, "failurePolicy": "Ignore",
            "rules": [{ "operations": ["CREATE", "UPDATE"], "apiVersions": ["*"], "resources": ["*"],
                "apiGroups": ["networking.istio.io", "security.istio.io"] }],
            "sideEffects": "None", "admissionReviewVersions": ["v1"],
        }],
    })
    .to_string()
}

async fn configurations(cluster: &Cluster) -> Result<Api<DynamicObject>> {
    cluster.objects("admissionregistration.k8s.io/v1", KIND, None).await
}

/// Whether the API server has it, and what it trusts us by.
async fn kept(configurations: &Api<DynamicObject>) -> Result<(String, String)> {
    let stored = configurations.get(NAME).await?;
    let webhook = &stored.data["webhooks"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok((text(&webhook["failurePolicy"]), text(&webhook["clientConfig"]["caBundle"])))
}

/// What the API server says to a rule, as `kubectl apply` shows it.
async fn refusal(cluster: &Cluster, text: &str) -> Option<String> {
    cluster.apply(text).await.err().map(|error| format!("{error:#}"))
}

/// What landbridge says of an object that is there.
async fn told(plane: &Plane, object: &str) -> Result<Option<String>> {
    let sources: Value = serde_json::from_str(&plane.page("/debug/sourcez").await?)?;
    let problems = sources[0]["problems"].as_array().context("problems")?;
    let problem = problems.iter().find(|problem| problem["object"] == object);
    let text = |problem: &Value, field: &str| problem[field].as_str().unwrap_or_default().to_owned();
    Ok(problem.map(|p| format!("{}: {}; {}", text(p, "field"), text(p, "reason"), text(p, "remedy"))))
}

#[test]
fn what_is_broken_is_refused_once_it_is_proven_that_we_are_asked() {
    let name = "webhooks::what_is_broken_is_refused_once_it_is_proven_that_we_are_asked";
    cluster_test(name, async |binaries, folder| {
        let east = east(binaries, &folder).await?;
        let kubeconfig = folder.join("east.kubeconfig");
        // What is there already is not refused, and gives the words.
        east.apply(&rule("before", BROKEN)).await?;
        let mut plane = Plane::start(0, &kubeconfig, &folder, &[])?;
        plane.ready().await?;
        let object = "production/DestinationRule/before";
        until("it is named", async || Ok(told(&plane, object).await?.is_some())).await?;
        let words = told(&plane, object).await?.context("it is named")?;

        east.apply(&configuration(&plane)).await?;
        let api = configurations(&east).await?;
        until("it is strict", async || Ok(kept(&api).await?.0 == "Fail")).await?;
        let (_, bundle) = kept(&api).await?;
        ensure!(!bundle.is_empty());
        let gateways = east.objects("networking.istio.io/v1", "Gateway", Some("istio-system")).await?;
        ensure!(gateways.get_opt("invalid-gateway").await?.is_none(), "a dry run stores nothing");

        let refused = refusal(&east, &rule("broken", BROKEN)).await.context("a broken rule is stored")?;
        let wanted = format!("denied the request: configuration is invalid: {words}");
        ensure!(refused.contains(&wanted), "{refused} without {wanted}");
        east.apply(&rule("good", GOOD)).await?;
        ensure!(refusal(&east, &rule("good", BROKEN)).await.is_some_and(|said| said.contains(&words)));
        // A kind that is not read.
        let unread = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: a, namespace: production}\nspec: {}\n";
        let result = refusal(&east, unread).await.unwrap_or_default();
        ensure!(!result.contains("denied"), "{result}");
        let rules = east.objects("networking.istio.io/v1", "DestinationRule", Some("production")).await?;
        rules.delete("before", &Default::default()).await?;

        // As a person sees it.
        let mut command = Command::new(&binaries.kubectl);
        command.arg("--kubeconfig").arg(&kubeconfig).args(["apply", "-f", "-"]);
        let Said { success, err, .. } = said(command, &rule("odd", ODD)).await?;
        ensure!(success && err.contains("Warning: ") && err.contains("warmupDurationSecs"), "{err}");

        // Changed by hand, it is put right.
        let by_hand = async |change: Value| -> Result<()> {
            let mut stored = api.get(NAME).await?;
            for (field, value) in change.as_object().into_iter().flatten() {
                stored.data["webhooks"][0][field] = value.clone();
            }
            let webhooks = json!({ "webhooks": stored.data["webhooks"] });
            api.patch(NAME, &PatchParams::default(), &Patch::Merge(&webhooks)).await?;
            Ok(())
        };
        let url = format!("https://{}:15017/validate", plane.address);
        by_hand(json!({ "clientConfig": { "url": url } })).await?;
        until("the roots are back", async || Ok(kept(&api).await?.1 == bundle)).await?;
        by_hand(json!({ "failurePolicy": "Ignore" })).await?;
        until("it is strict again", async || Ok(kept(&api).await?.0 == "Fail")).await?;
        let counted = async |result: &str| {
            plane
                .metric(&format!(
                    "landbridge_webhook_configurations_total{{cluster=\"east\",result=\"{result}\"}}"
                ))
                .await
        };
        until("it is counted", async || Ok(counted("repaired").await? >= 2.0)).await?;
        ensure!(plane.metric("landbridge_validations_total{result=\"warned\"}").await? >= 1.0);

        // Without us nothing is stored, until somebody says that it may.
        plane.process.stop(Duration::from_secs(20)).await?;
        let failed = async || {
            let refused = refusal(&east, &rule("late", GOOD)).await;
            Ok(refused.is_some_and(|said| said.contains("failed calling webhook")))
        };
        until("it is not stored", failed).await?;
        by_hand(json!({ "failurePolicy": "Ignore" })).await?;
        until("it is stored", async || Ok(refusal(&east, &rule("late", BROKEN)).await.is_none())).await?;
        Ok(())
    });
}

#[test]
fn an_api_server_that_does_not_reach_us_stays_lenient() {
    let name = "webhooks::an_api_server_that_does_not_reach_us_stays_lenient";
    cluster_test(name, async |binaries, folder| {
        let east = east(binaries, &folder).await?;
        let kubeconfig = folder.join("east.kubeconfig");
        let mut plane = Plane::start(0, &kubeconfig, &folder, &[])?;
        plane.ready().await?;
        // A port on which nobody is.
        east.apply(&configuration(&plane).replace(":15017/", ":15018/")).await?;
        let named = async || Ok(plane.page("/debug/sourcez").await?.contains("failurePolicy stays as it is"));
        until("it is named", named).await?;
        let api = configurations(&east).await?;
        let (policy, bundle) = kept(&api).await?;
        ensure!(policy == "Ignore" && !bundle.is_empty(), "{policy} {bundle}");
        if let Some(refused) = refusal(&east, &rule("broken", BROKEN)).await {
            bail!("nobody may be locked out: {refused}");
        }
        plane.process.stop(Duration::from_secs(20)).await?;

        // Told not to, nobody touches it.
        east.apply(&configuration(&plane)).await?;
        api.patch(
            NAME,
            &PatchParams::default(),
            &Patch::Merge(&json!({ "metadata": { "labels": { "touched": "no" } } })),
        )
        .await?;
        let before = api.get(NAME).await?.metadata.resource_version;
        let flags = ["--validation-webhook-config-name", ""];
        let mut plane = Plane::start(1, &kubeconfig, &folder, &flags)?;
        plane.ready().await?;
        until("it leads", async || plane.leads("east").await).await?;
        let maps = east.objects("v1", "ConfigMap", Some("production")).await?;
        until("it writes", async || Ok(maps.get_opt("istio-ca-root-cert").await?.is_some())).await?;
        ensure!(api.get(NAME).await?.metadata.resource_version == before);
        plane.process.stop(Duration::from_secs(20)).await
    });
}
