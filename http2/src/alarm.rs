//! Timers that nearly never ring.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that many other things are polled together with. Between being set and ringing it costs a look at the clock, and none
/// at the runtime's timer: with ten thousand of them, that is memory which is not in the processor's cache.
#[derive(Debug, Default)]
pub struct Alarm {
    at: Option<Instant>,
    /// Kept, and moved, when the alarm is set to another time.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whom the timer will wake at that time.
    told: Option<Waker>,
}

impl Alarm {
    /// An alarm that is set.
    pub fn new(at: Instant) -> Self {
        let mut alarm = Self::default();
        alarm.set(at);
        alarm
    }

    /// Rings at this time, and not at the one that was set before.
    pub fn set(&mut self, at: Instant) {
        (self.at, self.told) = (Some(at), None);
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(at);
        }
    }

    /// Rings at this time at the latest: where the time moves on and on, and what is waited for nearly always comes first, setting
    /// it anew costs more than ringing for nothing.
    pub fn set_at_the_latest(&mut self, at: Instant) {
        if self.at.is_none_or(|before| before > at) {
            self.set(at);
        }
    }

    /// Ready when it rings; then it is set no more.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let told = self.told.as_ref().is_some_and(|told| told.will_wake(cx.waker()));
        if told && Instant::now() < at {
            return Poll::Pending;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.as_mut().poll(cx).is_pending() {
            self.told = Some(cx.waker().clone());
            return Poll::Pending;
        }
        (self.at, self.told) = (None, None);
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    fn rings_for_nobody(alarm: &mut Alarm) -> bool {
        alarm.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    async fn rings(alarm: &mut Alarm) {
        poll_fn(|cx| alarm.poll(cx)).await;
    }

    fn after(milliseconds: u64) -> Instant {
        Instant::now() + Duration::from_millis(milliseconds)
    }

    #[tokio::test]
    async fn it_rings_once_at_the_time_that_was_set_last() {
        let mut alarm = Alarm::default();
        assert!(!rings_for_nobody(&mut alarm), "it was not set");
        for times in [[20, 3_600_000], [3_600_000, 20], [20, 20]] {
            for milliseconds in times {
                alarm.set(after(milliseconds));
                assert!(!rings_for_nobody(&mut alarm));
            }
            let rang = tokio::time::timeout(Duration::from_secs(1), rings(&mut alarm)).await;
            assert_eq!(rang.is_ok(), times[1] == 20, "{times:?}");
        }
        assert!(!rings_for_nobody(&mut alarm), "it was not set again");
    }

    #[tokio::test]
    async fn it_may_be_made_earlier_only() {
        let mut alarm = Alarm::new(after(3_600_000));
        alarm.set_at_the_latest(after(20));
        alarm.set_at_the_latest(after(3_600_000));
        assert!(tokio::time::timeout(Duration::from_secs(60), rings(&mut alarm)).await.is_ok());
    }
}
