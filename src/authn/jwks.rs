//! The keys of an issuer, kept fresh from a file or a URL. What was read last stays good when the source fails.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::jwt::{KeySet, Token, TokenError};

/// A key set of a large issuer has a few KiB.
const MAX_BYTES: usize = 1024 * 1024;
/// A file costs nothing to look at.
const FILE_INTERVAL: Duration = Duration::from_secs(5);
/// Kubernetes keeps the old key valid for a day after a rotation; unknown keys cause a look at once.
const URL_INTERVAL: Duration = Duration::from_secs(300);
/// The shortest time between two fetches that tokens with unknown keys can cause: anybody can send such tokens.
const MIN_GAP: Duration = Duration::from_secs(2);
const MAX_BACK_OFF: Duration = Duration::from_secs(60);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file with a JSON Web Key Set.
    File(PathBuf),
    /// An address that serves one.
    Url(String),
}

/// The keys of an issuer.
pub struct Jwks {
    current: ArcSwapOption<KeySet>,
    source: Option<(Source, reqwest::Client)>,
    attempts: Mutex<Attempts>,
}

#[derive(Default)]
struct Attempts {
    last: Option<Instant>,
    failures: u32,
    last_error: String,
    content: Vec<u8>,
}

// === impl Source ===

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
        }
    }
}

// === impl Jwks ===

impl Jwks {
    /// Keys that never change.
    pub fn fixed(keys: KeySet) -> Self {
        Self { current: ArcSwapOption::from_pointee(keys), source: None, attempts: Mutex::default() }
    }

    /// Keys from a source; read by [`Jwks::run`], or when the first token comes. Fails only when no HTTP client can be made.
    pub fn from_source(source: Source) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder().timeout(FETCH_TIMEOUT).build()?;
        Ok(Self {
            current: ArcSwapOption::empty(),
            source: Some((source, client)),
            attempts: Mutex::default(),
        })
    }

    /// Reads the source for ever: at its interval, and after a failure sooner, with a back-off.
    pub async fn run(&self) {
        let Some((source, _)) = &self.source else { return };
        let interval = match source {
            Source::File(_) => FILE_INTERVAL,
            Source::Url(_) => URL_INTERVAL,
        };
        loop {
            let pause = match self.refresh(Instant::now(), |_| Duration::ZERO).await {
                Ok(()) => interval,
                Err(failures) => back_off(failures),
            };
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.9..1.1))).await;
        }
    }

    /// Whether these are the keys in use.
    pub fn are(&self, keys: &Arc<KeySet>) -> bool {
        self.current.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, keys))
    }

    /// Checks a token's signature; when the keys do not include the token's, reads the source once more first. Returns
    /// the keys that were used.
    pub async fn verify(&self, token: &Token<'_>) -> Result<Arc<KeySet>, TokenError> {
        let asked = Instant::now();
        if let Some(keys) = self.current.load_full() {
            match keys.verify(token) {
                Err(TokenError::UnknownKey { .. }) => {}
                outcome => return outcome.map(|()| keys),
            }
        }
        // A failure is told by what is missing afterwards.
        let _ = self.refresh(asked, |failures| if failures > 0 { back_off(failures) } else { MIN_GAP }).await;
        match self.current.load_full() {
            Some(keys) => keys.verify(token).map(|()| keys),
            None => Err(TokenError::NoKeys(self.attempts.lock().await.last_error.clone())),
        }
    }

    /// Reads the source, unless that was done since `asked` or less than `gap` (of the number of failures) ago. Many
    /// callers at once cause one read. `Err` holds the number of failures in a row.
    async fn refresh(&self, asked: Instant, gap: impl Fn(u32) -> Duration) -> Result<(), u32> {
        let Some((source, client)) = &self.source else { return Ok(()) };
        let mut attempts = self.attempts.lock().await;
        let gap = gap(attempts.failures);
        if attempts.last.is_some_and(|last| last >= asked || last.elapsed() < gap) {
            return if attempts.failures > 0 { Err(attempts.failures) } else { Ok(()) };
        }
        let read = read(source, client).await;
        attempts.last = Some(Instant::now());
        let parsed = read.and_then(|content| {
            if content == attempts.content && attempts.failures == 0 {
                return Ok(None);
            }
            KeySet::parse(&content).map(|keys| Some((content, keys)))
        });
        match parsed {
            Ok(new) => {
                attempts.failures = 0;
                if let Some((content, keys)) = new {
                    info!(%source, ?keys, "token issuer's keys read");
                    self.current.store(Some(Arc::new(keys)));
                    attempts.content = content;
                }
                Ok(())
            }
            Err(error) => {
                attempts.failures = attempts.failures.saturating_add(1);
                let error = format!("{source}: {error}");
                let keeps = if self.current.load().is_some() {
                    "the keys read before stay in use"
                } else {
                    "no token of this issuer is accepted"
                };
                warn!(%error, failures = attempts.failures, retry_in = ?back_off(attempts.failures), "token issuer's keys cannot be read: {keeps}");
                attempts.last_error = error;
                Err(attempts.failures)
            }
        }
    }
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source.as_ref().map(|(source, _)| source.to_string());
        f.debug_struct("Jwks").field("source", &source).field("keys", &*self.current.load()).finish()
    }
}

async fn read(source: &Source, client: &reqwest::Client) -> Result<Vec<u8>, String> {
    match source {
        Source::File(path) => {
            let content = tokio::fs::read(path).await.map_err(|error| error.to_string())?;
            if content.len() > MAX_BYTES { Err(too_long()) } else { Ok(content) }
        }
        Source::Url(url) => {
            let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
            let mut response = response.map_err(describe)?;
            let mut content = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(describe)? {
                content.extend_from_slice(&chunk);
                if content.len() > MAX_BYTES {
                    return Err(too_long());
                }
            }
            Ok(content)
        }
    }
}

fn too_long() -> String {
    "more than 1 MiB: that is no key set".to_owned()
}

/// The cause is what helps ("connection refused", "certificate has expired"), and reqwest keeps it inside.
fn describe(error: reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// 1, 2, 4 … 60 seconds.
fn back_off(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.saturating_sub(1).min(6)).min(MAX_BACK_OFF)
}

#[cfg(test)]
mod tests;
