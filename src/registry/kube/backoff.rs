//! How long to wait before asking again.

use std::time::Duration;

/// Doubles from try to try; each wait is drawn from its upper half, so that many do not ask at once.
#[derive(Debug)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    tries: u32,
}

impl Backoff {
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, tries: 0 }
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next wait; not shorter than what the other side asks for.
    pub fn next(&mut self, at_least: Option<Duration>) -> Duration {
        let most = self.shortest.saturating_mul(1 << self.tries.min(16)).min(self.longest);
        self.tries = self.tries.saturating_add(1);
        let wait = jitter(most);
        // Those who were all told the same come back one after the other.
        at_least.map_or(wait, |least| wait.max(least + jitter(least / 4)))
    }
}

/// Between half of it and all of it.
pub fn jitter(most: Duration) -> Duration {
    most.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_bound_and_obeys() {
        let (shortest, longest) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(shortest, longest);
        for most in [100, 200, 400, 800, 1_600, 2_000, 2_000] {
            let wait = backoff.next(None).as_millis();
            assert!((most / 2..=most).contains(&wait), "{wait} of {most}");
        }
        (0..100).for_each(|_| assert!(backoff.next(None) <= longest));
        backoff.reset();
        assert!(backoff.next(None) <= shortest);
        let asked = Duration::from_secs(7);
        assert!((asked..asked + asked / 4).contains(&backoff.next(Some(asked))));
    }
}
