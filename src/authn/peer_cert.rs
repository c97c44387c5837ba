//! The identity in a client certificate.

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::identity::{Spiffe, SpiffeError};

/// Why a certificate names no workload.
#[derive(Debug, thiserror::Error)]
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

/// The SPIFFE id of a leaf certificate that TLS has verified: its one URI name.
pub fn identity(leaf: &CertificateDer<'_>) -> Result<Spiffe, PeerCertError> {
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
