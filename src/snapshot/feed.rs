//! How a class's snapshots reach its streams. A new one wakes the streams that see something of what changed; the others
//! take it when they are asked for something, or when it is their turn.
//!
//! ```text
//! pipeline: Feed::publish -- store the snapshot, then take over interests and look --> wake
//! stream:   Follower::follow -- put the interest into the queue, then load the snapshot  (one of the two sees the other)
//! ```
//!
//! Without this, one endpoint of one service would wake every proxy of its class, of which most may not use it.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use futures::task::AtomicWaker;
use indexmap::IndexMap;
use lean_http2::fetch;
use parking_lot::Mutex;

use super::{
    Closed, ResourceType, Snapshot, StreamId,
    interests::{BLOCK, Bits, Block, Filter, Interest},
};

/// Of those that need not be woken, one in so many is all the same: nobody holds on to more than so many old snapshots.
const TURNS: usize = 512;

/// Above so many changed assignments everybody is taken to see one of them.
const MANY_CHANGES: usize = 64;

/// The pipeline's end: a class's newest snapshot, and who follows it.
#[derive(Debug)]
pub struct Feed {
    shared: Arc<Shared>,
    followers: IndexMap<StreamId, Arc<Link>>,
    /// The interests of as many followers as fill blocks; the few others are looked at one by one.
    blocks: Vec<Block>,
    turn: usize,
}

/// What both ends see.
#[derive(Debug)]
struct Shared {
    newest: ArcSwap<Snapshot>,
    /// Whose interest is another one than when it was last looked at.
    renewed: Mutex<Vec<StreamId>>,
}

/// The stream's end.
#[derive(Debug)]
pub struct Follower(Arc<Link>);

/// The pipeline's hold on a stream, which outlives its places in feeds. When it is dropped, the stream is told to end.
#[derive(Debug)]
pub struct Tether(Arc<Link>);

#[derive(Debug)]
struct Link {
    id: StreamId,
    feed: Mutex<Arc<Shared>>,
    news: AtomicBool,
    closed: AtomicBool,
    stream: AtomicWaker,
    interest: Interest,
    /// Whether the interest was put into the queue since it was last looked at.
    renewed: AtomicBool,
}

// === impl Feed ===

impl Feed {
    /// Begins with this snapshot and nobody.
    pub fn new(snapshot: Snapshot) -> Self {
        let shared = Shared { newest: ArcSwap::from_pointee(snapshot), renewed: Mutex::default() };
        Self { shared: Arc::new(shared), followers: IndexMap::new(), blocks: Vec::new(), turn: 0 }
    }

    /// The newest snapshot.
    pub fn newest(&self) -> Arc<Snapshot> {
        self.shared.newest.load_full()
    }

    /// How many streams follow.
    pub fn len(&self) -> usize {
        self.followers.len()
    }

    /// Whether nobody follows.
    pub fn is_empty(&self) -> bool {
        self.followers.is_empty()
    }

    /// Another stream: the pipeline's hold on it, and the stream's end.
    pub fn attach(&mut self, id: StreamId) -> (Tether, Follower) {
        let link = Arc::new(Link {
            id,
            feed: Mutex::new(self.shared.clone()),
            news: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            stream: AtomicWaker::new(),
            interest: Interest::default(),
            renewed: AtomicBool::new(false),
        });
        self.insert(link.clone());
        (Tether(link.clone()), Follower(link))
    }

    /// A stream that followed another feed follows this one.
    pub fn take_over(&mut self, stream: &Tether) {
        *stream.0.feed.lock() = self.shared.clone();
        // It may stand in the queue of the feed that it leaves, where nobody looks for it any more.
        stream.0.renewed.swap(false, Ordering::AcqRel);
        self.insert(stream.0.clone());
        stream.0.tell();
    }

    /// A stream does not follow any more.
    pub fn leave(&mut self, id: StreamId) {
        let Some((place, ..)) = self.followers.swap_remove_full(&id) else { return };
        self.blocks.truncate(self.followers.len() / BLOCK);
        self.place(place);
    }

    /// A newer snapshot.
    pub fn publish(&mut self, snapshot: Snapshot) {
        let before = self.newest();
        ResourceType::ALL.into_iter().for_each(|kind| snapshot.get(kind).follow(before.get(kind)));
        let snapshot = Arc::new(snapshot);
        self.shared.newest.store(snapshot.clone());
        // After the snapshot is there: who puts an interest into the queue later, loads this snapshot.
        self.take_over_interests();
        match Changed::between(&before, &snapshot) {
            Changed::Anything => self.followers.values().for_each(|link| link.tell()),
            Changed::Assignments(names) => {
                for (i, block) in self.blocks.iter().enumerate() {
                    block.meeting(&names).for_each(|place| self.followers[i * BLOCK + place].tell());
                }
                let others = self.followers.values().skip(self.blocks.len() * BLOCK);
                others.filter(|link| link.interest.meets(&names)).for_each(|link| link.tell());
                self.refresh(self.followers.len() / TURNS + 1);
            }
        }
    }

    /// Wakes the next so many, whatever they see.
    pub fn refresh(&mut self, at_most: usize) {
        for _ in 0..at_most.min(self.followers.len()) {
            self.turn = (self.turn + 1) % self.followers.len();
            self.followers[self.turn].tell();
        }
    }

    fn insert(&mut self, link: Arc<Link>) {
        self.followers.insert(link.id, link);
        // Streams that come and go while nothing changes would fill the queue.
        if self.shared.renewed.lock().len() > self.followers.len() {
            self.take_over_interests();
        }
        if self.followers.len().is_multiple_of(BLOCK) {
            let last = self.followers.values().skip(self.blocks.len() * BLOCK);
            self.blocks.push(Block::of(last.map(|link| &link.interest)));
        }
    }

    fn take_over_interests(&mut self) {
        let renewed = mem::take(&mut *self.shared.renewed.lock());
        for id in renewed {
            if let Some((place, _, link)) = self.followers.get_full(&id) {
                link.renewed.swap(false, Ordering::AcqRel);
                self.place(place);
            }
        }
    }

    /// Takes over the interest of the follower in this place.
    fn place(&mut self, place: usize) {
        let block = self.blocks.get_mut(place / BLOCK);
        if let (Some(block), Some((_, link))) = (block, self.followers.get_index(place)) {
            block.put(place % BLOCK, &link.interest);
        }
    }
}

/// What is different in a snapshot, as far as streams' interests tell them apart.
enum Changed {
    /// Something that everybody may see.
    Anything,
    /// The load assignments whose names have these bits.
    Assignments(Vec<Bits>),
}

impl Changed {
    fn between(before: &Snapshot, after: &Snapshot) -> Self {
        let other = |kind: &ResourceType| *kind != ResourceType::Endpoint;
        let same = |kind: ResourceType| after.get(kind).is_same(before.get(kind));
        if !ResourceType::ALL.into_iter().filter(other).all(same) {
            return Self::Anything;
        }
        let differences = after.endpoints.diff(&before.endpoints);
        if differences.len() > MANY_CHANGES {
            return Self::Anything;
        }
        Self::Assignments(differences.iter().map(|difference| Bits::of(difference.name())).collect())
    }
}

// === impl Link ===

impl Link {
    fn tell(&self) {
        self.news.store(true, Ordering::SeqCst);
        self.stream.wake();
    }
}

impl Drop for Tether {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.stream.wake();
    }
}

// === impl Follower ===

impl Follower {
    /// The load assignments that the stream follows from now on; to be called before [`Self::newest`] gives the snapshot from
    /// which they are answered.
    pub fn follow(&self, names: &Filter) {
        self.0.interest.set(names);
        if !self.0.renewed.swap(true, Ordering::AcqRel) {
            self.0.feed.lock().renewed.lock().push(self.0.id);
        }
    }

    /// The newest snapshot, marked as seen.
    pub fn newest(&self) -> Arc<Snapshot> {
        self.0.news.store(false, Ordering::SeqCst);
        let feed = self.0.feed.lock().clone();
        feed.newest.load_full()
    }

    /// Asks for the memory that [`Self::poll_changed`] looks at.
    pub fn fetch(&self) {
        fetch(&*self.0);
    }

    /// Ready when the newest snapshot should be taken.
    pub fn poll_changed(&self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        self.0.stream.register(cx.waker());
        if self.0.news.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(()));
        }
        match self.0.closed.load(Ordering::SeqCst) {
            true => Poll::Ready(Err(Closed)),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::snapshot::{Encoded, Resources, interests::MANY_NAMES};

    fn encoded(name: &str, content: &str) -> (Arc<str>, Arc<Encoded>) {
        let name: Arc<str> = name.into();
        let resource = Encoded::new(name.clone(), "t", content.as_bytes(), None, Arc::new([]));
        (name, Arc::new(resource))
    }

    fn resources(words: &str) -> Resources {
        let split = |word: &str| word.split_once('=').map(|(name, content)| encoded(name, content));
        Resources::new(vec![words.split(' ').filter_map(split).collect()])
    }

    fn snapshot(epoch: u64, endpoints: &str) -> Snapshot {
        Snapshot { epoch, endpoints: resources(endpoints), ..Snapshot::empty() }
    }

    fn filter(names: &str) -> Filter {
        let mut filter = Filter::default();
        names.split_whitespace().enumerate().for_each(|(before, name)| filter.add(name, before));
        filter
    }

    /// Whether it was told of something, or of the end.
    fn told_of(follower: &Follower) -> Option<Result<(), Closed>> {
        match follower.poll_changed(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(told) => Some(told),
            Poll::Pending => None,
        }
    }

    fn is_told(follower: &Follower) -> bool {
        let told = told_of(follower).is_some_and(|told| told.is_ok());
        follower.newest();
        told
    }

    /// A feed with three endpoints, and so many followers of the first two of them that none has its turn by accident.
    fn crowd() -> (Feed, Vec<(Tether, Follower)>) {
        let mut feed = Feed::new(snapshot(1, "a=1 b=1 c=1"));
        let all: Vec<_> = (0..TURNS as u64 * 4).map(|id| feed.attach(StreamId(id))).collect();
        all.iter().for_each(|(_, follower)| follower.follow(&filter("a b")));
        (feed, all)
    }

    fn told(all: &[(Tether, Follower)]) -> usize {
        all.iter().filter(|(_, follower)| is_told(follower)).count()
    }

    #[test]
    fn only_those_that_see_the_change_are_woken() {
        let (mut feed, all) = crowd();
        all[7].1.follow(&filter("a c"));
        all[8].1.follow(&Filter::EVERYTHING);
        all[9].1.follow(&filter(&"x ".repeat(MANY_NAMES + 1)));
        feed.turn = 20;
        feed.publish(snapshot(2, "a=1 b=1 c=2"));
        let woken: Vec<_> = (0..all.len()).filter(|i| is_told(&all[*i].1)).collect();
        assert_eq!(woken, [7, 8, 9, 21, 22, 23, 24, 25], "and five have their turn");
        feed.publish(snapshot(3, "a=2 b=1 c=2"));
        assert_eq!(told(&all), all.len());
        feed.publish(snapshot(4, "a=2 b=1"));
        assert!(is_told(&all[7].1), "a removal is a change");
    }

    #[test]
    fn other_types_are_everybodys() {
        let (mut feed, all) = crowd();
        feed.publish(Snapshot { clusters: resources("c=1"), ..snapshot(2, "a=1 b=1 c=1") });
        assert_eq!(told(&all), all.len());
    }

    #[test]
    fn everybody_has_a_turn() {
        let (mut feed, all) = crowd();
        let mut seen = vec![false; all.len()];
        for epoch in 0..TURNS as u64 {
            feed.publish(snapshot(2 + epoch, &format!("a=1 b=1 c={epoch}")));
            (0..all.len()).for_each(|i| seen[i] |= is_told(&all[i].1));
        }
        assert!(seen.into_iter().all(|seen| seen));
    }

    #[test]
    fn a_stream_moves_leaves_and_is_told_of_the_end() {
        let (mut old, mut new) = (Feed::new(snapshot(1, "a=1")), Feed::new(snapshot(5, "a=2")));
        let (tether, follower) = old.attach(StreamId(1));
        assert!(!is_told(&follower));
        old.leave(StreamId(1));
        new.take_over(&tether);
        assert_eq!((old.len(), new.len()), (0, 1));
        assert!(told_of(&follower).is_some());
        assert_eq!(follower.newest().epoch, 5);
        drop(tether);
        assert!(told_of(&follower).is_some_and(|end| end.is_err()));
    }

    /// The two sides note and look in opposite orders, so that a name that is asked for while it changes is either
    /// answered from the new snapshot or woken for.
    #[test]
    fn what_is_followed_while_it_changes_is_not_missed() {
        for _ in 0..500 {
            let mut feed = Feed::new(snapshot(1, "a=1 b=1"));
            let crowd: Vec<_> = (0..8).map(|id| feed.attach(StreamId(id))).collect();
            feed.turn = 0;
            let follower = &crowd[0].1;
            std::thread::scope(|threads| {
                let following = threads.spawn(|| {
                    follower.follow(&filter("a"));
                    follower.newest().epoch
                });
                feed.publish(snapshot(2, "a=2 b=1"));
                let epoch = following.join().unwrap();
                assert!(epoch == 2 || is_told(follower), "answered from epoch {epoch} and not woken");
            });
        }
    }
}
