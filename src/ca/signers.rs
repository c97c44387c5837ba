//! Threads for signatures that would keep the runtime's threads too long: many at a time, or with a slow key.
//!
//! They are not the runtime's, so the system shares the cores out between signing and serving. There is one fewer than
//! there are cores, so that signing alone never takes them all.

use std::sync::{Arc, mpsc};
use std::thread;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::error;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end when this is dropped, after the job that each is at.
#[derive(Debug)]
pub struct Signers {
    jobs: mpsc::Sender<Job>,
}

// === impl Signers ===

impl Signers {
    /// Starts the threads.
    pub fn start() -> Arc<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let count = thread::available_parallelism().map_or(1, |cores| cores.get() - 1).max(1);
        for _ in 0..count {
            let queue = queue.clone();
            let work = move || {
                let next = || queue.lock().recv();
                while let Ok(job) = next() {
                    job();
                }
            };
            if let Err(error) = thread::Builder::new().name("signer".to_owned()).spawn(work) {
                error!(%error, "no thread for signing: certificates may be late or missing");
            }
        }
        Arc::new(Self { jobs })
    }

    /// Runs `job` when those before it are done, unless nobody waits for it then. None: it panicked, or there are no
    /// threads.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (done, outcome) = oneshot::channel();
        let job = move || {
            if !done.is_closed() {
                let _ = done.send(job());
            }
        };
        self.jobs.send(Box::new(job)).ok()?;
        outcome.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn jobs_run_in_order_beside_the_runtime_and_only_if_somebody_waits() {
        let signers = Signers::start();
        let here = thread::current().id();
        assert_ne!(signers.run(|| thread::current().id()).await, Some(here));

        let (open, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        // Keep all threads busy.
        let busy: Vec<_> = (0..thread::available_parallelism().unwrap().get())
            .map(|_| {
                let (signers, gate) = (signers.clone(), gate.clone());
                tokio::spawn(async move { signers.run(move || gate.lock().recv()).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let (ran, order) = mpsc::channel();
        let dropped = ran.clone();
        assert!(signers.run(move || dropped.send("dropped")).now_or_never().is_none());
        let jobs = ["first", "second"].map(|name| {
            let ran = ran.clone();
            signers.run(move || ran.send(name))
        });
        let waiting = futures::future::join_all(jobs);
        drop(open);
        assert!(waiting.await.into_iter().all(|sent| sent.is_some()));
        for job in busy {
            assert!(job.await.unwrap().is_some());
        }
        drop(ran);
        let mut order: Vec<_> = order.into_iter().collect();
        order.sort_unstable();
        assert_eq!(order, ["first", "second"]);
    }
}
