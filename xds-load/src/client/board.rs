//! Changes that are waited for: announced by whoever makes them, taken up by each thread, met proxy by proxy.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use super::world::{ContentId, IdMap, NameId, World};
use crate::expect::{Expectation, Marker, Type};

/// How many changes of one name are waited for at a time; the oldest are given up first.
const LIVE_PER_NAME: usize = 64;

/// Where changes are announced, before they are made.
#[derive(Debug, Default)]
pub struct Board {
    count: AtomicUsize,
    list: Mutex<Vec<Expectation>>,
}

impl Board {
    /// Announces changes. Every response that is read after this returns is compared with them.
    pub fn announce(&self, expectations: Vec<Expectation>) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.extend(expectations);
        self.count.store(list.len(), Ordering::Release);
    }

    /// How many were announced.
    pub fn announced(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn since(&self, taken: usize) -> Vec<Expectation> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)[taken..].to_vec()
    }
}

/// A change that some proxies do not have yet.
#[derive(Debug)]
struct Live {
    expectation: Expectation,
    network: Option<u16>,
    /// How many proxies had the name when it was announced. 0 of a new one: then nobody knows how many are to get it.
    due: u32,
    met: u32,
    /// What the marker says of contents that were seen since.
    verdicts: Vec<(ContentId, bool)>,
}

/// The changes that a thread's proxies are compared with.
#[derive(Debug)]
pub struct Watch {
    board: Arc<Board>,
    taken: usize,
    live: IdMap<NameId, Vec<Live>>,
    /// The last change of each name.
    latest: IdMap<NameId, u64>,
    /// (change, proxy) pairs that came.
    pub met: u64,
    /// (change, proxy) pairs that were due and given up, because many later changes of the same name came.
    pub given_up: u64,
}

/// The last change of a name, which some proxies have not been seen to have.
#[derive(Clone, Copy, Debug)]
pub struct Open<'a> {
    /// The name.
    pub name: NameId,
    /// The change.
    pub expectation: &'a Expectation,
    /// The network that it is for.
    pub network: Option<u16>,
    verdicts: &'a [(ContentId, bool)],
}

impl Open<'_> {
    /// Whether this content has the change; `None` if nothing with this content came since.
    pub fn verdict(&self, content: ContentId) -> Option<bool> {
        self.verdicts.iter().find(|(id, _)| *id == content).map(|(_, verdict)| *verdict)
    }
}

/// A proxy has something else of a name than before.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    pub name: NameId,
    pub network: u16,
    pub old: Option<ContentId>,
    /// What it has now, with its bytes.
    pub new: Option<(ContentId, &'a [u8])>,
    /// Since when the proxy has been complete: earlier changes are part of what it began with.
    pub since: Option<Instant>,
}

/// A change has reached a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Which.
    pub sequence: u64,
    /// The type that it was announced for.
    pub kind: Type,
    /// When it was made.
    pub at: Instant,
}

impl Watch {
    /// Of what will be announced on the board.
    pub fn new(board: Arc<Board>) -> Self {
        let taken = board.announced();
        Self { board, taken, live: IdMap::default(), latest: IdMap::default(), met: 0, given_up: 0 }
    }

    /// Takes up what was announced. To be called before a response is applied: who has a name now is who has to get its change.
    pub fn take_up(&mut self, world: &mut World) {
        if self.board.announced() == self.taken {
            return;
        }
        for expectation in self.board.since(self.taken) {
            self.taken += 1;
            let name = world.name(expectation.kind, &expectation.name);
            let network = expectation.network.as_ref().map(|n| world.network(n));
            world.watch(name);
            self.latest.insert(name, expectation.sequence);
            let due = world.holders(name, network);
            let live = self.live.entry(name).or_default();
            if live.len() == LIVE_PER_NAME {
                let oldest = live.remove(0);
                self.given_up += u64::from(oldest.due.saturating_sub(oldest.met));
            }
            live.push(Live { expectation, network, due, met: 0, verdicts: Vec::new() });
        }
    }

    /// The changes that a proxy has by this step and had not before.
    pub fn step(&mut self, world: &World, step: Step<'_>, mut met: impl FnMut(Met)) {
        let mut count = 0;
        let mut met = |m| {
            count += 1;
            met(m);
        };
        let name = world.of_name(step.name);
        if name.watched {
            self.whole(step, &mut met);
        }
        // A part of something: that may be what the change was announced for.
        let mut parent = name.parent;
        while let Some(id) = parent {
            let above = world.of_name(id);
            if above.watched {
                self.part(world, id, step, &mut met);
            }
            parent = above.parent;
        }
        self.met += count;
    }

    fn whole(&mut self, step: Step<'_>, met: &mut impl FnMut(Met)) {
        let Some(live) = self.live.get_mut(&step.name) else { return };
        live.retain_mut(|live| {
            // What it says is of use later, even if this proxy came after the change.
            let has = live.by_whole(&step);
            if has && live.concerns(&step) && !live.had(step.old) {
                live.reached(met);
            }
            !live.is_done()
        });
    }

    fn part(&mut self, world: &World, whole: NameId, step: Step<'_>, met: &mut impl FnMut(Met)) {
        let Some(live) = self.live.get_mut(&whole) else { return };
        let old = step.old.and_then(|old| world.of_content(old).bytes.as_deref());
        let kind = world.of_name(step.name).kind;
        live.retain_mut(|live| {
            let new = step.new.map(|(_, bytes)| bytes);
            if live.concerns(&step) && by_part(&live.expectation.marker, kind, old, new) {
                live.reached(met);
            }
            !live.is_done()
        });
    }

    /// The last changes of names, where they were not seen everywhere.
    pub fn open(&self) -> impl Iterator<Item = Open<'_>> {
        self.live.iter().flat_map(|(name, live)| {
            let last = self.latest.get(name).copied();
            live.iter().filter(move |live| Some(live.expectation.sequence) == last).map(|live| Open {
                name: *name,
                expectation: &live.expectation,
                network: live.network,
                verdicts: &live.verdicts,
            })
        })
    }

    /// (change, proxy) pairs that were due and did not come.
    pub fn missing(&self) -> u64 {
        self.live.values().flatten().map(|live| u64::from(live.due.saturating_sub(live.met))).sum()
    }
}

impl Live {
    fn concerns(&self, step: &Step<'_>) -> bool {
        self.network.is_none_or(|network| network == step.network)
            && step.since.is_some_and(|since| since <= self.expectation.at)
    }

    fn by_whole(&mut self, step: &Step<'_>) -> bool {
        let Some((content, bytes)) = step.new else {
            return !self.expectation.marker.wants();
        };
        if let Some((_, verdict)) = self.verdicts.iter().find(|(id, _)| *id == content) {
            return *verdict;
        }
        let Expectation { marker, kind, .. } = &self.expectation;
        let verdict = marker.is_in(*kind, bytes) == marker.wants();
        self.verdicts.push((content, verdict));
        verdict
    }

    /// Whether the proxy had the change already. What was not seen since it was announced is older.
    fn had(&self, old: Option<ContentId>) -> bool {
        old.is_some_and(|old| self.verdicts.iter().any(|(id, verdict)| *id == old && *verdict))
    }

    fn reached(&mut self, met: &mut impl FnMut(Met)) {
        self.met += 1;
        met(Met {
            sequence: self.expectation.sequence,
            kind: self.expectation.kind,
            at: self.expectation.at,
        });
    }

    fn is_done(&self) -> bool {
        self.due > 0 && self.met >= self.due
    }
}

fn by_part(marker: &Marker, kind: Type, old: Option<&[u8]>, new: Option<&[u8]>) -> bool {
    let has = |bytes: Option<&[u8]>| bytes.is_some_and(|bytes| marker.is_in(kind, bytes));
    *marker != Marker::Gone && has(new) == marker.wants() && has(old) != marker.wants()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use super::{Board, Met, Step, Watch};
    use crate::{
        client::world::{ContentId, NameId, World},
        expect::{Expectation, Marker, Type},
    };

    struct Lab {
        board: Arc<Board>,
        world: World,
        watch: Watch,
        began: Instant,
    }

    impl Lab {
        fn new() -> Self {
            let board = Arc::new(Board::default());
            let watch = Watch::new(Arc::clone(&board));
            Self { board, world: World::default(), watch, began: Instant::now() }
        }

        fn announce(&mut self, sequence: u64, kind: Type, name: &str, marker: Marker) {
            let at = Instant::now();
            self.board.announce(vec![Expectation {
                sequence,
                kind,
                name: name.into(),
                marker,
                network: None,
                at,
            }]);
        }

        fn step(
            &mut self,
            name: NameId,
            old: Option<ContentId>,
            new: Option<&[u8]>,
        ) -> (Vec<u64>, Option<ContentId>) {
            self.watch.take_up(&mut self.world);
            let new = new.map(|bytes| (self.world.content(name, bytes, ""), bytes));
            let step = Step { name, network: 0, old, new, since: Some(self.began) };
            let mut met = Vec::new();
            self.watch.step(&self.world, step, |m: Met| met.push(m.sequence));
            (met, new.map(|(id, _)| id))
        }
    }

    fn bytes(text: &str) -> Arc<[u8]> {
        text.as_bytes().into()
    }

    #[test]
    fn each_proxy_meets_a_change_once_and_when_all_have_it_it_is_done() {
        let mut lab = Lab::new();
        let name = lab.world.name(Type::Endpoint, "svc");
        (0..2).for_each(|_| lab.world.hold(name, 0, true));
        let (_, first) = lab.step(name, None, Some(b"\x0a\x01a"));
        lab.announce(1, Type::Endpoint, "svc", Marker::Contains(bytes("b")));
        assert_eq!(lab.step(name, first, Some(b"\x0a\x01c")).0, [] as [u64; 0], "another change");
        let (met, second) = lab.step(name, first, Some(b"\x0a\x01b"));
        assert_eq!(met, [1]);
        assert_eq!(lab.step(name, second, Some(b"\x0a\x01b")).0, [] as [u64; 0], "it had it");
        assert_eq!(lab.watch.missing(), 1);
        assert_eq!(lab.step(name, first, Some(b"\x0a\x01b")).0, [1], "the other proxy");
        assert_eq!((lab.watch.missing(), lab.watch.live[&name].len()), (0, 0));
    }

    #[test]
    fn a_change_back_to_old_bytes_is_seen() {
        let mut lab = Lab::new();
        let name = lab.world.name(Type::Endpoint, "svc");
        lab.world.hold(name, 0, true);
        let (_, a) = lab.step(name, None, Some(b"\x0a\x01a"));
        lab.announce(1, Type::Endpoint, "svc", Marker::Contains(bytes("b")));
        let (met, b) = lab.step(name, a, Some(b"\x0a\x01b"));
        assert_eq!(met, [1]);
        lab.announce(2, Type::Endpoint, "svc", Marker::Lacks(bytes("b")));
        assert_eq!(lab.step(name, b, Some(b"\x0a\x01a")).0, [2]);
        lab.announce(3, Type::Endpoint, "svc", Marker::Gone);
        assert_eq!(lab.step(name, a, None).0, [3]);
    }

    #[test]
    fn parts_meet_changes_of_the_whole() {
        let mut lab = Lab::new();
        let route = lab.world.name(Type::Route, "80");
        lab.world.hold(route, 0, true);
        let host = lab.world.name(Type::VirtualHost, "80/new.ns:80");
        lab.announce(1, Type::Route, "80", Marker::Contains(bytes("new.ns")));
        let (met, content) = lab.step(host, None, Some(b"\x0a\x0c80/new.ns:80"));
        assert_eq!(met, [1]);
        lab.announce(2, Type::Route, "80", Marker::Lacks(bytes("new.ns")));
        assert_eq!(lab.step(host, content, None).0, [2]);
    }

    #[test]
    fn a_proxy_that_came_later_does_not_count() {
        let mut lab = Lab::new();
        let name = lab.world.name(Type::Endpoint, "svc");
        lab.announce(1, Type::Endpoint, "svc", Marker::Contains(bytes("b")));
        lab.began = Instant::now();
        assert_eq!(lab.step(name, None, Some(b"\x0a\x01b")).0, [] as [u64; 0]);
    }
}
