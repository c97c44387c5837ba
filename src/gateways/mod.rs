//! Whether the gateways of networks are alive, seen from here.
//!
//! ```text
//! pipeline -> routes (which gateways, which SNIs) -> probe (a TLS handshake) -> health (pure) -> who is dead -> pipeline
//!                                                                               +-> Gateways (listings, metrics)
//! pipeline -> resolve (which host names) -> dns -> names (pure) -> which addresses -> pipeline
//! ```
//!
//! Each is one task. Probes are futures within it, at most 64 at a time. The work grows with the number of gateways; who they are
//! is asked every second, what lies behind them every ten.

pub mod dns;
pub mod health;
mod names;
mod probe;
pub mod resolve;
pub mod routes;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::FuturesUnordered,
};
use parking_lot::Mutex;
use tokio::{sync::watch, time::sleep_until};
use tracing::{info, warn};

use self::{
    health::{Board, Health, Liveness, Outcome, Probe},
    routes::{Routes, Tables},
};
use crate::{
    ca::{Authority, client_cert::MeshClient},
    index::Networks,
    model::{endpoint::NetworkGateway, identity::Spiffe},
    pipeline::{Inspector, State},
};

/// So many probes are under way at most.
const AT_ONCE: usize = 64;
/// Between looks at which gateways there are.
const LOOK: Duration = Duration::from_secs(1);
/// What lies behind gateways is asked at every so many looks.
const LOOKS_PER_ROUTES: u32 = 10;

/// Who is proven to be dead.
pub type Dead = Arc<BTreeSet<SocketAddr>>;

/// What is known of all gateways, for those who show it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Gateways(Arc<Mutex<Option<BTreeMap<SocketAddr, Health>>>>);

/// Probes gateways.
#[derive(Debug)]
pub struct Prober {
    client: MeshClient,
    inspector: Inspector,
    shown: Gateways,
    dead: watch::Sender<Dead>,
    board: Board,
    snis: BTreeMap<SocketAddr, Snis>,
}

/// What a gateway is asked for.
#[derive(Debug, Default)]
struct Snis {
    all: Vec<Arc<str>>,
    /// By its place: the one that leads somewhere, or is to be tried next.
    next: usize,
}

/// What the pipeline said.
struct Seen {
    networks: Networks,
    /// Not at every look.
    tables: Option<Tables>,
}

type Flight = BoxFuture<'static, (Probe, Option<Arc<str>>, Outcome, Duration)>;

// === impl Gateways ===

impl Gateways {
    /// What is known of each; none while nobody probes.
    pub fn read(&self) -> Option<BTreeMap<SocketAddr, Health>> {
        self.0.lock().clone()
    }

    fn show(&self, board: &Board) {
        let now = board.iter().map(|(gateway, health)| (*gateway, health.clone())).collect();
        *self.0.lock() = Some(now);
    }

    fn show_one(&self, gateway: SocketAddr, health: &Health) {
        if let Some(all) = &mut *self.0.lock() {
            all.insert(gateway, health.clone());
        }
    }
}

// === impl Prober ===

impl Prober {
    /// Probes as `identity`, shows what it sees in `shown` and says in `dead` who is dead.
    pub fn new(
        authority: watch::Receiver<Arc<Authority>>,
        identity: Spiffe,
        inspector: Inspector,
        shown: Gateways,
        dead: watch::Sender<Dead>,
    ) -> Self {
        let client = MeshClient::new(authority, identity, &[probe::ALPN]);
        Self { client, inspector, shown, dead, board: Board::default(), snis: BTreeMap::new() }
    }

    /// Probes for ever.
    pub async fn run(self) {
        let Self { client, inspector, shown, dead, mut board, mut snis } = self;
        let client = Arc::new(client);
        let mut flights: FuturesUnordered<Flight> = FuturesUnordered::new();
        let mut looks = 0;
        let mut look = look_at(&inspector, Instant::now(), true);
        loop {
            let due = board.next().filter(|_| flights.len() < AT_ONCE);
            let due = due.map(|due| sleep_until(due.into()));
            tokio::select! {
                seen = &mut look => {
                    looks += 1;
                    look = look_at(&inspector, Instant::now() + LOOK, looks % LOOKS_PER_ROUTES == 0);
                    // A pipeline that does not answer has not lost its gateways.
                    let Some(Seen { networks, tables }) = seen else { continue };
                    let wanted = routes::addresses(&networks);
                    board.follow(&wanted, Instant::now(), rand::random);
                    snis.retain(|gateway, _| wanted.contains(gateway));
                    if let Some(tables) = tables {
                        update(&mut snis, tables.routes());
                    }
                    publish(&dead, &board);
                    shown.show(&board);
                }
                Some(()) = OptionFuture::from(due) => {
                    let room = AT_ONCE - flights.len();
                    for probe in board.begin(Instant::now(), room, rand::random) {
                        let sni = snis.get(&probe.gateway).and_then(Snis::current);
                        let client = client.clone();
                        flights.push(async move {
                            let (outcome, took) = probe::probe(&client, probe.gateway, sni.as_deref()).await;
                            (probe, sni, outcome, took)
                        }.boxed());
                    }
                }
                Some((probe, sni, outcome, took)) = flights.next() => {
                    if outcome != Outcome::Through
                        && let Some((sni, snis)) = sni.zip(snis.get_mut(&probe.gateway))
                    {
                        snis.failed(&sni);
                    }
                    if board.end(&probe, outcome, took, Instant::now()) {
                        say(&board, &probe.gateway);
                        publish(&dead, &board);
                    }
                    if let Some(health) = board.get(&probe.gateway) {
                        shown.show_one(probe.gateway, health);
                    }
                }
            }
        }
    }
}

fn look_at(inspector: &Inspector, at: Instant, routes: bool) -> BoxFuture<'static, Option<Seen>> {
    ask_at(inspector, at, move |state| Seen {
        networks: state.index.networks().clone(),
        tables: routes.then(|| Tables::of(&state.index)),
    })
}

/// Asks the pipeline at its time.
fn ask_at<T: Send + 'static>(
    inspector: &Inspector,
    at: Instant,
    question: impl FnOnce(&State) -> T + Send + 'static,
) -> BoxFuture<'static, Option<T>> {
    let inspector = inspector.clone();
    async move {
        sleep_until(at.into()).await;
        inspector.ask(question).await
    }
    .boxed()
}

/// Keeps asking for what is asked for now, if that is still there. One address may be a gateway of several networks.
fn update(snis: &mut BTreeMap<SocketAddr, Snis>, routes: BTreeMap<NetworkGateway, Routes>) {
    let mut all: BTreeMap<SocketAddr, Vec<Arc<str>>> = BTreeMap::new();
    for (gateway, routes) in routes {
        if let Some(address) = gateway.socket() {
            all.entry(address).or_default().extend(routes.snis);
        }
    }
    let followed = all.into_iter().map(|(address, all)| {
        let current = snis.get(&address).and_then(Snis::current);
        let next = all.iter().position(|sni| Some(sni) == current.as_ref()).unwrap_or(0);
        (address, Snis { all, next })
    });
    *snis = followed.collect();
}

fn publish(dead: &watch::Sender<Dead>, board: &Board) {
    let now = board.dead();
    dead.send_if_modified(|before| {
        let changed = **before != now;
        if changed {
            *before = Arc::new(now);
        }
        changed
    });
}

fn say(board: &Board, gateway: &SocketAddr) {
    let Some(health) = board.get(gateway) else { return };
    let why = health.trouble.as_deref().unwrap_or_default();
    match health.liveness {
        Liveness::Alive => info!(%gateway, latency = ?health.latency, "gateway is alive"),
        Liveness::Dead => {
            warn!(%gateway, why, "gateway is dead while others answer: endpoints behind it come after all others")
        }
        Liveness::Unknown => warn!(
            %gateway, why,
            "gateway does not answer, and no other does: this is more probably our own network, so nothing is changed"
        ),
    }
}

// === impl Snis ===

impl Snis {
    fn current(&self) -> Option<Arc<str>> {
        self.all.get(self.next).cloned()
    }

    /// Asks for another one, unless that is done already: probes overlap.
    fn failed(&mut self, sni: &Arc<str>) {
        if self.current().as_ref() == Some(sni) {
            self.next = (self.next + 1) % self.all.len().max(1);
        }
    }
}
