//! The authority in use: a signing key, the chain to present and the roots to trust. Immutable; a reload makes a new one.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;

use super::cert::{self, Cert, CertError};
use super::issue::{self, Issuer, Role, San, Template};
use super::key::{KeyError, PrivateKey};
use crate::pem;

/// How far certificates are dated back, so that a peer whose clock is behind accepts them at once (istiod's value).
pub const BACKDATE: Duration = Duration::from_secs(120);

/// The signer, its chain and the roots: everything that signing and trusting needs at one moment.
pub struct Authority {
    key: PrivateKey,
    signer: Cert,
    intermediates: Vec<Cert>,
    roots: Vec<Cert>,
    not_after: OffsetDateTime,
    origin: String,
    intermediates_pem: Vec<String>,
    roots_pem: String,
}

/// A certificate that was just signed.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// Valid from: two minutes ago.
    pub not_before: OffsetDateTime,
    /// Valid until; no later than the issuer itself.
    pub not_after: OffsetDateTime,
}

/// Why an authority cannot be used, or could not sign.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file is absent.
    #[error("{dir}: {missing} missing beside {present}: a certificate authority needs ca-cert.pem, ca-key.pem, root-cert.pem and cert-chain.pem (or tls.crt, tls.key and ca.crt); make them with `landbridge ca intermediate`", dir = .dir.display())]
    Incomplete {
        /// The directory.
        dir: PathBuf,
        /// The absent files.
        missing: String,
        /// The files that are there.
        present: String,
    },
    /// A file or directory cannot be read or written.
    #[error("cannot {action} {path}: {error}", path = .path.display())]
    Io {
        /// What was tried: read, write, create.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file holds no usable certificate.
    #[error("{path}: {error}", path = .path.display())]
    Cert {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: CertError,
    },
    /// A file holds no usable private key.
    #[error("{path}: {error}", path = .path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: KeyError,
    },
    /// The files are readable but do not make an authority.
    #[error("{origin}: {reason}")]
    Invalid {
        /// The directory.
        origin: String,
        /// What does not fit, and what to do.
        reason: String,
    },
    /// A new root that nothing in the mesh trusts yet.
    #[error(
        "{origin}: none of the new roots is trusted so far, so every workload that still has an old certificate would be refused\n  in use: {current}\n  new:    {next}\nput both roots into root-cert.pem first (old and new, one after the other), and take the old one out when all workloads have new certificates"
    )]
    ForeignRoot {
        /// The directory.
        origin: String,
        /// Subjects and fingerprints in use.
        current: String,
        /// Subjects and fingerprints refused.
        next: String,
    },
    /// The signing certificate has run out.
    #[error(
        "the signing certificate `{subject}` ended on {not_after}: replace it (`landbridge ca intermediate … --force`)"
    )]
    Expired {
        /// The signer's subject.
        subject: String,
        /// Its end.
        not_after: OffsetDateTime,
    },
    /// Signing failed.
    #[error("signing failed: {0}")]
    Key(#[from] KeyError),
}

// === impl Authority ===

impl Authority {
    /// Puts an authority together and checks all that can be checked: the key belongs to `signer`, the signer is a CA,
    /// a chain of `others` leads to one of `roots`, nothing on the way has run out, and a probe certificate passes the
    /// verification that peers do. `origin` names the source in errors.
    pub fn new(
        key: PrivateKey,
        signer: Cert,
        others: &[Cert],
        roots: Vec<Cert>,
        origin: String,
        now: OffsetDateTime,
    ) -> Result<Self, CaError> {
        let invalid = |reason: String| CaError::Invalid { origin: origin.clone(), reason };
        if key.public_key_info() != signer.public_key_info {
            return Err(invalid(format!(
                "the private key ({key:?}) does not belong to the certificate `{}` ({}): copy both from the same place",
                signer.subject, signer.key_type
            )));
        }
        let path = path_to_root(&signer, others, &roots).map_err(&invalid)?;
        for cert in path.iter().chain(&roots) {
            check_ca(cert, now).map_err(&invalid)?;
        }
        let not_after = path.iter().map(|cert| cert.not_after).min().unwrap_or(signer.not_after);
        // The signer comes first; roots are never part of what is presented.
        let intermediates: Vec<Cert> = path.into_iter().filter(|cert| !contains(&roots, cert)).collect();
        let authority = Self {
            intermediates_pem: intermediates.iter().map(Cert::to_pem).collect(),
            roots_pem: roots.iter().map(Cert::to_pem).collect(),
            key,
            signer,
            intermediates,
            roots,
            not_after,
            origin: origin.clone(),
        };
        authority.probe().map_err(invalid)?;
        Ok(authority)
    }

    /// Signs a leaf for `public_key_info` (DER), from two minutes ago until `ttl` from now, but never longer than the
    /// chain that signs it.
    pub fn issue(&self, public_key_info: &[u8], sans: &[San], ttl: Duration) -> Result<Issued, CaError> {
        let now = OffsetDateTime::now_utc();
        if now >= self.not_after {
            return Err(CaError::Expired { subject: self.signer.subject.clone(), not_after: self.not_after });
        }
        let not_before = now - BACKDATE;
        let not_after = now
            .checked_add(time::Duration::try_from(ttl).unwrap_or(time::Duration::MAX))
            .map_or(self.not_after, |end| end.min(self.not_after));
        let template = Template {
            subject: issue::EMPTY_NAME,
            public_key_info,
            sans,
            not_before,
            not_after,
            role: Role::Leaf,
        };
        let der = issue::issue(&template, self.as_issuer())?;
        Ok(Issued { der, not_before, not_after })
    }

    /// The issuer's side for [`issue::issue`].
    pub fn as_issuer(&self) -> Issuer<'_> {
        Issuer { key: &self.key, subject: &self.signer.subject_raw, key_id: self.signer.key_id.as_deref() }
    }

    /// The certificate that signs.
    pub fn signer(&self) -> &Cert {
        &self.signer
    }

    /// When the signer or an intermediate above it ends, whichever is first: nothing signed here lives longer.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// The signing key; for the type of companion keys and for signing other authorities.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// What a server presents after its leaf: the signer first, without the root. Empty when a root signs.
    pub fn intermediates(&self) -> &[Cert] {
        &self.intermediates
    }

    /// [`Authority::intermediates`], one PEM text each.
    pub fn intermediates_pem(&self) -> &[String] {
        &self.intermediates_pem
    }

    /// The trusted roots.
    pub fn roots(&self) -> &[Cert] {
        &self.roots
    }

    /// The trusted roots as one PEM text.
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// Where the authority came from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// A leaf certificate and the intermediates as one PEM text, as Envoy's `certificate_chain` wants it.
    pub fn chain_pem(&self, leaf: &CertificateDer<'_>) -> String {
        let others: usize = self.intermediates_pem.iter().map(String::len).sum();
        let mut text = String::with_capacity(pem::encoded_len(cert::PEM_LABEL, leaf.len()) + others);
        pem::append(&mut text, cert::PEM_LABEL, leaf);
        text.extend(self.intermediates_pem.iter().map(String::as_str));
        text
    }

    /// A leaf certificate and the intermediates, as rustls wants them.
    pub fn chain_der(&self, leaf: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        std::iter::once(leaf).chain(self.intermediates.iter().map(|cert| cert.der.clone())).collect()
    }

    /// The roots for rustls. Roots that rustls cannot read (unsupported critical extensions) are left out.
    pub fn root_store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self.roots.iter().map(|cert| cert.der.clone()));
        store
    }

    /// The same authority that trusts other roots.
    pub(super) fn with_roots(mut self, roots: Vec<Cert>) -> Self {
        self.roots_pem = roots.iter().map(Cert::to_pem).collect();
        self.roots = roots;
        self
    }

    /// Whether both sign with the same certificate and present the same chain: certificates of one are as good as
    /// those of the other.
    pub fn has_same_chain(&self, other: &Self) -> bool {
        self.signer.der == other.signer.der && same(&self.intermediates, &other.intermediates)
    }

    /// Whether both sign with the same key and certificate, present the same chain and trust the same roots.
    pub fn is_same(&self, other: &Self) -> bool {
        self.has_same_chain(other) && same(&self.roots, &other.roots)
    }

    /// Signs a certificate that is thrown away and verifies it as a peer would, which catches what the explicit checks
    /// cannot name: path length, name constraints, unsupported algorithms.
    fn probe(&self) -> Result<(), String> {
        let unusable = |error: &dyn fmt::Display| {
            format!("certificates signed by `{}` would be refused by peers: {error}", self.signer.subject)
        };
        let probe = San::Uri("spiffe://probe.invalid/ns/probe/sa/probe".to_owned());
        let issued = self
            .issue(self.key.public_key_info(), &[probe], Duration::from_secs(60))
            .map_err(|error| unusable(&error))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.root_store()), provider)
            .build()
            .map_err(|error| unusable(&error))?;
        let intermediates: Vec<_> = self.intermediates.iter().map(|cert| cert.der.clone()).collect();
        verifier
            .verify_client_cert(&issued.der, &intermediates, UnixTime::now())
            .map(|_| ())
            .map_err(|error| unusable(&error))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("origin", &self.origin)
            .field("signer", &self.signer.subject)
            .field("fingerprint", &self.signer.fingerprint())
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

/// Subjects and fingerprints of some certificates, in one line each.
pub(super) fn describe(certs: &[Cert]) -> String {
    let lines: Vec<_> = certs.iter().map(|c| format!("{}  `{}`", c.fingerprint(), c.subject)).collect();
    lines.join("\n          ")
}

fn same(a: &[Cert], b: &[Cert]) -> bool {
    a.iter().map(|cert| &cert.der).eq(b.iter().map(|cert| &cert.der))
}

pub(super) fn contains(certs: &[Cert], cert: &Cert) -> bool {
    certs.iter().any(|other| other.der == cert.der)
}

/// The certificates from the signer up to the one that a root signed (or that is a root), found among `others` in any order:
/// people's `cert-chain.pem` holds the signer or not, the root or not.
fn path_to_root(signer: &Cert, others: &[Cert], roots: &[Cert]) -> Result<Vec<Cert>, String> {
    let mut path = vec![signer.clone()];
    let mut last = signer;
    loop {
        if contains(roots, last) || roots.iter().any(|root| last.is_signed_by(root)) {
            return Ok(path);
        }
        let parent = others.iter().find(|cert| !contains(&path, cert) && last.is_signed_by(cert));
        let Some(parent) = parent else {
            let roots = describe(roots);
            return Err(if last.is_self_issued() {
                format!(
                    "the chain ends in the self-signed `{}` ({}), which is not in root-cert.pem\n  root-cert.pem: {roots}\nput the root that signed this authority into root-cert.pem",
                    last.subject,
                    last.fingerprint()
                )
            } else {
                format!(
                    "no certificate of the issuer `{}` of `{}` in cert-chain.pem or root-cert.pem\n  root-cert.pem: {roots}\nadd the missing intermediate to cert-chain.pem",
                    last.issuer, last.subject
                )
            });
        };
        path.push(parent.clone());
        last = parent;
    }
}

fn check_ca(cert: &Cert, now: OffsetDateTime) -> Result<(), String> {
    let Cert { subject, not_before, not_after, .. } = cert;
    if !cert.is_ca {
        Err(format!(
            "`{subject}` may not sign certificates: it needs basicConstraints CA:TRUE and, where there is a key usage, keyCertSign"
        ))
    } else if now > *not_after {
        Err(format!("`{subject}` ended on {not_after}: replace it"))
    } else if now + BACKDATE < *not_before {
        Err(format!("`{subject}` begins only on {not_before}: wait, or check this machine's clock"))
    } else {
        Ok(())
    }
}
