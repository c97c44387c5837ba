//! Custom resource definitions of Istio and of multi-cluster services, as small as an API server takes them: the right
//! names, versions and scopes, and schemas that let everything pass. To be installed when a test says so, or never.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Cluster;

/// A kind, served in `versions`, of which the first is stored.
pub struct Kind {
    pub group: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub short: &'static [&'static str],
    pub versions: &'static [&'static str],
}

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const SINCE_ALPHA3: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SINCE_BETA: &[&str] = &["v1", "v1beta1"];

/// What Istio defines.
pub const ISTIO: &[Kind] = &[
    kind(NETWORKING, "DestinationRule", "destinationrules", &["dr"], SINCE_ALPHA3),
    kind(NETWORKING, "EnvoyFilter", "envoyfilters", &[], &["v1alpha3"]),
    kind(NETWORKING, "Gateway", "gateways", &["gw"], SINCE_ALPHA3),
    kind(NETWORKING, "ProxyConfig", "proxyconfigs", &[], &["v1beta1"]),
    kind(NETWORKING, "ServiceEntry", "serviceentries", &["se"], SINCE_ALPHA3),
    kind(NETWORKING, "Sidecar", "sidecars", &[], SINCE_ALPHA3),
    kind(NETWORKING, "VirtualService", "virtualservices", &["vs"], SINCE_ALPHA3),
    kind(NETWORKING, "WorkloadEntry", "workloadentries", &["we"], SINCE_ALPHA3),
    kind(NETWORKING, "WorkloadGroup", "workloadgroups", &["wg"], SINCE_ALPHA3),
    kind(SECURITY, "AuthorizationPolicy", "authorizationpolicies", &["ap"], SINCE_BETA),
    kind(SECURITY, "PeerAuthentication", "peerauthentications", &["pa"], SINCE_BETA),
    kind(SECURITY, "RequestAuthentication", "requestauthentications", &["ra"], SINCE_BETA),
    kind("telemetry.istio.io", "Telemetry", "telemetries", &["telemetry"], &["v1", "v1alpha1"]),
    kind("extensions.istio.io", "WasmPlugin", "wasmplugins", &[], &["v1alpha1"]),
];

/// Multi-cluster services (KEP-1645).
pub const MULTI_CLUSTER: &[Kind] = &[
    kind(MCS, "ServiceExport", "serviceexports", &["svcex"], &["v1alpha1"]),
    kind(MCS, "ServiceImport", "serviceimports", &["svcim"], &["v1alpha1"]),
];
const MCS: &str = "multicluster.x-k8s.io";

const fn kind(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    versions: &'static [&'static str],
) -> Kind {
    Kind { group, kind, plural, short, versions }
}

impl Kind {
    /// The name of its definition.
    pub fn name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    fn definition(&self) -> Value {
        let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let versions = self.versions.iter().enumerate().map(|(position, version)| {
            json!({
                "name": version,
                "served": true,
                "storage": position == 0,
                "schema": { "openAPIV3Schema": {
                    "type": "object", "properties": { "spec": anything, "status": anything },
                }},
                "subresources": { "status": {} },
            })
        });
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": { "name": self.name() },
            "spec": {
                "group": self.group,
                "scope": "Namespaced",
                "names": {
                    "kind": self.kind,
                    "listKind": format!("{}List", self.kind),
                    "plural": self.plural,
                    "singular": self.kind.to_lowercase(),
                    "shortNames": self.short,
                    "categories": if self.group.ends_with("istio.io") { vec!["istio-io"] } else { vec![] },
                },
                "versions": Vec::from_iter(versions),
            },
        })
    }
}

impl Cluster {
    /// Defines kinds and waits until they are served. For one of [`ISTIO`]: `ISTIO.iter().filter(..)`.
    pub async fn define(&self, kinds: impl IntoIterator<Item = &Kind>) -> Result<()> {
        let kinds = Vec::from_iter(kinds);
        for kind in &kinds {
            self.apply_one(kind.definition()).await?;
        }
        for kind in &kinds {
            self.await_served(kind).await?;
        }
        Ok(())
    }

    /// Takes a kind away and with it all its objects, and waits until it is no longer served.
    pub async fn undefine(&self, kind: &Kind) -> Result<()> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client().clone());
        definitions.delete(&kind.name(), &DeleteParams::default()).await?;
        let deadline = Instant::now() + PATIENCE;
        // Its objects are deleted first; the definition goes when that is done.
        while definitions.get_opt(&kind.name()).await?.is_some() || self.serves(kind).await.is_ok() {
            ensure!(Instant::now() < deadline, "{} does not go away", kind.name());
            sleep(POLL).await;
        }
        Ok(())
    }

    async fn await_served(&self, kind: &Kind) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Established is said a moment before every version is served.
            let served = self.serves(kind).await;
            if served.is_ok() || Instant::now() > deadline {
                return served.with_context(|| format!("wait until {} is served", kind.name()));
            }
            sleep(POLL).await;
        }
    }

    /// Whether all versions are there and can be listed.
    async fn serves(&self, kind: &Kind) -> Result<()> {
        for version in kind.versions {
            let api = self.objects(&format!("{}/{version}", kind.group), kind.kind, None).await?;
            api.list(&ListParams::default().limit(1)).await?;
        }
        Ok(())
    }
}
