//! Our own TLS port: the server's certificate from the authority in use, and the verification of client certificates.
//!
//! Both follow the authority without a task of their own: each handshake looks whether it changed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use time::OffsetDateTime;
use tokio::sync::watch;
use tracing::warn;

use super::authority::{Authority, CaError};
use super::issue::San;
use super::key::{KeyType, PrivateKey};

/// Renewed at half life by the next handshake, so it may be short.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// The DNS names that Istio's agents and injected proxies expect, for a control plane in `namespace`, plus further ones, which may
/// be addresses.
pub fn dns_names(namespace: &str, domain: &str, custom: &[String]) -> Vec<String> {
    let mut names = vec![
        format!("istiod.{namespace}.svc"),
        format!("istiod.{namespace}.svc.{domain}"),
        format!("istiod-remote.{namespace}.svc"),
        format!("istio-pilot.{namespace}.svc"),
    ];
    names.extend(custom.iter().cloned());
    names.sort();
    names.dedup();
    names
}

/// The rustls configuration of the TLS port: our certificate, optional client certificates verified against the roots,
/// TLS 1.2 and 1.3, HTTP/2 only. Fails when no certificate can be issued for `dns_names` now.
pub fn server_config(
    authority: watch::Receiver<Arc<Authority>>,
    dns_names: &[String],
) -> Result<Arc<ServerConfig>, CaError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let resolver = ServerCert::new(authority.clone(), dns_names)?;
    let verifier = ClientCerts { authority, provider: provider.clone(), cached: Mutex::new(None) };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs supports TLS 1.2 and 1.3")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session skips the verification of the client's certificate, also after its root was taken out of use.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The rustls configuration of a port for clients without certificates of the mesh, such as API servers that call webhooks: the
/// certificate of `of`, wherever that is renewed; HTTP/1.1 only.
pub fn https_config(of: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(of.crypto_provider().clone())
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs supports TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(of.cert_resolver.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Our certificate, made anew when the authority changes and at half life.
struct ServerCert {
    authority: watch::Receiver<Arc<Authority>>,
    sans: Vec<San>,
    cached: Mutex<Cached>,
}

/// A certificate of ours with its key.
#[derive(Clone)]
pub(super) struct Cached {
    /// Who signed it.
    authority: Arc<Authority>,
    pub(super) key: Arc<CertifiedKey>,
    /// Half of its life is over.
    renew_at: OffsetDateTime,
}

// === impl Cached ===

impl Cached {
    /// Whether it is of this authority and in the first half of its life.
    pub(super) fn is_fresh(&self, authority: &Arc<Authority>) -> bool {
        self.renew_at > OffsetDateTime::now_utc() && Arc::ptr_eq(&self.authority, authority)
    }
}

// === impl ServerCert ===

impl ServerCert {
    fn new(authority: watch::Receiver<Arc<Authority>>, dns_names: &[String]) -> Result<Self, CaError> {
        if let Some(name) = dns_names.iter().find(|name| name.is_empty() || !name.is_ascii()) {
            return Err(CaError::Invalid {
                origin: "the server's certificate".to_owned(),
                reason: format!("`{name}` is not a DNS name: write international names in their `xn--` form"),
            });
        }
        let sans: Vec<San> = dns_names.iter().map(|name| san(name)).collect();
        let current = authority.borrow().clone();
        let cached = Mutex::new(issue(current, &sans)?);
        Ok(Self { authority, sans, cached })
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let authority = self.authority.borrow().clone();
        let mut cached = self.cached.lock();
        if !cached.is_fresh(&authority) {
            match issue(authority, &self.sans) {
                Ok(renewed) => *cached = renewed,
                Err(error) => {
                    warn!(%error, "the server's own certificate cannot be renewed; the old one stays in use")
                }
            }
        }
        cached.key.clone()
    }
}

impl ResolvesServerCert for ServerCert {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl fmt::Debug for ServerCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerCert({:?})", self.sans)
    }
}

/// As with istiod, an address is one.
fn san(name: &str) -> San {
    name.parse().map_or_else(|_| San::Dns(name.to_owned()), San::Ip)
}

/// Makes a key, and a certificate for it.
pub(super) fn issue(authority: Arc<Authority>, sans: &[San]) -> Result<Cached, CaError> {
    // ECDSA also where the authority is RSA (istiod makes it RSA then): signing a handshake takes 23 us instead of 830, a new
    // key takes no tenth of a second of the handshake that finds the old one outdated, and every client of ours knows it.
    let key = PrivateKey::generate(KeyType::EcdsaP256)?;
    let issued = authority.issue(key.public_key_info(), sans, LIFETIME)?;
    let der = PrivateKeyDer::Pkcs8(key.to_pkcs8()?.to_vec().into());
    let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der)
        .expect("rustls can use every key that this CA generates");
    let now = OffsetDateTime::now_utc();
    let chain = authority.chain_der(issued.der);
    Ok(Cached {
        key: Arc::new(CertifiedKey::new(chain, signing)),
        renew_at: now + (issued.not_after - now) / 2,
        authority,
    })
}

/// A verifier and the authority whose roots it was made of.
type Verifier = (Arc<Authority>, Arc<dyn ClientCertVerifier>);

/// Verifies client certificates against the roots in use. That the leaf names a workload is left to
/// [`crate::authn`], whose refusal the client can read; a refusal here is only a TLS alert.
struct ClientCerts {
    authority: watch::Receiver<Arc<Authority>>,
    provider: Arc<CryptoProvider>,
    cached: Mutex<Option<Verifier>>,
}

// === impl ClientCerts ===

impl ClientCerts {
    fn current(&self) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
        let authority = self.authority.borrow().clone();
        let mut cached = self.cached.lock();
        if let Some((_, verifier)) = cached.as_ref().filter(|(of, _)| Arc::ptr_eq(of, &authority)) {
            return Ok(verifier.clone());
        }
        let roots = Arc::new(authority.root_store());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, self.provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        *cached = Some((authority, verifier.clone()));
        Ok(verifier)
    }
}

impl ClientCertVerifier for ClientCerts {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Hints would have to live as long as this; clients send the certificate that they have without them.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.current()?.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.current()?.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.current()?.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for ClientCerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCerts")
    }
}

#[cfg(test)]
mod tests;
