//! Why a peer is refused. These texts go to the client: they never hold a credential.

use tonic::Status;

use super::jwt::TokenError;
use super::review::ReviewError;
use crate::model::identity::Spiffe;
use crate::text::printable;

/// Why a peer is not authenticated. The text goes to the client: it never holds a credential.
#[derive(Debug, thiserror::Error)]
pub enum AuthnError {
    /// Nothing to check.
    #[error(
        "no credential: send `authorization: Bearer TOKEN` with a service-account token, or a client certificate with a SPIFFE id"
    )]
    Missing,
    /// The `authorization` metadata is there but holds no bearer token.
    #[error("the `authorization` metadata is not one `Bearer TOKEN`")]
    Malformed,
    /// The token is refused.
    #[error("token refused: {0}")]
    Token(#[from] TokenError),
    /// The token is refused by who can tell.
    #[error("token refused: {0}")]
    Review(#[from] ReviewError),
    /// Of an issuer that is known, but refused, and refused by who reviews all others, too.
    #[error("{token}; and {review}")]
    Neither {
        /// Why its issuer's keys do not do.
        token: Box<AuthnError>,
        /// What the API server says.
        review: ReviewError,
    },
    /// A gateway's word does not count, and nothing else does.
    #[error("{before}; `x-forwarded-client-cert` refused: {reason}")]
    Forwarded {
        /// Why nothing else counts.
        before: Box<AuthnError>,
        /// Why not the gateway's word.
        reason: String,
    },
    /// The client certificate is refused, and there is no token.
    #[error("client certificate refused: {0}")]
    Certificate(String),
    /// Both are refused.
    #[error("client certificate refused: {certificate}; {token}")]
    Both {
        /// Why not the certificate.
        certificate: String,
        /// Why not the token.
        token: Box<AuthnError>,
    },
}

/// Why an authenticated peer may not be the node that it says it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "authorization failed: {identity} may not be a proxy with {field} `{claimed}`: the node's metadata must name the credential's {expected}"
)]
pub struct Forbidden {
    identity: String,
    field: &'static str,
    claimed: String,
    expected: String,
}

// === impl AuthnError ===

impl From<AuthnError> for Status {
    fn from(error: AuthnError) -> Self {
        Self::unauthenticated(format!("authentication failure: {error}"))
    }
}

// === impl Forbidden ===

impl Forbidden {
    pub(super) fn new(identity: &Spiffe, field: &'static str, claimed: &str, expected: &str) -> Self {
        Self {
            identity: identity.to_string(),
            field,
            claimed: printable(claimed),
            expected: printable(expected),
        }
    }
}

impl From<Forbidden> for Status {
    fn from(error: Forbidden) -> Self {
        Self::permission_denied(error.to_string())
    }
}
