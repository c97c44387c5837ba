//! Who is calling: identities from client certificates and from service-account tokens.
//!
//! ```text
//! TLS peer certificate --peer_cert--+
//!                                   +--> Authenticator --> Peer { identity, method } --> authorize_node
//! authorization: Bearer --jwt-------+
//!                         ^ jwks: keys of an issuer, from a file or a URL, or of the development issuer
//! ```
//!
//! The plaintext port authenticates nobody: its streams are [`Peer::plaintext`] and get no secrets.

pub mod dev_issuer;
pub mod jwks;
pub mod jwt;
pub mod peer_cert;

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::model::identity::{Spiffe, SpiffeError};
use jwks::Jwks;
use jwt::{Expected, TokenError};

/// The gRPC metadata key in which Istio's agents name their cluster.
pub const CLUSTER_METADATA: &str = "clusterid";

/// Who is at the other end of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The workload, where it proved who it is. Without one there are no secrets.
    pub identity: Option<Spiffe>,
    /// How it proved it.
    pub method: Method,
    /// The only cluster that the credential is good for, where it says so.
    pub cluster_id: Option<String>,
}

/// How a peer proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Not at all: the plaintext port.
    Plaintext,
    /// By a client certificate with a SPIFFE id.
    ClientCertificate,
    /// By a service-account token.
    Token,
}

/// The certificates that TLS verified, leaf first. A listener that serves [`crate::ca`]'s service puts them into the
/// extensions of each request.
#[derive(Clone, Debug)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// Checks credentials. The first that is good counts: the client certificate, then the token.
#[derive(Debug)]
pub struct Authenticator {
    trust_domain: String,
    audiences: Vec<String>,
    issuers: Vec<Issuer>,
}

/// An issuer of tokens and its keys.
#[derive(Debug)]
struct Issuer {
    name: String,
    keys: Jwks,
}

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
    /// The client certificate is refused, and there is no token.
    #[error("client certificate refused: {0}")]
    Certificate(String),
    /// Both are refused.
    #[error("client certificate refused: {certificate}; token refused: {token}")]
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

// === impl Peer ===

impl Peer {
    /// A peer of the plaintext port.
    pub fn plaintext() -> Self {
        Self { identity: None, method: Method::Plaintext, cluster_id: None }
    }

    /// Whether this peer may be a node with these claims in its metadata (empty: not claimed). An unauthenticated peer
    /// may: it gets configuration, and no secrets.
    pub fn authorize(
        &self,
        namespace: &str,
        service_account: &str,
        cluster_id: &str,
    ) -> Result<(), Forbidden> {
        let Some(identity) = &self.identity else { return Ok(()) };
        authorize_node(identity, namespace, service_account)?;
        match &self.cluster_id {
            Some(bound) if !cluster_id.is_empty() && bound != cluster_id => {
                Err(Forbidden::new(identity, "CLUSTER_ID", cluster_id, bound))
            }
            _ => Ok(()),
        }
    }
}

/// Whether an identity may be a node with these claims in its metadata; an empty claim fits every identity. The trust
/// domain is not compared (behaviour 1.5).
pub fn authorize_node(identity: &Spiffe, namespace: &str, service_account: &str) -> Result<(), Forbidden> {
    let claims = [
        ("NAMESPACE", namespace, identity.namespace()),
        ("SERVICE_ACCOUNT", service_account, identity.service_account()),
    ];
    match claims.into_iter().find(|(_, claimed, proven)| !claimed.is_empty() && claimed != proven) {
        Some((field, claimed, proven)) => Err(Forbidden::new(identity, field, claimed, proven)),
        None => Ok(()),
    }
}

// === impl Authenticator ===

impl Authenticator {
    /// Accepts client certificates of `trust_domain`, and tokens for one of `audiences` once an issuer is added.
    pub fn new(trust_domain: &str, audiences: Vec<String>) -> Self {
        Self { trust_domain: trust_domain.to_owned(), audiences, issuers: Vec::new() }
    }

    /// Accepts tokens of another issuer: `name` is their `iss`.
    pub fn with_issuer(mut self, name: &str, keys: Jwks) -> Self {
        self.issuers.push(Issuer { name: name.to_owned(), keys });
        self
    }

    /// Accepts tokens of the development issuer.
    pub fn with_dev_issuer(self, issuer: &dev_issuer::DevIssuer) -> Self {
        let keys = jwt::KeySet::parse(issuer.jwks().as_bytes())
            .expect("the development issuer's own key set is valid");
        self.with_issuer(dev_issuer::ISSUER, Jwks::fixed(keys))
    }

    /// Keeps the issuers' keys fresh, for ever.
    pub async fn run(&self) {
        futures::future::join_all(self.issuers.iter().map(|issuer| issuer.keys.run())).await;
        // Without issuers there is nothing to do, and a task that ends looks like one that failed.
        std::future::pending::<()>().await;
    }

    /// [`Authenticator::authenticate_headers`] for the metadata of a tonic request.
    pub async fn authenticate(
        &self,
        peer_certs: Option<&[CertificateDer<'_>]>,
        metadata: &MetadataMap,
    ) -> Result<Peer, AuthnError> {
        self.authenticate_headers(peer_certs, metadata.as_ref()).await
    }

    /// Finds out who the peer is. `peer_certs` are those that TLS verified, leaf first. May wait a few seconds for the
    /// keys of an issuer that just rotated them.
    pub async fn authenticate_headers(
        &self,
        peer_certs: Option<&[CertificateDer<'_>]>,
        headers: &HeaderMap,
    ) -> Result<Peer, AuthnError> {
        let certificate = match peer_certs.and_then(|certs| certs.first()) {
            Some(leaf) => match self.check_certificate(leaf) {
                Ok(identity) => {
                    let method = Method::ClientCertificate;
                    return Ok(Peer { identity: Some(identity), method, cluster_id: None });
                }
                Err(reason) => Some(reason),
            },
            None => None,
        };
        let token = match self.check_token(headers).await {
            Ok(peer) => return Ok(peer),
            Err(error) => error,
        };
        Err(match (certificate, token) {
            (None, token) => token,
            (Some(certificate), AuthnError::Missing) => AuthnError::Certificate(certificate),
            (Some(certificate), token) => AuthnError::Both { certificate, token: Box::new(token) },
        })
    }

    fn check_certificate(&self, leaf: &CertificateDer<'_>) -> Result<Spiffe, String> {
        let identity = peer_cert::identity(leaf).map_err(|error| error.to_string())?;
        if identity.trust_domain() != self.trust_domain {
            return Err(format!("`{identity}` is not of trust domain `{}`", self.trust_domain));
        }
        Ok(identity)
    }

    async fn check_token(&self, headers: &HeaderMap) -> Result<Peer, AuthnError> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(AuthnError::Missing)?;
        let token = value.to_str().ok().filter(|_| values.next().is_none()).and_then(bearer);
        let token = jwt::inspect(token.ok_or(AuthnError::Malformed)?)?;
        let issuer = self.issuers.iter().find(|issuer| token.issuer.as_deref() == Some(&issuer.name));
        let issuer = issuer.ok_or_else(|| TokenError::Issuer {
            claimed: jwt::shorten(token.issuer.as_deref().unwrap_or("none")),
            expected: match &self.issuers[..] {
                [] => "no issuer is configured (--jwks, --jwt-issuer, --dev-token-issuer)".to_owned(),
                issuers => issuers.iter().map(|issuer| issuer.name.as_str()).collect::<Vec<_>>().join(" or "),
            },
        })?;
        issuer.keys.verify(&token).await?;
        let expected =
            Expected { audiences: &self.audiences, now: OffsetDateTime::now_utc().unix_timestamp() };
        let account = jwt::check_claims(&token, &expected)?;
        let identity = Spiffe::new(&self.trust_domain, account.namespace, account.name)
            .map_err(|error: SpiffeError| TokenError::Subject { reason: error.to_string() })?;
        let cluster_id = token.cluster_id.clone();
        if let Some(bound) = &cluster_id {
            check_cluster(bound, headers)?;
        }
        Ok(Peer { identity: Some(identity), method: Method::Token, cluster_id })
    }
}

/// A token of one cluster is refused where the caller says that it is in another.
fn check_cluster(bound: &str, headers: &HeaderMap) -> Result<(), TokenError> {
    let claimed = headers.get(CLUSTER_METADATA).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !claimed.is_empty() && claimed != bound {
        return Err(TokenError::Cluster { claimed: jwt::shorten(claimed), bound: jwt::shorten(bound) });
    }
    Ok(())
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    // The scheme's case does not matter (RFC 9110 11.1).
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

// === impl AuthnError ===

impl From<AuthnError> for Status {
    fn from(error: AuthnError) -> Self {
        Self::unauthenticated(format!("authentication failure: {error}"))
    }
}

// === impl Forbidden ===

impl Forbidden {
    fn new(identity: &Spiffe, field: &'static str, claimed: &str, expected: &str) -> Self {
        Self {
            identity: identity.to_string(),
            field,
            claimed: jwt::shorten(claimed),
            expected: jwt::shorten(expected),
        }
    }
}

impl From<Forbidden> for Status {
    fn from(error: Forbidden) -> Self {
        Self::permission_denied(error.to_string())
    }
}

#[cfg(test)]
mod tests;
