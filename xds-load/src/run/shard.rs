//! One thread of proxies: what they share, and how the run tells them what to do.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::LocalSet,
};

use super::{link, nodes::Roster, scenario::Pace, verify};
use crate::{
    client::{
        board::{Board, Watch},
        proxy::{Asks, Proxy},
        tally::Tally,
        world::World,
    },
    expect::Type,
    h2::Target,
    mesh::Mesh,
};

/// What all threads are told before they begin.
pub struct Plan {
    pub targets: Vec<Target>,
    pub metadata: Vec<(String, String)>,
    pub token: Option<std::path::PathBuf>,
    pub asks: Asks,
    /// Names that proxies ask for from the beginning; each draws `draw` of them (0: all).
    pub subscribe: Vec<(Type, String)>,
    pub draw: usize,
    pub roster: Roster,
    pub proxies: usize,
    pub streams_per_connection: usize,
    pub threads: usize,
    pub seed: u64,
    pub stop_reading: usize,
    pub board: Arc<Board>,
}

impl Plan {
    /// Whether proxies of the same shape follow the same names.
    pub fn same_names(&self) -> bool {
        self.draw == 0 && self.asks.clusters == usize::MAX
    }
}

/// Numbers that are read while the run goes on.
#[derive(Debug, Default)]
pub struct Live {
    /// Proxies with a stream.
    pub connected: AtomicU64,
    /// Proxies with an answer to all that they asked for.
    pub configured: AtomicU64,
    pub responses: AtomicU64,
    pub resources: AtomicU64,
    /// Bytes from sockets.
    pub received: AtomicU64,
    pub sent: AtomicU64,
    /// (change, proxy) pairs.
    pub met: AtomicU64,
    /// Connections and streams that ended, and attempts that failed.
    pub lost: AtomicU64,
    /// When something last came: milliseconds since the run began.
    pub last: AtomicU64,
}

/// What a thread is asked to do.
pub enum Command {
    Connect(Pace),
    Reconnect(Pace),
    Disconnect,
    /// Counts so far.
    Snapshot(std::sync::mpsc::Sender<Snapshot>),
    /// Fresh proxies of so many shapes; the answer comes when they are configured, or not within the time.
    Witness(usize, Duration, std::sync::mpsc::Sender<usize>),
    /// What the proxies have in the end; compared with the mesh, if it is given.
    Verify(Option<Arc<Mesh>>, std::sync::mpsc::Sender<verify::Findings>),
}

/// Counts of a thread.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub tally: Tally,
    /// (change, proxy) pairs that are due and have not come.
    pub missing: u64,
    /// The same of changes that too many others followed.
    pub given_up: u64,
    pub malformed: u64,
    pub warming: u64,
    /// Why connections and streams ended, and how often.
    pub errors: BTreeMap<String, u64>,
}

/// What links react to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signal {
    /// Counts the times that all connections are dropped.
    pub generation: u64,
    pub stop: bool,
}

/// What the steps of proxies need, one at a time.
pub struct State {
    pub world: World,
    pub watch: Watch,
    pub tally: Tally,
    pub errors: BTreeMap<String, u64>,
}

/// A thread's proxies.
pub struct Shard {
    pub plan: Arc<Plan>,
    pub live: Arc<Live>,
    thread: usize,
    pub began: Instant,
    pub state: RefCell<State>,
    /// The numbers of the proxies; witnesses come behind them, with the number of the one that they are compared with.
    pub numbers: RefCell<Vec<usize>>,
    pub proxies: RefCell<Vec<Rc<RefCell<Proxy>>>>,
    pub signal: watch::Sender<Signal>,
    /// Admits proxies that are on their way.
    pub gate: RefCell<Option<Arc<Semaphore>>>,
    /// The beginning of a phase with a rate, and the rate.
    pub pace: Cell<Option<(Instant, f64)>>,
}

impl Shard {
    fn new(plan: Arc<Plan>, live: Arc<Live>, thread: usize, began: Instant) -> Self {
        let numbers: Vec<_> = (thread..plan.proxies).step_by(plan.threads).collect();
        let state = State {
            world: World::default(),
            watch: Watch::new(Arc::clone(&plan.board)),
            tally: Tally::default(),
            errors: BTreeMap::new(),
        };
        let shard = Self {
            plan,
            live,
            thread,
            began,
            state: RefCell::new(state),
            numbers: RefCell::new(Vec::new()),
            proxies: RefCell::new(Vec::new()),
            signal: watch::channel(Signal::default()).0,
            gate: RefCell::new(None),
            pace: Cell::new(None),
        };
        numbers.into_iter().for_each(|number| shard.add(number));
        shard
    }

    /// Adds a fresh proxy of the same shape as the one with this number, which follows all that the run's proxies follow.
    pub fn add_witness(&self, number: usize) {
        self.add_drawing(number, 0);
    }

    /// How many of its proxies are no witnesses. They come first.
    pub fn ordinary(&self) -> usize {
        let plan = &self.plan;
        plan.proxies.saturating_sub(self.thread).div_ceil(plan.threads)
    }

    fn add(&self, number: usize) {
        self.add_drawing(number, self.plan.draw);
    }

    fn add_drawing(&self, number: usize, count: usize) {
        let plan = &self.plan;
        let world = &mut self.state.borrow_mut().world;
        let seed = plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number as u64;
        let names = plan.subscribe.iter().map(|(kind, name)| world.name(*kind, name)).collect::<Vec<_>>();
        let names = draw(names, count, seed);
        let network = plan.roster.identity(number).network;
        let network = world.network(&network);
        self.proxies.borrow_mut().push(Rc::new(RefCell::new(Proxy::new(network, seed, names, world))));
        self.numbers.borrow_mut().push(number);
    }

    /// The proxy at a place.
    pub fn proxy(&self, at: usize) -> Rc<RefCell<Proxy>> {
        Rc::clone(&self.proxies.borrow()[at])
    }

    /// Notes why something ended.
    pub fn lost(&self, why: String) {
        self.live.lost.fetch_add(1, Ordering::Relaxed);
        let errors = &mut self.state.borrow_mut().errors;
        // Texts with a port or an id in them must not fill the memory.
        if errors.len() < 50 || errors.contains_key(&why) {
            *errors.entry(why).or_default() += 1;
        }
    }

    fn set_pace(&self, pace: Pace) {
        let of_this_thread = |all: usize| all.div_ceil(self.plan.threads).max(1);
        let gate =
            (pace.rate == 0.0 && pace.in_flight > 0).then(|| Semaphore::new(of_this_thread(pace.in_flight)));
        *self.gate.borrow_mut() = gate.map(Arc::new);
        self.pace.set((pace.rate > 0.0).then(|| (Instant::now(), pace.rate)));
    }

    fn snapshot(&self) -> Snapshot {
        let mut state = self.state.borrow_mut();
        let State { world, watch, tally, errors } = &mut *state;
        watch.take_up(world);
        Snapshot {
            tally: tally.clone(),
            missing: watch.missing(),
            given_up: watch.given_up,
            malformed: world.malformed,
            warming: self.proxies.borrow().iter().map(|proxy| proxy.borrow().warming() as u64).sum(),
            errors: errors.clone(),
        }
    }
}

/// `count` of the names, each combination as likely as any other; all, if it is 0.
fn draw<T>(mut names: Vec<T>, count: usize, seed: u64) -> Vec<T> {
    use rand::{SeedableRng as _, rngs::SmallRng, seq::SliceRandom as _};
    if count > 0 && count < names.len() {
        names.partial_shuffle(&mut SmallRng::seed_from_u64(seed), count);
        // The drawn ones are at the end.
        names.drain(..names.len() - count);
    }
    names
}

/// Runs a thread's proxies until the commands end.
pub fn run(
    plan: Arc<Plan>,
    live: Arc<Live>,
    thread: usize,
    began: Instant,
    mut commands: mpsc::UnboundedReceiver<Command>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let shard = Rc::new(Shard::new(plan, live, thread, began));
        while let Some(command) = commands.recv().await {
            match command {
                Command::Connect(pace) => {
                    shard.set_pace(pace);
                    shard.signal.send_modify(|signal| signal.stop = false);
                    link::start(&shard, shard.proxies.borrow().len());
                }
                Command::Reconnect(pace) => {
                    shard.set_pace(pace);
                    shard.signal.send_modify(|signal| signal.generation += 1);
                }
                Command::Disconnect => shard.signal.send_modify(|signal| signal.stop = true),
                Command::Snapshot(answer) => _ = answer.send(shard.snapshot()),
                Command::Witness(shapes, patience, answer) => {
                    let shard = Rc::clone(&shard);
                    tokio::task::spawn_local(async move {
                        _ = answer.send(verify::witness(&shard, shapes, patience).await);
                    });
                }
                Command::Verify(mesh, answer) => _ = answer.send(verify::compare(&shard, mesh.as_deref())),
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn draws_are_of_the_size_and_differ_by_seed() {
        let all: Vec<_> = (0..100).collect();
        let one = draw(all.clone(), 20, 1);
        assert_eq!(one.len(), 20);
        assert_eq!(one, draw(all.clone(), 20, 1));
        assert_ne!(one, draw(all.clone(), 20, 2));
        assert_eq!(draw(all.clone(), 0, 1), all);
        assert_eq!(draw(all.clone(), 200, 1), all);
    }
}
