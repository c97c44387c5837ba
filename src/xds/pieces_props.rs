//! Endpoints one by one (LEDS): any history of snapshots, refreshed clusters, delays, reconnects and restarts ends with a
//! client that has exactly the endpoints of its view, and no cluster ever serves without any in between.
//!
//! The client is modelled after Envoy 1.40 (`eds.cc`, `leds.cc`, `watch_map.cc`):
//! - a changed cluster is a second object beside the first until it is warm. Both listen to the same assignment and the same
//!   collections, and Envoy asks for a collection only if no object has asked before;
//! - an object keeps a collection only while its whole configuration stays the same, and swaps its endpoints when all
//!   its collections have answered;
//! - which object comes first, and which of two collections in one response, is by chance;
//! - on a reconnect it says which assignments it has, and nothing of endpoints.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use landbridge_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use proptest::prelude::*;

use super::*;
use crate::{
    snapshot::{ResourceSet, Version},
    xds::kind::{LDS, LEDS},
};

const SERVICES: [&str; 2] = ["a", "b"];

/// Endpoints by number: their group and content.
type Endpoints = BTreeMap<u8, (u8, u8)>;

#[derive(Clone, Debug, Default, PartialEq)]
struct Service {
    /// 0: it does not exist.
    cluster: u8,
    /// 0: its assignment is whole.
    shape: u8,
    /// What an assignment says beside its endpoints.
    weight: u8,
    endpoints: Endpoints,
}

type World = [Service; SERVICES.len()];

#[derive(Clone, Debug)]
enum Op {
    /// A new snapshot, in which these services differ.
    Publish(Vec<(usize, Edit)>),
    Send,
    Receive {
        reversed: bool,
    },
    Answer,
    /// To this server or another one, which offers endpoints one by one or not.
    Reconnect {
        pieces: bool,
    },
}

#[derive(Clone, Debug)]
enum Edit {
    Cluster(u8),
    Shape(u8),
    Weight(u8),
    Put(u8, (u8, u8)),
    Remove(u8),
    Replace(Endpoints),
}

fn edit() -> impl Strategy<Value = Edit> {
    let endpoint = || (0..2u8, 0..2u8);
    prop_oneof![
        1 => prop::sample::select(vec![0, 1, 1, 2, 2]).prop_map(Edit::Cluster),
        1 => prop::sample::select(vec![0, 1, 1, 1, 2]).prop_map(Edit::Shape),
        1 => (0..2u8).prop_map(Edit::Weight),
        4 => (0..5u8, endpoint()).prop_map(|(id, endpoint)| Edit::Put(id, endpoint)),
        4 => (0..5u8).prop_map(Edit::Remove),
        1 => proptest::collection::btree_map(0..5u8, endpoint(), 0..5).prop_map(Edit::Replace),
    ]
}

impl Service {
    fn edit(&mut self, edit: Edit) {
        match edit {
            Edit::Cluster(content) => self.cluster = content,
            Edit::Shape(shape) => self.shape = shape,
            Edit::Weight(weight) => self.weight = weight,
            Edit::Put(id, endpoint) => drop(self.endpoints.insert(id, endpoint)),
            Edit::Remove(id) => drop(self.endpoints.remove(&id)),
            Edit::Replace(endpoints) => self.endpoints = endpoints,
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => proptest::collection::vec((0..SERVICES.len(), edit()), 1..4).prop_map(Op::Publish),
        6 => Just(Op::Send),
        6 => any::<bool>().prop_map(|reversed| Op::Receive { reversed }),
        4 => Just(Op::Answer),
        1 => prop::bool::weighted(0.8).prop_map(|pieces| Op::Reconnect { pieces }),
    ]
}

// === server ===

impl Service {
    fn groups(&self) -> BTreeSet<u8> {
        self.endpoints.values().map(|(group, _)| *group).collect()
    }

    fn is_in_pieces(&self) -> bool {
        self.shape > 0 && !self.endpoints.is_empty()
    }

    /// What names of its endpoints begin with: other groups, another name.
    fn prefix(&self, name: &str) -> String {
        format!("xdstp:///{name}-{}-{:?}/", self.shape, self.groups()).replace(", ", ".")
    }
}

fn encoded(kind: Kind, name: &str, content: &str, waits_for: Option<Arc<str>>) -> Arc<Encoded> {
    Arc::new(Encoded::new(name.into(), kind.type_url(), content.as_bytes(), waits_for, Arc::new([])))
}

/// `whole WEIGHT GROUP.ID.CONTENT…` or `pieces WEIGHT SPELLING COLLECTION…`.
fn assignment(name: &str, service: &Service, pieces: bool) -> Arc<Encoded> {
    let weight = service.weight;
    if !pieces || !service.is_in_pieces() {
        let list: String = service.endpoints.iter().map(|(id, (g, c))| format!(" {g}.{id}.{c}")).collect();
        return encoded(EDS, name, &format!("whole {weight}{list}"), None);
    }
    let prefix = service.prefix(name);
    let list: String = service.groups().iter().map(|group| format!(" {prefix}{group}/*")).collect();
    let spelt = ["first", "second"].map(|spelling| format!("pieces {weight} {spelling}{list}"));
    let messages = [spelt[0].as_bytes(), spelt[1].as_bytes()];
    let none: Arc<[crate::model::ObjectKey]> = Arc::new([]);
    let url = EDS.type_url();
    Arc::new(Encoded::in_two_spellings(&name.into(), url, messages, Some(prefix.into()), none))
}

fn snapshot(world: &World, pieces: bool) -> Arc<Snapshot> {
    let there = || SERVICES.into_iter().zip(world).filter(|(_, service)| service.cluster > 0);
    let set = |all: Vec<Arc<Encoded>>| {
        Resources::new(vec![all.into_iter().map(|r| (r.name.clone(), r)).collect::<ResourceSet>()])
    };
    let clusters = there().map(|(name, s)| encoded(CDS, name, &s.cluster.to_string(), Some(name.into())));
    let endpoints = there().filter(|(_, service)| service.is_in_pieces()).flat_map(|(name, service)| {
        let prefix = service.prefix(name);
        let named = move |(id, (group, content)): (&u8, &(u8, u8))| {
            encoded(LEDS, &format!("{prefix}{group}/{id}"), &content.to_string(), None)
        };
        service.endpoints.iter().map(named).collect::<Vec<_>>()
    });
    Arc::new(Snapshot {
        clusters: set(clusters.collect()),
        endpoints: set(there().map(|(name, service)| assignment(name, service, pieces)).collect()),
        lb_endpoints: if pieces { set(endpoints.collect()) } else { Resources::default() },
        ..Snapshot::empty()
    })
}

// === client ===

fn text(resource: &Encoded) -> String {
    let any = <prost_types::Any as prost::Message>::decode(resource.any()).expect("our own bytes");
    String::from_utf8(any.value).expect("our own text")
}

/// Name and spelling.
type Collection = (String, String);

/// One `EdsClusterImpl`.
#[derive(Debug, Default)]
struct Cluster {
    content: String,
    assignment: Option<String>,
    collections: BTreeMap<Collection, Option<BTreeMap<String, String>>>,
    /// What it balances over; none before it is warm.
    hosts: Option<BTreeSet<String>>,
}

impl Cluster {
    /// `BatchUpdateHelper`, if all collections have answered.
    fn update(&mut self) {
        let Some(assignment) = &self.assignment else { return };
        let mut words = assignment.split(' ');
        let (form, weight) = (words.next(), words.next().expect("a weight"));
        if form == Some("whole") {
            self.hosts = Some(words.map(|host| format!("{weight} {host}")).collect());
            return;
        }
        if self.collections.values().any(Option::is_none) {
            return;
        }
        let mut hosts = BTreeSet::new();
        for ((name, _), endpoints) in &self.collections {
            let group = name.rsplit('/').nth(1).expect("a group");
            let mut ids: BTreeMap<&str, &str> = BTreeMap::new();
            for (endpoint, content) in endpoints.iter().flatten() {
                ids.insert(endpoint.rsplit('/').next().expect("an id"), content);
            }
            // Of two with one address the first is kept.
            let known = |id: &str| hosts.iter().any(|h: &String| h.split('.').nth(1) == Some(id));
            let new = ids.into_iter().filter(|(id, _)| !known(id));
            let new: Vec<_> = new.map(|(id, content)| format!("{weight} {group}.{id}.{content}")).collect();
            hosts.extend(new);
        }
        assert!(!hosts.is_empty(), "a cluster without endpoints: {self:?}");
        self.hosts = Some(hosts);
    }
}

#[derive(Default)]
struct Interest {
    names: BTreeSet<String>,
    added: BTreeSet<String>,
    removed: BTreeSet<String>,
}

struct Client {
    session: Session,
    now: Instant,
    wire: VecDeque<Frame>,
    open: BTreeMap<Kind, Frame>,
    /// The active object, and the one that is warming.
    clusters: BTreeMap<String, [Option<Cluster>; 2]>,
    has: BTreeMap<Kind, BTreeMap<String, Version>>,
    leds: Interest,
    leds_started: bool,
}

impl Client {
    fn new(world: &World) -> Self {
        let session =
            Session::new(Protocol::Delta, snapshot(world, true), Limits::default()).sharing(shared());
        let mut client = Self {
            session,
            now: Instant::now(),
            wire: VecDeque::new(),
            open: BTreeMap::new(),
            clusters: BTreeMap::new(),
            has: [(CDS, BTreeMap::new()), (EDS, BTreeMap::new())].into(),
            leds: Interest::default(),
            leds_started: false,
        };
        client.reconnect(snapshot(world, true));
        client
    }

    fn say(&mut self, kind: Kind, request: DeltaDiscoveryRequest) {
        delta(&mut self.session, kind, &request).unwrap();
    }

    fn reconnect(&mut self, snapshot: Arc<Snapshot>) {
        self.session = Session::new(Protocol::Delta, snapshot, Limits::default()).sharing(shared());
        self.wire.clear();
        self.open.clear();
        if self.is_warm() {
            self.ask_for_clusters();
        }
        if !self.clusters.is_empty() {
            let names = self.clusters.keys().cloned().collect();
            let request = DeltaDiscoveryRequest { resource_names_subscribe: names, ..self.known(EDS) };
            self.say(EDS, request);
        }
        (self.leds.added, self.leds.removed) = Default::default();
        self.leds_started = !self.leds.names.is_empty();
        if self.leds_started {
            let resource_names_subscribe = self.leds.names.iter().cloned().collect();
            self.say(LEDS, DeltaDiscoveryRequest { resource_names_subscribe, ..Default::default() });
        }
        self.say(LDS, DeltaDiscoveryRequest::default());
    }

    /// All that it has, as a first request says.
    fn known(&self, kind: Kind) -> DeltaDiscoveryRequest {
        let versions = self.has[&kind].iter().map(|(name, version)| (name.clone(), version.to_string()));
        DeltaDiscoveryRequest { initial_resource_versions: versions.collect(), ..Default::default() }
    }

    fn is_warm(&self) -> bool {
        self.clusters.values().all(|objects| objects[1].is_none())
    }

    /// It does not speak of clusters before all are warm.
    fn ask_for_clusters(&mut self) {
        self.say(CDS, self.known(CDS));
    }

    fn send(&mut self) -> bool {
        let Some(frame) = self.session.next_frame(self.now) else { return false };
        self.wire.push_back(frame);
        true
    }

    fn receive(&mut self, reversed: bool) -> bool {
        if self.wire.front().is_none_or(|frame| self.open.contains_key(&frame.kind)) {
            return false;
        }
        let Some(frame) = self.wire.pop_front() else { return false };
        match frame.kind {
            CDS => self.receive_clusters(&frame),
            EDS => self.receive_assignments(&frame, reversed),
            LDS => {}
            _ => self.receive_endpoints(&frame, reversed),
        }
        self.open.insert(frame.kind, frame);
        self.swap();
        self.ask_for_collections();
        if self.is_warm() && !self.session.watch(CDS).started {
            self.ask_for_clusters();
        }
        true
    }

    fn receive_clusters(&mut self, frame: &Frame) {
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for resource in frame.resources.iter() {
            let name = resource.name.to_string();
            self.has.get_mut(&CDS).unwrap().insert(name.clone(), resource.version);
            let objects = self.clusters.entry(name.clone()).or_insert_with(|| {
                new.push(name);
                Default::default()
            });
            let content = text(resource);
            if objects.iter().flatten().next_back().is_none_or(|newest| newest.content != content) {
                objects[1] = Some(Cluster { content, ..Cluster::default() });
            }
        }
        for name in frame.removed.iter().map(ToString::to_string) {
            self.has.get_mut(&CDS).unwrap().remove(&name);
            if self.clusters.remove(&name).is_some() {
                self.has.get_mut(&EDS).unwrap().remove(&name);
                gone.push(name);
            }
        }
        if !new.is_empty() || !gone.is_empty() {
            let request = DeltaDiscoveryRequest {
                resource_names_subscribe: new,
                resource_names_unsubscribe: gone,
                ..Default::default()
            };
            self.say(EDS, request);
        }
    }

    fn receive_assignments(&mut self, frame: &Frame, reversed: bool) {
        for resource in frame.resources.iter() {
            let Some(objects) = self.clusters.get(&*resource.name) else { continue };
            self.has.get_mut(&EDS).unwrap().insert(resource.name.to_string(), resource.version);
            // The stand-in for an assignment that is not there is an empty message.
            let text = text(resource);
            let text = if text.starts_with(['w', 'p']) { text } else { "whole 0".to_owned() };
            let objects = objects.iter().flatten().count();
            for i in 0..objects {
                let at = if reversed { objects - 1 - i } else { i };
                self.take_assignment(&resource.name, at, &text);
            }
        }
    }

    /// Forgets collections first, then asks for new ones.
    fn take_assignment(&mut self, name: &str, at: usize, text: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        let named: BTreeSet<Collection> = match words[0] {
            "whole" => BTreeSet::new(),
            _ => words[3..].iter().map(|c| ((*c).to_owned(), words[2].to_owned())).collect(),
        };
        let cluster = self.clusters.get_mut(name).unwrap().iter_mut().flatten().nth(at).unwrap();
        cluster.assignment = Some(text.to_owned());
        cluster.collections.retain(|key, _| named.contains(key));
        self.watch();
        let cluster = self.clusters.get_mut(name).unwrap().iter_mut().flatten().nth(at).unwrap();
        for key in named {
            cluster.collections.entry(key).or_default();
        }
        cluster.update();
        self.watch();
    }

    fn receive_endpoints(&mut self, frame: &Frame, reversed: bool) {
        let collection = |name: &str| format!("{}/*", name.rsplit_once('/').expect("a collection").0);
        let mut touched: BTreeSet<String> = frame.resources.iter().map(|r| collection(&r.name)).collect();
        touched.extend(frame.removed.iter().map(|name| collection(name)));
        let mut touched: Vec<String> = touched.into_iter().collect();
        if reversed {
            touched.reverse();
        }
        for name in touched {
            for cluster in self.clusters.values_mut().flatten().flatten() {
                let mut found = false;
                for (_, endpoints) in cluster.collections.iter_mut().filter(|((n, _), _)| *n == name) {
                    let endpoints = endpoints.get_or_insert_default();
                    found = true;
                    for gone in frame.removed.iter().filter(|gone| collection(gone) == name) {
                        endpoints.remove(&**gone);
                    }
                    for resource in frame.resources.iter().filter(|r| collection(&r.name) == name) {
                        endpoints.insert(resource.name.to_string(), text(resource));
                    }
                }
                if found {
                    cluster.update();
                }
            }
        }
    }

    /// What is warm takes the place of what was active.
    fn swap(&mut self) {
        for objects in self.clusters.values_mut() {
            if objects[1].as_ref().is_some_and(|warming| warming.hosts.is_some()) {
                objects[0] = objects[1].take();
            }
        }
        self.watch();
    }

    /// `WatchMap::updateWatchInterest` and `updateSubscriptionInterest`.
    fn watch(&mut self) {
        let objects = self.clusters.values().flatten().flatten();
        let now: BTreeSet<String> =
            objects.flat_map(|c| c.collections.keys()).map(|(name, _)| name.clone()).collect();
        for name in now.difference(&self.leds.names) {
            self.leds.removed.remove(name);
            self.leds.added.insert(name.clone());
        }
        for name in self.leds.names.difference(&now) {
            self.leds.added.remove(name);
            self.leds.removed.insert(name.clone());
        }
        self.leds.names = now;
    }

    fn ask_for_collections(&mut self) {
        let (added, removed) = (std::mem::take(&mut self.leds.added), std::mem::take(&mut self.leds.removed));
        if added.is_empty() && removed.is_empty() {
            return;
        }
        let request = DeltaDiscoveryRequest {
            resource_names_subscribe: added.into_iter().collect(),
            resource_names_unsubscribe: removed.into_iter().collect(),
            ..Default::default()
        };
        self.leds_started = true;
        self.say(LEDS, request);
    }

    fn answer(&mut self) -> bool {
        // Clusters are acknowledged when they are warm.
        let warm = self.is_warm();
        let ready: Vec<Kind> = self.open.keys().copied().filter(|kind| *kind != CDS || warm).collect();
        for kind in &ready {
            let response_nonce = self.open.remove(kind).expect("open").nonce.to_string();
            self.say(*kind, DeltaDiscoveryRequest { response_nonce, ..Default::default() });
        }
        !ready.is_empty()
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            if !(self.send() | self.receive(false) | self.answer()) {
                match self.session.deadline(self.now) {
                    Some(end) => self.now = end,
                    None => return,
                }
            }
        }
        panic!("it does not come to rest");
    }

    fn check(&self, world: &World) {
        for (name, service) in SERVICES.into_iter().zip(world) {
            let expected = (service.cluster > 0).then(|| {
                let hosts = service.endpoints.iter();
                let hosts = hosts.map(|(id, (group, c))| format!("{} {group}.{id}.{c}", service.weight));
                (service.cluster.to_string(), hosts.collect::<BTreeSet<_>>())
            });
            let actual = self.clusters.get(name).map(|objects| {
                assert!(objects[1].is_none(), "{name} waits for endpoints: {:?}", objects[1]);
                let active = objects[0].as_ref().expect("an active cluster");
                (active.content.clone(), active.hosts.clone().unwrap_or_default())
            });
            assert_eq!(actual, expected, "{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, max_shrink_iters: 10_000, ..ProptestConfig::default() })]
    #[test]
    fn a_client_ends_with_the_endpoints_of_its_view(ops in proptest::collection::vec(op(), 0..100)) {
        let start = Service {
            cluster: 1,
            shape: 1,
            weight: 0,
            endpoints: [(0, (0, 0)), (1, (0, 0)), (2, (1, 0))].into(),
        };
        let mut world: World = [start.clone(), start];
        let (mut client, mut pieces) = (Client::new(&world), true);
        for op in ops {
            match op {
                Op::Publish(edits) => {
                    edits.into_iter().for_each(|(service, edit)| world[service].edit(edit));
                    client.session.snapshot(snapshot(&world, pieces));
                }
                Op::Send => drop(client.send()),
                Op::Receive { reversed } => drop(client.receive(reversed)),
                Op::Answer => drop(client.answer()),
                Op::Reconnect { pieces: offered } => {
                    pieces = offered;
                    client.reconnect(snapshot(&world, pieces));
                }
            }
        }
        client.settle();
        client.check(&world);
    }
}
