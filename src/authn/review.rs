//! Service-account tokens that the API server of the caller's cluster reviews (Kubernetes `TokenReview`). Issuers do not tell
//! clusters apart: most call themselves `https://kubernetes.default.svc.cluster.local`. So the caller names its cluster, and
//! that cluster's API server has the last word.

use std::time::Duration;

use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::json;

use crate::text::printable;

/// How long a review is believed, at most: a token ends with its pod, before its own time.
pub const BELIEVED: Duration = Duration::from_secs(300);

const PREFIX: &str = "system:serviceaccount:";
const GROUP: &str = "system:serviceaccounts";

/// The API servers that can be asked.
pub trait Reviewers: std::fmt::Debug + Send + Sync {
    /// The cluster of callers that name none.
    fn own(&self) -> &str;
    /// All clusters whose API servers can be asked.
    fn clusters(&self) -> Vec<String>;
    /// Sends a `TokenReview` to the cluster's API server; gives its answer, or why there is none.
    fn ask<'a>(&'a self, cluster: &'a str, review: Vec<u8>) -> BoxFuture<'a, Result<Vec<u8>, String>>;
}

/// Why a token was not found good. Holds nothing of the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// Nobody to ask.
    #[error(
        "the caller says that it is in cluster `{claimed}`, which is not registered here ({known}){nearest}; set the proxy's CLUSTER_ID to \
         the name of a registered cluster, or register `{claimed}` with a remote secret"
    )]
    UnknownCluster {
        /// The caller's `clusterid` metadata.
        claimed: String,
        /// What is registered.
        known: String,
        /// Which of these was probably meant.
        nearest: String,
    },
    /// The API server did not answer.
    #[error(
        "the API server of cluster `{cluster}` did not review it: {reason}; this is tried again when the proxy connects again"
    )]
    Unanswered {
        /// Who was asked.
        cluster: String,
        /// What happened.
        reason: String,
    },
    /// The API server does not accept it.
    #[error("the API server of cluster `{cluster}` does not accept it: {reason}")]
    Refused {
        /// Who was asked.
        cluster: String,
        /// Its reason.
        reason: String,
    },
}

/// A reviewed service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

#[derive(Deserialize)]
struct Review {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    groups: Vec<String>,
}

/// Has a token reviewed by the API server of the cluster that the caller claims, or by our own's.
pub async fn review(
    reviewers: &dyn Reviewers,
    claimed: &str,
    token: &str,
    audiences: &[String],
) -> Result<(String, Account), ReviewError> {
    let cluster = if claimed.is_empty() { reviewers.own() } else { claimed }.to_owned();
    let known = reviewers.clusters();
    if !known.contains(&cluster) {
        return Err(unknown(&cluster, &known));
    }
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": { "token": token, "audiences": audiences },
    });
    let answer = reviewers.ask(&cluster, request.to_string().into_bytes()).await;
    let answer = answer.map_err(|reason| ReviewError::Unanswered { cluster: cluster.clone(), reason })?;
    match account(&answer, audiences) {
        Ok(account) => Ok((cluster, account)),
        Err(reason) => Err(ReviewError::Refused { cluster, reason }),
    }
}

/// What an API server says of a token. One that does not know audiences answers without any, and has reviewed the token for
/// itself: that is not enough.
fn account(answer: &[u8], audiences: &[String]) -> Result<Account, String> {
    let Review { status } =
        serde_json::from_slice(answer).map_err(|error| format!("its answer is no TokenReview: {error}"))?;
    if !status.error.is_empty() {
        return Err(printable(&status.error));
    }
    if !status.authenticated {
        return Err("it is not authentic, or over".to_owned());
    }
    if !status.audiences.iter().any(|audience| audiences.contains(audience)) {
        return Err(format!("it is not meant for {}", audiences.join(" or ")));
    }
    let User { username, groups } = status.user;
    let not_one = || format!("`{}` is not a service account", printable(&username));
    if !groups.iter().any(|group| group == GROUP) {
        return Err(not_one());
    }
    let (namespace, name) =
        username.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':')).ok_or_else(not_one)?;
    if namespace.is_empty() || name.is_empty() || name.contains(':') {
        return Err(not_one());
    }
    Ok(Account { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn unknown(claimed: &str, known: &[String]) -> ReviewError {
    let alike = |name: &&String| strsim::jaro_winkler(claimed, name);
    let nearest = known.iter().filter(|name| alike(name) > 0.7).max_by(|a, b| alike(a).total_cmp(&alike(b)));
    ReviewError::UnknownCluster {
        claimed: printable(claimed),
        known: if known.is_empty() { "none is".to_owned() } else { known.join(", ") },
        nearest: nearest.map(|name| format!("; `{name}` is")).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: serde_json::Value) -> Result<String, String> {
        let answer = json!({ "kind": "TokenReview", "status": status }).to_string();
        account(answer.as_bytes(), &["istio-ca".to_owned()]).map(|a| format!("{}/{}", a.namespace, a.name))
    }

    fn user(name: &str) -> serde_json::Value {
        json!({ "username": name, "groups": ["system:serviceaccounts", "system:authenticated"] })
    }

    #[test]
    fn what_api_servers_say() {
        let good = user("system:serviceaccount:shop:cart");
        let yes = json!({ "authenticated": true, "audiences": ["istio-ca"], "user": good });
        assert_eq!(answer(yes), Ok("shop/cart".to_owned()));
        for (status, reason) in [
            (json!({}), "not authentic"),
            (json!({ "error": "[invalid bearer token, token expired]" }), "token expired"),
            (json!({ "authenticated": false, "user": good }), "not authentic"),
            (json!({ "authenticated": true, "user": good }), "not meant for istio-ca"),
            (
                json!({ "authenticated": true, "audiences": ["other"], "user": good }),
                "not meant for istio-ca",
            ),
            (
                json!({ "authenticated": true, "audiences": ["istio-ca"], "user": { "username": "system:serviceaccount:a:b" } }),
                "not a service account",
            ),
            (
                json!({ "authenticated": true, "audiences": ["istio-ca"], "user": user("system:node:n1") }),
                "`system:node:n1` is not",
            ),
            (
                json!({ "authenticated": true, "audiences": ["istio-ca"], "user": user("system:serviceaccount:a:b:c") }),
                "is not a service account",
            ),
        ] {
            let said = answer(status.clone()).unwrap_err();
            assert!(said.contains(reason), "{status}: {said}");
        }
        assert!(account(b"<html>", &[]).unwrap_err().contains("no TokenReview"));
    }

    #[test]
    fn an_unknown_cluster_is_named_with_the_known_and_the_nearest() {
        let known = ["east".to_owned(), "west-1".to_owned()];
        let said = unknown("west", &known).to_string();
        for part in ["cluster `west`", "(east, west-1)", "`west-1` is", "remote secret"] {
            assert!(said.contains(part), "{said}");
        }
        let said = unknown("Kubernetes", &known).to_string();
        assert!(said.contains("(east, west-1);") && !said.contains("` is;"), "{said}");
        assert!(unknown("a", &[]).to_string().contains("(none is)"));
    }
}
