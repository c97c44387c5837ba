//! The identity in a client certificate.

use std::sync::{Arc, OnceLock};

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::identity::{Spiffe, SpiffeError};

/// The leaf certificate that TLS verified, or that there was none: one for each connection, shared by its requests. A listener
/// that serves [`crate::ca`]'s service puts it into the extensions of each request.
#[derive(Clone, Debug, Default)]
pub struct PeerCertificate(Option<Arc<Leaf>>);

#[derive(Debug)]
struct Leaf {
    der: CertificateDer<'static>,
    /// Read when somebody asks, and then once.
    identity: OnceLock<Result<Spiffe, PeerCertError>>,
}

/// Why a certificate names no workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerCertError {
    /// Not X.509; TLS would have refused it before.
    #[error("it cannot be parsed: {0}")]
    Unparsable(String),
    /// None or several: which one counts would be anybody's guess.
    #[error("it has {0} URI names, and a workload's certificate has exactly one, its SPIFFE id")]
    UriCount(usize),
    /// The URI is no workload identity.
    #[error(transparent)]
    Spiffe(#[from] SpiffeError),
}

// === impl PeerCertificate ===

impl PeerCertificate {
    /// Of the chain that a client presented, leaf first.
    pub fn new(chain: &[CertificateDer<'_>]) -> Self {
        let leaf = |der: &CertificateDer<'_>| {
            Arc::new(Leaf { der: der.clone().into_owned(), identity: OnceLock::new() })
        };
        Self(chain.first().map(leaf))
    }

    /// The one URI name of the leaf, a SPIFFE id. None without a certificate.
    pub fn identity(&self) -> Option<Result<&Spiffe, &PeerCertError>> {
        let leaf = self.0.as_ref()?;
        Some(leaf.identity.get_or_init(|| identity(&leaf.der)).as_ref())
    }
}

fn identity(leaf: &CertificateDer<'_>) -> Result<Spiffe, PeerCertError> {
    let (_, cert) =
        X509Certificate::from_der(leaf).map_err(|error| PeerCertError::Unparsable(error.to_string()))?;
    let mut uris = Vec::new();
    for extension in cert.extensions() {
        if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
            uris.extend(names.general_names.iter().filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            }));
        }
    }
    match uris[..] {
        [uri] => Ok(uri.parse()?),
        _ => Err(PeerCertError::UriCount(uris.len())),
    }
}
