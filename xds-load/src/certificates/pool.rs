//! Keys and requests for certificates, made before anything is measured.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData, SanType, string::Ia5String};

/// Requests for certificates, each with an ECDSA P-256 key of its own.
#[derive(Debug)]
pub struct Pool(Vec<Entry>);

/// A key and its request.
#[derive(Debug)]
pub struct Entry {
    /// The private key, PKCS#8.
    pub key: Vec<u8>,
    /// The public key as a certificate has it: `SubjectPublicKeyInfo`, DER.
    pub public_key: Vec<u8>,
    /// The request, PEM.
    pub csr: String,
}

impl Pool {
    /// As Istio's agents make them: an empty subject, and the workload's identity as the only name. The server takes the identity
    /// from what the caller proves, so any will do.
    pub fn generate(size: usize) -> Result<Self, rcgen::Error> {
        (0..size.max(1)).map(entry).collect::<Result<_, _>>().map(Self)
    }

    /// The entry for the `n`th request.
    pub fn get(&self, n: usize) -> &Entry {
        &self.0[n % self.0.len()]
    }
}

fn entry(n: usize) -> Result<Entry, rcgen::Error> {
    let identity = format!("spiffe://cluster.local/ns/xds-load/sa/pool-{n}");
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity)?)];
    let csr = params.serialize_request(&key)?.pem()?;
    Ok(Entry { key: key.serialize_der(), public_key: key.subject_public_key_info(), csr })
}
