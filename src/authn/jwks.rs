//! The keys of an issuer, kept fresh from a file, a URL or the issuer's OpenID configuration. What was read last stays good
//! when the source fails.

mod discovery;
mod source;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use self::source::Reader;
pub use self::source::{Fetching, Source};
use super::jwt::{KeySet, Token, TokenError};

/// A file costs nothing to look at.
const FILE_INTERVAL: Duration = Duration::from_secs(5);
/// Kubernetes keeps the old key valid for a day after a rotation; unknown keys cause a look at once.
const URL_INTERVAL: Duration = Duration::from_secs(300);
/// The shortest time between two fetches that tokens with unknown keys can cause: anybody can send such tokens.
const MIN_GAP: Duration = Duration::from_secs(2);
const MAX_BACK_OFF: Duration = Duration::from_secs(60);

/// The keys of an issuer.
pub struct Jwks {
    current: ArcSwapOption<KeySet>,
    reader: Option<Reader>,
    attempts: Mutex<Attempts>,
}

#[derive(Default)]
struct Attempts {
    last: Option<Instant>,
    failures: u32,
    last_error: String,
    content: Vec<u8>,
}

// === impl Jwks ===

impl Jwks {
    /// Keys that never change.
    pub fn fixed(keys: KeySet) -> Self {
        Self { current: ArcSwapOption::from_pointee(keys), reader: None, attempts: Mutex::default() }
    }

    /// Keys from a source; read by [`Jwks::run`], or when the first token comes. Fails where the CA file cannot be used, or no
    /// HTTP client can be made; the error says why.
    pub fn from_source(source: Source, fetching: Fetching) -> Result<Self, String> {
        let reader = Some(Reader::new(source, fetching)?);
        Ok(Self { current: ArcSwapOption::empty(), reader, attempts: Mutex::default() })
    }

    /// Reads the source for ever: at its interval, and after a failure sooner, with a back-off.
    pub async fn run(&self) {
        let Some(Reader { source, .. }) = &self.reader else { return };
        let interval = if source.is_file() { FILE_INTERVAL } else { URL_INTERVAL };
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
            None => {
                let reason = self.attempts.lock().await.last_error.clone();
                let reason = if reason.is_empty() { "they were not read yet".to_owned() } else { reason };
                Err(TokenError::NoKeys(reason))
            }
        }
    }

    /// Reads the source, unless that was done since `asked` or less than `gap` (of the number of failures) ago. Many
    /// callers at once cause one read. `Err` holds the number of failures in a row.
    async fn refresh(&self, asked: Instant, gap: impl Fn(u32) -> Duration) -> Result<(), u32> {
        let Some(reader @ Reader { source, metrics, .. }) = &self.reader else { return Ok(()) };
        let mut attempts = self.attempts.lock().await;
        let gap = gap(attempts.failures);
        if attempts.last.is_some_and(|last| last >= asked || last.elapsed() < gap) {
            return if attempts.failures > 0 { Err(attempts.failures) } else { Ok(()) };
        }
        // Now, too: whoever asked may go away before the answer is there, and ask again.
        attempts.last = Some(Instant::now());
        let read = reader.read().await;
        attempts.last = Some(Instant::now());
        let parsed = read.and_then(|content| {
            if content == attempts.content && attempts.failures == 0 {
                return Ok(None);
            }
            let keys = KeySet::parse(&content).map_err(|reason| format!("{source}: {reason}"))?;
            Ok(Some((content, keys)))
        });
        if !source.is_file() {
            metrics.fetched(parsed.is_ok());
        }
        match parsed {
            Ok(new) => {
                attempts.failures = 0;
                metrics.read(source.to_string());
                if let Some((content, keys)) = new {
                    info!(%source, ?keys, "token issuer's keys read");
                    self.current.store(Some(Arc::new(keys)));
                    attempts.content = content;
                }
                Ok(())
            }
            Err(error) => {
                attempts.failures = attempts.failures.saturating_add(1);
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
        let source = self.reader.as_ref().map(|reader| reader.source.to_string());
        f.debug_struct("Jwks").field("source", &source).field("keys", &*self.current.load()).finish()
    }
}

/// 1, 2, 4 … 60 seconds.
fn back_off(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.saturating_sub(1).min(6)).min(MAX_BACK_OFF)
}

#[cfg(test)]
mod tests;
