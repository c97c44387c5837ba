//! `istio.v1.auth.IstioCertificateService`: signs the requests of Istio's agents (behaviour 8.1).

use std::sync::Arc;
use std::time::Duration;

use landbridge_proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use landbridge_proto::service::ca::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use prost_types::value::Kind;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tracing::{debug, warn};

use super::authority::Authority;
use super::csr;
use super::issue::San;
use super::metrics::{CaMetrics, SignErrorLabels};
use crate::authn::{Authenticator, PeerCertificates};

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
    /// The service, for the TLS port only: on the plaintext port nobody is authenticated. The listener puts
    /// [`PeerCertificates`] into the extensions of each request.
    pub fn new(
        authority: watch::Receiver<Arc<Authority>>,
        authenticator: Arc<Authenticator>,
        lifetimes: Lifetimes,
        metrics: CaMetrics,
    ) -> Self {
        metrics.observe(&authority.borrow());
        Self { authority, authenticator, lifetimes, metrics }
    }

    /// The service with its limits, ready for a tonic server.
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(MAX_REQUEST)
    }

    fn sign_error(&self, error: &'static str) {
        self.metrics.sign_errors.get_or_create(&SignErrorLabels { error }).inc();
    }

    async fn create(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<IstioCertificateResponse, Status> {
        let certs = request.extensions().get::<PeerCertificates>().map(|certs| &*certs.0);
        let peer = self.authenticator.authenticate(certs, request.metadata()).await.map_err(|error| {
            self.metrics.authentication_failures.inc();
            Status::unauthenticated(format!("request authenticate failure: {error}"))
        })?;
        let Some(identity) = peer.identity else {
            self.metrics.authentication_failures.inc();
            return Err(Status::unauthenticated("request authenticate failure: no identity"));
        };
        let request = request.into_inner();
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
        let csr = csr::parse(request.csr.as_bytes()).map_err(|error| {
            self.metrics.csr_parsing_errors.inc();
            Status::invalid_argument(format!("CSR refused: {error}"))
        })?;
        let ttl = self.lifetimes.choose(request.validity_duration).map_err(|reason| {
            self.sign_error("ttl");
            Status::invalid_argument(reason)
        })?;
        let authority = self.authority.borrow().clone();
        let san = San::Uri(identity.to_string());
        let issued = authority.issue(&csr.public_key_info, &[san], ttl).map_err(|error| {
            self.sign_error("sign");
            warn!(%identity, %error, "a certificate request could not be signed");
            Status::internal(format!("CSR signing error ({error})"))
        })?;
        debug!(%identity, not_after = %issued.not_after, "certificate issued");
        self.metrics.issued.inc();
        self.metrics.observe(&authority);
        // The agent takes the last element as the root bundle and all others as its own chain.
        let mut cert_chain = vec![super::cert::to_pem(&issued.der)];
        cert_chain.extend(authority.intermediates_pem().iter().cloned());
        cert_chain.push(authority.roots_pem().to_owned());
        Ok(IstioCertificateResponse { cert_chain })
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.metrics.requests.inc();
        self.create(request).await.map(Response::new).inspect_err(|status| {
            debug!(code = ?status.code(), reason = status.message(), "certificate request refused");
        })
    }
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
