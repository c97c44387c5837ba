//! Istio's `cacerts` layout: an authority from the files of a directory.

use std::fs;
use std::io;
use std::path::Path;

use time::OffsetDateTime;

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

/// Whether a directory holds any file of either layout. An absent directory holds none.
pub fn is_present(dir: &Path) -> bool {
    file_names().any(|name| dir.join(name).exists())
}

/// The files of both layouts.
pub(super) fn file_names() -> impl Iterator<Item = &'static str> {
    ISTIO_LAYOUT.into_iter().chain(TLS_LAYOUT)
}

/// Reads an authority from a directory: `tls.crt`, `tls.key` and `ca.crt` where all three are there (istiod prefers them
/// too), otherwise the four files of Istio's layout. An incomplete directory is an error, never a silent self-signed root.
pub fn load(dir: &Path, now: OffsetDateTime) -> Result<Authority, CaError> {
    let has = |names: &[&str]| names.iter().all(|name| dir.join(name).exists());
    let [cert, key, roots, chain] = if has(&TLS_LAYOUT) {
        ["tls.crt", "tls.key", "ca.crt", "tls.crt"]
    } else if has(&ISTIO_LAYOUT) {
        ISTIO_LAYOUT
    } else {
        return Err(incomplete(dir));
    };
    let certs = |name: &str| {
        let path = dir.join(name);
        Cert::all_from_pem(&read(&path)?).map_err(|error| CaError::Cert { path, error })
    };
    let signers = certs(cert)?;
    let key_path = dir.join(key);
    let key = PrivateKey::from_pem(&zeroize::Zeroizing::new(read(&key_path)?))
        .map_err(|error| CaError::KeyFile { path: key_path, error })?;
    let (signer, rest) = signers.split_first().expect("all_from_pem returns at least one certificate");
    let others: Vec<Cert> = rest.iter().cloned().chain(certs(chain)?).collect();
    let roots = deduplicate(certs(roots)?);
    Authority::new(key, signer.clone(), &others, roots, dir.display().to_string(), now)
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

fn incomplete(dir: &Path) -> CaError {
    if let Err(error) = fs::read_dir(dir) {
        return CaError::Io { action: "read", path: dir.to_owned(), error };
    }
    let (present, missing): (Vec<&str>, Vec<&str>) =
        ISTIO_LAYOUT.iter().partition(|name| dir.join(name).exists());
    let or_nothing =
        |names: Vec<&str>| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    if missing.is_empty() {
        // All files appeared between two looks: a writer is at work, and the next look will succeed.
        let error = io::Error::new(io::ErrorKind::WouldBlock, "the files changed while they were read");
        return CaError::Io { action: "read", path: dir.to_owned(), error };
    }
    CaError::Incomplete { dir: dir.to_owned(), missing: or_nothing(missing), present: or_nothing(present) }
}

#[cfg(test)]
mod tests;
