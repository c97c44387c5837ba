//! A bound on how many streams begin at once.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Evenly spaced turns, as many as are allowed in a second.
#[derive(Debug)]
pub struct Rate {
    spacing: Duration,
    next: Mutex<Instant>,
}

impl Rate {
    /// `per_second` turns in a second.
    pub fn new(per_second: NonZeroU32) -> Self {
        Self { spacing: Duration::from_secs(1) / per_second.get(), next: Mutex::new(Instant::now()) }
    }

    /// Waits for a turn. False at once if it would not come within `patience`.
    pub async fn wait(&self, patience: Duration) -> bool {
        let Some(turn) = self.turn(Instant::now(), patience) else { return false };
        tokio::time::sleep_until(turn.into()).await;
        true
    }

    fn turn(&self, now: Instant, patience: Duration) -> Option<Instant> {
        let mut next = self.next.lock();
        let turn = (*next).max(now);
        if turn > now + patience {
            return None;
        }
        *next = turn + self.spacing;
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spaced_and_the_impatient_are_turned_away() {
        let rate = Rate::new(NonZeroU32::new(2).unwrap());
        let now = Instant::now();
        let ms = |n| Duration::from_millis(n);
        let turns: Vec<_> = (0..4).map(|_| rate.turn(now, ms(1000)).map(|t| t - now)).collect();
        assert_eq!(turns, [Some(ms(0)), Some(ms(500)), Some(ms(1000)), None]);
        assert_eq!(rate.turn(now + ms(5000), ms(0)), Some(now + ms(5000)), "unused turns are not saved up");
    }
}
