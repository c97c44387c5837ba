//! `IstioCertificateRequest` and `IstioCertificateResponse`, and `Secret`.

use crate::wire::{Fields, Malformed, Value, Writer};

/// The method.
pub const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// A request for a certificate that is valid for so many seconds.
pub fn request(csr: &str, seconds: u64) -> Vec<u8> {
    let mut message = Writer::default();
    message.text(1, csr).number(3, seconds);
    message.0
}

/// The PEM texts of an answer: the leaf, intermediates, and the roots as the last one.
pub fn chain(answer: &[u8]) -> Result<Vec<&str>, Malformed> {
    let mut chain = Vec::new();
    for field in Fields(answer) {
        if let (1, Value::Bytes(text)) = field? {
            chain.push(std::str::from_utf8(text).map_err(|_| Malformed)?);
        }
    }
    Ok(chain)
}

/// What a `Secret` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret<'a> {
    /// A chain and its private key, PEM.
    Certificate {
        /// Leaf and intermediates.
        chain: &'a [u8],
        /// The key.
        key: &'a [u8],
    },
    /// Roots, PEM.
    Roots(&'a [u8]),
}

/// Reads a secret whose values are inline.
pub fn secret(message: &[u8]) -> Result<Secret<'_>, Malformed> {
    if let Some(certificate) = Fields(message).bytes(2)? {
        let chain = data(Fields(certificate).bytes(1)?)?;
        let key = data(Fields(certificate).bytes(2)?)?;
        return Ok(Secret::Certificate { chain, key });
    }
    let context = Fields(message).bytes(4)?.ok_or(Malformed)?;
    Ok(Secret::Roots(data(Fields(context).bytes(1)?)?))
}

/// `DataSource`: `inline_bytes` or `inline_string`.
fn data(source: Option<&[u8]>) -> Result<&[u8], Malformed> {
    let source = Fields(source.ok_or(Malformed)?);
    match source.bytes(2)? {
        Some(bytes) => Ok(bytes),
        None => source.bytes(3)?.ok_or(Malformed),
    }
}
