//! Who is calling: identities from client certificates and from service-account tokens.
//!
//! ```text
//! TLS peer certificate --peer_cert--+
//!                                   +--> Authenticator --> Peer { identity, method } --> authorize_node
//! authorization: Bearer --jwt-------+
//!                         ^ jwks: keys of an issuer, from a file, a URL or by OpenID discovery, or of the development issuer
//!                         ^ review: the API server of the caller's cluster, where no such issuer vouches for the token
//! ```
//!
//! After both, `x-forwarded-client-cert` of a gateway whose address is trusted (gateways, xfcc).
//!
//! The plaintext port authenticates nobody: its streams are [`Peer::plaintext`] and get no secrets.

pub mod dev_issuer;
mod error;
pub mod gateways;
pub mod jwks;
pub mod jwt;
pub mod metrics;
pub mod peer_cert;
pub mod review;
pub mod rule;
mod verified;
pub mod xfcc;

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use time::OffsetDateTime;

use crate::model::identity::{Spiffe, SpiffeError};
use crate::text::printable;
pub use error::{AuthnError, Forbidden};
use gateways::TrustedGateways;
use jwks::Jwks;
use jwt::{Expected, TokenError};
pub use peer_cert::PeerCertificate;
use review::Reviewers;
use verified::{Account, Verified, Voucher};

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
    /// By the word of a trusted gateway, which verified its certificate.
    Forwarded,
}

/// Checks credentials. The first that is good counts: the client certificate, the token, the word of a trusted gateway.
#[derive(Debug)]
pub struct Authenticator {
    trust_domain: String,
    audiences: Vec<String>,
    issuers: Vec<Issuer>,
    reviewers: Option<Arc<dyn Reviewers>>,
    gateways: TrustedGateways,
    verified: Verified,
}

/// An issuer of tokens and its keys.
#[derive(Debug)]
struct Issuer {
    name: String,
    /// A token has to be meant for one of these.
    audiences: Vec<String>,
    keys: Jwks,
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
        Self {
            trust_domain: trust_domain.to_owned(),
            audiences,
            issuers: Vec::new(),
            reviewers: None,
            gateways: TrustedGateways::default(),
            verified: Verified::default(),
        }
    }

    /// Accepts tokens of another issuer: `name` is their `iss`. Without `audiences` of its own, those of [`Authenticator::new`]
    /// are good. Several issuers may have the same name: a token is good if one of them vouches for it.
    pub fn with_issuer(mut self, name: &str, audiences: Option<Vec<String>>, keys: Jwks) -> Self {
        let audiences = audiences.unwrap_or_else(|| self.audiences.clone());
        self.issuers.push(Issuer { name: name.to_owned(), audiences, keys });
        self
    }

    /// Accepts tokens of the development issuer.
    pub fn with_dev_issuer(self, issuer: &dev_issuer::DevIssuer) -> Self {
        let keys = jwt::KeySet::parse(issuer.jwks().as_bytes())
            .expect("the development issuer's own key set is valid");
        self.with_issuer(dev_issuer::ISSUER, None, Jwks::fixed(keys))
    }

    /// Has tokens for which no issuer vouches reviewed by API servers.
    pub fn with_reviewers(mut self, reviewers: Arc<dyn Reviewers>) -> Self {
        self.reviewers = Some(reviewers);
        self
    }

    /// Believes what these gateways say of their clients' certificates.
    pub fn with_trusted_gateways(mut self, gateways: TrustedGateways) -> Self {
        self.gateways = gateways;
        self
    }

    /// Keeps the issuers' keys fresh, for ever.
    pub async fn run(&self) {
        futures::future::join_all(self.issuers.iter().map(|issuer| issuer.keys.run())).await;
        // Without issuers there is nothing to do, and a task that ends looks like one that failed.
        std::future::pending::<()>().await;
    }

    /// Finds out who the peer is. May wait a few seconds for the keys of an issuer that just rotated them.
    ///
    /// What is costly is done once: for a certificate once in its connection, for a token once in its life, unless
    /// its issuer's keys change. `from`: the address at the other end of the connection, if it is known.
    pub async fn authenticate(
        &self,
        peer: &PeerCertificate,
        from: Option<IpAddr>,
        headers: &HeaderMap,
    ) -> Result<Peer, AuthnError> {
        let certificate = match self.check_certificate(peer) {
            Some(Ok(identity)) => {
                let method = Method::ClientCertificate;
                return Ok(Peer { identity: Some(identity), method, cluster_id: None });
            }
            Some(Err(reason)) => Some(reason),
            None => None,
        };
        let token = match self.check_token(headers).await {
            Ok(peer) => return Ok(peer),
            Err(error) => error,
        };
        let before = match (certificate, token) {
            (None, token) => token,
            (Some(certificate), AuthnError::Missing) => AuthnError::Certificate(certificate),
            (Some(certificate), token) => AuthnError::Both { certificate, token: Box::new(token) },
        };
        match self.gateways.check(headers, from, &self.trust_domain) {
            Some(Ok(identity)) => {
                Ok(Peer { identity: Some(identity), method: Method::Forwarded, cluster_id: None })
            }
            Some(Err(reason)) => Err(AuthnError::Forwarded { before: Box::new(before), reason }),
            None => Err(before),
        }
    }

    /// None without a certificate.
    fn check_certificate(&self, peer: &PeerCertificate) -> Option<Result<Spiffe, String>> {
        Some(match peer.identity()? {
            Ok(identity) if identity.trust_domain() == self.trust_domain => Ok(identity.clone()),
            Ok(identity) => Err(format!("`{identity}` is not of trust domain `{}`", self.trust_domain)),
            Err(error) => Err(error.to_string()),
        })
    }

    async fn check_token(&self, headers: &HeaderMap) -> Result<Peer, AuthnError> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(AuthnError::Missing)?;
        let token = value.to_str().ok().filter(|_| values.next().is_none()).and_then(bearer);
        let token = token.ok_or(AuthnError::Malformed)?;
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let hash = Verified::hash(token);
        let known = self.verified.get(&hash, now);
        let account = match known.filter(|account| self.vouched(account)) {
            Some(account) => account,
            None => {
                let account = Arc::new(self.verify(token, headers, now).await?);
                self.verified.insert(hash, account.clone());
                account
            }
        };
        if let Some(bound) = &account.cluster_id {
            check_cluster(bound, headers)?;
        }
        let (identity, cluster_id) = (account.identity.clone(), account.cluster_id.clone());
        Ok(Peer { identity: Some(identity), method: Method::Token, cluster_id })
    }

    /// Whether what a token was believed for still holds.
    fn vouched(&self, account: &Account) -> bool {
        match &account.voucher {
            Voucher::Keys(keys) => self.issuers.iter().any(|issuer| issuer.keys.are(keys)),
            Voucher::Cluster(cluster) => {
                self.reviewers.as_ref().is_some_and(|reviewers| reviewers.clusters().contains(cluster))
            }
        }
    }

    /// Believes nothing that was not signed by a known issuer or reviewed by an API server. In istiod's order: an issuer may have
    /// the name of a cluster's, which signs with other keys or for other audiences (behaviour 1.4).
    async fn verify(&self, token: &str, headers: &HeaderMap, now: i64) -> Result<Account, AuthnError> {
        let token = jwt::inspect(token)?;
        let mut refused = None;
        for issuer in self.issuers.iter().filter(|issuer| token.issuer.as_deref() == Some(&issuer.name)) {
            match self.check(issuer, &token, now).await {
                Ok(account) => return Ok(account),
                Err(error) => refused = Some(AuthnError::from(error)),
            }
        }
        let reviewers = self.reviewers.as_deref().filter(|reviewers| !reviewers.clusters().is_empty());
        match (refused, reviewers) {
            (None, None) => Err(self.unknown_issuer(&token).into()),
            (Some(refused), None) => Err(refused),
            (refused, Some(reviewers)) => {
                let reviewed = self.review(reviewers, &token, claimed_cluster(headers), now).await;
                reviewed.map_err(|error| match (refused, error) {
                    (Some(token), AuthnError::Review(review)) => {
                        AuthnError::Neither { token: Box::new(token), review }
                    }
                    (_, error) => error,
                })
            }
        }
    }

    async fn check(&self, issuer: &Issuer, token: &jwt::Token<'_>, now: i64) -> Result<Account, TokenError> {
        let keys = issuer.keys.verify(token).await?;
        let account = jwt::check_claims(token, &Expected { audiences: &issuer.audiences, now })?;
        let identity = Spiffe::new(&self.trust_domain, account.namespace, account.name)
            .map_err(|error: SpiffeError| TokenError::Subject { reason: error.to_string() })?;
        let (cluster_id, voucher) = (token.cluster_id.clone(), Voucher::Keys(keys));
        Ok(Account { identity, cluster_id, good_until: account.good_until, voucher })
    }

    fn unknown_issuer(&self, token: &jwt::Token<'_>) -> TokenError {
        TokenError::Issuer {
            claimed: printable(token.issuer.as_deref().unwrap_or("none")),
            expected: match &self.issuers[..] {
                [] => "no issuer is configured (--jwt-issuer, --jwt-rule, --dev-token-issuer)".to_owned(),
                issuers => issuers.iter().map(|issuer| issuer.name.as_str()).collect::<Vec<_>>().join(" or "),
            },
        }
    }

    async fn review(
        &self,
        reviewers: &dyn Reviewers,
        token: &jwt::Token<'_>,
        claimed: &str,
        now: i64,
    ) -> Result<Account, AuthnError> {
        // What is over need not be asked about, by the clock that decides how long the answer is believed.
        let end = token.expires_at.ok_or(TokenError::NoExpiry)?;
        if end <= now {
            return Err(TokenError::Expired(now - end).into());
        }
        let (cluster, account) = review::review(reviewers, claimed, token.text, &self.audiences).await?;
        let identity = Spiffe::new(&self.trust_domain, &account.namespace, &account.name)
            .map_err(|error: SpiffeError| TokenError::Subject { reason: error.to_string() })?;
        let good_until = end.min(now.saturating_add_unsigned(review::BELIEVED.as_secs()));
        let voucher = Voucher::Cluster(cluster.clone());
        Ok(Account { identity, cluster_id: Some(cluster), good_until, voucher })
    }
}

/// A token of one cluster is refused where the caller says that it is in another.
fn check_cluster(bound: &str, headers: &HeaderMap) -> Result<(), TokenError> {
    let claimed = claimed_cluster(headers);
    if !claimed.is_empty() && claimed != bound {
        return Err(TokenError::Cluster { claimed: printable(claimed), bound: printable(bound) });
    }
    Ok(())
}

/// The cluster that the caller says it is in; empty if it does not say, or says several things (behaviour 1.4).
fn claimed_cluster(headers: &HeaderMap) -> &str {
    let mut values = headers.get_all(CLUSTER_METADATA).iter();
    let only = values.next().filter(|_| values.next().is_none());
    only.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    // The scheme's case does not matter (RFC 9110 11.1).
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests;
