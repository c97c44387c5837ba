//! A self-signed root kept in the state directory or in a Secret, for those who bring no `cacerts`.

use std::fs;
use std::path::Path;

use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::authority::{Authority, BACKDATE, CaError};
use super::cacerts::read;
use super::cert::{Cert, to_pem};
use super::issue::{self, Issuer, Role, Template};
use super::key::{KeyType, PrivateKey};
use crate::files;

/// Key and certificate in one file, so that no crash and no second process can leave halves that do not match.
const FILE: &str = "self-signed-root.pem";
/// Its name, after the trust domain.
const COMMON_NAME: &str = "landbridge self-signed root";
/// Istio's lifetime of a self-signed root.
const LIFETIME: Duration = Duration::days(3650);
/// Below this part of its lifetime left, the root is made anew with the same key (istiod: 20 percent).
const RENEW_BELOW: i32 = 5;

/// Makes a self-signed CA certificate for `key`.
pub fn root(key: &PrivateKey, organization: &str, common_name: &str, ttl: Duration) -> Result<Cert, CaError> {
    let subject = issue::name(organization, common_name);
    let key_id = issue::key_id(key.public_key_info());
    let now = OffsetDateTime::now_utc();
    let template = Template {
        subject: &subject,
        public_key_info: key.public_key_info(),
        sans: &[],
        not_before: now - BACKDATE,
        not_after: now + ttl,
        role: Role::Ca { path_len: None },
    };
    let der = issue::issue(&template, Issuer { key, subject: &subject, key_id: Some(&key_id) })?;
    Ok(Cert::from_der(der).expect("a certificate that was just written can be read"))
}

/// A new root: its private key and its certificate, as PEM.
pub fn make(trust_domain: &str) -> Result<(Zeroizing<String>, String), CaError> {
    let key = PrivateKey::generate(KeyType::EcdsaP256)?;
    let cert = root(&key, trust_domain, COMMON_NAME, LIFETIME)?;
    Ok((key.to_pem()?, cert.to_pem()))
}

/// The certificate to go on with when a self-signed authority has less than a fifth of its life left: with the same name and
/// key, so that what the old one signed stays valid. None while there is time, and for others.
pub fn renewed(authority: &Authority, now: OffsetDateTime) -> Result<Option<Cert>, CaError> {
    let old = authority.signer();
    let is_near_end = old.not_after - now < (old.not_after - old.not_before) / RENEW_BELOW;
    if !is_near_end || !authority.intermediates().is_empty() || !old.is_self_issued() {
        return Ok(None);
    }
    let key_id = issue::key_id(authority.key().public_key_info());
    let template = Template {
        subject: &old.subject_raw,
        public_key_info: authority.key().public_key_info(),
        sans: &[],
        not_before: now - BACKDATE,
        not_after: now + LIFETIME,
        role: Role::Ca { path_len: None },
    };
    let issuer = Issuer { key: authority.key(), subject: &old.subject_raw, key_id: Some(&key_id) };
    let der = issue::issue(&template, issuer)?;
    Ok(Some(Cert::from_der(der).expect("a certificate that was just written can be read")))
}

/// Loads the root of the state directory, or makes it. Two processes that start at once end up with the same one.
///
/// A root near its end gets a new certificate with the same name and key: what the old one signed stays valid.
pub fn load_or_create(
    state_dir: &Path,
    trust_domain: &str,
    now: OffsetDateTime,
) -> Result<Authority, CaError> {
    let path = state_dir.join(FILE);
    let io = |action| {
        let path = path.clone();
        move |error| CaError::Io { action, path, error }
    };
    if !path.exists() {
        files::create_private_dir(state_dir).map_err(io("create the directory of"))?;
        let key = PrivateKey::generate(KeyType::EcdsaP256)?;
        let cert = root(&key, trust_domain, COMMON_NAME, LIFETIME)?;
        files::create_private(&path, both(&key, &cert)?.as_bytes()).map_err(io("write"))?;
    }
    let text = Zeroizing::new(read(&path)?);
    let key = PrivateKey::from_pem(&text).map_err(|error| CaError::KeyFile { path: path.clone(), error })?;
    let mut certs = Cert::all_from_pem(&text).map_err(|error| CaError::Cert { path: path.clone(), error })?;
    let mut cert = certs.swap_remove(0);
    if cert.not_after - now < LIFETIME / RENEW_BELOW {
        cert = root(&key, trust_domain, COMMON_NAME, LIFETIME)?;
        files::write_private(&path, both(&key, &cert)?.as_bytes()).map_err(io("write"))?;
    }
    Authority::new(key, cert.clone(), &[], vec![cert], path.display().to_string(), now)
}

/// The file that [`load_or_create`] keeps the root in.
pub fn path(state_dir: &Path) -> std::path::PathBuf {
    state_dir.join(FILE)
}

/// Whether the file with the root is readable by others than its owner: worth a warning.
pub fn is_exposed(state_dir: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path(state_dir)).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

fn both(key: &PrivateKey, cert: &Cert) -> Result<Zeroizing<String>, CaError> {
    let mut text = key.to_pem()?;
    text.push_str(&to_pem(&cert.der));
    Ok(text)
}
