//! Istio's `cacerts` layout: an authority from the files of a directory, or from the keys of a Secret.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::authority::{Authority, CaError};
use super::cert::Cert;
use super::key::PrivateKey;

/// The certificate that signs.
pub const CA_CERT: &str = "ca-cert.pem";
/// Its private key.
pub const CA_KEY: &str = "ca-key.pem";
/// The roots to trust, one or more.
pub const ROOT_CERT: &str = "root-cert.pem";
/// From the signing certificate towards the root.
pub const CERT_CHAIN: &str = "cert-chain.pem";

const ISTIO_LAYOUT: [&str; 4] = [CA_CERT, CA_KEY, ROOT_CERT, CERT_CHAIN];
/// What cert-manager and other makers of `kubernetes.io/tls` Secrets write; the chain is in `tls.crt`.
const TLS_LAYOUT: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// What an authority is made of, by file name, as it was read at one moment.
#[derive(Clone)]
pub struct Material {
    /// The directory, or the Secret as `cluster/namespace/Secret/name`: errors name a file below it.
    origin: PathBuf,
    files: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

// === impl Material ===

impl Material {
    /// Files as they are, of either layout or of none.
    pub fn new(origin: impl Into<PathBuf>, files: BTreeMap<String, Zeroizing<Vec<u8>>>) -> Self {
        Self { origin: origin.into(), files }
    }

    /// Reads the files of a directory that mean something; those that are absent are left out.
    fn of_dir(dir: &Path) -> Result<Self, CaError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| CaError::Io { action: "read", path, error }
        };
        fs::read_dir(dir).map_err(io(dir))?;
        let mut files = BTreeMap::new();
        for name in file_names() {
            let path = dir.join(name);
            match fs::read(&path) {
                Ok(bytes) => drop(files.insert(name.to_owned(), Zeroizing::new(bytes))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io(&path)(error)),
            }
        }
        Ok(Self::new(dir, files))
    }

    /// An authority of `tls.crt`, `tls.key` and `ca.crt` where all three are there (istiod prefers them too), otherwise of the
    /// four files of Istio's layout. What is incomplete is an error, never a silent self-signed root.
    pub fn authority(&self, now: OffsetDateTime) -> Result<Authority, CaError> {
        let has = |names: &[&str]| names.iter().all(|name| self.files.contains_key(*name));
        let [cert, key, roots, chain] = if has(&TLS_LAYOUT) {
            ["tls.crt", "tls.key", "ca.crt", "tls.crt"]
        } else if has(&ISTIO_LAYOUT) {
            ISTIO_LAYOUT
        } else {
            return Err(self.incomplete());
        };
        let signers = self.certs(cert)?;
        let key = self.key(key)?;
        let (signer, rest) = signers.split_first().expect("all_from_pem returns at least one certificate");
        // istiod leaves it empty where a root signs.
        let chain = if self.bytes(chain).iter().all(u8::is_ascii_whitespace) {
            Vec::new()
        } else {
            self.certs(chain)?
        };
        let others: Vec<Cert> = rest.iter().cloned().chain(chain).collect();
        let roots = deduplicate(self.certs(roots)?);
        Authority::new(key, signer.clone(), &others, roots, self.origin.display().to_string(), now)
    }

    /// An authority whose certificate is its own root, as istiod keeps it in Secret `istio-ca-secret`: `ca-cert.pem` and
    /// `ca-key.pem`. istiod's further keys repeat these, or are empty.
    pub fn self_signed(&self, now: OffsetDateTime) -> Result<Authority, CaError> {
        if ![CA_CERT, CA_KEY].iter().all(|name| self.files.contains_key(*name)) {
            return Err(self.incomplete());
        }
        let certs = self.certs(CA_CERT)?;
        let key = self.key(CA_KEY)?;
        let signer =
            certs.iter().find(|cert| cert.public_key_info == key.public_key_info()).unwrap_or(&certs[0]);
        let origin = self.origin.display().to_string();
        Authority::new(key, signer.clone(), &[], deduplicate(certs.clone()), origin, now)
    }

    fn bytes(&self, name: &str) -> &[u8] {
        self.files.get(name).map_or(&[], |bytes| bytes.as_slice())
    }

    fn certs(&self, name: &str) -> Result<Vec<Cert>, CaError> {
        let path = self.origin.join(name);
        Cert::all_from_pem(self.bytes(name)).map_err(|error| CaError::Cert { path, error })
    }

    fn key(&self, name: &str) -> Result<PrivateKey, CaError> {
        let path = self.origin.join(name);
        PrivateKey::from_pem(self.bytes(name)).map_err(|error| CaError::KeyFile { path, error })
    }

    fn incomplete(&self) -> CaError {
        let (present, missing): (Vec<&str>, Vec<&str>) =
            ISTIO_LAYOUT.iter().partition(|name| self.files.contains_key(**name));
        let or_nothing =
            |names: Vec<&str>| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let (missing, present) = (or_nothing(missing), or_nothing(present));
        CaError::Incomplete { dir: self.origin.clone(), missing, present }
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Material({}: {:?})", self.origin.display(), self.files.keys().collect::<Vec<_>>())
    }
}

/// Whether a directory holds any file of either layout. An absent directory holds none.
pub fn is_present(dir: &Path) -> bool {
    file_names().any(|name| dir.join(name).exists())
}

/// The files of both layouts.
pub(super) fn file_names() -> impl Iterator<Item = &'static str> {
    ISTIO_LAYOUT.into_iter().chain(TLS_LAYOUT)
}

/// Reads an authority from a directory, as [`Material::authority`] says.
pub fn load(dir: &Path, now: OffsetDateTime) -> Result<Authority, CaError> {
    Material::of_dir(dir)?.authority(now)
}

pub(super) fn deduplicate(certs: Vec<Cert>) -> Vec<Cert> {
    let mut seen = Vec::with_capacity(certs.len());
    for cert in certs {
        if !super::authority::contains(&seen, &cert) {
            seen.push(cert);
        }
    }
    seen
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, CaError> {
    fs::read(path).map_err(|error| CaError::Io { action: "read", path: path.to_owned(), error })
}

#[cfg(test)]
mod tests;
