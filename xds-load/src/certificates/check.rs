//! Whether the certificates are what was asked for.

use std::{collections::BTreeMap, sync::Arc};

use rustls::{
    RootCertStore,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject as _};
use serde::Serialize;
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

use super::{pool::Pool, requests::Answer};

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Wrong {
    /// Not PEM, or not a certificate.
    #[error("it is no certificate")]
    Unreadable,
    /// The roots that came with it are not those that were given.
    #[error("it comes with other roots than those of --trust")]
    OtherRoots,
    /// It does not lead to the roots, or is not valid now, or not for a client.
    #[error("its chain is not good: {0}")]
    Chain(String),
    /// It has another key than the request.
    #[error("it has another key than the request")]
    Key,
    /// It has another identity than the caller proved.
    #[error("it is for {0} instead of {1}")]
    Identity(String, String),
}

/// What was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Answers.
    pub answers: usize,
    /// What was wrong, and how often.
    pub wrong: BTreeMap<String, usize>,
}

/// Checks every answer, on all cores. With `trust`, each answer's roots have to be exactly these.
pub fn check(answers: &[Answer], pool: &Pool, trust: Option<&str>) -> Checked {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let parts = answers.chunks(answers.len().div_ceil(cores).max(1));
    let wrong = std::thread::scope(|scope| {
        let threads: Vec<_> = parts.map(|part| scope.spawn(|| check_part(part, pool, trust))).collect();
        let found = threads.into_iter().map(|thread| {
            // A panic while checking is a bug here: the answers of that part count as wrong.
            thread.join().unwrap_or_else(|_| vec![Wrong::Unreadable])
        });
        found.flatten().collect::<Vec<_>>()
    });
    let mut checked = Checked { answers: answers.len(), wrong: BTreeMap::new() };
    for wrong in wrong {
        *checked.wrong.entry(wrong.to_string()).or_default() += 1;
    }
    checked
}

fn check_part(answers: &[Answer], pool: &Pool, trust: Option<&str>) -> Vec<Wrong> {
    let same_issuers = |a: &Answer, b: &Answer| Arc::ptr_eq(&a.issuers, &b.issuers);
    let mut wrong = Vec::new();
    for group in answers.chunk_by(same_issuers) {
        let issuers = Issuers::read(&group[0].issuers, trust);
        let result = |answer: &Answer| issuers.as_ref().map_err(Clone::clone)?.check(answer, pool);
        wrong.extend(group.iter().filter_map(|answer| result(answer).err()));
    }
    wrong
}

/// Intermediates and roots.
pub struct Issuers {
    intermediates: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Issuers {
    /// From the tail of an answer: intermediates one by one, and all roots as the last text.
    pub fn read(texts: &[String], trust: Option<&str>) -> Result<Self, Wrong> {
        let (roots, intermediates) = texts.split_last().ok_or(Wrong::Unreadable)?;
        if trust.is_some_and(|trust| certificates(trust).ok() != certificates(roots).ok()) {
            return Err(Wrong::OtherRoots);
        }
        let intermediates =
            intermediates.iter().map(|text| certificates(text)).collect::<Result<Vec<_>, _>>()?;
        Self::new(intermediates.concat(), roots)
    }

    /// From intermediates and roots in PEM.
    pub fn new(intermediates: Vec<CertificateDer<'static>>, roots: &str) -> Result<Self, Wrong> {
        let mut store = RootCertStore::empty();
        for root in certificates(roots)? {
            store.add(root).map_err(|error| Wrong::Chain(error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider).build();
        let verifier = verifier.map_err(|error| Wrong::Chain(error.to_string()))?;
        Ok(Self { intermediates, verifier })
    }

    fn check(&self, answer: &Answer, pool: &Pool) -> Result<(), Wrong> {
        let leaf = CertificateDer::from_pem_slice(answer.leaf.as_bytes()).map_err(|_| Wrong::Unreadable)?;
        self.verify(&leaf)?;
        leaf_is(&leaf, &pool.get(answer.entry).public_key, answer.identity.as_deref())
    }

    /// Whether a certificate leads to the roots, now.
    pub fn verify(&self, leaf: &CertificateDer<'_>) -> Result<(), Wrong> {
        let verified = self.verifier.verify_client_cert(leaf, &self.intermediates, UnixTime::now());
        verified.map(drop).map_err(|error| Wrong::Chain(error.to_string()))
    }
}

/// All certificates of a PEM text, at least one.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or(Wrong::Unreadable)
}

/// Whether a certificate has this key and identity, and no other.
pub fn leaf_is(leaf: &[u8], public_key: &[u8], identity: Option<&str>) -> Result<(), Wrong> {
    let (_, certificate) =
        x509_parser::certificate::X509Certificate::from_der(leaf).map_err(|_| Wrong::Unreadable)?;
    if certificate.public_key().raw != public_key {
        return Err(Wrong::Key);
    }
    let Some(identity) = identity else { return Ok(()) };
    let names = certificate.subject_alternative_name().map_err(|_| Wrong::Unreadable)?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    match names {
        [GeneralName::URI(name)] if *name == identity => Ok(()),
        other => Err(Wrong::Identity(format!("{other:?}"), identity.to_owned())),
    }
}
