//! Gives memory back: what was kept for streams that might come, and more when streams have gone.
//!
//! What thousands of streams needed lies scattered in the allocator's heaps, which glibc keeps for the next ones: after
//! 1,000 streams had gone, the process still had three times what it began with. It can only take back whole pages, so that
//! little things which streams left behind would keep most of them: these go first.

use std::{sync::Weak, thread, time::Duration};

use tracing::warn;

use crate::xds::server::Context;

/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(2);
/// So many streams fewer are worth the work, which takes tens of milliseconds.
const WORTH: usize = 100;

/// Watches the streams until their context is gone. On a thread of its own, as giving back takes long for a task.
pub fn spawn(context: Weak<Context>) {
    let watching = thread::Builder::new().name("memory".to_owned()).spawn(move || {
        let mut most = 0;
        while let Some(context) = context.upgrade() {
            context.shared.age();
            if worth(&mut most, context.streams.len()) {
                context.shared.forget();
                give_back();
            }
            drop(context);
            thread::sleep(INTERVAL);
        }
    });
    if let Err(error) = watching {
        warn!(%error, "memory of streams that have gone will be kept");
    }
}

/// Whether enough streams have gone since there were `most`.
fn worth(most: &mut usize, now: usize) -> bool {
    *most = (*most).max(now);
    let worth = *most - now >= WORTH;
    if worth {
        *most = now;
    }
    worth
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> i32;
    }
    // SAFETY: takes glibc's own locks, and touches no memory that is in use.
    unsafe {
        malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_when_enough_streams_have_gone() {
        let mut most = 0;
        let counts = [0, 1000, 950, 901, 900, 850, 801, 800, 2000, 0, 0];
        let worth: Vec<bool> = counts.iter().map(|now| worth(&mut most, *now)).collect();
        let expected = [false, false, false, false, true, false, false, true, false, true, false];
        assert_eq!(worth, expected);
    }
}
