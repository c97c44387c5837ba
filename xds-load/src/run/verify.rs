//! Whether the proxies have in the end what they should have.
//!
//! Four questions: has every proxy what the others of its shape have; has it what a fresh proxy of its shape gets; has it the last
//! change of each name; and has the fresh one what the mesh says.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hasher as _,
    rc::Rc,
    time::{Duration, Instant},
};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{
    link,
    nodes::Identity,
    shard::Shard,
    truth::{self, Truth},
};
use crate::{
    client::{
        board::Open,
        proxy::Proxy,
        world::{ContentId, IdMap, NameId, Spread, World},
    },
    expect::{Marker, Type},
    mesh::Mesh,
    wire::short_name,
};

/// How many problems of a kind are told in words.
const TOLD: usize = 10;

/// What a thread's comparison found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Proxies that were compared.
    pub compared: u64,
    /// Proxies that were not: they refused something or stopped reading.
    pub excluded: u64,
    /// Resources that were compared.
    pub resources: u64,
    /// Proxies that wait for something still.
    pub incomplete: u64,
    /// Proxies that have something else than others of their shape.
    pub different: u64,
    /// Proxies without the last change of a name.
    pub stale: u64,
    /// Last changes that no proxy was seen to have, because none follows the name.
    pub unseen: u64,
    /// Shapes with a fresh proxy to compare with.
    pub witnesses: usize,
    /// What the mesh says of the fresh proxies.
    pub truth: Truth,
    /// By shape: a digest of all that its proxies have.
    pub digests: BTreeMap<Identity, u64>,
    /// In words: which proxy, which resource, what it has and what it should have.
    pub problems: Vec<String>,
}

/// The places of a shape's proxies.
#[derive(Default)]
struct Shape {
    places: Vec<usize>,
    witness: Option<usize>,
}

/// Connects a fresh proxy for each of at most `limit` shapes; returns how many are configured within the time.
pub async fn witness(shard: &Rc<Shard>, limit: usize, patience: Duration) -> usize {
    let ordinary = shard.plan.proxies;
    let mut seen = BTreeSet::new();
    let numbers: Vec<_> = shard.numbers.borrow().iter().copied().filter(|n| *n < ordinary).collect();
    let fresh =
        numbers.into_iter().filter(|number| seen.insert(shard.plan.roster.identity(*number))).take(limit);
    shard.state.borrow_mut().world.keep = true;
    let mut places = Vec::new();
    for number in fresh {
        places.push(shard.proxies.borrow().len());
        shard.add_witness(number);
    }
    places.iter().for_each(|place| link::start_one(shard, *place));
    let deadline = Instant::now() + patience;
    let complete = |place: &&usize| shard.proxy(**place).borrow().complete.is_some();
    loop {
        let ready = places.iter().filter(complete).count();
        if ready == places.len() || Instant::now() > deadline {
            return ready;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Compares what the proxies of a thread have.
pub fn compare(shard: &Shard, mesh: Option<&Mesh>) -> Findings {
    let mut findings = Findings::default();
    let mut state = shard.state.borrow_mut();
    let super::shard::State { world, watch, .. } = &mut *state;
    watch.take_up(world);
    let proxies = shard.proxies.borrow();
    let mut shapes: BTreeMap<Identity, Shape> = BTreeMap::new();
    for (place, number) in shard.numbers.borrow().iter().enumerate() {
        let proxy = proxies[place].borrow();
        let shape = shapes.entry(shard.plan.roster.identity(*number)).or_default();
        if place >= shard.ordinary() {
            if proxy.complete.is_some() {
                shape.witness = Some(place);
            }
        } else if proxy.refused || *number < shard.plan.stop_reading {
            findings.excluded += 1;
        } else if proxy.complete.is_none() {
            findings.incomplete += 1;
            let waits: Vec<_> = proxy
                .waits_for(world)
                .map(|(kind, name)| format!("{} {}", short_name(kind), name.unwrap_or("(any answer)")))
                .take(4)
                .collect();
            let waits = if waits.is_empty() { "a stream".to_owned() } else { waits.join(", ") };
            findings.tell(format!("proxy {} is not configured: it waits for {waits}", id(shard, place)));
        } else {
            shape.places.push(place);
        }
    }
    for (identity, shape) in &shapes {
        findings.witnesses += usize::from(shape.witness.is_some());
        if let Some(reference) = shape.witness.or(shape.places.first().copied()) {
            let digest = digest(&proxies[reference].borrow(), world);
            findings.digests.insert(identity.clone(), digest);
        }
        findings.shape(shard, shape, world);
        if let (Some(mesh), Some(place)) = (mesh, shape.witness) {
            let proxy = proxies[place].borrow();
            findings.truth.add(truth::compare(shard, identity, &id(shard, place), &proxy, mesh, world));
        }
    }
    for open in watch.open() {
        findings.change(shard, &shapes, &open, world);
    }
    findings
}

impl Findings {
    fn tell(&mut self, problem: String) {
        if self.problems.len() < TOLD {
            self.problems.push(problem);
        }
    }

    /// Compares the proxies of a shape with its witness, or else with what most of them have.
    fn shape(&mut self, shard: &Shard, shape: &Shape, world: &World) {
        let proxies = shard.proxies.borrow();
        let mut votes: IdMap<NameId, IdMap<u64, u32>> = IdMap::default();
        let mut digests = Vec::with_capacity(shape.places.len());
        for place in &shape.places {
            self.compared += 1;
            digests.push(digest(&proxies[*place].borrow(), world));
        }
        let wanted = shape.witness.map(|place| digest(&proxies[place].borrow(), world));
        let equal = digests.iter().all(|digest| Some(*digest) == wanted.or(digests.first().copied()));
        let all_the_same = shard.plan.same_names();
        self.resources +=
            shape.places.iter().map(|p| contents(&proxies[*p].borrow(), world).count() as u64).sum::<u64>();
        if equal && all_the_same {
            return;
        }
        let voters: Vec<_> = shape.witness.map_or_else(|| shape.places.clone(), |witness| vec![witness]);
        for place in &voters {
            for (name, content) in contents(&proxies[*place].borrow(), world) {
                *votes.entry(name).or_default().entry(world.of_content(content).hash).or_default() += 1;
            }
        }
        let quorum = voters.len() as u32 / 2;
        let judge =
            if shape.witness.is_some() { "a fresh proxy of its shape" } else { "most others of its shape" };
        for place in &shape.places {
            let proxy = proxies[*place].borrow();
            let mut wrong = Vec::new();
            for (name, content) in contents(&proxy, world) {
                let has = world.of_content(content).hash;
                let best = votes.get(&name).and_then(|v| v.iter().max_by_key(|(_, count)| **count));
                match best {
                    Some((should, _)) if *should == has => {}
                    Some((should, _)) => wrong.push((name, Some(has), Some(*should))),
                    None if all_the_same => wrong.push((name, Some(has), None)),
                    None => {}
                }
            }
            if all_the_same {
                let missing = votes.iter().filter(|(name, votes)| {
                    let most = votes.values().max().copied().unwrap_or(0);
                    most > quorum && proxy.content(world.of_name(**name).kind, **name).is_none()
                });
                wrong.extend(missing.map(|(name, votes)| (*name, None, votes.keys().next().copied())));
            }
            if let Some((name, has, should)) = wrong.first() {
                self.different += 1;
                let name = world.of_name(*name);
                let say = |hash: Option<u64>| {
                    hash.map_or("nothing".to_owned(), |hash| format!("bytes of hash {hash:016x}"))
                };
                self.tell(format!(
                    "proxy {} has {} of {} {:?}, but {judge} has {} ({} names differ)",
                    id(shard, *place),
                    say(*has),
                    short_name(name.kind),
                    name.text,
                    say(*should),
                    wrong.len(),
                ));
            }
        }
    }

    /// Which proxies do not have the last change of a name.
    fn change(&mut self, shard: &Shard, shapes: &BTreeMap<Identity, Shape>, open: &Open<'_>, world: &World) {
        let kind = open.expectation.kind;
        let mut held = false;
        for shape in shapes.values() {
            for place in shape.places.iter().copied().chain(shape.witness) {
                let proxies = shard.proxies.borrow();
                let proxy = proxies[place].borrow();
                if open.network.is_some_and(|network| network != proxy.network()) {
                    continue;
                }
                let content = proxy.content(kind, open.name);
                held |= content.is_some();
                let Some(false) = has_change(&proxy, open, content, shape.witness.is_some(), world) else {
                    continue;
                };
                self.stale += 1;
                self.tell(format!(
                    "proxy {} never got change {} of {} {:?}: {}",
                    id(shard, place),
                    open.expectation.sequence,
                    short_name(kind),
                    open.expectation.name,
                    describe(&open.expectation.marker),
                ));
            }
        }
        self.unseen += u64::from(!held && open.expectation.marker != Marker::Gone);
    }
}

/// `None`: this proxy does not follow the name, or nobody can tell.
fn has_change(
    proxy: &Proxy,
    open: &Open<'_>,
    content: Option<ContentId>,
    witnessed: bool,
    world: &World,
) -> Option<bool> {
    let content = content?;
    let of = world.of_content(content);
    let in_parts =
        of.virtual_hosts || of.needs.iter().any(|need| world.of_name(*need).kind == Type::LbEndpoint);
    match &open.expectation.marker {
        Marker::Gone => Some(false),
        marker if in_parts => {
            let found = parts(proxy, open.name, world).any(|(kind, bytes)| marker.is_in(kind, bytes));
            Some(found == marker.wants())
        }
        // Without a verdict it has what was there before. A fresh proxy's content always has one.
        _ => open.verdict(content).or(witnessed.then_some(false)),
    }
}

/// The bytes of what belongs to a name that is sent in parts.
fn parts<'a>(proxy: &'a Proxy, whole: NameId, world: &'a World) -> impl Iterator<Item = (Type, &'a [u8])> {
    proxy.state().filter_map(move |(name, content)| {
        let mut parent = world.of_name(name).parent;
        while let Some(id) = parent.filter(|id| *id != whole) {
            parent = world.of_name(id).parent;
        }
        parent?;
        Some((world.of_name(name).kind, world.of_content(content?).bytes.as_deref()?))
    })
}

fn describe(marker: &Marker) -> String {
    let text = |bytes: &[u8]| {
        let text: String =
            bytes.iter().map(|b| if b.is_ascii_graphic() { *b as char } else { '.' }).collect();
        text
    };
    match marker {
        Marker::Contains(bytes) => format!("it should contain {:?}", text(bytes)),
        Marker::Lacks(bytes) => format!("it should not contain {:?} any more", text(bytes)),
        Marker::Healthy(at) => format!("it should have a healthy {at}"),
        Marker::Unhealthy(at) => format!("it should have no healthy {at} any more"),
        Marker::Gone => "it should be gone".to_owned(),
    }
}

/// What is compared: not secrets, which are each proxy's own.
fn contents<'a>(proxy: &'a Proxy, world: &'a World) -> impl Iterator<Item = (NameId, ContentId)> + 'a {
    let here = proxy.state().filter_map(|(name, content)| Some((name, content?)));
    here.filter(|(name, _)| world.of_name(*name).kind != Type::Secret)
}

/// Of all that a proxy has; the same on any thread.
fn digest(proxy: &Proxy, world: &World) -> u64 {
    let mut sum = 0_u64;
    for (name, content) in contents(proxy, world) {
        let name = world.of_name(name);
        let name = xxh3_64_with_seed(name.text.as_bytes(), name.kind as u64);
        let mut pair = Spread::default();
        pair.write_u64(name);
        pair.write_u64(world.of_content(content).hash);
        sum = sum.wrapping_add(xxh3_64(&pair.finish().to_le_bytes()));
    }
    sum
}

fn id(shard: &Shard, place: usize) -> String {
    shard.plan.roster.node(shard.numbers.borrow()[place]).id
}
