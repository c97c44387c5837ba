//! A simulated network: gateways die, come back, fall silent, or all of the network goes.

use std::{cmp::Reverse, collections::BinaryHeap};

use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const RTT: Duration = Duration::from_millis(80);

/// How a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Serves,
    /// Its port is closed.
    Refuses,
    /// Nothing comes back.
    BlackHole,
    /// It takes connections and closes them, as a load balancer does whose gateways are gone.
    Closes,
}

struct World {
    board: Board,
    now: Instant,
    start: Instant,
    truth: Vec<Truth>,
    loss: f64,
    random: StdRng,
    /// By their ends: probes with how they end.
    flights: BinaryHeap<Reverse<(Instant, usize, usize)>>,
    begun: Vec<Option<(Probe, Outcome, Duration)>>,
    /// When which gateway became what.
    verdicts: Vec<(Duration, usize, Liveness)>,
}

fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n as u8], 15443))
}

impl World {
    fn new(gateways: usize, loss: f64, seed: u64) -> Self {
        let now = Instant::now();
        let mut world = Self {
            board: Board::default(),
            now,
            start: now,
            truth: vec![Truth::Serves; gateways],
            loss,
            random: StdRng::seed_from_u64(seed),
            flights: BinaryHeap::new(),
            begun: Vec::new(),
            verdicts: Vec::new(),
        };
        world.board.follow(&(0..gateways).map(address).collect(), now, || world.random.random());
        world
    }

    /// How a probe ends that is begun now.
    fn fate(&mut self, gateway: usize) -> (Outcome, Duration) {
        if self.random.random_bool(self.loss) {
            return (Outcome::Silent("lost".into()), TIMEOUT);
        }
        match self.truth[gateway] {
            Truth::Serves => (Outcome::Through, 2 * RTT),
            Truth::Refuses => (Outcome::Silent("refused".into()), RTT),
            Truth::BlackHole => (Outcome::Silent("timed out".into()), TIMEOUT),
            Truth::Closes => (Outcome::NoWay("closed".into()), 2 * RTT),
        }
    }

    /// Everything that happens until then.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let next = self.board.next().expect("there are gateways");
            let end = self.flights.peek().map(|Reverse((at, ..))| *at);
            let at = end.map_or(next, |end| end.min(next)).max(self.now);
            if at > until {
                break;
            }
            self.now = at;
            if end.is_some_and(|end| end <= at) {
                let Some(Reverse((_, slot, gateway))) = self.flights.pop() else { continue };
                let (probe, outcome, took) = self.begun[slot].take().expect("it ends once");
                if self.board.end(&probe, outcome, took, at) {
                    let is = self.board.get(&probe.gateway).expect("it is followed").liveness;
                    self.verdicts.push((at - self.start, gateway, is));
                }
                if self.flights.is_empty() {
                    self.begun.clear();
                }
                continue;
            }
            let random = &mut self.random;
            for probe in self.board.begin(at, usize::MAX, || random.random()) {
                let gateway =
                    (0..self.truth.len()).find(|n| address(*n) == probe.gateway).expect("one of ours");
                let (outcome, took) = self.fate(gateway);
                self.flights.push(Reverse((at + took, self.begun.len(), gateway)));
                self.begun.push(Some((probe, outcome, took)));
            }
        }
        self.now = until;
    }

    fn is(&self, gateway: usize) -> Liveness {
        self.board.get(&address(gateway)).expect("it is followed").liveness
    }

    /// What became of a gateway since then, and after how long.
    fn verdicts_since(&self, time: Duration, gateway: usize) -> Vec<(f64, Liveness)> {
        let since = self.verdicts.iter().filter(|(at, of, _)| *at >= time && *of == gateway);
        since.map(|(at, _, is)| ((*at - time).as_secs_f64(), *is)).collect()
    }

    fn time(&self) -> Duration {
        self.now - self.start
    }
}

#[test]
fn nothing_flaps_at_five_percent_of_loss() {
    // 2,000 hours of each of two gateways: 7 million probes.
    for seed in 0..4 {
        let mut world = World::new(2, 0.05, seed);
        world.pass(10 * SECOND);
        world.verdicts.clear();
        world.pass(500 * 3_600 * SECOND);
        assert_eq!(world.verdicts, [], "seed {seed}");
        assert_eq!((world.is(0), world.is(1)), (Liveness::Alive, Liveness::Alive));
        let (answered, failed) = world.board.get(&address(0)).expect("followed").probes;
        let lost = failed as f64 / (answered + failed) as f64;
        assert!(answered + failed > 850_000 && (0.045..0.055).contains(&lost), "{answered}, {failed}");
    }
}

#[test]
fn a_table_of_what_becomes_of_a_gateway() {
    use Liveness::{Alive, Dead, Unknown};
    use Truth::{BlackHole, Closes, Refuses, Serves};
    // How the gateway and its only neighbour are from the tenth second on, for a minute; what becomes of the gateway.
    for (truth, neighbour, expected) in [
        (Serves, Serves, vec![]),
        (Serves, BlackHole, vec![]),
        (Refuses, Serves, vec![Dead]),
        (BlackHole, Serves, vec![Dead]),
        // It led somewhere before.
        (Closes, Serves, vec![Dead]),
        // Who takes a connection shows that our network is as it was, even if it leads nowhere any more.
        (BlackHole, BlackHole, vec![Unknown]),
        (Refuses, Refuses, vec![Unknown]),
        (Refuses, BlackHole, vec![Unknown]),
    ] {
        let mut world = World::new(2, 0.0, 1);
        world.pass(10 * SECOND);
        assert_eq!((world.is(0), world.is(1)), (Alive, Alive));
        let then = world.time();
        (world.truth[0], world.truth[1]) = (truth, neighbour);
        world.pass(60 * SECOND);
        let became: Vec<_> = world.verdicts_since(then, 0).into_iter().map(|(_, is)| is).collect();
        assert_eq!(became, expected, "{truth:?} beside {neighbour:?}");
    }
}

#[test]
fn a_gateway_that_never_led_anywhere_only_has_to_take_connections() {
    let mut world = World::new(2, 0.0, 1);
    world.truth[0] = Truth::Closes;
    world.pass(60 * SECOND);
    assert_eq!((world.is(0), world.is(1)), (Liveness::Alive, Liveness::Alive));
    let health = world.board.get(&address(0)).expect("followed");
    assert!(!health.proven && health.trouble.as_deref() == Some("closed"));
    world.truth[0] = Truth::Refuses;
    world.pass(15 * SECOND);
    assert_eq!(world.is(0), Liveness::Dead);
}

#[test]
fn one_that_is_alone_is_never_judged() {
    let mut world = World::new(1, 0.0, 1);
    world.pass(10 * SECOND);
    world.truth[0] = Truth::Refuses;
    world.pass(600 * SECOND);
    assert_eq!((world.is(0), world.board.dead().len()), (Liveness::Unknown, 0));
    world.truth[0] = Truth::Serves;
    world.pass(5 * SECOND);
    assert_eq!(world.is(0), Liveness::Alive);
}

#[test]
fn what_is_no_longer_wanted_is_forgotten_with_its_probes() {
    let mut world = World::new(2, 0.0, 1);
    world.pass(SECOND);
    let probes = world.board.begin(world.now + 5 * SECOND, 1, || 0.5);
    assert_eq!(probes.len(), 1, "no more than there is room for");
    let gone = probes[0].gateway;
    world.board.follow(&[address(9)].into(), world.now, || 0.5);
    world.board.follow(&[address(9), gone].into(), world.now + 9 * SECOND, || 0.5);
    assert!(!world.board.end(&probes[0], Outcome::Through, RTT, world.now + 9 * SECOND));
    assert_eq!(world.board.get(&gone).map(|h| (h.liveness, h.probes)), Some((Liveness::Unknown, (0, 0))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Dead within 12 s of its death, alive again within 8 s, whatever the phase, also with lost probes; the other is as it was.
    #[test]
    fn who_dies_is_seen_dead_in_time_and_alive_again(
        seed in any::<u64>(),
        phase in 0..4_000u64,
        others in 1..4usize,
        death in prop::sample::select(vec![Truth::Refuses, Truth::BlackHole, Truth::Closes]),
        loss in prop::sample::select(vec![0.0, 0.05]),
    ) {
        let mut world = World::new(1 + others, loss, seed);
        world.pass(20 * SECOND + Duration::from_millis(phase));
        let then = world.time();
        world.truth[0] = death;
        world.pass(60 * SECOND);
        let verdicts = world.verdicts_since(then, 0);
        let [(after, Liveness::Dead)] = verdicts[..] else {
            return Err(TestCaseError::fail(format!("{verdicts:?}")));
        };
        // Where probes are lost, those of who has to witness are, too.
        prop_assert!((3.0..if loss > 0.0 { 20.0 } else { 12.0 }).contains(&after), "{after} s");
        let then = world.time();
        world.truth[0] = Truth::Serves;
        world.pass(120 * SECOND);
        let verdicts = world.verdicts_since(then, 0);
        let [(after, Liveness::Alive)] = verdicts[..] else {
            return Err(TestCaseError::fail(format!("{verdicts:?}")));
        };
        prop_assert!(loss > 0.0 || after < 8.0, "{after} s");
        prop_assert!(world.verdicts.iter().all(|(at, of, _)| *of == 0 || *at < 10 * SECOND));
    }

    /// Our own network goes, for however long, and comes back: nobody is declared dead, and who is dead stays so.
    #[test]
    fn what_befalls_all_is_no_proof_against_anyone(
        seed in any::<u64>(),
        phase in 0..4_000u64,
        outage in 1..40_000u64,
        gateways in 2..5usize,
        way in prop::sample::select(vec![Truth::Refuses, Truth::BlackHole]),
    ) {
        let mut world = World::new(gateways, 0.0, seed);
        world.pass(20 * SECOND);
        world.truth[0] = Truth::BlackHole;
        world.pass(20 * SECOND + Duration::from_millis(phase));
        prop_assert_eq!(world.board.dead(), BTreeSet::from([address(0)]));
        world.truth.fill(way);
        world.pass(Duration::from_millis(outage));
        world.truth.fill(Truth::Serves);
        world.truth[0] = Truth::BlackHole;
        world.pass(30 * SECOND);
        let dead: BTreeSet<_> =
            world.verdicts.iter().filter(|(_, _, is)| *is == Liveness::Dead).map(|(_, of, _)| *of).collect();
        prop_assert_eq!(dead, BTreeSet::from([0]));
        prop_assert!((1..gateways).all(|n| world.is(n) == Liveness::Alive));
        prop_assert_eq!(world.is(0), Liveness::Dead);
    }
}
