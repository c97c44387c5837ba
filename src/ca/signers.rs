//! Threads for signatures that would keep the runtime's threads too long: many at a time, or with a slow key.

use std::{sync::Arc, thread};

use tracing::error;

use crate::workers::Workers;

/// The threads: one fewer than there are cores, so that signing alone never takes them all. They end when this is dropped.
#[derive(Debug)]
pub struct Signers(Workers);

impl Signers {
    /// Starts the threads.
    pub fn start() -> Arc<Self> {
        let workers = Workers::default();
        let count = thread::available_parallelism().map_or(1, |cores| cores.get() - 1).max(1);
        for _ in 0..count {
            if let Err(error) = workers.add("signer") {
                error!(%error, "no thread for signing: certificates may be late or missing");
            }
        }
        Arc::new(Self(workers))
    }

    /// Runs `job` when those before it are done, unless nobody waits for it then. None: it panicked.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        self.0.run_if_awaited(job).await
    }
}
