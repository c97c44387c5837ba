//! A question of an API server and its answer, `admission.k8s.io/v1`. Pure; hostile input gives a sentence, never a panic.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ALWAYS_REJECT, metrics::Verdict};
use crate::{
    model::ClusterId,
    registry::convert::{self, Finding, Outcome, Settings},
};

/// What Istio sets on objects that it makes itself, and keeps in no API server.
const INTERNAL: [&str; 3] =
    [ALWAYS_REJECT, "internal.istio.io/parents", "internal.istio.io/parent-namespace"];
/// The versions of the question, which have one shape.
const VERSIONS: [&str; 2] = ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"];
/// So many warnings are said at once: API servers cut off after 4,096 characters.
const MOST_WARNINGS: usize = 20;

/// Judges objects as the sources of a cluster do.
#[derive(Clone, Debug)]
pub struct Validator {
    cluster: ClusterId,
    settings: Settings,
}

/// What is said to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As JSON.
    pub body: Vec<u8>,
    /// For counting.
    pub verdict: Verdict,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Request,
}

#[derive(Deserialize)]
struct Request {
    uid: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    object: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reviewed<'a> {
    api_version: &'a str,
    kind: &'a str,
    response: Response,
}

#[derive(Serialize)]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Status {
    code: u16,
    reason: &'static str,
    message: String,
}

/// What becomes of an object.
enum Judgement {
    /// It is taken; what of it is not applied as written.
    Taken(Vec<Finding>),
    /// It would not be applied at all.
    Refused(Finding),
}

impl Validator {
    /// With the settings of the cluster's source.
    pub fn new(cluster: ClusterId, settings: Settings) -> Self {
        Self { cluster, settings }
    }

    /// Answers a question; an error is what is wrong with the question itself.
    pub fn answer(&self, body: &[u8]) -> Result<Answer, String> {
        if body.is_empty() {
            return Err("no body found".to_owned());
        }
        let review: Review =
            serde_json::from_slice(body).map_err(|error| format!("this is no AdmissionReview: {error}"))?;
        let Review { api_version, kind, request: Request { uid, operation, object } } = review;
        if kind != "AdmissionReview" || !VERSIONS.contains(&api_version.as_str()) {
            return Err(format!("{api_version:?} {kind:?} is no AdmissionReview of {}", VERSIONS[0]));
        }
        let judgement = match operation.as_str() {
            "CREATE" | "UPDATE" if !object.is_object() => {
                return Err(format!("{operation} without an object"));
            }
            "CREATE" | "UPDATE" => self.judge(object),
            _ => Judgement::Taken(Vec::new()),
        };
        let (verdict, status, warnings) = match judgement {
            Judgement::Taken(findings) if findings.is_empty() => (Verdict::Allowed, None, Vec::new()),
            Judgement::Taken(findings) => (Verdict::Warned, None, warnings(&findings)),
            Judgement::Refused(finding) => {
                // istiod's words, then ours.
                let message = format!("configuration is invalid: {finding}");
                (Verdict::Refused, Some(Status { code: 422, reason: "Invalid", message }), Vec::new())
            }
        };
        let response = Response { uid, allowed: status.is_none(), status, warnings };
        let answer = Reviewed { api_version: &api_version, kind: &kind, response };
        let body = serde_json::to_vec(&answer).map_err(|error| error.to_string())?;
        Ok(Answer { body, verdict })
    }

    fn judge(&self, object: Value) -> Judgement {
        let metadata = |path: &str| object.pointer(&format!("/metadata/{path}"));
        // Whatever it says, it may go: its finalizers are taken away by updates.
        if metadata("deletionTimestamp").is_some_and(Value::is_string) {
            return Judgement::Taken(Vec::new());
        }
        let annotations = metadata("annotations").and_then(Value::as_object);
        if let Some(name) =
            INTERNAL.iter().find(|name| annotations.is_some_and(|all| all.contains_key(**name)))
        {
            return Judgement::Refused(Finding::new(
                format!("metadata.annotations[{name}]"),
                "is for the control plane itself; an object with it is never taken",
                "remove the annotation",
            ));
        }
        match convert::convert(&self.cluster, &self.settings, object) {
            Outcome::Object(_, _, warnings) | Outcome::Skipped(_, warnings) => Judgement::Taken(warnings),
            Outcome::Invalid(_, invalid) => Judgement::Refused(*invalid.0),
            Outcome::NotRead(_) | Outcome::Items(_) => Judgement::Taken(Vec::new()),
        }
    }
}

fn warnings(findings: &[Finding]) -> Vec<String> {
    let mut said: Vec<_> = findings.iter().take(MOST_WARNINGS).map(Finding::to_string).collect();
    if findings.len() > MOST_WARNINGS {
        said.push(format!("and {} more; see Events of the object", findings.len() - MOST_WARNINGS));
    }
    said
}

#[cfg(test)]
mod tests;
