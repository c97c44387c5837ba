//! One connection and the proxies on it, as a task: connects, moves messages, comes back when it is lost.

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{sleep, sleep_until, timeout_at},
};

use super::shard::{Shard, Signal, State};
use crate::{
    client::proxy::{Protocol, Shared},
    h2::{Connection, Event, StreamId, Target},
    wire::discovery::{DELTA_METHOD, SOTW_METHOD},
};

/// Envoy's `initial_fetch_timeout`.
const FETCH_PATIENCE: Duration = Duration::from_secs(15);
/// Envoy's first and longest wait before it tries again.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// Connections from one address: below the number of ports that Linux gives out (28,232).
const PER_SOURCE: usize = 25_000;

/// Why a session is over.
enum End {
    /// The run wants it.
    Asked,
    /// Because of this.
    Lost(String),
}

/// Starts the connections of the first `count` proxies.
pub fn start(shard: &Rc<Shard>, count: usize) {
    let size = shard.plan.streams_per_connection;
    for first in (0..count).step_by(size) {
        let link = Link { shard: Rc::clone(shard), first, size: size.min(count - first), lost: Cell::new(0) };
        tokio::task::spawn_local(link.run(shard.signal.subscribe()));
    }
}

/// Starts the connection of the proxy at a place, alone and at once.
pub fn start_one(shard: &Rc<Shard>, at: usize) {
    let link = Link { shard: Rc::clone(shard), first: at, size: 1, lost: Cell::new(0) };
    tokio::task::spawn_local(link.run(shard.signal.subscribe()));
}

struct Link {
    shard: Rc<Shard>,
    /// The place of its first proxy.
    first: usize,
    size: usize,
    /// How often it lost its server, or could not reach it.
    lost: Cell<usize>,
}

impl Link {
    async fn run(self, mut signal: watch::Receiver<Signal>) {
        let mut attempt = 0;
        let mut absence = None;
        loop {
            let now = *signal.borrow_and_update();
            if now.stop {
                return self.leave();
            }
            let permit = self.admit().await;
            if signal.borrow().stop {
                return self.leave();
            }
            let end = self.session(&mut signal, permit, &mut absence, &mut attempt).await;
            if let End::Lost(why) = end {
                self.lost.set(self.lost.get() + 1);
                self.shard.lost(why);
                let longest = FIRST_BACKOFF.saturating_mul(1 << attempt.min(10)).min(LONGEST_BACKOFF);
                attempt += 1;
                // Full jitter, as Envoy's.
                tokio::select! {
                    () = sleep(longest.mul_f64(rand::random())) => {}
                    _ = signal.changed() => {}
                }
            }
        }
    }

    /// Waits for its turn.
    async fn admit(&self) -> Option<OwnedPermit> {
        if let Some((began, rate)) = self.shard.pace.get() {
            let number = self.shard.numbers.borrow()[self.first];
            sleep_until((began + Duration::from_secs_f64(number as f64 / rate)).into()).await;
        }
        let gate = self.shard.gate.borrow().clone()?;
        gate.acquire_owned().await.ok()
    }

    async fn session(
        &self,
        signal: &mut watch::Receiver<Signal>,
        permit: Option<OwnedPermit>,
        absence: &mut Option<Absence>,
        attempt: &mut u32,
    ) -> End {
        let began = absence.get_or_insert_with(|| Absence { since: Instant::now(), again: false });
        // On the heap, and only for as long as it lasts: a handshake is larger than all the rest.
        match Box::pin(self.open()).await {
            Ok((connection, streams)) => {
                let mut session = Session {
                    link: self,
                    connection,
                    streams,
                    absence: *began,
                    heard: false,
                    permit,
                    waiting: self.size,
                    received: 0,
                    sent: 0,
                };
                let end = session.run(signal).await;
                session.close();
                // As Envoy: only a server that has answered is tried again as soon as at first.
                if session.heard {
                    *attempt = 0;
                }
                if session.waiting < self.size {
                    *began = Absence { since: Instant::now(), again: true };
                }
                end
            }
            Err(why) => End::Lost(why),
        }
    }

    async fn open(&self) -> Result<(Connection, Vec<StreamId>), String> {
        let plan = &self.shard.plan;
        let began = Instant::now();
        let number = self.shard.numbers.borrow()[self.first] / plan.streams_per_connection;
        let Some(target) = plan.targets.get((number + self.lost.get()) % plan.targets.len().max(1)) else {
            return Err("there is no server to connect to".into());
        };
        let mut target = target.clone();
        target.source = source(&target, number);
        let mut connection = Connection::connect(&target).await.map_err(|error| error.to_string())?;
        self.shard.state.borrow_mut().tally.connected.record(began.elapsed());
        let mut metadata = plan.metadata.clone();
        if let Some(file) = &plan.token {
            let token = std::fs::read_to_string(file)
                .map_err(|error| format!("cannot read the token in {}: {error}", file.display()))?;
            metadata.push(("authorization".into(), format!("Bearer {}", token.trim())));
        }
        let method = match plan.asks.protocol {
            Protocol::Delta => DELTA_METHOD,
            Protocol::Sotw => SOTW_METHOD,
        };
        let mut streams = Vec::with_capacity(self.size);
        for at in self.first..self.first + self.size {
            let stream = connection.open(method, &metadata).map_err(|error| error.to_string())?;
            let node = plan.roster.node(self.shard.numbers.borrow()[at]).encode();
            let state = &mut *self.shard.state.borrow_mut();
            let proxy = self.shard.proxy(at);
            proxy.borrow_mut().begin(
                &node,
                &mut shared(&self.shard, state, Instant::now()),
                &mut |request| {
                    connection.send(stream, request);
                },
            );
            streams.push(stream);
        }
        Ok((connection, streams))
    }

    /// Its proxies are no more.
    fn leave(&self) {
        let world = &mut self.shard.state.borrow_mut().world;
        for at in self.first..self.first + self.size {
            self.shard.proxy(at).borrow_mut().leave(world);
        }
    }
}

type OwnedPermit = OwnedSemaphorePermit;

/// What the time until proxies are configured is measured from.
#[derive(Clone, Copy)]
struct Absence {
    /// The beginning of the first attempt, or the loss.
    since: Instant,
    /// They were configured before. A proxy whose first attempts are refused is still one that connects.
    again: bool,
}

struct Session<'a> {
    link: &'a Link,
    connection: Connection,
    streams: Vec<StreamId>,
    absence: Absence,
    /// The server has sent a message.
    heard: bool,
    /// Given back when all of its proxies are configured.
    permit: Option<OwnedPermit>,
    /// Proxies that are not configured.
    waiting: usize,
    received: u64,
    sent: u64,
}

impl Session<'_> {
    async fn run(&mut self, signal: &mut watch::Receiver<Signal>) -> End {
        let shard = &self.link.shard;
        shard.live.connected.fetch_add(self.size(), Ordering::Relaxed);
        // Proxies that come back may have all that they need.
        for place in 0..self.streams.len() {
            if shard.proxy(self.link.first + place).borrow().complete.is_some() {
                shard.state.borrow_mut().tally.reconnected.record(self.absence.since.elapsed());
                self.configured();
            }
        }
        let patience = Instant::now() + FETCH_PATIENCE;
        let mut patient = true;
        loop {
            let stopped = self.waiting == 0 && self.stops_reading();
            if stopped {
                // What it misses from now on is not missed by accident.
                self.link.leave();
            }
            let next = async {
                if stopped {
                    return std::future::pending().await;
                }
                if self.waiting > 0 && patient {
                    return timeout_at(patience.into(), self.connection.next()).await.ok();
                }
                Some(self.connection.next().await)
            };
            let event = tokio::select! {
                biased;
                event = next => event,
                _ = signal.changed() => return End::Asked,
            };
            match event {
                Some(Ok((stream, Event::Message(message)))) => {
                    if let Err(why) = self.message(stream, &message) {
                        return End::Lost(why);
                    }
                    // Everybody reads before anybody answers: the time of arrival must not wait for other proxies' writes.
                    tokio::task::yield_now().await;
                }
                Some(Ok((_, Event::Closed(status)))) => {
                    return End::Lost(format!("the stream ended: {status}"));
                }
                Some(Err(error)) => return End::Lost(error.to_string()),
                None => {
                    patient = false;
                    self.lose_patience();
                }
            }
        }
    }

    fn message(&mut self, stream: StreamId, message: &[u8]) -> Result<(), String> {
        let now = Instant::now();
        self.heard = true;
        let shard = &self.link.shard;
        let Some(place) = self.streams.iter().position(|id| *id == stream) else { return Ok(()) };
        let proxy = shard.proxy(self.link.first + place);
        let proxy = &mut *proxy.borrow_mut();
        let state = &mut *shard.state.borrow_mut();
        let (met, resources) = (state.watch.met, state.tally.resources());
        let was_complete = proxy.complete.is_some();
        let connection = &mut self.connection;
        proxy
            .receive(message, &mut self::shared(shard, state, now), &mut |request| {
                connection.send(stream, request)
            })
            .map_err(|error| format!("a response is {error}"))?;
        let live = &shard.live;
        live.responses.fetch_add(1, Ordering::Relaxed);
        live.resources.fetch_add(state.tally.resources() - resources, Ordering::Relaxed);
        live.met.fetch_add(state.watch.met - met, Ordering::Relaxed);
        live.last.store(now.duration_since(shard.began).as_millis() as u64, Ordering::Relaxed);
        if !was_complete && proxy.complete.is_some() {
            let took = now.duration_since(self.absence.since);
            if self.absence.again { &mut state.tally.reconnected } else { &mut state.tally.configured }
                .record(took);
            self.configured();
        }
        self.count();
        Ok(())
    }

    fn lose_patience(&mut self) {
        let shard = &self.link.shard;
        for (place, stream) in self.streams.iter().enumerate() {
            let proxy = shard.proxy(self.link.first + place);
            let proxy = &mut *proxy.borrow_mut();
            if proxy.complete.is_none() {
                let state = &mut *shard.state.borrow_mut();
                let connection = &mut self.connection;
                proxy.lose_patience(&mut self::shared(shard, state, Instant::now()), &mut |request| {
                    connection.send(*stream, request);
                });
            }
        }
    }

    /// One more of its proxies is configured.
    fn configured(&mut self) {
        self.link.shard.live.configured.fetch_add(1, Ordering::Relaxed);
        self.waiting = self.waiting.saturating_sub(1);
        if self.waiting == 0 {
            self.permit = None;
        }
    }

    /// A witness has the number of another proxy, and always reads.
    fn stops_reading(&self) -> bool {
        let Link { shard, first, .. } = self.link;
        *first < shard.ordinary() && shard.numbers.borrow()[*first] < shard.plan.stop_reading
    }

    /// Adds what the socket has moved since the last time.
    fn count(&mut self) {
        let live = &self.link.shard.live;
        live.received.fetch_add(self.connection.received() - self.received, Ordering::Relaxed);
        live.sent.fetch_add(self.connection.sent() - self.sent, Ordering::Relaxed);
        (self.received, self.sent) = (self.connection.received(), self.connection.sent());
    }

    fn close(&mut self) {
        self.count();
        let live = &self.link.shard.live;
        live.connected.fetch_sub(self.size(), Ordering::Relaxed);
        live.configured.fetch_sub(self.size() - self.waiting as u64, Ordering::Relaxed);
    }

    fn size(&self) -> u64 {
        self.streams.len() as u64
    }
}

/// What a proxy's step needs.
fn shared<'a>(shard: &'a Shard, state: &'a mut State, now: Instant) -> Shared<'a> {
    let State { world, watch, tally, .. } = state;
    Shared { asks: &shard.plan.asks, world, watch, tally, now }
}

/// Another address on loopback for each 25,000 connections; elsewhere the kernel chooses.
fn source(target: &Target, connection: usize) -> Option<IpAddr> {
    let number = u8::try_from(connection / PER_SOURCE).ok().filter(|n| *n > 0 && *n < 250)?;
    let loopback = target.address.ip().is_loopback() && target.address.is_ipv4();
    loopback.then(|| Ipv4Addr::new(127, 0, 0, 1 + number).into())
}
