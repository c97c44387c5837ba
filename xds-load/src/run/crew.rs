//! The threads of a run: what they are told, what they are asked, and what they have counted so far.

use std::{
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
    thread::{self, JoinHandle},
    time::Instant,
};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    shard::{self, Command, Live, Plan, Snapshot},
    sum,
};

/// All threads.
pub struct Crew {
    lives: Vec<Arc<Live>>,
    commands: Vec<UnboundedSender<Command>>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

/// Sums over all threads.
#[derive(Clone, Copy, Default)]
pub struct Now {
    pub connected: u64,
    pub configured: u64,
    pub responses: u64,
    pub resources: u64,
    pub received: u64,
    pub sent: u64,
    pub met: u64,
    pub lost: u64,
    /// Milliseconds since the beginning.
    pub last: u64,
}

impl Crew {
    /// Starts as many as the plan says.
    pub fn start(plan: &Arc<Plan>, began: Instant) -> Result<Self> {
        let mut crew = Self { lives: Vec::new(), commands: Vec::new(), threads: Vec::new() };
        for number in 0..plan.threads {
            let live = Arc::new(Live::default());
            let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
            let (plan, its_live) = (Arc::clone(plan), Arc::clone(&live));
            let thread = thread::Builder::new()
                .name(format!("proxies-{number}"))
                .spawn(move || shard::run(plan, its_live, number, began, receiver))
                .context("start a thread")?;
            crew.lives.push(live);
            crew.commands.push(sender);
            crew.threads.push(thread);
        }
        Ok(crew)
    }

    /// How things stand.
    pub fn now(&self) -> Now {
        let mut now = Now::default();
        for live in &self.lives {
            let read = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
            now.connected += read(&live.connected);
            now.configured += read(&live.configured);
            now.responses += read(&live.responses);
            now.resources += read(&live.resources);
            now.received += read(&live.received);
            now.sent += read(&live.sent);
            now.met += read(&live.met);
            now.lost += read(&live.lost);
            now.last = now.last.max(read(&live.last));
        }
        now
    }

    /// Tells each thread.
    pub fn tell(&self, command: impl Fn() -> Command) {
        // A thread that ended is noticed when it is joined.
        self.commands.iter().for_each(|thread| _ = thread.send(command()));
    }

    /// Asks each thread; the answers come through the receivers.
    pub fn ask<T>(&self, command: impl Fn(std::sync::mpsc::Sender<T>) -> Command) -> Vec<Receiver<T>> {
        let ask = |thread: &UnboundedSender<Command>| {
            let (sender, receiver) = std::sync::mpsc::channel();
            _ = thread.send(command(sender));
            receiver
        };
        self.commands.iter().map(ask).collect()
    }

    /// What all have counted.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Ok(sum(collect(self.ask(Command::Snapshot))?))
    }

    /// Ends the threads, with all that they have.
    pub fn end(&mut self) -> Result<()> {
        self.commands.clear();
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow::anyhow!("a thread of proxies panicked"))??;
        }
        Ok(())
    }
}

/// Waits for the answers of all.
pub fn collect<T>(answers: Vec<Receiver<T>>) -> Result<Vec<T>> {
    answers.into_iter().map(|answer| answer.recv().context("a thread of proxies ended")).collect()
}
