//! Where an issuer's keys come from, and how they are read. What is read is hostile until it is parsed: it is bounded in
//! size and time.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::{Certificate, Client, redirect::Policy};
use rustls::CertificateError;

use super::discovery;
use crate::authn::metrics::AuthnMetrics;

/// A key set of a large issuer has a few KiB.
pub(super) const MAX_BYTES: usize = 1024 * 1024;
/// For a request and its whole answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Some issuers send to their storage.
const REDIRECTS: usize = 3;

/// Where the keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file with a JSON Web Key Set.
    File(PathBuf),
    /// An address that serves one.
    Url(String),
    /// An issuer whose OpenID configuration says where they are.
    Discovery(String),
}

/// How keys are fetched over the network.
#[derive(Clone, Debug, Default)]
pub struct Fetching {
    /// PEM certificates of the authorities that alone are trusted. None: the system's.
    pub ca_file: Option<PathBuf>,
    /// What counts fetches.
    pub metrics: AuthnMetrics,
}

/// A source, ready to be read.
pub(super) struct Reader {
    pub source: Source,
    pub metrics: AuthnMetrics,
    ca_file: Option<PathBuf>,
    client: Mutex<Option<Made>>,
}

/// A client, and the content of the CA file that it was made with.
struct Made {
    roots: Vec<u8>,
    client: Client,
}

// === impl Source ===

impl Source {
    /// By OpenID discovery. The error says what an issuer's name has to be for that.
    pub fn discovery(issuer: &str) -> Result<Self, String> {
        match issuer.split_once("://") {
            Some(("https" | "http", host)) if !host.is_empty() => Ok(Self::Discovery(issuer.to_owned())),
            _ => Err(format!(
                "issuer `{issuer}` is no https address, so that its keys cannot be found by OpenID discovery: say where they are"
            )),
        }
    }

    /// Whether keys come over the network in plain text, where others may exchange them.
    pub fn is_plain(&self) -> bool {
        self.address().is_some_and(|address| !discovery::is_https(address))
    }

    pub(super) fn is_file(&self) -> bool {
        self.address().is_none()
    }

    fn address(&self) -> Option<&str> {
        match self {
            Self::File(_) => None,
            Self::Url(address) | Self::Discovery(address) => Some(address),
        }
    }
}

impl std::str::FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once("://") {
            Some(("https" | "http", _)) => Ok(Self::Url(text.to_owned())),
            Some((scheme, _)) => Err(format!("`{scheme}` is not http, https or a file's path")),
            None if text.is_empty() => Err("an address or a file's path is needed".to_owned()),
            None => Ok(Self::File(text.into())),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => url.fmt(f),
            Self::Discovery(issuer) => discovery::document(issuer).fmt(f),
        }
    }
}

// === impl Reader ===

impl Reader {
    /// Fails where the CA file cannot be used, or no HTTP client can be made.
    pub fn new(source: Source, fetching: Fetching) -> Result<Self, String> {
        let Fetching { ca_file, metrics } = fetching;
        let reader = Self { source, metrics, ca_file, client: Mutex::new(None) };
        if !reader.source.is_file() {
            let roots = match &reader.ca_file {
                Some(path) => std::fs::read(path).map_err(|error| ca_error(path, error))?,
                None => Vec::new(),
            };
            reader.client_with(roots)?;
        }
        Ok(reader)
    }

    /// The key set as it is now. The error says what happened, where, and with which remedy.
    pub async fn read(&self) -> Result<Vec<u8>, String> {
        let (issuer, mut url) = match &self.source {
            Source::File(path) => {
                // A file may be a device without an end.
                let content =
                    tokio::fs::read(path).await.map_err(|error| format!("{}: {error}", path.display()))?;
                return if content.len() > MAX_BYTES {
                    Err(format!("{}: {}", path.display(), too_long()))
                } else {
                    Ok(content)
                };
            }
            Source::Url(url) => (None, url.clone()),
            Source::Discovery(issuer) => (Some(issuer), discovery::document(issuer)),
        };
        let client = self.client().await?;
        if let Some(issuer) = issuer {
            let document = self.fetch(&client, &url).await?;
            url = discovery::keys(&document, issuer).map_err(|reason| format!("{url}: {reason}"))?;
        }
        self.fetch(&client, &url).await
    }

    /// Made again when the CA file has another content: authorities rotate, too.
    async fn client(&self) -> Result<Client, String> {
        let roots = match &self.ca_file {
            Some(path) => tokio::fs::read(path).await.map_err(|error| ca_error(path, error))?,
            None => Vec::new(),
        };
        let made =
            self.client.lock().as_ref().filter(|made| made.roots == roots).map(|made| made.client.clone());
        made.map_or_else(|| self.client_with(roots), Ok)
    }

    fn client_with(&self, roots: Vec<u8>) -> Result<Client, String> {
        let builder = Client::builder().timeout(FETCH_TIMEOUT).redirect(Policy::limited(REDIRECTS));
        let mut builder = builder.https_only(!self.source.is_plain());
        if let Some(path) = &self.ca_file {
            let certificates =
                Certificate::from_pem_bundle(&roots).map_err(|error| ca_error(path, describe(&error)))?;
            if certificates.is_empty() {
                return Err(ca_error(path, "it holds no PEM certificate"));
            }
            builder = builder.tls_certs_only(certificates);
        }
        let client = builder.build().map_err(|error| format!("no HTTPS client: {}", describe(&error)))?;
        *self.client.lock() = Some(Made { roots, client: client.clone() });
        Ok(client)
    }

    async fn fetch(&self, client: &Client, url: &str) -> Result<Vec<u8>, String> {
        let failed = |error: reqwest::Error| {
            let remedy = if is_unknown_authority(&error) {
                match &self.ca_file {
                    Some(path) => format!("; {} has other authorities than its", path.display()),
                    None => "; give its authority with --jwks-ca-file".to_owned(),
                }
            } else {
                String::new()
            };
            format!("{url}: {}{remedy}", describe(&error.without_url()))
        };
        let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
        let mut response = response.map_err(failed)?;
        let mut content = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            content.extend_from_slice(&chunk);
            if content.len() > MAX_BYTES {
                return Err(format!("{url}: {}", too_long()));
            }
        }
        Ok(content)
    }
}

fn ca_error(path: &Path, reason: impl fmt::Display) -> String {
    format!("--jwks-ca-file {}: {reason}", path.display())
}

fn too_long() -> &'static str {
    "more than 1 MiB: that is no key set"
}

/// The cause is what helps ("connection refused", "certificate has expired"), and reqwest keeps it inside.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |error| error.source()) {
        text.push_str(": ");
        text.push_str(&cause.to_string());
    }
    text
}

/// Whether TLS failed because nobody that is trusted vouches for the server.
fn is_unknown_authority(error: &reqwest::Error) -> bool {
    // The latter, if the authority has only the name in common with one that is trusted.
    let unknown = |error: &CertificateError| {
        matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature)
    };
    matches!(tls_error(error), Some(rustls::Error::InvalidCertificate(error)) if unknown(error))
}

/// An I/O error has its cause in it, and does not call it its source.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(error);
    }
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    tls_error(inner.map(|inner| inner as _).or(error.source())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_file_or_a_url() {
        assert_eq!("/a/b".parse(), Ok(Source::File("/a/b".into())));
        assert_eq!("https://a/b".parse(), Ok(Source::Url("https://a/b".into())));
        assert!("ftp://a".parse::<Source>().is_err());
        assert!("".parse::<Source>().is_err());
    }

    #[test]
    fn only_addresses_can_be_discovered() {
        assert_eq!(
            Source::discovery("https://a").unwrap().to_string(),
            "https://a/.well-known/openid-configuration"
        );
        for issuer in ["", "kubernetes/serviceaccount", "https://", "file:///a"] {
            assert!(Source::discovery(issuer).unwrap_err().contains("OpenID discovery"), "{issuer}");
        }
    }

    #[test]
    fn what_comes_in_plain_text_is_known() {
        for (source, plain) in [("/a", false), ("https://a", false), ("http://a", true)] {
            assert_eq!(source.parse::<Source>().unwrap().is_plain(), plain, "{source}");
        }
        assert!(Source::discovery("http://a").unwrap().is_plain());
    }

    #[test]
    fn a_ca_file_that_cannot_be_used_is_said_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let read = || {
            let fetching = Fetching { ca_file: Some(path.clone()), ..Fetching::default() };
            Reader::new("https://a".parse().unwrap(), fetching).err().unwrap()
        };
        assert!(read().contains("No such file"), "{}", read());
        std::fs::write(&path, "garbage").unwrap();
        assert!(read().contains("no PEM certificate"), "{}", read());
    }
}
