//! Questions and answers over HTTP: parameters, JSON, errors in words.

use axum::{
    extract::Query,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

/// The parameters that pages know; others are ignored, as at istiod.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Params {
    /// A connected proxy, see [`super::proxies`].
    #[serde(rename = "proxyID", alias = "proxy")]
    pub proxy_id: Option<String>,
    /// Only this namespace.
    pub namespace: Option<String>,
    /// A service: short name, `name.namespace`, host, each with `:port` or without.
    pub service: Option<String>,
    /// Only these types, separated by commas.
    pub types: Option<String>,
    /// Also load assignments.
    pub include_eds: Option<String>,
    /// Indent the JSON.
    pub pretty: Option<String>,
}

/// The parameters of a request; broken ones are a 400 with the reason.
pub type Asked = Query<Params>;

/// Why there is no answer: a status and words.
#[derive(Debug)]
pub struct Refusal(pub StatusCode, pub String);

/// An answer or words.
pub type Answer = Result<Response, Refusal>;

/// The pipeline did not answer.
pub const NO_PIPELINE: &str = "The pipeline did not answer in time: it is working on a very large change, or the process is ending. \
     Try again; `landbridge_pipeline_busy_seconds_total` in /metrics tells how busy it is.\n";

// === impl Refusal ===

impl Refusal {
    /// 400
    pub fn bad(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }

    /// 404
    pub fn not_found(text: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, text.into())
    }

    /// The pipeline did not answer.
    pub fn no_pipeline() -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, NO_PIPELINE.to_owned())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

/// JSON, indented if asked for.
pub fn json(params: &Params, value: &impl Serialize) -> Answer {
    let indent = params.pretty.as_deref().is_some_and(|v| v != "false");
    let text = if indent { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    match text {
        Ok(text) => Ok(([(CONTENT_TYPE, "application/json")], text + "\n").into_response()),
        Err(error) => Err(Refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!(
                "The answer cannot be written as JSON ({error}). This is a bug in landbridge: report it.\n"
            ),
        )),
    }
}
