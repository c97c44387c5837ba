//! Why a request to an API server, or a watch, ended: what, why, and what to do next.

use std::time::Duration;

use thiserror::Error;

use crate::registry::convert::watched::{Details, Status};

/// Why a request or a watch ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// No connection, or it broke.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// Nothing came for this long.
    #[error("the API server is silent: nothing came for {0:?}")]
    Silent(Duration),
    /// It said no.
    #[error("the API server says {} {}: {}", .0.code, .0.reason, .0.message)]
    Refused(Box<Refusal>),
    /// What came is not what an API server says.
    #[error("the answer cannot be read: {0}")]
    Garbage(String),
}

/// An answer other than success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP's number.
    pub code: u16,
    /// A word: `Forbidden`.
    pub reason: Box<str>,
    /// A sentence.
    pub message: Box<str>,
    /// When to ask again.
    pub retry_after: Option<Duration>,
    /// The version to go on from has not been yet: the cluster's storage was put back to an older state.
    pub ahead: bool,
}

/// API servers ask for seconds; more than this is not obeyed.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

// === impl Failure ===

impl Failure {
    /// What a watch said at its end.
    pub fn of_status(status: &Status) -> Self {
        let after = status.details.as_ref().and_then(|d| d.retry_after_seconds);
        let ahead = |d: &Details| d.causes.iter().any(|c| &*c.reason == "ResourceVersionTooLarge");
        Self::Refused(Box::new(Refusal {
            code: status.code,
            reason: status.reason.clone(),
            message: status.message.clone(),
            ahead: status.details.as_ref().is_some_and(ahead),
            retry_after: after.map(|s| Duration::from_secs(s.into()).min(LONGEST_RETRY_AFTER)),
        }))
    }

    /// HTTP's number, of an answer other than success.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }

    /// The version to go on from is forgotten (410), or has not been yet; only a new list helps.
    pub fn is_expired(&self) -> bool {
        self.code() == Some(410) || matches!(self, Self::Refused(refusal) if refusal.ahead)
    }

    /// 404: there is no such kind.
    pub fn is_missing(&self) -> bool {
        self.code() == Some(404)
    }

    /// 403: the credentials are good, and do not allow it.
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// The server does not know what was asked for: 400, 405, 415, 422.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.code(), Some(400 | 405 | 415 | 422))
    }

    /// A question that may not be asked, or is not understood: an answer that says nothing. That the credentials are refused (401),
    /// or that there are too many requests, says something.
    pub fn is_of_question(&self) -> bool {
        self.code().is_some_and(|code| (400..500).contains(&code) && !matches!(code, 401 | 429))
    }

    /// When the server wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }

    /// What a person can do.
    pub fn remedy(&self) -> &'static str {
        match (self, self.code()) {
            (Self::Unreachable(_) | Self::Silent(_), _) => {
                "see whether the API server runs and its address can be reached from here; it is tried again by itself"
            }
            (_, Some(401)) => {
                "the credentials are not accepted: renew them (landbridge takes new ones without a restart)"
            }
            (_, Some(403)) => {
                "allow get, list and watch to the user of the kubeconfig (a ClusterRole and its binding)"
            }
            (_, Some(429)) => "nothing: asked again when the API server wants it",
            (Self::Garbage(_), _) => {
                "see what is between landbridge and the API server: it is not the API server that answers"
            }
            _ => "see the API server's log; it is tried again by itself",
        }
    }
}

/// `Retry-After` in seconds; the other form, a date, is not used by API servers.
pub fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

/// An error with all its causes, each said once.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
