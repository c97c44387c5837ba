//! Threads beside the runtime's, for work that would keep those too long: signatures, disks, encoding. The system shares the
//! cores out between them and serving.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A queue of jobs, and the threads that do them in order. These end when the last clone is gone and everything is done.
#[derive(Clone, Debug)]
pub struct Workers {
    jobs: mpsc::Sender<Job>,
    queue: Arc<Mutex<mpsc::Receiver<Job>>>,
}

impl Default for Workers {
    /// Without a thread so far.
    fn default() -> Self {
        let (jobs, queue) = mpsc::channel();
        Self { jobs, queue: Arc::new(Mutex::new(queue)) }
    }
}

impl Workers {
    /// Starts one more thread.
    pub fn add(&self, name: &str) -> io::Result<()> {
        let queue = self.queue.clone();
        let work = move || {
            let next = || queue.lock().recv();
            while let Ok(job) = next() {
                // A bug in one must not take the others along; who waits for it is told.
                drop(catch_unwind(AssertUnwindSafe(job)));
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
    }

    /// Does something when what was there before is done, whether or not anybody still waits for it then. None: it panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        // Who does not wait any more does not want to know.
        self.put(move |answer| drop(answer.send(work()))).await
    }

    /// The same, unless nobody waits for it then.
    pub async fn run_if_awaited<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let work = move |answer: oneshot::Sender<T>| {
            if !answer.is_closed() {
                drop(answer.send(work()));
            }
        };
        self.put(work).await
    }

    async fn put<T: Send + 'static>(
        &self,
        work: impl FnOnce(oneshot::Sender<T>) + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Box::new(move || work(answer))).ok()?;
        answered.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn workers(count: usize) -> Workers {
        let workers = Workers::default();
        (0..count).for_each(|_| workers.add("test").unwrap());
        workers
    }

    #[tokio::test]
    async fn a_panic_is_told_and_the_threads_go_on() {
        let workers = workers(2);
        for _ in 0..4 {
            assert_eq!(workers.run(|| -> u8 { panic!("a bug, for the test") }).await, None);
        }
        assert_eq!(workers.run(|| 1).await, Some(1));
    }

    #[tokio::test]
    async fn jobs_run_in_order_beside_the_runtime_and_only_if_somebody_waits() {
        let workers = workers(2);
        let here = thread::current().id();
        assert_ne!(workers.run(|| thread::current().id()).await, Some(here));

        let (open, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        // Keep all threads busy.
        let busy = [(); 2].map(|()| {
            let (workers, gate) = (workers.clone(), gate.clone());
            tokio::spawn(async move { workers.run(move || gate.lock().recv()).await })
        });
        tokio::task::yield_now().await;
        let (ran, order) = mpsc::channel();
        let (dropped, done) = (ran.clone(), ran.clone());
        assert!(workers.run_if_awaited(move || dropped.send("dropped")).now_or_never().is_none());
        assert!(workers.run(move || done.send("done all the same")).now_or_never().is_none());
        let jobs = ["first", "second"].map(|name| {
            let ran = ran.clone();
            workers.run_if_awaited(move || ran.send(name))
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
        assert_eq!(order, ["done all the same", "first", "second"]);
    }
}
