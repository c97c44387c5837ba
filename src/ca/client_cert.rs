//! Ourselves as a client of the mesh's workloads: a certificate of the authority in use, and the verification that whoever
//! answers is a workload of the mesh. Which one does not matter.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
    sign::SingleCertAndKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::sync::watch;

use super::{
    authority::{Authority, CaError},
    issue::San,
    server_cert::{Cached, issue},
};
use crate::{authn::PeerCertificate, model::identity::Spiffe};

/// Makes TLS configurations of a client with a mesh identity. They follow the authority without a task of their own.
pub struct MeshClient {
    authority: watch::Receiver<Arc<Authority>>,
    identity: Spiffe,
    alpn: Vec<Vec<u8>>,
    made: Mutex<Option<(Cached, Arc<ClientConfig>)>>,
}

// === impl MeshClient ===

impl MeshClient {
    /// A client that is `identity` and offers these protocols.
    pub fn new(authority: watch::Receiver<Arc<Authority>>, identity: Spiffe, alpn: &[&[u8]]) -> Self {
        let alpn = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Self { authority, identity, alpn, made: Mutex::new(None) }
    }

    /// The configuration of a handshake that begins now. No session is resumed: every handshake proves both sides.
    pub fn config(&self) -> Result<Arc<ClientConfig>, CaError> {
        let authority = self.authority.borrow().clone();
        let mut made = self.made.lock();
        if let Some((cached, config)) = &*made
            && cached.is_fresh(&authority)
        {
            return Ok(config.clone());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = OfTheMesh { roots: authority.root_store(), provider: provider.clone() };
        let cached = issue(authority, &[San::Uri(self.identity.to_string())])?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs supports TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(cached.key.clone())));
        config.alpn_protocols.clone_from(&self.alpn);
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        *made = Some((cached, config.clone()));
        Ok(config)
    }
}

impl fmt::Debug for MeshClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshClient({})", self.identity)
    }
}

/// Takes every certificate with a workload's identity that a root of the mesh vouches for.
#[derive(Debug)]
struct OfTheMesh {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OfTheMesh {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, intermediates, now, algorithms)?;
        let peer = PeerCertificate::new(std::slice::from_ref(end_entity));
        match peer.identity() {
            Some(Ok(_)) => Ok(ServerCertVerified::assertion()),
            // It names no workload.
            Some(Err(_)) | None => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
