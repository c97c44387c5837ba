//! Threads that read and write snapshots: disks block, and encoding takes its time.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Snapshots that are read or written at a time: they take memory, and others want the disk, too.
const AT_ONCE: usize = 2;

type Job = Box<dyn FnOnce() + Send>;

/// The threads; they end when the last clone is gone and everything is done.
#[derive(Clone, Debug)]
pub struct Workers(mpsc::Sender<Job>);

impl Workers {
    /// Starts them.
    pub fn start() -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..AT_ONCE {
            let jobs = jobs.clone();
            thread::Builder::new().name("snapshots".into()).spawn(move || {
                loop {
                    let next = jobs.lock().recv();
                    let Ok(job) = next else { return };
                    // A bug in one must not take the others along; who waits for it is told.
                    drop(catch_unwind(AssertUnwindSafe(job)));
                }
            })?;
        }
        Ok(Self(sender))
    }

    /// Does something in turn; none if it panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        // Who does not wait any more does not want to know.
        self.0.send(Box::new(move || drop(answer.send(work())))).ok()?;
        answered.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_and_the_threads_go_on() {
        let workers = Workers::start().unwrap();
        for _ in 0..2 * AT_ONCE {
            assert_eq!(workers.run(|| -> u8 { panic!("a bug, for the test") }).await, None);
        }
        assert_eq!(workers.run(|| 1).await, Some(1));
    }
}
