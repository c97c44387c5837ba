//! Any history of snapshots, subscriptions, refusals, delays and reconnects ends with a client that has exactly what
//! its view has, in both protocols.
//!
//! The client is modelled after Envoy: it asks for the endpoints of clusters as they come, acknowledges clusters when
//! they are warm, applies the good part of what it refuses, and keeps all that it has over a reconnect.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use landbridge_proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
    google::rpc::Status,
};
use proptest::prelude::*;

use super::*;
use crate::snapshot::{ResourceSet, Version};
use ResourceType::{Cluster, Endpoint, Listener, Route};

const CDS: Kind = Kind::Snapshot(Cluster);
const EDS: Kind = Kind::Snapshot(Endpoint);
const LDS: Kind = Kind::Snapshot(Listener);
const RDS: Kind = Kind::Snapshot(Route);
const KINDS: [Kind; 4] = [CDS, EDS, LDS, RDS];
/// Names of clusters and assignments: the first three take their endpoints from EDS.
const CLUSTERS: [&str; 5] = ["e1", "e2", "e3", "s4", "s5"];
const OTHERS: [&str; 3] = ["80", "90", "443"];

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
}

fn world(contents: std::ops::Range<u8>) -> impl Strategy<Value = World> {
    let c = || contents.clone();
    (
        proptest::array::uniform5(c()),
        proptest::array::uniform5(c()),
        proptest::array::uniform3(c()),
        proptest::array::uniform3(c()),
    )
        .prop_map(|(clusters, endpoints, listeners, routes)| World {
            clusters,
            endpoints,
            listeners,
            routes,
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

fn resource(kind: Kind, name: &str, content: u8) -> Arc<Encoded> {
    let waits_for = (kind == CDS && name.starts_with('e')).then(|| name.into());
    let message = format!("{name}={content}");
    Arc::new(Encoded::new(name.into(), kind.type_url(), message.as_bytes(), waits_for, Arc::new([])))
}

fn snapshot(world: &World) -> Arc<Snapshot> {
    let set = |kind, names: &[&str], contents: &[u8]| {
        let set: ResourceSet = names
            .iter()
            .zip(contents)
            .filter(|(_, content)| **content > 0)
            .map(|(name, content)| (Arc::<str>::from(*name), resource(kind, name, *content)))
            .collect();
        // Two layers, as in the pipeline.
        let (low, high): (ResourceSet, ResourceSet) =
            set.into_iter().partition(|(name, _)| name.ends_with(['0', '1', '2']));
        Resources::new(vec![low, high])
    };
    Arc::new(Snapshot {
        clusters: set(CDS, &CLUSTERS, &world.clusters),
        endpoints: set(EDS, &CLUSTERS, &world.endpoints),
        listeners: set(LDS, &OTHERS, &world.listeners),
        routes: set(RDS, &OTHERS, &world.routes),
        ..Snapshot::empty()
    })
}

fn is_bad(resource: &Encoded) -> bool {
    resource.any().ends_with(b"=3")
}

struct Client {
    protocol: Protocol,
    session: Session,
    now: Instant,
    wire: VecDeque<Frame>,
    /// Read, and not answered.
    open: BTreeMap<Kind, Frame>,
    has: BTreeMap<Kind, BTreeMap<Arc<str>, Version>>,
    names: BTreeMap<Kind, BTreeSet<Arc<str>>>,
    nonces: BTreeMap<Kind, String>,
    warming: BTreeSet<Arc<str>>,
    refused: BTreeMap<(Kind, Arc<str>), Version>,
}

impl Client {
    fn new(protocol: Protocol) -> Self {
        let mut client = Self {
            protocol,
            session: Session::new(protocol, snapshot(&World::default()), Limits::default()),
            now: Instant::now(),
            wire: VecDeque::new(),
            open: BTreeMap::new(),
            has: KINDS.map(|k| (k, BTreeMap::new())).into(),
            names: KINDS.map(|k| (k, BTreeSet::new())).into(),
            nonces: BTreeMap::new(),
            warming: BTreeSet::new(),
            refused: BTreeMap::new(),
        };
        client.reconnect(snapshot(&World::default()));
        client
    }

    fn reconnect(&mut self, snapshot: Arc<Snapshot>) {
        self.session = Session::new(self.protocol, snapshot, Limits::default());
        self.wire.clear();
        self.open.clear();
        self.nonces.clear();
        self.refused.clear();
        self.warming.clear();
        for kind in KINDS {
            let names: Vec<String> = self.names[&kind].iter().map(ToString::to_string).collect();
            if names.is_empty() && !kind.is_wildcard() {
                continue;
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
                    self.session.delta(kind, &request).unwrap();
                }
            }
        }
    }

    fn subscribe(&mut self, kind: Kind, name: &Arc<str>, on: bool) {
        let names = self.names.get_mut(&kind).unwrap();
        if on {
            names.insert(name.clone());
        } else {
            names.remove(name);
            self.has.get_mut(&kind).unwrap().remove(name);
            self.warming.remove(name);
        }
        match self.protocol {
            Protocol::Delta => {
                let mut request = DeltaDiscoveryRequest::default();
                let list = match on {
                    true => &mut request.resource_names_subscribe,
                    false => &mut request.resource_names_unsubscribe,
                };
                list.push(name.to_string());
                self.session.delta(kind, &request).unwrap();
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
        self.nonces.insert(kind, frame.nonce.clone());
        assert!(self.open.insert(kind, frame.clone()).is_none(), "two responses without an answer");
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
        for resource in &frame.resources {
            let key = (kind, resource.name.clone());
            assert_ne!(self.refused.get(&key), Some(&resource.version), "{resource:?} was refused before");
            if !is_bad(resource) && (kind.is_wildcard() || wanted.contains(&resource.name)) {
                has.insert(resource.name.clone(), resource.version);
            }
        }
        let after = has.clone();
        match kind {
            CDS => self.follow_clusters(&before, &after),
            EDS => self.warming.retain(|n| !frame.resources.iter().any(|r| r.name == *n && !is_bad(r))),
            _ => {}
        }
        true
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
        let Some(frame) = self.open.remove(&kind) else { return };
        let bad: Vec<&Arc<Encoded>> = frame.resources.iter().filter(|r| is_bad(r)).collect();
        for resource in &frame.resources {
            let key = (kind, resource.name.clone());
            if is_bad(resource) {
                self.refused.insert(key, resource.version);
            } else {
                self.refused.remove(&key);
            }
        }
        let list: Vec<String> = bad.iter().map(|r| format!("{}: is bad", r.name)).collect();
        let message = match kind {
            CDS => format!("Error adding/updating cluster(s) {}", list.join(", ")),
            LDS => format!("Error adding/updating listener(s) {}", list.join("\n")),
            _ => bad.iter().map(|r| format!("resource '{}' is bad; ", r.name)).collect(),
        };
        let refusal = (!bad.is_empty()).then(|| Status { code: 13, message, ..Default::default() });
        match self.protocol {
            Protocol::Sotw => self.sotw(kind, refusal),
            Protocol::Delta => {
                let (response_nonce, error_detail) = (frame.nonce, refusal);
                let request = DeltaDiscoveryRequest { response_nonce, error_detail, ..Default::default() };
                self.session.delta(kind, &request).unwrap();
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

    fn check(&self, world: &World) {
        let snapshot = snapshot(world);
        for kind in KINDS {
            let Kind::Snapshot(of) = kind else { continue };
            let all = snapshot.get(of);
            let expected: BTreeMap<Arc<str>, Version> = if kind.is_wildcard() {
                all.iter().map(|r| (r.name.clone(), r.version)).collect()
            } else {
                let or_empty = |n: &Arc<str>| {
                    all.get(n).cloned().or_else(|| crate::xds::placeholder::placeholder(kind, n))
                };
                self.names[&kind].iter().filter_map(|n| Some((n.clone(), or_empty(n)?.version))).collect()
            };
            assert_eq!(self.has[&kind], expected, "{kind:?} of {:?}", self.protocol);
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
                client.session.snapshot(snapshot(world));
            }
            Op::Send => drop(client.send()),
            Op::Receive => drop(
                client.wire.front().is_some_and(|f| !client.open.contains_key(&f.kind)) && client.receive(),
            ),
            Op::Answer => drop(client.answer_all()),
            Op::Route(i, on) => client.subscribe(RDS, &OTHERS[*i].into(), *on),
            Op::Extra(on) => client.subscribe(EDS, &"x".into(), *on),
            Op::Reconnect => client.reconnect(snapshot(&current)),
        }
    }
    client.session.snapshot(snapshot(last));
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
