//! The service account that another control plane reads with: its rights and its token.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{PATIENCE, said};
use crate::registry::kubernetes::{Client, Failure};

/// How long the cluster may take to put a token into a Secret.
const FILLED_WITHIN: Duration = Duration::from_secs(10);
/// What is asked for where no token can be had that does not expire.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Said where no controller fills Secrets with tokens.
const UNFILLED: &str =
    "note: the cluster put no token into a Secret within 10 s; one that expires is asked for";

/// What opens the cluster.
pub struct Token {
    pub token: String,
    /// PEM of what signed the API server's certificate, where the token's Secret says so.
    pub authority: Option<String>,
    /// When the token expires, if it does.
    pub expires: Option<String>,
}

/// What a control plane reads of a cluster that is not its own. Reviews are how it knows that cluster's tokens.
fn rules(mcs_group: &str) -> Value {
    let read = ["get", "list", "watch"];
    let mcs = ["serviceexports", "serviceimports"];
    let definitions = mcs.map(|plural| format!("{plural}.{mcs_group}"));
    json!([
        { "apiGroups": [""], "resources": ["namespaces", "nodes", "pods", "serviceaccounts", "services"],
          "verbs": read },
        { "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["istio"], "verbs": read },
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read },
        { "apiGroups": [mcs_group], "resources": mcs, "verbs": read },
        { "apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"],
          "resourceNames": definitions, "verbs": ["get"] },
        { "apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"] },
    ])
}

/// Makes the service account and its rights what they should be; `mcs_group` is the API group of exports and imports. Rights that others
/// gave it stay.
pub async fn make(client: &Client, namespace: &str, account: &str, mcs_group: &str) -> Result<()> {
    let reader = format!("landbridge-reader-{namespace}-{account}");
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": reader });
    let subject = json!({ "kind": "ServiceAccount", "name": account, "namespace": namespace });
    let objects = [
        (
            format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}"),
            json!({ "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": { "name": account, "namespace": namespace } }),
        ),
        (
            format!("{rbac}/clusterroles/{reader}"),
            json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": { "name": reader }, "rules": rules(mcs_group) }),
        ),
        (
            format!("{rbac}/clusterrolebindings/{reader}"),
            json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": { "name": reader }, "roleRef": role, "subjects": [subject] }),
        ),
    ];
    for (path, object) in objects {
        let kind = object["kind"].as_str().unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match client.apply(&path, &object, PATIENCE).await {
            Ok(_) => {}
            Err(failure) if failure.code() == Some(404) => {
                let remedy = format!("make the namespace: `kubectl create namespace {namespace}`");
                anyhow::bail!("cannot make {kind} {name} in namespace {namespace}: {failure}; {remedy}");
            }
            Err(failure) => {
                let wanted = format!("make {kind} {name}");
                let remedy = "use a kubeconfig that may, or make it by other means and give --create-service-account=false";
                return Err(said(&failure, &wanted).context(remedy));
            }
        }
    }
    Ok(())
}

/// A token of the service account: for a time, if one is given; else one that does not expire, from a Secret that the cluster
/// fills, and where none does, the longest that it gives.
pub async fn token(
    client: &Client,
    namespace: &str,
    account: &str,
    duration: Option<Duration>,
) -> Result<Token> {
    if let Some(duration) = duration {
        return request(client, namespace, account, duration, None).await;
    }
    let name = format!("{account}-istio-remote-secret-token");
    let (token, _) = from_secret(client, namespace, account, &name).await?;
    match token {
        Some(token) => Ok(token),
        None => {
            eprintln!("{UNFILLED}");
            request(client, namespace, account, LONGEST, None).await
        }
    }
}

/// A token that ends with a Secret of its own.
pub struct Issued {
    pub token: Zeroizing<String>,
    pub holder: Holder,
    /// When it expires, if it does.
    pub expires: Option<String>,
}

/// The Secret that a token ends with.
pub struct Holder {
    pub namespace: String,
    pub name: String,
    /// If it is known.
    pub uid: Option<String>,
}

/// A new token of the service account, as [`token`], which ends when its Secret is deleted.
pub async fn issue(
    client: &Client,
    namespace: &str,
    account: &str,
    duration: Option<Duration>,
) -> Result<Issued> {
    let name = format!("{account}-istio-remote-secret-token-{:08x}", rand::random::<u32>());
    let (filled, uid) = match duration {
        None => from_secret(client, namespace, account, &name).await?,
        Some(_) => {
            // Of a type that no controller puts a token into.
            let object = json!({ "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": { "name": name, "namespace": namespace } });
            let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
            let made = client.apply(&path, &object, PATIENCE).await;
            (None, uid(&made.map_err(|failure| said(&failure, &format!("make Secret {namespace}/{name}")))?))
        }
    };
    let holder = Holder { namespace: namespace.to_owned(), name, uid };
    let token = match filled {
        Some(token) => token,
        None => {
            if duration.is_none() {
                eprintln!("{UNFILLED}");
            }
            request(client, namespace, account, duration.unwrap_or(LONGEST), Some(&holder)).await?
        }
    };
    Ok(Issued { token: Zeroizing::new(token.token), holder, expires: token.expires })
}

impl Holder {
    /// Deletes it, and the token ends. That it is gone already is as good.
    pub async fn delete(&self, client: &Client) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}/secrets/{}", self.namespace, self.name);
        match client.delete(&path, self.uid.as_deref(), PATIENCE).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.code() == Some(404) => Ok(()),
            Err(failure) => Err(said(&failure, &format!("delete Secret {self}"))),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn uid(object: &Value) -> Option<String> {
    object["metadata"]["uid"].as_str().map(str::to_owned)
}

async fn request(
    client: &Client,
    namespace: &str,
    account: &str,
    duration: Duration,
    holder: Option<&Holder>,
) -> Result<Token> {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let bound = holder.map(
        |holder| json!({ "apiVersion": "v1", "kind": "Secret", "name": holder.name, "uid": holder.uid }),
    );
    let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": { "expirationSeconds": duration.as_secs(), "boundObjectRef": bound } });
    let answer = client.post(&path, request.to_string().into_bytes(), PATIENCE).await;
    let answer = answer.map_err(|failure| no_account(failure, namespace, account))?;
    let answer: Value =
        serde_json::from_slice(&answer).context("what answers a request for a token is no API server")?;
    let status = |field: &str| answer["status"][field].as_str().map(str::to_owned);
    let token = status("token").context("the API server gave no token; see its log")?;
    Ok(Token { token, authority: None, expires: status("expirationTimestamp") })
}

/// From a Secret of type service-account-token, which is made if there is none; with its UID.
async fn from_secret(
    client: &Client,
    namespace: &str,
    account: &str,
    name: &str,
) -> Result<(Option<Token>, Option<String>)> {
    let at = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}");
    client.get_json(&at, PATIENCE).await.map_err(|failure| no_account(failure, namespace, account))?;
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    let object = json!({ "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": { "name": name, "namespace": namespace,
            "annotations": { "kubernetes.io/service-account.name": account } } });
    let until = Instant::now() + FILLED_WITHIN;
    let mut secret = client.apply(&path, &object, PATIENCE).await;
    loop {
        let known = secret.map_err(|failure| {
            said(&failure, &format!("make Secret {namespace}/{name} for a token, give --token-duration"))
        })?;
        let data = |key: &str| {
            let bytes = STANDARD.decode(known["data"][key].as_str()?).ok()?;
            String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
        };
        if let Some(token) = data("token") {
            return Ok((Some(Token { token, authority: data("ca.crt"), expires: None }), uid(&known)));
        }
        if Instant::now() > until {
            return Ok((None, uid(&known)));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        secret = client.get_json(&path, PATIENCE).await;
    }
}

fn no_account(failure: Failure, namespace: &str, account: &str) -> anyhow::Error {
    if failure.code() == Some(404) {
        return anyhow::anyhow!(
            "there is no ServiceAccount {namespace}/{account}; make it, or give --create-service-account"
        );
    }
    said(&failure, &format!("get a token of ServiceAccount {namespace}/{account}"))
}

/// The API server's address for the pods of its cluster, if it may be known.
pub async fn inside_address(client: &Client) -> Option<String> {
    let service = client.get_json("/api/v1/namespaces/default/services/kubernetes", PATIENCE).await.ok()?;
    service["spec"]["clusterIP"].as_str().map(str::to_owned)
}
