//! What a client may do that brings nothing.

use std::time::Instant;

use super::error::{Violation, code};

/// Bounds what costs us and is of no use to a client that means well: resets, pings, settings, empty frames.
#[derive(Debug)]
pub struct Patience {
    /// So many times.
    left: u32,
    since: Instant,
}

impl Patience {
    const MOST: u32 = 1_000;
    const PER_SECOND: u32 = 100;

    /// All of it.
    pub fn new() -> Self {
        Self { left: Self::MOST, since: Instant::now() }
    }

    /// Once more. An error: it is over.
    pub fn spend(&mut self) -> Result<(), Violation> {
        let seconds = u32::try_from(self.since.elapsed().as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            self.left = self.left.saturating_add(seconds.saturating_mul(Self::PER_SECOND)).min(Self::MOST);
            self.since = Instant::now();
        }
        let calm = Violation { code: code::ENHANCE_YOUR_CALM, why: "too many resets, pings or empty frames" };
        self.left = self.left.checked_sub(1).ok_or(calm)?;
        Ok(())
    }
}
