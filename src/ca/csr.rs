//! Certificate signing requests, which come from outside: what is taken from one is its public key, nothing else.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// A request of an RSA-8192 key with many names is below 4 KiB; anything far above is an attack.
pub const MAX_BYTES: usize = 16 * 1024;

/// A request whose signature proved that the sender holds the private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    /// The DER `SubjectPublicKeyInfo`, as it stood in the request.
    pub public_key_info: Vec<u8>,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Far too long.
    #[error("the request has {0} bytes, more than the {MAX_BYTES} allowed")]
    TooLong(usize),
    /// Not one PEM block `CERTIFICATE REQUEST`.
    #[error("expected one PEM block `CERTIFICATE REQUEST`: {0}")]
    Pem(String),
    /// Not a PKCS#10 request.
    #[error("not a PKCS#10 certificate request: {0}")]
    Der(String),
    /// A key that is too weak or that Envoy cannot use.
    #[error("the request's public key is {0}: use RSA with 2048 to 8192 bits or ECDSA on P-256 or P-384")]
    Key(String),
    /// An algorithm that proves nothing any more, such as SHA-1.
    #[error("the request is signed with {0}: use RSA PKCS#1 or ECDSA with SHA-256 or stronger")]
    Algorithm(String),
    /// The signature does not fit: the sender does not hold the key, or the request was changed on its way.
    #[error("the request's signature does not match its public key")]
    Signature,
}

/// Reads a PEM request and verifies its signature. Names and extensions in it are ignored: they are the sender's wish, and
/// the certificate carries only what authentication found.
pub fn parse(pem_text: &[u8]) -> Result<Csr, CsrError> {
    if pem_text.len() > MAX_BYTES {
        return Err(CsrError::TooLong(pem_text.len()));
    }
    let blocks = pem::parse_many(pem_text).map_err(|error| CsrError::Pem(error.to_string()))?;
    let [block] = &blocks[..] else {
        return Err(CsrError::Pem(format!("found {} blocks", blocks.len())));
    };
    if !matches!(block.tag(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
        return Err(CsrError::Pem(format!("found `{}`", block.tag().escape_debug())));
    }
    let (rest, request) = X509CertificationRequest::from_der(block.contents())
        .map_err(|error| CsrError::Der(error.to_string()))?;
    if !rest.is_empty() {
        return Err(CsrError::Der(format!("{} bytes follow the request", rest.len())));
    }
    let info = &request.certification_request_info.subject_pki;
    match info.parsed() {
        Ok(PublicKey::RSA(key)) if (2048..=8192).contains(&key.key_size()) => {}
        Ok(PublicKey::EC(point)) if matches!(point.key_size(), 256 | 384) => {}
        Ok(PublicKey::RSA(key)) => return Err(CsrError::Key(format!("RSA with {} bits", key.key_size()))),
        Ok(PublicKey::EC(point)) => {
            return Err(CsrError::Key(format!("ECDSA with {} bits", point.key_size())));
        }
        Ok(_) | Err(_) => return Err(CsrError::Key(format!("of type {}", info.algorithm.algorithm))),
    }
    let algorithm = &request.signature_algorithm.algorithm;
    if !SIGNATURES.contains(algorithm) {
        return Err(CsrError::Algorithm(algorithm.to_string()));
    }
    request.verify_signature().map_err(|_| CsrError::Signature)?;
    Ok(Csr { public_key_info: info.raw.to_vec() })
}

const SIGNATURES: [Oid<'static>; 5] = [
    OID_PKCS1_SHA256WITHRSA,
    OID_PKCS1_SHA384WITHRSA,
    OID_PKCS1_SHA512WITHRSA,
    OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384,
];

#[cfg(test)]
mod tests;
