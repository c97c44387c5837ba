//! A steady open-loop load: requests leave at fixed times, whether or not earlier ones were answered.
//!
//! What could not be sent in time is skipped and counted, never caught up in a burst: a burst after a stall would
//! look like a failure of what is measured.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};

use crate::app::ANSWERED_BY;
use crate::http::{self, Connection};
use crate::netns::Ns;

/// A client's patience.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A request that is later than this is skipped.
const LATEST: Duration = Duration::from_millis(100);
const CONNECTIONS: u32 = 8;

/// One request's fate.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it was sent, since the load began.
    pub sent: Duration,
    pub took: Duration,
    /// HTTP status; 0 when there was no answer.
    pub status: u16,
    /// Who answered; without an answer, why not.
    pub by: String,
}

impl Sample {
    pub fn failed(&self) -> bool {
        !(200..400).contains(&self.status)
    }
}

/// A running load. Dropping it stops it.
pub struct Load {
    shared: Arc<Shared>,
    began: Instant,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    samples: Mutex<Vec<Sample>>,
    skipped: AtomicU64,
    stop: AtomicBool,
}

/// Where requests go: `host` is the name that the caller would use, `to` the address it resolves to.
#[derive(Clone)]
pub struct Target {
    pub to: SocketAddr,
    pub host: String,
}

impl Load {
    /// Sends `per_second` requests from inside `ns`, on a thread of its own.
    pub fn start(ns: &Ns, target: Target, per_second: u32) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let began = Instant::now();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("load's runtime")?;
        let (ns, work) = (ns.clone(), shared.clone());
        let (entered, has_entered) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let inside = ns.move_this_thread();
            let go = inside.is_ok();
            let _ = entered.send(inside); // the starter waits for it
            if go {
                let senders =
                    (0..CONNECTIONS).map(|lane| send(work.clone(), target.clone(), began, lane, per_second));
                runtime.block_on(futures::future::join_all(senders));
            }
        });
        has_entered.recv().context("load's thread ended")??;
        Ok(Self { shared, began, thread: Mutex::new(Some(thread)) })
    }

    /// The clock of the samples.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Samples from number `from` on, in the order in which they were finished.
    pub fn samples_from(&self, from: usize) -> Vec<Sample> {
        let samples = self.shared.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.get(from..).unwrap_or_default().to_vec()
    }

    /// Requests that were not sent because the machine was too busy.
    pub fn skipped(&self) -> u64 {
        self.shared.skipped.load(Ordering::Relaxed)
    }

    /// Waits until a request that was sent after `since` meets the condition; returns it.
    pub async fn first(
        &self,
        since: Duration,
        within: Duration,
        matches: impl Fn(&Sample) -> bool,
    ) -> Option<Sample> {
        let deadline = self.now() + within;
        let mut seen = 0;
        loop {
            let new = self.samples_from(seen);
            seen += new.len();
            let found = new.into_iter().filter(|sample| sample.sent >= since && matches(sample));
            if let Some(sample) = found.min_by_key(|sample| sample.sent) {
                return Some(sample);
            }
            if self.now() > deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the last `count` requests in a row meet the condition; false when `within` is over first.
    pub async fn settled(&self, count: usize, within: Duration, matches: impl Fn(&Sample) -> bool) -> bool {
        let (since, deadline) = (self.samples_from(0).len(), self.now() + within);
        while self.now() < deadline {
            let new = self.samples_from(since);
            if new.len() >= count && new.iter().rev().take(count).all(&matches) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Stops sending, waits for the last answers, and returns all samples by the time they were sent.
    pub fn finish(&self) -> Vec<Sample> {
        self.halt();
        let mut samples = self.samples_from(0);
        samples.sort_by_key(|sample| sample.sent);
        samples
    }

    fn halt(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            eprintln!("the load's thread panicked");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.halt();
    }
}

/// One lane: every `CONNECTIONS`-th request, over one kept-alive connection.
async fn send(shared: Arc<Shared>, target: Target, began: Instant, lane: u32, per_second: u32) {
    let mut connection = None;
    let mut due = began + Duration::from_secs(1) / per_second * lane;
    let step = Duration::from_secs(1) * CONNECTIONS / per_second;
    loop {
        sleep_until(due.into()).await;
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        if due.elapsed() < LATEST {
            let sent = Instant::now();
            let (status, by) = exchange(&mut connection, &target).await;
            let sample = Sample { sent: sent - began, took: sent.elapsed(), status, by };
            shared.samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
        } else {
            shared.skipped.fetch_add(1, Ordering::Relaxed);
        }
        due += step;
    }
}

/// Status and who answered, or 0 and why nobody did; then the connection is given up.
async fn exchange(slot: &mut Option<Connection>, target: &Target) -> (u16, String) {
    let attempt = async {
        let mut connection = match slot.take() {
            // Closed by the other side between two requests: not a failure, a client opens another.
            Some(mut open) => match open.ready().await {
                Ok(()) => open,
                Err(_) => connect(target).await?,
            },
            None => connect(target).await?,
        };
        let answer = http::request(&mut connection, "GET", &target.host, "/").await?;
        anyhow::Ok((connection, answer))
    };
    match timeout(TIMEOUT, attempt).await {
        Ok(Ok((connection, answer))) => {
            *slot = Some(connection);
            let by = answer.headers().get(ANSWERED_BY).and_then(|by| by.to_str().ok()).map(str::to_owned);
            let text = || String::from_utf8_lossy(answer.body()).trim().to_owned();
            (answer.status().as_u16(), by.unwrap_or_else(text))
        }
        Ok(Err(error)) => (0, format!("{error:#}")),
        Err(_) => (0, format!("no answer within {TIMEOUT:?}")),
    }
}

async fn connect(target: &Target) -> Result<Connection> {
    let stream = TcpStream::connect(target.to).await?;
    stream.set_nodelay(true)?;
    http::handshake(stream).await
}
