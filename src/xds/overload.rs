//! What one process takes on, so that those who are served already stay served.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Status;

use super::metrics::Metrics;

/// The bounds of one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// New streams are refused while the process has more resident memory than this.
    pub memory_bytes: Option<u64>,
    /// While there are more streams, some are asked to connect elsewhere.
    pub streams: Option<usize>,
}

/// How much there is to do, and what is not taken on. Shared by all ports.
#[derive(Debug)]
pub struct Overload {
    bounds: Bounds,
    streams: AtomicUsize,
    handshakes: Semaphore,
    memory: Mutex<(Instant, u64)>,
    metrics: Metrics,
}

/// Counts a stream until dropped.
#[derive(Debug)]
pub struct Admitted(Arc<Overload>);

/// Memory is looked at so often: a storm brings a few hundred streams in this time.
const LOOK: Duration = Duration::from_millis(100);

/// For so long a refused client shall wait, half more or less.
const PUSHBACK: Duration = Duration::from_secs(10);

/// Of the connections that are too many, this part is shed at once. The others may have somewhere to go only when
/// these have arrived.
const SHED_PART: f64 = 0.1;

impl Overload {
    /// Within these bounds.
    pub fn new(bounds: Bounds, metrics: Metrics) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            bounds,
            streams: AtomicUsize::new(0),
            handshakes: Semaphore::new(2 * cores),
            memory: Mutex::new((Instant::now(), resident_bytes())),
            metrics,
        }
    }

    /// A turn to compute one handshake's secrets. That takes longest of all that a connection does; with thousands of
    /// them at once, whoever is connected already would wait behind all of them.
    pub async fn handshake(&self) -> Option<SemaphorePermit<'_>> {
        self.handshakes.acquire().await.ok()
    }

    /// Takes on one more stream, or says why not and when to come again.
    pub fn admit(self: &Arc<Self>) -> Result<Admitted, Status> {
        if let Some(limit) = self.bounds.memory_bytes
            && self.resident_bytes() > limit
        {
            self.metrics.refused_stream("memory");
            return Err(come_again(
                "the server is at its limit of memory; connect again later, or elsewhere",
            ));
        }
        self.streams.fetch_add(1, Ordering::Relaxed);
        Ok(Admitted(self.clone()))
    }

    /// How many of a port's connections shall be shed now.
    pub fn shed(&self, connections: usize) -> usize {
        let streams = self.streams.load(Ordering::Relaxed);
        let Some(excess) = self.bounds.streams.and_then(|most| streams.checked_sub(most)) else { return 0 };
        // This port's part of them, and not the same number at each replica.
        let part = excess as f64 * connections as f64 / streams.max(1) as f64;
        let wanted = (part * SHED_PART * rand::rng().random_range(0.5..1.5)).ceil() as usize;
        wanted.min(connections)
    }

    /// Notes that so many were shed.
    pub(super) fn was_shed(&self, connections: usize) {
        self.metrics.shed(connections);
    }

    fn resident_bytes(&self) -> u64 {
        let mut memory = self.memory.lock();
        if memory.0.elapsed() >= LOOK {
            *memory = (Instant::now(), resident_bytes());
        }
        memory.1
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A status with which gRPC clients try again, and when.
fn come_again(reason: &str) -> Status {
    let mut status = Status::unavailable(reason);
    let wait = PUSHBACK.mul_f64(rand::rng().random_range(0.5..1.5));
    if let Ok(wait) = wait.as_millis().to_string().parse() {
        status.metadata_mut().insert("grpc-retry-pushback-ms", wait);
    }
    status
}

/// What the process has in memory now; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use tonic::Code;

    use super::*;

    fn overload(bounds: Bounds) -> Arc<Overload> {
        Arc::new(Overload::new(bounds, Metrics::register(&mut Registry::default())))
    }

    #[test]
    fn without_bounds_everything_is_taken_on() {
        let overload = overload(Bounds::default());
        let all: Vec<_> = (0..1000).map(|_| overload.admit().expect("no bound")).collect();
        assert_eq!((all.len(), overload.shed(1000)), (1000, 0));
    }

    #[test]
    fn above_the_memory_limit_new_streams_are_told_to_come_again() {
        let resident = resident_bytes();
        assert!(resident > 0, "this process has memory");
        let roomy = overload(Bounds { memory_bytes: Some(resident * 100), streams: None });
        assert!(roomy.admit().is_ok());
        let full = overload(Bounds { memory_bytes: Some(resident / 100), streams: None });
        let status = full.admit().expect_err("over the limit");
        assert_eq!(status.code(), Code::Unavailable);
        let wait = status.metadata().get("grpc-retry-pushback-ms").expect("when to come again");
        let wait: u64 = wait.to_str().expect("digits").parse().expect("digits");
        assert!((5_000..=15_000).contains(&wait), "{wait} ms");
    }

    #[test]
    fn a_part_of_the_excess_is_shed_at_each_port() {
        let overload = overload(Bounds { memory_bytes: None, streams: Some(100) });
        let mut all: Vec<_> = (0..300).filter_map(|_| overload.admit().ok()).collect();
        for _ in 0..100 {
            // 200 too many; two thirds of them are this port's.
            assert!((6..=20).contains(&overload.shed(200)));
            assert_eq!(overload.shed(0), 0);
        }
        all.truncate(101);
        assert_eq!(overload.shed(101), 1, "at least one");
        all.truncate(100);
        assert_eq!(overload.shed(100), 0);
    }
}
