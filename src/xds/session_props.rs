//! Any history of snapshots, subscriptions, refusals, delays and reconnects ends with a client that has exactly what
//! its view has, in both protocols.
//!
//! The client is modelled after Envoy: it asks for the endpoints of clusters as they come, acknowledges clusters when
//! they are warm, applies the good part of what it refuses, and keeps all that it has over a reconnect. With Delta its
//! route configurations leave their virtual hosts to VHDS, which it treats as Envoy does, too: it asks once, by a wildcard,
//! drops what belongs to no route configuration that it has (but says on a reconnect that it has it), takes a response as
//! a whole or not at all, and cannot go back to a route configuration that waits for none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use landbridge_proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
    google::rpc::Status,
};
use proptest::prelude::*;

use super::*;
use crate::{
    snapshot::Version,
    xds::kind::{LDS, RDS, VHDS},
};

const KINDS: [Kind; 5] = [CDS, EDS, LDS, RDS, VHDS];
/// Names of clusters and assignments: the first three take their endpoints from EDS.
const CLUSTERS: [&str; 5] = ["e1", "e2", "e3", "s4", "s5"];
const OTHERS: [&str; 3] = ["80", "90", "443"];
const HOSTS: [&str; 5] = ["80/a", "80/b", "80/c", "90/a", "443/a"];

#[derive(Clone, Debug)]
enum Op {
    /// A new snapshot: which resources exist, with which content, of which what is bad.
    Publish(World),
    /// The server hands a frame to the transport, if it has one.
    Send,
    /// The client reads a frame.
    Receive,
    /// The client answers what it can.
    Answer,
    /// It asks for a route configuration, or no longer.
    Route(usize, bool),
    /// It asks for an assignment that no cluster of its has, or no longer.
    Extra(bool),
    Reconnect,
}

/// Contents by position; 0: it does not exist, 3: bad.
#[derive(Clone, Debug, Default)]
struct World {
    clusters: [u8; 5],
    endpoints: [u8; 5],
    listeners: [u8; 3],
    routes: [u8; 3],
    hosts: [u8; 5],
}

fn world(contents: std::ops::Range<u8>) -> impl Strategy<Value = World> {
    let c = || contents.clone();
    (
        proptest::array::uniform5(c()),
        proptest::array::uniform5(c()),
        proptest::array::uniform3(c()),
        proptest::array::uniform3(c()),
        proptest::array::uniform5(c()),
    )
        .prop_map(|(clusters, endpoints, listeners, routes, hosts)| World {
            clusters,
            endpoints,
            listeners,
            routes,
            hosts,
        })
}

fn op(contents: std::ops::Range<u8>) -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => world(contents).prop_map(Op::Publish),
        6 => Just(Op::Send),
        6 => Just(Op::Receive),
        4 => Just(Op::Answer),
        1 => (0..3_usize, any::<bool>()).prop_map(|(i, on)| Op::Route(i, on)),
        1 => any::<bool>().prop_map(Op::Extra),
        1 => Just(Op::Reconnect),
    ]
}

fn resource(protocol: Protocol, kind: Kind, name: &str, content: u8) -> Arc<Encoded> {
    let waits_for = match kind {
        CDS => name.starts_with('e').then(|| name.into()),
        RDS => (protocol == Protocol::Delta).then(|| format!("{name}/").into()),
        _ => None,
    };
    let message = format!("{name}={content}");
    Arc::new(Encoded::new(name.into(), kind.type_url(), message.as_bytes(), waits_for, Arc::new([])))
}

fn snapshot(protocol: Protocol, world: &World) -> Arc<Snapshot> {
    let set = |kind, names: &[&str], contents: &[u8]| {
        let set = names
            .iter()
            .zip(contents)
            .filter(|(_, content)| **content > 0)
            .map(|(name, content)| (Arc::<str>::from(*name), resource(protocol, kind, name, *content)));
        // Two layers, as in the pipeline.
        let (low, high): (Vec<_>, Vec<_>) = set.partition(|(name, _)| name.ends_with(['0', '1', '2']));
        Resources::new(vec![low.into_iter().collect(), high.into_iter().collect()])
    };
    Arc::new(Snapshot {
        clusters: set(CDS, &CLUSTERS, &world.clusters),
        endpoints: set(EDS, &CLUSTERS, &world.endpoints),
        listeners: set(LDS, &OTHERS, &world.listeners),
        routes: set(RDS, &OTHERS, &world.routes),
        virtual_hosts: match protocol {
            Protocol::Delta => set(VHDS, &HOSTS, &world.hosts),
            Protocol::Sotw => Resources::default(),
        },
        ..Snapshot::empty()
    })
}

fn is_bad(resource: &Encoded) -> bool {
    resource.any().ends_with(b"=3")
}

/// The route configuration that a virtual host belongs to.
fn table_of(host: &str) -> &str {
    host.split_once('/').map_or("", |(table, _)| table)
}

/// The version of the stand-in for a route configuration.
fn empty(name: &Arc<str>) -> Option<Version> {
    crate::xds::placeholder::placeholder(RDS, name).map(|r| r.version)
}

struct Client {
    protocol: Protocol,
    session: Session,
    now: Instant,
    wire: VecDeque<Frame>,
    /// Read, and not answered; with what is refused of it, which is settled when it is read, as nothing of it may be applied.
    open: BTreeMap<Kind, (Frame, Vec<Arc<Encoded>>)>,
    has: BTreeMap<Kind, BTreeMap<Arc<str>, Version>>,
    names: BTreeMap<Kind, BTreeSet<Arc<str>>>,
    nonces: BTreeMap<Kind, String>,
    warming: BTreeSet<Arc<str>>,
    refused: BTreeMap<(Kind, Arc<str>), Version>,
    /// Its wildcard subscription to virtual hosts, which never ends.
    vhds: bool,
    /// Route configurations that wait for virtual hosts: none, while no answer came.
    tables: BTreeMap<Arc<str>, Option<BTreeMap<Arc<str>, Version>>>,
}

impl Client {
    fn new(protocol: Protocol) -> Self {
        let mut client = Self {
            protocol,
            session: Session::new(protocol, snapshot(protocol, &World::default()), Limits::default())
                .sharing(shared()),
            now: Instant::now(),
            wire: VecDeque::new(),
            open: BTreeMap::new(),
            has: KINDS.map(|k| (k, BTreeMap::new())).into(),
            names: KINDS.map(|k| (k, BTreeSet::new())).into(),
            nonces: BTreeMap::new(),
            warming: BTreeSet::new(),
            refused: BTreeMap::new(),
            vhds: false,
            tables: BTreeMap::new(),
        };
        client.reconnect(snapshot(protocol, &World::default()));
        client
    }

    fn reconnect(&mut self, snapshot: Arc<Snapshot>) {
        self.session = Session::new(self.protocol, snapshot, Limits::default()).sharing(shared());
        self.wire.clear();
        self.open.clear();
        self.nonces.clear();
        self.refused.clear();
        for kind in KINDS {
            // Envoy does not speak of clusters before all are warm.
            if kind != CDS || self.warming.is_empty() {
                self.begin(kind);
            }
        }
    }

    /// The first request of a type on a stream.
    fn begin(&mut self, kind: Kind) {
        let names: Vec<String> = self.names[&kind].iter().map(ToString::to_string).collect();
        if (names.is_empty() && !kind.is_wildcard()) || (kind == VHDS && !self.vhds) {
            return;
        }
        match self.protocol {
            Protocol::Sotw => self.sotw(kind, None),
            Protocol::Delta => {
                let versions = self.has[&kind].iter().map(|(n, v)| (n.to_string(), v.to_string()));
                let request = DeltaDiscoveryRequest {
                    resource_names_subscribe: names,
                    initial_resource_versions: versions.collect(),
                    ..Default::default()
                };
                delta(&mut self.session, kind, &request).unwrap();
            }
        }
    }

    /// Whether it would say on a reconnect that it has virtual hosts which it dropped, and has the route configuration for now.
    /// They came after it had dropped that and before it had it again, and come again unless the stream ends just then. Another
    /// stream cannot tell.
    fn misleads(&self) -> bool {
        self.has[&VHDS].iter().any(|(name, version)| match self.tables.get(table_of(name)) {
            Some(hosts) => hosts.as_ref().and_then(|hosts| hosts.get(name)) != Some(version),
            None => false,
        })
    }

    fn subscribe(&mut self, kind: Kind, name: &Arc<str>, on: bool) {
        let names = self.names.get_mut(&kind).unwrap();
        if on {
            // Asked for again: it was dropped, and taken up again before a request left.
            if !names.insert(name.clone()) && kind == RDS && self.protocol == Protocol::Delta {
                self.has.get_mut(&kind).unwrap().remove(name);
                self.tables.remove(name);
            }
        } else {
            names.remove(name);
            self.has.get_mut(&kind).unwrap().remove(name);
            self.warming.remove(name);
            if kind == RDS {
                self.tables.remove(name);
            }
        }
        match self.protocol {
            Protocol::Delta => {
                let mut request = DeltaDiscoveryRequest::default();
                let list = match on {
                    true => &mut request.resource_names_subscribe,
                    false => &mut request.resource_names_unsubscribe,
                };
                list.push(name.to_string());
                delta(&mut self.session, kind, &request).unwrap();
            }
            // With a response that was read and not answered, its answer carries the new names.
            Protocol::Sotw if self.open.contains_key(&kind) => self.answer(kind),
            Protocol::Sotw => self.sotw(kind, None),
        }
    }

    fn sotw(&mut self, kind: Kind, refusal: Option<Status>) {
        let request = DiscoveryRequest {
            resource_names: self.names[&kind].iter().map(ToString::to_string).collect(),
            response_nonce: self.nonces.get(&kind).cloned().unwrap_or_default(),
            error_detail: refusal,
            ..Default::default()
        };
        self.session.sotw(kind, &request).unwrap();
    }

    fn send(&mut self) -> bool {
        let Some(frame) = self.session.next_frame(self.now) else { return false };
        self.wire.push_back(frame);
        true
    }

    fn receive(&mut self) -> bool {
        let Some(frame) = self.wire.pop_front() else { return false };
        let kind = frame.kind;
        self.nonces.insert(kind, frame.nonce.to_string());
        let bad: Vec<_> = frame.resources.iter().filter(|r| self.refuses(r)).cloned().collect();
        let drops_all = kind == VHDS && !bad.is_empty();
        assert!(self.open.insert(kind, (frame.clone(), bad)).is_none(), "two responses without an answer");
        if drops_all {
            return true;
        }
        if kind == VHDS {
            self.receive_hosts(&frame);
        }
        let has = self.has.get_mut(&kind).unwrap();
        let before = has.clone();
        if self.protocol == Protocol::Sotw && kind.is_complete() {
            has.retain(|name, _| frame.resources.iter().any(|r| r.name == *name));
        }
        for name in &frame.removed {
            assert!(!self.names[&kind].contains(name), "{name} is asked for by name: empty, not removed");
            has.remove(name);
        }
        let wanted = &self.names[&kind];
        for resource in frame.resources.iter() {
            let key = (kind, resource.name.clone());
            assert_ne!(self.refused.get(&key), Some(&resource.version), "{resource:?} was refused before");
            if !is_bad(resource) && (kind.is_wildcard() || wanted.contains(&resource.name)) {
                has.insert(resource.name.clone(), resource.version);
            }
        }
        let after = has.clone();
        match kind {
            CDS => self.follow_clusters(&before, &after),
            RDS => self.follow_routes(&frame),
            EDS => self.warming.retain(|n| !frame.resources.iter().any(|r| r.name == *n && !is_bad(r))),
            _ => {}
        }
        if self.warming.is_empty() && !self.session.watch(CDS).started {
            self.begin(CDS);
        }
        true
    }

    /// What belongs to no route configuration is not even looked at.
    fn refuses(&self, resource: &Encoded) -> bool {
        is_bad(resource)
            && (!resource.name.contains('/') || self.tables.contains_key(table_of(&resource.name)))
    }

    fn receive_hosts(&mut self, frame: &Frame) {
        for resource in frame.resources.iter() {
            if let Some(hosts) = self.tables.get_mut(table_of(&resource.name)) {
                hosts.get_or_insert_default().insert(resource.name.clone(), resource.version);
            }
        }
        for name in &frame.removed {
            if let Some(hosts) = self.tables.get_mut(table_of(name)) {
                hosts.get_or_insert_default().remove(name);
            }
        }
    }

    fn follow_routes(&mut self, frame: &Frame) {
        for resource in frame.resources.iter().filter(|r| !is_bad(r) && self.names[&RDS].contains(&r.name)) {
            if resource.waits_for.is_none() {
                assert!(
                    !self.tables.contains_key(&resource.name),
                    "{resource:?} waits for virtual hosts no longer"
                );
                continue;
            }
            self.tables.entry(resource.name.clone()).or_default();
            if !std::mem::replace(&mut self.vhds, true) {
                delta(&mut self.session, VHDS, &DeltaDiscoveryRequest::default()).unwrap();
            }
        }
    }

    /// Envoy asks for the endpoints of new clusters, and waits for those of changed ones.
    fn follow_clusters(&mut self, before: &BTreeMap<Arc<str>, Version>, after: &BTreeMap<Arc<str>, Version>) {
        for name in after.keys().filter(|n| n.starts_with('e')) {
            if before.get(name) == after.get(name) {
                continue;
            }
            self.warming.insert(name.clone());
            if !before.contains_key(name) {
                self.subscribe(EDS, name, true);
            } else if self.protocol == Protocol::Sotw && !self.open.contains_key(&EDS) {
                // It repeats its request, with the nonce that it saw last.
                self.sotw(EDS, None);
            }
        }
        for name in before.keys().filter(|n| n.starts_with('e') && !after.contains_key(*n)) {
            self.subscribe(EDS, name, false);
        }
    }

    fn answer_all(&mut self) -> bool {
        let open: Vec<Kind> = self.open.keys().copied().collect();
        // Clusters are acknowledged when they are warm.
        let ready = open.into_iter().filter(|kind| *kind != CDS || self.warming.is_empty());
        ready.collect::<Vec<_>>().into_iter().map(|kind| self.answer(kind)).count() > 0
    }

    fn answer(&mut self, kind: Kind) {
        let Some((frame, bad)) = self.open.remove(&kind) else { return };
        // Two virtual hosts with one domain: it is said which domain, not which virtual hosts.
        let named = kind != VHDS || frame.resources.len() == 1 || bad.iter().any(|r| r.name.ends_with('b'));
        for resource in frame.resources.iter() {
            let key = (kind, resource.name.clone());
            if bad.contains(resource) && named {
                self.refused.insert(key, resource.version);
            } else {
                self.refused.remove(&key);
            }
        }
        let list: Vec<String> = bad.iter().map(|r| format!("{}: is bad", r.name)).collect();
        let message = match kind {
            CDS => format!("Error adding/updating cluster(s) {}", list.join(", ")),
            LDS => format!("Error adding/updating listener(s) {}", list.join("\n")),
            _ if !named => "Duplicate entry of domain".to_owned(),
            _ => bad.iter().map(|r| format!("resource '{}' is bad; ", r.name)).collect(),
        };
        let refusal = (!bad.is_empty()).then(|| Status { code: 13, message, ..Default::default() });
        match self.protocol {
            Protocol::Sotw => self.sotw(kind, refusal),
            Protocol::Delta => {
                let (response_nonce, error_detail) = (frame.nonce.to_string(), refusal);
                let request = DeltaDiscoveryRequest { response_nonce, error_detail, ..Default::default() };
                delta(&mut self.session, kind, &request).unwrap();
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            let moved = self.send() | self.receive() | self.answer_all();
            if !moved {
                match self.session.deadline(self.now) {
                    Some(end) => self.now = end,
                    None => return,
                }
            }
        }
        panic!("it does not come to rest");
    }

    /// Whether it may have a route configuration, or have refused one, that no longer exists.
    fn may_keep(&self, name: &Arc<str>) -> bool {
        let refused = self.refused.contains_key(&(RDS, name.clone()));
        let kept = self.has[&RDS].get(name).map_or(refused, |has| Some(*has) != empty(name));
        self.protocol == Protocol::Delta && kept
    }

    fn check(&self, world: &World) {
        let snapshot = snapshot(self.protocol, world);
        for (name, hosts) in &self.tables {
            if snapshot.routes.get(name).is_some() {
                let all = snapshot.virtual_hosts.iter().filter(|r| table_of(&r.name) == &**name);
                let expected = all.map(|r| (r.name.clone(), r.version)).collect();
                assert_eq!(*hosts, Some(expected), "hosts of {name}");
            }
        }
        for kind in [CDS, EDS, LDS, RDS] {
            let Kind::Snapshot(of) = kind else { continue };
            let all = snapshot.get(of);
            let expected: BTreeMap<Arc<str>, Version> = if kind.is_wildcard() {
                all.iter().map(|r| (r.name.clone(), r.version)).collect()
            } else {
                let or_empty = |n: &Arc<str>| {
                    all.get(n).cloned().or_else(|| crate::xds::placeholder::placeholder(kind, n))
                };
                // A route configuration that waits for virtual hosts stays for as long as it is asked for.
                let wanted = self.names[&kind]
                    .iter()
                    .filter(|n| kind != RDS || !self.may_keep(n) || all.get(n).is_some());
                wanted.filter_map(|n| Some((n.clone(), or_empty(n)?.version))).collect()
            };
            let mut has = self.has[&kind].clone();
            has.retain(|n, _| kind != RDS || !self.may_keep(n) || all.get(n).is_some());
            assert_eq!(has, expected, "{kind:?} of {:?}", self.protocol);
        }
        assert!(self.warming.is_empty(), "{:?} wait for endpoints", self.warming);
    }
}

fn run(protocol: Protocol, ops: &[Op], last: &World) {
    let mut client = Client::new(protocol);
    let mut current = World::default();
    for op in ops {
        match op {
            Op::Publish(world) => {
                current = world.clone();
                client.session.snapshot(snapshot(protocol, world));
            }
            Op::Send => drop(client.send()),
            Op::Receive => drop(
                client.wire.front().is_some_and(|f| !client.open.contains_key(&f.kind)) && client.receive(),
            ),
            Op::Answer => drop(client.answer_all()),
            Op::Route(i, on) => client.subscribe(RDS, &OTHERS[*i].into(), *on),
            Op::Extra(on) => client.subscribe(EDS, &"x".into(), *on),
            Op::Reconnect if client.misleads() => {}
            Op::Reconnect => client.reconnect(snapshot(protocol, &current)),
        }
    }
    client.session.snapshot(snapshot(protocol, last));
    client.settle();
    client.check(last);
}

proptest! {
    #[test]
    fn a_delta_client_ends_with_its_view(ops in proptest::collection::vec(op(0..4), 0..80), last in world(0..3)) {
        run(Protocol::Delta, &ops, &last);
    }

    #[test]
    fn a_sotw_client_ends_with_its_view(ops in proptest::collection::vec(op(0..4), 0..80), last in world(0..3)) {
        run(Protocol::Sotw, &ops, &last);
    }
}
