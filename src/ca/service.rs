//! `istio.v1.auth.IstioCertificateService`: signs the requests of Istio's agents (behaviour 8.1).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use landbridge_proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use prost_types::value::Kind;
use tokio::sync::watch;
use tonic::Status;
use tracing::{debug, warn};

use super::authority::{Authority, CaError};
use super::csr::{self, CsrError};
use super::issue::San;
use super::metrics::{CaMetrics, SignErrorLabels};
use super::signers::Signers;
use crate::authn::{Authenticator, PeerCertificate};
use crate::grpc::Router;
use crate::model::identity::Spiffe;

/// The method's path.
const PATH: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// Larger messages are refused before they are read; the largest request is one CSR.
const MAX_REQUEST: usize = 64 * 1024;

/// The lifetimes that are given out.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// When the client does not say.
    pub default: Duration,
    /// More than this is refused, not shortened.
    pub max: Duration,
}

/// The service.
#[derive(Debug)]
pub struct CertificateService {
    authority: watch::Receiver<Arc<Authority>>,
    authenticator: Arc<Authenticator>,
    lifetimes: Lifetimes,
    metrics: CaMetrics,
    signers: Arc<Signers>,
}

/// Why a request gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request itself.
    #[error("CSR refused: {0}")]
    Csr(#[from] CsrError),
    /// The authority.
    #[error("CSR signing error ({0})")]
    Ca(#[from] CaError),
}

// === impl Lifetimes ===

impl Default for Lifetimes {
    fn default() -> Self {
        Self { default: Duration::from_secs(24 * 3600), max: Duration::from_secs(2160 * 3600) }
    }
}

impl Lifetimes {
    /// The lifetime for a request of so many seconds.
    pub fn choose(&self, requested_seconds: i64) -> Result<Duration, String> {
        match u64::try_from(requested_seconds) {
            Err(_) | Ok(0) => Ok(self.default),
            Ok(seconds) if seconds > self.max.as_secs() => Err(format!(
                "the requested lifetime of {seconds} s is greater than the {} s allowed (--max-workload-cert-ttl)",
                self.max.as_secs()
            )),
            Ok(seconds) => Ok(Duration::from_secs(seconds)),
        }
    }
}

// === impl CertificateService ===

impl CertificateService {
    /// The service, for the TLS port only: on the plaintext port nobody is authenticated. The listener puts a
    /// [`PeerCertificate`] and the other end's [`SocketAddr`] into the extensions of each request.
    pub fn new(
        authority: watch::Receiver<Arc<Authority>>,
        authenticator: Arc<Authenticator>,
        lifetimes: Lifetimes,
        metrics: CaMetrics,
        signers: Arc<Signers>,
    ) -> Self {
        metrics.observe(&authority.borrow());
        Self { authority, authenticator, lifetimes, metrics, signers }
    }

    /// Adds the service to a port's.
    pub fn mount(self, router: &mut Router) {
        let service = Arc::new(self);
        router.unary(PATH, MAX_REQUEST, move |head: Parts, request| {
            let service = service.clone();
            async move {
                service.metrics.requests.inc();
                service.create(&head, request).await.inspect_err(|status| {
                    debug!(code = ?status.code(), reason = status.message(), "certificate request refused");
                })
            }
        });
    }

    async fn create(
        &self,
        head: &Parts,
        request: IstioCertificateRequest,
    ) -> Result<IstioCertificateResponse, Status> {
        let none = PeerCertificate::default();
        let certificate = head.extensions.get::<PeerCertificate>().unwrap_or(&none);
        let from = head.extensions.get::<SocketAddr>().map(SocketAddr::ip);
        let peer =
            self.authenticator.authenticate(certificate, from, &head.headers).await.map_err(|error| {
                self.metrics.authentication_failures.inc();
                Status::unauthenticated(format!("request authenticate failure: {error}"))
            })?;
        let Some(identity) = peer.identity else {
            self.metrics.authentication_failures.inc();
            return Err(Status::unauthenticated("request authenticate failure: no identity"));
        };
        if !option(&request, "ImpersonatedIdentity").is_empty() {
            return Err(Status::unauthenticated(
                "request impersonation authentication failure: no node accounts may ask for other workloads' certificates here",
            ));
        }
        if let signer @ [_, ..] = option(&request, "CertSigner").as_bytes() {
            self.sign_error("signer");
            let signer = String::from_utf8_lossy(&signer[..signer.len().min(100)]).into_owned();
            return Err(Status::invalid_argument(format!("there is no certificate signer `{signer}`")));
        }
        let ttl = self.lifetimes.choose(request.validity_duration).map_err(|reason| {
            self.sign_error("ttl");
            Status::invalid_argument(reason)
        })?;
        let authority = self.authority.borrow().clone();
        self.metrics.observe(&authority);
        let cert_chain = match self.sign(authority, identity.clone(), request.csr, ttl).await? {
            Ok(chain) => chain,
            Err(refusal @ Refusal::Csr(_)) => {
                self.metrics.csr_parsing_errors.inc();
                return Err(Status::invalid_argument(refusal.to_string()));
            }
            Err(refusal @ Refusal::Ca(_)) => {
                self.sign_error("sign");
                warn!(%identity, error = %refusal, "a certificate request could not be signed");
                return Err(Status::internal(refusal.to_string()));
            }
        };
        debug!(%identity, "certificate issued");
        self.metrics.issued.inc();
        Ok(IstioCertificateResponse { cert_chain })
    }

    /// Where it is done depends on what it costs. With ECDSA it is 0.1 ms: handing it to another thread would cost a
    /// tenth of that. An RSA key takes 0.8 ms (2048 bits) to 6 ms (4096), and a mesh that starts would keep all threads
    /// that serve streams busy; so it goes to [`Signers`], and the rest waits in order.
    async fn sign(
        &self,
        authority: Arc<Authority>,
        identity: Spiffe,
        csr: String,
        ttl: Duration,
    ) -> Result<Result<Vec<String>, Refusal>, Status> {
        if !authority.key().is_slow() {
            return Ok(answer(&authority, &identity, &csr, ttl));
        }
        let signed = self.signers.run(move || answer(&authority, &identity, &csr, ttl)).await;
        signed.ok_or_else(|| Status::unavailable("there is no thread for signing"))
    }

    fn sign_error(&self, error: &'static str) {
        self.metrics.sign_errors.get_or_create(&SignErrorLabels { error }).inc();
    }
}

/// Signs a request, if it proves that its sender has the private key. The chain is the leaf, the intermediates and the
/// roots, PEM: the agent takes the last element as the root bundle and all others as its own chain.
pub fn answer(
    authority: &Authority,
    identity: &Spiffe,
    csr: &str,
    ttl: Duration,
) -> Result<Vec<String>, Refusal> {
    let csr = csr::parse(csr.as_bytes())?;
    let issued = authority.issue(&csr.public_key_info, &[San::Uri(identity.to_string())], ttl)?;
    let mut chain = Vec::with_capacity(2 + authority.intermediates_pem().len());
    chain.push(super::cert::to_pem(&issued.der));
    chain.extend_from_slice(authority.intermediates_pem());
    chain.push(authority.roots_pem().to_owned());
    Ok(chain)
}

fn option<'a>(request: &'a IstioCertificateRequest, key: &str) -> &'a str {
    let value = request.metadata.as_ref().and_then(|metadata| metadata.fields.get(key));
    match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text,
        _ => "",
    }
}

#[cfg(test)]
mod tests;
