//! When a stream has to look again although nothing happened.

use std::{future::pending, pin::Pin, time::Instant};

use tokio::time::{Sleep, sleep_until};

/// A timer for a time that moves on with each response. Nearly always the answer comes first, so it is not set to a later time
/// before it rings: it may ring early.
#[derive(Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Rings at this time at the latest.
    pub fn set(&mut self, end: Option<Instant>) {
        let Some(end) = end.map(Into::into) else { return };
        if self.0.as_ref().is_none_or(|sleep| sleep.deadline() > end) {
            self.0 = Some(Box::pin(sleep_until(end)));
        }
    }

    /// Waits until it rings. May be dropped and called again.
    pub async fn rings(&mut self) {
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().await,
            None => pending().await,
        }
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn it_rings_at_the_first_of_its_times_and_once() {
        let after = |milliseconds| Some(Instant::now() + Duration::from_millis(milliseconds));
        let mut alarm = Alarm::default();
        for times in [[after(20), after(3_600_000)], [after(3_600_000), after(20)], [after(20), None]] {
            times.into_iter().for_each(|time| alarm.set(time));
            let rang = tokio::time::timeout(Duration::from_secs(60), alarm.rings()).await;
            assert!(rang.is_ok(), "{times:?}");
            assert!(alarm.rings().now_or_never().is_none(), "it was not set again");
        }
    }
}
