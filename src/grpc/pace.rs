//! Whether a client takes what it is sent.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Since when one call waits for its client: bytes were given to HTTP/2, and it has no room for more.
///
/// HTTP/2 polls a body only when the client took what the body gave before. So a body cannot notice by itself that nobody
/// reads; somebody else has to look from time to time.
#[derive(Debug, Default)]
pub struct Pace {
    /// Milliseconds since [`START`], and one; zero while nothing is waited for.
    waiting: AtomicU64,
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Pace {
    /// Bytes are handed to HTTP/2.
    pub(super) fn handed(&self) {
        let now = u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.waiting.store(now + 1, Ordering::Relaxed);
    }

    /// HTTP/2 has room again.
    pub(super) fn taken(&self) {
        self.waiting.store(0, Ordering::Relaxed);
    }

    /// Whether the client has taken nothing for so long although something waits for it.
    pub fn stalled(&self, patience: Duration) -> bool {
        let since = self.waiting.load(Ordering::Relaxed);
        since > 0 && START.elapsed() >= Duration::from_millis(since - 1) + patience
    }
}
