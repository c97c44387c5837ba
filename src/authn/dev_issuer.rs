//! The development issuer: service-account tokens without a Kubernetes API server, from a key in the state directory.
//!
//! Whoever reads the key can be any workload, so the server accepts these tokens only when told to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{files, pem};

/// The `iss` of development tokens.
pub const ISSUER: &str = "landbridge-development-issuer";
/// The claim that ties a token to a cluster.
pub const CLUSTER_CLAIM: &str = "landbridge.io/cluster-id";

const FILE: &str = "dev-issuer-key.pem";

/// The issuer's key, loaded.
pub struct DevIssuer {
    signing: EncodingKey,
    key_id: String,
    x: String,
    y: String,
}

/// Whose token to mint.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// Kubernetes namespace.
    pub namespace: &'a str,
    /// Kubernetes service account.
    pub service_account: &'a str,
    /// The only cluster that the holder may say it is in; `None` for any.
    pub cluster_id: Option<&'a str>,
}

/// Why the development issuer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DevIssuerError {
    /// The key cannot be read or written.
    #[error("cannot {action} the development issuer's key {path}: {error}", path = .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file is no P-256 key.
    #[error("{path} is not a P-256 private key in PKCS#8 PEM: remove it, and a new one is made (old tokens become invalid)", path = .path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The cryptographic library failed.
    #[error("the cryptographic library failed to {0}")]
    Crypto(&'static str),
}

// === impl DevIssuer ===

impl DevIssuer {
    /// Loads the key of the state directory, or makes it (mode 0600). Processes that race end up with the same key.
    pub fn load_or_create(state_dir: &Path) -> Result<Self, DevIssuerError> {
        let path = state_dir.join(FILE);
        let io = |action| {
            let path = path.clone();
            move |error| DevIssuerError::Io { action, path, error }
        };
        if !path.exists() {
            files::create_private_dir(state_dir).map_err(io("create the directory of"))?;
            files::create_private(&path, new_key()?.as_bytes()).map_err(io("write"))?;
        }
        let text = Zeroizing::new(std::fs::read(&path).map_err(io("read"))?);
        Self::from_pem(&text).ok_or(DevIssuerError::Key { path })
    }

    fn from_pem(text: &[u8]) -> Option<Self> {
        let [block] = pem::blocks(text).ok()?.try_into().ok()?;
        let der = Zeroizing::new(block.decode().ok()?);
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der).ok()?;
        let info: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
        // An uncompressed point: 0x04, x, y.
        let point = pair.public_key().as_ref();
        let (x, y) = point.get(1..65)?.split_at(32);
        Some(Self {
            signing: EncodingKey::from_ec_der(&der),
            key_id: URL_SAFE_NO_PAD.encode(&digest(&SHA256, info.as_ref()).as_ref()[..16]),
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
        })
    }

    /// Mints a token in the form of Kubernetes' service-account tokens.
    pub fn mint(
        &self,
        subject: &Subject<'_>,
        audiences: &[String],
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<String, DevIssuerError> {
        let Subject { namespace, service_account, cluster_id } = subject;
        let now = now.unix_timestamp();
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let mut claims = json!({
            "iss": ISSUER,
            "sub": format!("system:serviceaccount:{namespace}:{service_account}"),
            "aud": audiences,
            "iat": now,
            "nbf": now,
            "exp": now.saturating_add(ttl),
            "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": service_account } },
        });
        if let Some(cluster_id) = cluster_id {
            claims[CLUSTER_CLAIM] = json!(cluster_id);
        }
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, &claims, &self.signing)
            .map_err(|_| DevIssuerError::Crypto("sign a token"))
    }

    /// The public key as a JSON Web Key Set.
    pub fn jwks(&self) -> String {
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
            "kid": self.key_id, "x": self.x, "y": self.y,
        }]})
        .to_string()
    }
}

impl std::fmt::Debug for DevIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DevIssuer({}, secret)", self.key_id)
    }
}

fn new_key() -> Result<Zeroizing<String>, DevIssuerError> {
    let failed = |_| DevIssuerError::Crypto("make a key");
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
    let der = pair.to_pkcs8v1().map_err(failed)?;
    Ok(Zeroizing::new(pem::encode("PRIVATE KEY", der.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_even_by_many_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let sets: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| DevIssuer::load_or_create(&state).unwrap().jwks())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(sets.iter().all(|set| *set == sets[0]));
    }

    #[test]
    fn a_broken_key_file_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "garbage").unwrap();
        let error = DevIssuer::load_or_create(dir.path()).unwrap_err().to_string();
        assert!(error.contains(FILE) && error.contains("remove it"), "{error}");
        assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), b"garbage");
    }
}
