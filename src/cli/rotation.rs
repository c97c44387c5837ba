//! What `landbridge cluster rotate` does in API servers: the remote secret, and the token in it.

use anyhow::{Context, Result, anyhow, bail};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use zeroize::Zeroizing;

use super::{
    remote_secret::{PATIENCE, account::Holder, said},
    yaml::to_yaml,
};
use crate::{
    model::remote_secret::LABEL,
    registry::{
        kubernetes::{Allowed, Client, from_secret},
        yaml,
    },
};

/// The service account of `create-remote-secret`, for credentials that name none.
const ACCOUNT: &str = "istio-reader-service-account";

/// Where a cluster's kubeconfig is.
pub struct Place {
    /// The path of the Secret.
    pub secret: String,
    /// What it says now.
    pub kubeconfig: Zeroizing<String>,
}

/// The credentials of a kubeconfig, as far as they can be read.
pub struct Login(Option<Value>);

/// Finds the remote secret that counts for a cluster: of several, the oldest.
pub async fn find(config: &Client, namespace: &str, cluster: &str) -> Result<Place> {
    let label = LABEL.replace('/', "%2F");
    let path = format!("/api/v1/namespaces/{namespace}/secrets");
    let all = config.get_json(&format!("{path}?labelSelector={label}%3Dtrue"), PATIENCE).await;
    let all = all.map_err(|failure| said(&failure, &format!("list the remote secrets of {namespace}")))?;
    let secrets = all["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |secret: &&Value| secret["data"].get(cluster).is_some_and(Value::is_string);
    let mut found: Vec<_> = secrets.iter().filter(named).collect();
    found.sort_by_key(|secret| {
        let text = |path| secret.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        (text("/metadata/creationTimestamp"), text("/metadata/name"))
    });
    let Some(secret) = found.first() else {
        let mut known: Vec<_> =
            secrets.iter().filter_map(|s| s["data"].as_object()).flat_map(|d| d.keys().cloned()).collect();
        known.sort();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        bail!("no remote secret in namespace {namespace} names cluster {cluster}; named are: {known}");
    };
    let name = secret["metadata"]["name"].as_str().unwrap_or_default();
    if found.len() > 1 {
        eprintln!("note: {} Secrets name cluster {cluster}; {name} is the oldest and counts", found.len());
    }
    let bytes = STANDARD.decode(secret["data"][cluster].as_str().unwrap_or_default()).unwrap_or_default();
    let text = String::from_utf8(bytes).map_err(|_| anyhow!("Secret {name}: data.{cluster} is no text"))?;
    Ok(Place { secret: format!("{path}/{name}"), kubeconfig: Zeroizing::new(text) })
}

/// Writes a kubeconfig into the Secret, and nothing else of it.
pub async fn store(config: &Client, secret: &str, cluster: &str, kubeconfig: &[u8]) -> Result<()> {
    let said = |failure| said(&failure, &format!("change the remote secret of {cluster}"));
    for _ in 0..5 {
        let mut object = config.get_json(secret, PATIENCE).await.map_err(said)?;
        object["data"][cluster] = STANDARD.encode(kubeconfig).into();
        match config.put(secret, &object, PATIENCE).await {
            Ok(_) => return Ok(()),
            // Somebody else changed it at the same time.
            Err(failure) if failure.code() == Some(409) => {}
            Err(failure) => return Err(said(failure)),
        }
    }
    bail!("the remote secret of {cluster} is changed by others all the time")
}

/// A token is of no use for another cluster than the one that is read: `there` has to be the kubeconfig's.
pub async fn same_cluster(there: &Client, kubeconfig: &str, cluster: &str) -> Result<()> {
    let config = from_secret(kubeconfig.as_bytes(), Allowed::default()).await;
    let Ok(Ok(read)) = config.map(|config| Client::new(&config)) else { return Ok(()) };
    // What cannot be reached from here is proved by landbridge.
    let (here, read) = (there.cluster_uid(PATIENCE).await, read.cluster_uid(PATIENCE).await);
    match (here, read) {
        (Some(here), Some(read)) if here != read => bail!(
            "--context opens another cluster (its kube-system has UID {here}) than the remote secret of {cluster} ({read}); \
             give the context of {cluster}"
        ),
        _ => Ok(()),
    }
}

/// The same kubeconfig, with this token and no other credentials.
pub fn with_token(kubeconfig: &str, token: &str) -> Result<Zeroizing<String>> {
    let mut config = read(kubeconfig)?;
    let user =
        user_of(&config).context("the kubeconfig in the remote secret has no current user")?.to_owned();
    let users = config["users"].as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
    let entry = users.iter_mut().find(|entry| entry["name"] == *user);
    let entry = entry.with_context(|| format!("the kubeconfig in the remote secret has no user {user:?}"))?;
    entry["user"] = json!({ "token": token });
    Ok(Zeroizing::new(to_yaml(&config)))
}

fn read(kubeconfig: &str) -> Result<Value> {
    yaml::parse(kubeconfig).map_err(|error| {
        anyhow!("what is in the remote secret is no kubeconfig: line {}: {}", error.line, error.reason)
    })
}

fn user_of(config: &Value) -> Option<&str> {
    let context = config["contexts"].as_array()?.iter().find(|c| c["name"] == config["current-context"])?;
    context["context"]["user"].as_str()
}

// === impl Login ===

impl Login {
    /// Reads the claims of the token of a kubeconfig; other credentials are passed over.
    pub fn read(kubeconfig: &str) -> Result<Self> {
        let config = read(kubeconfig)?;
        let user = user_of(&config);
        let entry = config["users"].as_array().into_iter().flatten().find(|u| u["name"].as_str() == user);
        let token = entry.and_then(|entry| entry["user"]["token"].as_str());
        let claims = token.and_then(|token| {
            let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
            serde_json::from_slice(&bytes).ok()
        });
        Ok(Self(claims))
    }

    /// Namespace and name of the service account; what `create-remote-secret` makes where the credentials do not say.
    pub fn account(&self, namespace: &str) -> (String, String) {
        let of_token = self.claim("/sub").and_then(|sub| {
            let (namespace, name) = sub.strip_prefix("system:serviceaccount:")?.split_once(':')?;
            Some((namespace.to_owned(), name.to_owned()))
        });
        of_token.unwrap_or_else(|| (namespace.to_owned(), ACCOUNT.to_owned()))
    }

    /// The Secret with which the token ends.
    pub fn holder(&self, namespace: &str) -> Option<Holder> {
        let bound = self.claim("/kubernetes.io/secret/name");
        let name = bound.or_else(|| self.claim("/kubernetes.io~1serviceaccount~1secret.name"))?.to_owned();
        let uid = self.claim("/kubernetes.io/secret/uid").map(str::to_owned);
        Some(Holder { namespace: self.account(namespace).0, name, uid })
    }

    /// When the token ends by itself, in words.
    pub fn ends(&self) -> Option<String> {
        let at = self.0.as_ref()?.get("exp")?.as_i64()?;
        let at = OffsetDateTime::from_unix_timestamp(at).ok()?.format(&Rfc3339).ok()?;
        Some(format!("the old token is of no Secret, and good until {at}"))
    }

    fn claim(&self, path: &str) -> Option<&str> {
        self.0.as_ref()?.pointer(path)?.as_str().filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: w\nclusters: [{{name: w, cluster: {{server: 'https://192.0.2.1:6443'}}}}]\n\
             users: [{{name: v, user: {{token: other}}}}, {{name: u, user: {user}}}]\n\
             contexts: [{{name: w, context: {{cluster: w, user: u}}}}]\n"
        )
    }

    fn token(claims: &Value) -> String {
        format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn a_token_says_whose_it_is_and_with_what_it_ends() {
        let of = |claims: Value| {
            let login = Login::read(&kubeconfig(&format!("{{token: {}}}", token(&claims)))).expect("YAML");
            let holder = login.holder("istio-system").map(|h| (h.to_string(), h.uid));
            (login.account("istio-system"), holder, login.ends().is_some())
        };
        let sub = "system:serviceaccount:mesh:reader";
        let reader = ("mesh".to_owned(), "reader".to_owned());
        let forever = json!({ "sub": sub, "kubernetes.io/serviceaccount/secret.name": "s" });
        assert_eq!(of(forever), (reader.clone(), Some(("mesh/s".into(), None)), false));
        let bound = json!({ "sub": sub, "exp": 2_000_000_000, "kubernetes.io": { "secret": { "name": "s", "uid": "1" } } });
        assert_eq!(of(bound), (reader.clone(), Some(("mesh/s".into(), Some("1".into()))), true));
        assert_eq!(of(json!({ "sub": sub, "exp": 2_000_000_000 })), (reader, None, true));
        let default = ("istio-system".to_owned(), ACCOUNT.to_owned());
        assert_eq!(of(json!({ "sub": "somebody", "exp": i64::MAX })), (default.clone(), None, false));
        for user in ["{token: opaque}", "{client-key-data: eA==}", "{token: a.%%%.c}"] {
            let login = Login::read(&kubeconfig(user)).expect("YAML");
            assert!(login.account("istio-system") == default && login.holder("istio-system").is_none());
        }
        assert!(Login::read("hush: [").is_err());
    }

    #[test]
    fn only_the_credentials_of_the_current_user_change() {
        let text = with_token(&kubeconfig("{client-key-data: eA==}"), "new").expect("a kubeconfig");
        let config = read(&text).expect("YAML");
        assert_eq!(config["users"][1]["user"], json!({ "token": "new" }));
        assert_eq!(config["users"][0]["user"]["token"], "other");
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://192.0.2.1:6443");
        for text in ["a: b", "hush: [", &kubeconfig("{}").replace("user: u}", "user: gone}")] {
            let error = with_token(text, "new").expect_err(text).to_string();
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
