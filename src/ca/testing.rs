//! Authorities for tests.

use std::path::Path;
use std::sync::Arc;

use time::{Duration, OffsetDateTime};
use tokio::sync::watch;

use super::authority::Authority;
use super::cacerts::{CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT};
use super::cert::Cert;
use super::issue::{self, Issuer, Role, Template};
use super::key::{KeyType, PrivateKey};
use super::self_signed;

/// A root with its key.
pub struct Root {
    pub key: PrivateKey,
    pub cert: Cert,
}

pub fn mk_root(name: &str) -> Root {
    let key = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
    let cert = self_signed::root(&key, "mesh", name, Duration::days(100)).unwrap();
    Root { key, cert }
}

/// An intermediate that ends after `ttl`, with its key.
pub fn mk_intermediate(root: &Root, name: &str, ttl: Duration) -> Root {
    mk_intermediate_of(KeyType::EcdsaP256, root, name, ttl)
}

/// The same with another kind of key.
pub fn mk_intermediate_of(key_type: KeyType, root: &Root, name: &str, ttl: Duration) -> Root {
    let key = PrivateKey::generate(key_type).unwrap();
    let now = OffsetDateTime::now_utc();
    let template = Template {
        subject: &issue::name("mesh", name),
        public_key_info: key.public_key_info(),
        sans: &[],
        not_before: now - Duration::hours(1),
        not_after: now + ttl,
        role: Role::Ca { path_len: Some(0) },
    };
    let issuer =
        Issuer { key: &root.key, subject: &root.cert.subject_raw, key_id: root.cert.key_id.as_deref() };
    let cert = Cert::from_der(issue::issue(&template, issuer).unwrap()).unwrap();
    Root { key, cert }
}

/// Writes the four files of an intermediate, with these roots as the bundle.
pub fn write_cacerts(dir: &Path, intermediate: &Root, roots: &[&Root]) {
    let bundle: String = roots.iter().map(|root| root.cert.to_pem()).collect();
    std::fs::write(dir.join(CA_CERT), intermediate.cert.to_pem()).unwrap();
    std::fs::write(dir.join(CA_KEY), intermediate.key.to_pem().unwrap().as_bytes()).unwrap();
    std::fs::write(dir.join(CERT_CHAIN), intermediate.cert.to_pem()).unwrap();
    std::fs::write(dir.join(ROOT_CERT), bundle).unwrap();
}

/// An authority with an intermediate that ends after `ttl`.
pub fn mk_authority(root: &Root, name: &str, ttl: Duration) -> Arc<Authority> {
    authority_of(mk_intermediate(root, name, ttl), root, name)
}

/// An authority with an RSA key, as istiod's.
pub fn mk_rsa_authority(root: &Root, name: &str) -> Arc<Authority> {
    let intermediate = mk_intermediate_of(KeyType::Rsa2048, root, name, Duration::days(50));
    authority_of(intermediate, root, name)
}

fn authority_of(signer: Root, root: &Root, name: &str) -> Arc<Authority> {
    let Root { key, cert } = signer;
    let roots = vec![root.cert.clone()];
    Arc::new(Authority::new(key, cert, &[], roots, name.to_owned(), OffsetDateTime::now_utc()).unwrap())
}

/// An authority that can be replaced.
pub fn mk_watched(root: &Root) -> (watch::Sender<Arc<Authority>>, watch::Receiver<Arc<Authority>>) {
    watch::channel(mk_authority(root, "first", Duration::days(50)))
}
