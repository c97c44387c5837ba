//! The protocol, request by request: each scenario is a script of what the client says and what it must get.

use std::time::Duration;

use landbridge_proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
    google::rpc::Status,
};

use super::*;
use crate::snapshot::ResourceSet;
use ResourceType::{Cluster, Endpoint, Listener, Route};

const CDS: Kind = Kind::Snapshot(Cluster);
const EDS: Kind = Kind::Snapshot(Endpoint);
const LDS: Kind = Kind::Snapshot(Listener);
const RDS: Kind = Kind::Snapshot(Route);

fn resource(kind: Kind, name: &str, content: &str) -> Arc<Encoded> {
    let waits_for = (kind == CDS && name.starts_with('e')).then(|| name.into());
    Arc::new(Encoded::new(name.into(), kind.type_url(), content.as_bytes(), waits_for, Arc::new([])))
}

/// `name=content` pairs; the content is the name where it is missing.
fn set(kind: Kind, items: &str) -> Resources {
    let set: ResourceSet = items
        .split_whitespace()
        .map(|item| item.split_once('=').unwrap_or((item, item)))
        .map(|(name, content)| (Arc::<str>::from(name), resource(kind, name, content)))
        .collect();
    Resources::new(vec![set])
}

fn snapshot([clusters, endpoints, listeners, routes]: [&str; 4]) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        clusters: set(CDS, clusters),
        endpoints: set(EDS, endpoints),
        listeners: set(LDS, listeners),
        routes: set(RDS, routes),
        ..Snapshot::empty()
    })
}

/// A client that writes down what it gets.
struct Client {
    session: Session,
    now: Instant,
}

impl Client {
    fn new(protocol: Protocol, resources: [&str; 4]) -> Self {
        Self { session: Session::new(protocol, snapshot(resources), Limits::default()), now: Instant::now() }
    }

    /// Everything that is sent now, unanswered: `cds +a -b`.
    fn frames(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.session.next_frame(self.now)).map(|f| describe(&f)).collect()
    }

    /// Everything that is sent, with an ACK for each.
    fn settle(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(frame) = self.session.next_frame(self.now) {
            all.push(describe(&frame));
            self.ack(frame.kind);
        }
        all
    }

    fn push(&mut self, resources: [&str; 4]) {
        self.session.snapshot(snapshot(resources));
    }

    fn delta(&mut self, kind: Kind, subscribe: &[&str], unsubscribe: &[&str], nonce: &str) -> Heard {
        let strings = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let request = DeltaDiscoveryRequest {
            resource_names_subscribe: strings(subscribe),
            resource_names_unsubscribe: strings(unsubscribe),
            response_nonce: nonce.to_owned(),
            ..Default::default()
        };
        self.session.delta(kind, &request).unwrap()
    }

    fn sotw(&mut self, kind: Kind, names: &[&str], nonce: &str) -> Heard {
        let request = DiscoveryRequest {
            resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
            response_nonce: nonce.to_owned(),
            ..Default::default()
        };
        self.session.sotw(kind, &request).unwrap()
    }

    fn names(&self, kind: Kind) -> Vec<String> {
        self.session.watch(kind).subscription.names.iter().map(ToString::to_string).collect()
    }

    fn nonce(&self, kind: Kind) -> String {
        self.session.watch(kind).last_nonce.clone().unwrap_or_default()
    }

    fn subscribe(&mut self, kind: Kind, names: &[&str]) {
        match self.session.protocol {
            Protocol::Delta => self.delta(kind, names, &[], ""),
            Protocol::Sotw => {
                let nonce = self.nonce(kind);
                self.sotw(kind, names, &nonce)
            }
        };
    }

    fn ack(&mut self, kind: Kind) -> Heard {
        self.answer(kind, None)
    }

    fn answer(&mut self, kind: Kind, refusal: Option<&str>) -> Heard {
        let error_detail = refusal.map(|m| Status { code: 13, message: m.into(), ..Default::default() });
        let response_nonce = self.nonce(kind);
        match self.session.protocol {
            Protocol::Delta => {
                let request = DeltaDiscoveryRequest { response_nonce, error_detail, ..Default::default() };
                self.session.delta(kind, &request)
            }
            Protocol::Sotw => {
                let resource_names = self.names(kind);
                let request =
                    DiscoveryRequest { resource_names, response_nonce, error_detail, ..Default::default() };
                self.session.sotw(kind, &request)
            }
        }
        .unwrap()
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }
}

fn describe(frame: &Frame) -> String {
    let mut text = frame.kind.short().to_owned();
    for resource in &frame.resources {
        text += &format!(" +{}", content(resource));
    }
    for name in &frame.removed {
        text += &format!(" -{name}");
    }
    text
}

/// `name`, `name=content`, or `name=` for an empty stand-in.
fn content(resource: &Encoded) -> String {
    use prost::Message;
    let any = prost_types::Any::decode(resource.any()).unwrap();
    match std::str::from_utf8(&any.value) {
        Ok(text) if *text == *resource.name => text.to_owned(),
        Ok(text) if !text.starts_with('\n') => format!("{}={text}", resource.name),
        _ => format!("{}=", resource.name),
    }
}

const BOTH: [Protocol; 2] = [Protocol::Delta, Protocol::Sotw];

/// As Envoy begins: clusters, their endpoints, listeners, routes.
fn envoy(protocol: Protocol, resources: [&str; 4], endpoints: &[&str], routes: &[&str]) -> Client {
    let mut client = Client::new(protocol, resources);
    for (kind, names) in [(CDS, [].as_slice()), (EDS, endpoints), (LDS, &[]), (RDS, routes)] {
        if kind.is_wildcard() || !names.is_empty() {
            client.subscribe(kind, names);
        }
        client.settle();
    }
    client
}

#[test]
fn a_proxy_gets_all_clusters_and_listeners_and_what_it_names() {
    for protocol in BOTH {
        let mut c = Client::new(protocol, ["b a", "a=1 b", "l", "80 90"]);
        c.subscribe(CDS, &[]);
        assert_eq!(c.frames(), ["cds +a +b"]);
        c.subscribe(EDS, &["a", "unknown"]);
        assert_eq!(c.frames(), ["eds +a=1 +unknown="], "before the CDS ACK, as Envoy asks");
        c.ack(CDS);
        c.ack(EDS);
        c.subscribe(LDS, &[]);
        c.subscribe(RDS, &["80", "none"]);
        assert_eq!(c.frames(), ["lds +l", "rds +80 +none="]);
        c.ack(LDS);
        c.ack(RDS);
        assert!(c.frames().is_empty());
    }
}

#[test]
fn an_empty_set_is_an_answer_too() {
    for protocol in BOTH {
        let mut c = Client::new(protocol, [""; 4]);
        c.subscribe(CDS, &[]);
        c.subscribe(LDS, &[]);
        c.subscribe(EDS, &[]);
        c.subscribe(RDS, &[]);
        assert_eq!(c.settle(), ["cds", "lds"]);
    }
}

#[test]
fn a_change_is_sent_once_and_alone() {
    let mut c = envoy(Protocol::Delta, ["a b", "a b", "l", "80"], &["a", "b"], &["80"]);
    c.push(["a b=2 c", "a=2 b", "l", "80"]);
    assert_eq!(c.settle(), ["cds +b=2 +c", "eds +a=2"]);
    c.push(["a c", "a=2 b", "l", "80"]);
    assert_eq!(c.settle(), ["cds -b"]);

    let mut c = envoy(Protocol::Sotw, ["a b", "a b", "l", "80"], &["a", "b"], &["80"]);
    c.push(["a b=2 c", "a=2 b", "l", "80"]);
    assert_eq!(c.settle(), ["cds +a +b=2 +c", "eds +a=2"], "clusters are complete, assignments partial");
    c.push(["a c", "a=2 b", "l", "80"]);
    assert_eq!(c.settle(), ["cds +a +c"]);
}

#[test]
fn what_happens_before_the_answer_is_sent_in_one() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["", "a", "", ""], &["a"], &[]);
        c.push(["", "a=1", "", ""]);
        assert_eq!(c.frames(), ["eds +a=1"]);
        for content in ["a=2", "a=3", "a=4"] {
            c.push(["", content, "", ""]);
            assert!(c.frames().is_empty(), "one response at a time");
        }
        c.ack(EDS);
        assert_eq!(c.settle(), ["eds +a=4"]);
        c.push(["", "a=5", "", ""]);
        assert_eq!(c.frames(), ["eds +a=5"]);
        c.push(["", "a=6", "", ""]);
        c.push(["", "a=5", "", ""]);
        c.ack(EDS);
        assert!(c.frames().is_empty(), "back where it was");
    }
}

#[test]
fn an_answer_with_another_nonce_is_stale() {
    for protocol in BOTH {
        let mut c = Client::new(protocol, ["a", "", "", ""]);
        c.subscribe(CDS, &[]);
        assert_eq!(c.frames(), ["cds +a"]);
        let heard = match protocol {
            Protocol::Delta => c.delta(CDS, &[], &[], "nonsense"),
            Protocol::Sotw => c.sotw(CDS, &[], "nonsense"),
        };
        assert!(matches!(heard, Heard::Stale), "{heard:?}");
        c.push(["a=2", "", "", ""]);
        assert!(c.frames().is_empty(), "the response is still unanswered");
        assert!(matches!(c.ack(CDS), Heard::Acked(_)));
        assert_eq!(c.frames(), ["cds +a=2"]);
    }
}

#[test]
fn a_name_that_appears_and_goes_is_empty_before_and_after() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["", "", "", ""], &["a"], &["80"]);
        c.push(["", "a=1", "", "80"]);
        assert_eq!(c.settle(), ["eds +a=1", "rds +80"]);
        c.push(["", "", "", ""]);
        assert_eq!(c.settle(), ["rds +80=", "eds +a="], "routes go before endpoints");
    }
}

#[test]
fn unsubscribed_names_are_no_longer_sent() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["", "a b", "", ""], &["a", "b"], &[]);
        match protocol {
            Protocol::Delta => c.delta(EDS, &[], &["a"], ""),
            Protocol::Sotw => c.sotw(EDS, &["b"], &c.nonce(EDS)),
        };
        assert!(c.frames().is_empty());
        c.push(["", "a=2 b=2", "", ""]);
        assert_eq!(c.settle(), ["eds +b=2"]);
        match protocol {
            Protocol::Delta => c.delta(EDS, &["a"], &[], ""),
            Protocol::Sotw => c.sotw(EDS, &["a", "b"], &c.nonce(EDS)),
        };
        assert_eq!(c.settle(), ["eds +a=2"]);
    }
}

#[test]
fn a_cluster_that_is_sent_owes_its_endpoints() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["e1 e2", "e1 e2", "", ""], &["e1", "e2"], &[]);
        c.push(["e1=2 e2", "e1 e2", "", ""]);
        let cds = if protocol == Protocol::Delta { "cds +e1=2" } else { "cds +e1=2 +e2" };
        assert_eq!(c.frames(), [cds, "eds +e1"], "unchanged, and without being asked");
        c.ack(CDS);
        c.ack(EDS);
        assert!(c.frames().is_empty());
    }
}

#[test]
fn endpoints_in_flight_do_not_pay_for_a_cluster_that_follows() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["e1", "e1", "", ""], &["e1"], &[]);
        c.push(["e1", "e1=2", "", ""]);
        assert_eq!(c.frames(), ["eds +e1=2"]);
        c.push(["e1=2", "e1=2", "", ""]);
        assert_eq!(c.frames(), ["cds +e1=2"]);
        c.ack(EDS);
        assert_eq!(c.frames(), ["eds +e1=2"], "again, after the cluster");
    }
}

#[test]
fn a_repeated_request_of_a_warming_cluster_is_answered() {
    // State of the world: Envoy repeats the request with the last nonce, which looks like an ACK.
    let mut c = envoy(Protocol::Sotw, ["e1", "e1", "", ""], &["e1"], &[]);
    c.push(["e1=2", "e1", "", ""]);
    assert_eq!(c.session.next_frame(c.now).map(|f| f.kind), Some(CDS));
    let before = c.nonce(EDS);
    c.sotw(EDS, &["e1"], &before);
    assert_eq!(c.frames(), ["eds +e1"]);
    assert!(matches!(c.sotw(EDS, &["e1"], &before), Heard::Stale));
    assert!(matches!(c.ack(EDS), Heard::Acked(_)));
    assert!(c.frames().is_empty());
}

#[test]
fn listeners_and_routes_follow_when_new_clusters_are_warm() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a", "", "l", "80"], &["a"], &["80"]);
        c.push(["a b", "", "l=b", "80=b"]);
        let cds = if protocol == Protocol::Delta { "cds +b" } else { "cds +a +b" };
        assert_eq!(c.frames(), [cds]);
        c.ack(CDS);
        assert_eq!(c.frames(), ["lds +l=b", "rds +80=b"]);
    }
}

#[test]
fn a_client_that_does_not_answer_delays_but_does_not_stop_the_others() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a", "", "l", ""], &[], &[]);
        c.push(["a b", "", "l=b", ""]);
        assert_eq!(c.frames().len(), 1);
        let deadline = c.session.deadline(c.now).expect("something is waited for");
        c.wait(deadline - c.now);
        assert_eq!(c.frames(), ["lds +l=b"]);
    }
}

#[test]
fn clusters_go_after_what_names_them() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a b", "a b", "l=b", "80=b"], &["a", "b"], &["80"]);
        c.push(["a", "a", "l=a", "80=a"]);
        assert_eq!(c.frames(), ["lds +l=a", "rds +80=a"]);
        c.ack(LDS);
        assert!(c.frames().is_empty(), "routes still name it");
        c.ack(RDS);
        let cds = if protocol == Protocol::Delta { "cds -b" } else { "cds +a" };
        assert_eq!(c.frames(), [cds, "eds +b="]);
    }
}

#[test]
fn clusters_that_come_back_while_held_were_never_away() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a b", "", "l=b", ""], &[], &[]);
        c.push(["a", "", "l=a", ""]);
        assert_eq!(c.frames(), ["lds +l=a"]);
        c.push(["a b", "", "l=b", ""]);
        c.ack(LDS);
        assert_eq!(c.settle(), ["lds +l=b"]);
    }
}

#[test]
fn a_held_removal_is_sent_in_the_end() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a b", "", "l=b", ""], &[], &[]);
        c.push(["a", "", "l=a", ""]);
        assert_eq!(c.frames(), ["lds +l=a"]);
        c.wait(order::PATIENCE);
        let cds = if protocol == Protocol::Delta { "cds -b" } else { "cds +a" };
        assert_eq!(c.frames(), [cds], "without an answer to LDS");
    }
}

#[test]
fn a_refused_version_is_not_sent_again() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a b", "", "", ""], &[], &[]);
        c.push(["a=bad b=2", "", "", ""]);
        assert_eq!(c.frames(), ["cds +a=bad +b=2"]);
        let heard = c.answer(CDS, Some("Error adding/updating cluster(s) a: no"));
        let Heard::Nacked(_, culprits) = heard else { panic!("{heard:?}") };
        assert_eq!(culprits.iter().map(|r| &*r.name).collect::<Vec<_>>(), ["a"]);
        assert!(c.frames().is_empty());
        c.push(["a=bad b=3", "", "", ""]);
        let expected = if protocol == Protocol::Delta { "cds +b=3" } else { "cds +a +b=3" };
        assert_eq!(c.settle(), [expected], "the last good bytes stand in where the set must be complete");
        c.push(["a=bad b=4", "", "", ""]);
        let expected = if protocol == Protocol::Delta { "cds +b=4" } else { "cds +a +b=4" };
        assert_eq!(c.settle(), [expected], "also after an ACK");
        c.push(["a=good b=4", "", "", ""]);
        let expected = if protocol == Protocol::Delta { "cds +a=good" } else { "cds +a=good +b=4" };
        assert_eq!(c.settle(), [expected]);
    }
}

#[test]
fn quarantine_brings_the_last_good_bytes() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a", "", "", ""], &[], &[]);
        c.push(["a=bad", "", "", ""]);
        assert_eq!(c.frames(), ["cds +a=bad"]);
        c.answer(CDS, Some("no"));
        c.push(["a", "", "", ""]);
        assert_eq!(c.settle(), ["cds +a"], "it may have been applied in part");
        c.push(["a b", "", "", ""]);
        assert_eq!(c.settle(), [if protocol == Protocol::Delta { "cds +b" } else { "cds +a +b" }]);
    }
}

#[test]
fn a_new_resource_that_is_refused_is_left_out() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a", "", "", ""], &[], &[]);
        c.push(["a z=bad", "", "", ""]);
        assert_eq!(c.frames().len(), 1);
        c.answer(CDS, Some("Error adding/updating cluster(s) z: no"));
        c.push(["a=2 z=bad", "", "", ""]);
        assert_eq!(c.settle(), ["cds +a=2"]);
    }
}

#[test]
fn delta_reconnect_sends_what_differs() {
    let mut c = Client::new(Protocol::Delta, ["same new changed=2", "e x=2", "l", ""]);
    let version = |kind, name: &str, content: &str| resource(kind, name, content).version.to_string();
    let mut request = DeltaDiscoveryRequest::default();
    for (name, v) in [
        ("same", version(CDS, "same", "same")),
        ("changed", version(CDS, "changed", "1")),
        ("gone", version(CDS, "gone", "gone")),
        ("odd", "not a version".into()),
    ] {
        request.initial_resource_versions.insert(name.into(), v);
    }
    c.session.delta(CDS, &request).unwrap();
    assert_eq!(c.settle(), ["cds +changed=2 +new -gone -odd"]);

    let mut request = DeltaDiscoveryRequest {
        resource_names_subscribe: ["e", "x", "gone", "empty"].map(String::from).to_vec(),
        ..Default::default()
    };
    let placeholder = crate::xds::placeholder::placeholder(EDS, &"empty".into()).unwrap().version;
    for (name, v) in [
        ("e", version(EDS, "e", "e")),
        ("x", version(EDS, "x", "1")),
        ("gone", version(EDS, "gone", "1")),
        ("empty", placeholder.to_string()),
    ] {
        request.initial_resource_versions.insert(name.into(), v);
    }
    c.session.delta(EDS, &request).unwrap();
    assert_eq!(c.settle(), ["eds +gone= +x=2"]);

    let mut request = DeltaDiscoveryRequest::default();
    request.initial_resource_versions.insert("l".into(), version(LDS, "l", "l"));
    c.session.delta(LDS, &request).unwrap();
    assert!(c.frames().is_empty(), "nothing is sent again");
    assert!(c.session.watch(LDS).in_flight.is_none());
}

#[test]
fn delta_reconnect_owes_the_endpoints_of_changed_clusters() {
    let mut c = Client::new(Protocol::Delta, ["e1=2", "e1", "", ""]);
    let mut request = DeltaDiscoveryRequest::default();
    request.initial_resource_versions.insert("e1".into(), resource(CDS, "e1", "e1").version.to_string());
    c.session.delta(CDS, &request).unwrap();
    assert_eq!(c.frames(), ["cds +e1=2"]);
    let mut request =
        DeltaDiscoveryRequest { resource_names_subscribe: vec!["e1".into()], ..Default::default() };
    request.initial_resource_versions.insert("e1".into(), resource(EDS, "e1", "e1").version.to_string());
    c.session.delta(EDS, &request).unwrap();
    assert_eq!(c.frames(), ["eds +e1"], "the cluster warms again and waits for it");
}

#[test]
fn delta_wildcards_come_and_go() {
    let mut c = Client::new(Protocol::Delta, ["a b", "", "", ""]);
    c.delta(CDS, &["a", "none"], &[], "");
    assert_eq!(c.settle(), ["cds +a -none"], "names only, and the unknown one is answered");
    c.delta(CDS, &["*"], &[], "");
    assert_eq!(c.settle(), ["cds +a +b"]);
    c.delta(CDS, &["b"], &[], "");
    assert_eq!(c.settle(), ["cds +b"], "what is asked for again is sent again");
    c.delta(CDS, &[], &["b"], "");
    assert_eq!(c.settle(), ["cds +b"], "still in the wildcard, so it is confirmed");
    c.delta(CDS, &[], &["*"], "");
    c.push(["a=2 b=2", "", "", ""]);
    assert_eq!(c.settle(), ["cds +a=2"]);
    c.delta(CDS, &["x"], &["x", "never-there"], "");
    assert!(c.settle().is_empty(), "contradictions end as unsubscribed");
}

#[test]
fn a_second_request_before_the_first_answer_is_no_ack() {
    // Envoy: `default`, then `default` and `ROOTCA`, both without a nonce.
    let mut c = Client::new(Protocol::Sotw, [""; 4]);
    c.session.secrets(set(Kind::Secret, "default ROOTCA"));
    c.sotw(Kind::Secret, &["default"], "");
    assert_eq!(c.frames(), ["sds +default"]);
    c.sotw(Kind::Secret, &["default", "ROOTCA"], "");
    assert!(c.frames().is_empty(), "one response at a time");
    assert!(matches!(c.ack(Kind::Secret), Heard::Acked(_)));
    assert_eq!(c.settle(), ["sds +ROOTCA"]);
}

#[test]
fn secrets_rotate_and_are_never_removed() {
    for protocol in BOTH {
        let mut c = Client::new(protocol, [""; 4]);
        c.subscribe(Kind::Secret, &["default", "ROOTCA", "not-mine"]);
        assert!(c.frames().is_empty(), "no secret is better than an empty one");
        c.session.secrets(set(Kind::Secret, "default=1 ROOTCA"));
        assert_eq!(c.settle(), ["sds +ROOTCA +default=1"]);
        c.session.secrets(set(Kind::Secret, "default=2 ROOTCA"));
        assert_eq!(c.settle(), ["sds +default=2"]);
        c.session.secrets(set(Kind::Secret, ""));
        assert!(c.settle().is_empty());
    }
}

#[test]
fn large_answers_come_in_parts() {
    let names: Vec<String> = (0..100).map(|i| format!("c{i:02}")).collect();
    let list = names.join(" ");
    let limits = Limits { response_bytes: 2000, ..Limits::default() };
    let mut c = Client::new(Protocol::Delta, [""; 4]);
    c.session = Session::new(Protocol::Delta, snapshot([&list, "", "l", ""]), limits);
    c.subscribe(CDS, &[]);
    let (mut seen, mut frames) = (0, 0);
    while let Some(frame) = c.session.next_frame(c.now) {
        assert!(frame.bytes() <= 2000, "{} bytes", frame.bytes());
        assert!(c.session.next_frame(c.now).is_none(), "a part waits for the answer to the one before");
        (seen, frames) = (seen + frame.resources.len(), frames + 1);
        c.ack(CDS);
    }
    assert_eq!(seen, 100);
    assert!(frames > 3);
}

#[test]
fn more_names_than_the_limit_are_refused() {
    let limits = Limits { names: 3, name_bytes: 10, ..Limits::default() };
    for protocol in BOTH {
        let mut c = Client::new(protocol, [""; 4]);
        c.session = Session::new(protocol, snapshot([""; 4]), limits);
        let mut ask = |kind, names: &[&str]| match protocol {
            Protocol::Delta => c.session.delta(
                kind,
                &DeltaDiscoveryRequest {
                    resource_names_subscribe: names.iter().map(|n| (*n).to_owned()).collect(),
                    ..Default::default()
                },
            ),
            Protocol::Sotw => c.session.sotw(
                kind,
                &DiscoveryRequest {
                    resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
                    ..Default::default()
                },
            ),
        };
        ask(EDS, &["a", "b"]).unwrap();
        ask(EDS, &["a", "b"]).unwrap();
        ask(RDS, &["a"]).unwrap();
        assert_eq!(ask(RDS, &["a", "b"]).unwrap_err(), Violation::TooManyNames { asked: 4, limit: 3 });
        let error = ask(RDS, &["a".repeat(11).as_str()]).unwrap_err();
        assert_eq!(error, Violation::NameLength { kind: "rds", bytes: 11, limit: 10 });
        assert!(ask(RDS, &[""]).is_err());
    }
}
