//! Certificate signing requests, which come from outside: what is taken from one is its public key, nothing else.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::key::{Curve, rsa_public_key_info};
use crate::pem::{self, PemError};
use crate::text::printable;

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
    /// Not PEM.
    #[error("expected one PEM block `CERTIFICATE REQUEST`: {0}")]
    Pem(PemError),
    /// No block or several: which one counts would be anybody's guess.
    #[error("expected one PEM block `CERTIFICATE REQUEST`, found {0} blocks")]
    Blocks(usize),
    /// A block of something else.
    #[error("expected one PEM block `CERTIFICATE REQUEST`, found `{0}`")]
    Label(String),
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
    let blocks = pem::blocks(pem_text).map_err(CsrError::Pem)?;
    let [block] = &blocks[..] else { return Err(CsrError::Blocks(blocks.len())) };
    if !matches!(block.label, "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
        return Err(CsrError::Label(printable(block.label)));
    }
    let der = block.decode().map_err(CsrError::Pem)?;
    let (_, request) =
        X509CertificationRequest::from_der(&der).map_err(|error| CsrError::Der(error.to_string()))?;
    // The parser looks behind no element for what else its frame may hold; the signature is the last one.
    if der.as_ptr_range().end != request.signature_value.data.as_ptr_range().end {
        return Err(CsrError::Der("something follows the request's signature".to_owned()));
    }
    let info = &request.certification_request_info.subject_pki;
    let key = &info.subject_public_key.data;
    let public_key_info = match info.parsed() {
        Ok(PublicKey::RSA(parsed)) => match parsed.key_size() {
            2048..=8192 => rsa_public_key_info(key),
            bits => return Err(CsrError::Key(format!("RSA with {bits} bits"))),
        },
        Ok(PublicKey::EC(point)) => match point.key_size() {
            256 => Curve::P256.public_key_info(key),
            384 => Curve::P384.public_key_info(key),
            bits => return Err(CsrError::Key(format!("ECDSA with {bits} bits"))),
        },
        Ok(_) | Err(_) => return Err(CsrError::Key(format!("of type {}", info.algorithm.algorithm))),
    };
    // It becomes a part of a certificate, so nothing may hide in it: it is what we would have written.
    if info.raw != public_key_info {
        return Err(CsrError::Key("of another curve, or not in the form that DER prescribes".to_owned()));
    }
    let algorithm = &request.signature_algorithm.algorithm;
    if !SIGNATURES.contains(algorithm) {
        return Err(CsrError::Algorithm(algorithm.to_string()));
    }
    request.verify_signature().map_err(|_| CsrError::Signature)?;
    Ok(Csr { public_key_info })
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
