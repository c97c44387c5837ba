//! What a proxy asks for, in which order, and what it has in the end.

use std::{sync::Arc, time::Instant};

use super::{
    board::{Board, Watch},
    nack::Nack,
    proxy::{Asks, Protocol, Proxy, Shared},
    tally::Tally,
    world::World,
};
use crate::{
    expect::{Expectation, Marker, Type},
    wire::{Fields, Writer, short_name, type_of, type_url},
};

struct Lab {
    asks: Asks,
    board: Arc<Board>,
    world: World,
    watch: Watch,
    tally: Tally,
    proxy: Proxy,
    nonce: u32,
}

impl Lab {
    fn new(protocol: Protocol) -> Self {
        let board = Arc::new(Board::default());
        let types = vec![
            Type::Cluster,
            Type::Endpoint,
            Type::LbEndpoint,
            Type::Listener,
            Type::Route,
            Type::VirtualHost,
        ];
        let world = World::default();
        Self {
            asks: Asks { protocol, types, clusters: usize::MAX, nack: Nack::Never },
            watch: Watch::new(Arc::clone(&board)),
            board,
            proxy: Proxy::new(0, 1, [], &world),
            world,
            tally: Tally::default(),
            nonce: 0,
        }
    }

    fn step(&mut self, act: impl FnOnce(&mut Proxy, &mut Shared<'_>, &mut dyn FnMut(&[u8]))) -> Vec<String> {
        let mut sent = Vec::new();
        let protocol = self.asks.protocol;
        let mut shared = Shared {
            asks: &self.asks,
            world: &mut self.world,
            watch: &mut self.watch,
            tally: &mut self.tally,
            now: Instant::now(),
        };
        act(&mut self.proxy, &mut shared, &mut |request| sent.push(read(protocol, request)));
        sent
    }

    fn begin(&mut self) -> Vec<String> {
        self.step(|proxy, shared, send| proxy.begin(b"", shared, send))
    }

    fn receive(&mut self, kind: Type, resources: &[(&str, Vec<u8>)], removed: &[&str]) -> Vec<String> {
        self.nonce += 1;
        let nonce = format!("n{}", self.nonce);
        let mut response = Writer::default();
        for (name, body) in resources {
            match self.asks.protocol {
                Protocol::Sotw => response.message(2, |any| _ = any.text(1, type_url(kind)).item(2, body)),
                Protocol::Delta => response.message(2, |resource| {
                    resource.text(1, "v1").message(2, |any| _ = any.item(2, body)).text(3, name);
                }),
            };
        }
        response.text(4, type_url(kind)).text(5, &nonce).text(1, "w1");
        removed.iter().for_each(|name| _ = response.text(6, name));
        self.step(|proxy, shared, send| proxy.receive(&response.0, shared, send).unwrap())
    }

    fn state(&self) -> Vec<String> {
        let mut state: Vec<_> = self
            .proxy
            .state()
            .filter(|(_, content)| content.is_some())
            .map(|(name, _)| {
                let name = self.world.of_name(name);
                format!("{} {}", short_name(name.kind), name.text)
            })
            .collect();
        state.sort();
        state
    }
}

/// `eds +a +b -c =d/v ack n1`
fn read(protocol: Protocol, request: &[u8]) -> String {
    let (url, add, remove, versions, nonce, refused) = match protocol {
        Protocol::Sotw => (4, 3, 99, 98, 5, 6),
        Protocol::Delta => (2, 3, 4, 5, 6, 7),
    };
    let mut names = Vec::new();
    let mut rest = String::new();
    Fields(request)
        .each_bytes(|field, bytes| {
            let text = || String::from_utf8_lossy(bytes).into_owned();
            if field == add {
                names.push(format!(" +{}", text()));
            } else if field == remove {
                names.push(format!(" -{}", text()));
            } else if field == versions {
                names.push(format!(" ={}/{}", Fields(bytes).text(1)?, Fields(bytes).text(2)?));
            } else if field == nonce {
                rest.push_str(&format!(" ack {}", text()));
            } else if field == refused {
                rest.push_str(" refused");
            }
            Ok(())
        })
        .unwrap();
    names.sort();
    let kind = type_of(Fields(request).text(url).unwrap()).unwrap();
    format!("{}{}{rest}", short_name(kind), names.concat())
}

fn cluster(name: &str, extra: u64) -> (&str, Vec<u8>) {
    (name, Writer::default().text(1, name).number(2, 3).number(4, extra).0.clone())
}

fn named<'a>(name: &'a str, more: &str) -> (&'a str, Vec<u8>) {
    (name, Writer::default().text(1, name).text(2000, more).0.clone())
}

fn listener<'a>(name: &'a str, route: &str) -> (&'a str, Vec<u8>) {
    const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let mut listener = Writer::default();
    listener.text(1, name).message(25, |chain| {
        chain.message(3, |filter| {
            filter.message(4, |any| {
                any.text(1, MANAGER)
                    .message(2, |manager| _ = manager.message(3, |rds| _ = rds.text(2, route)));
            });
        });
    });
    (name, listener.0)
}

#[test]
fn a_delta_proxy_asks_in_the_order_of_envoy() {
    let mut lab = Lab::new(Protocol::Delta);
    assert_eq!(lab.begin(), ["cds"]);
    let sent = lab.receive(Type::Cluster, &[cluster("a", 1), cluster("b", 1)], &[]);
    assert_eq!(sent, ["eds +a +b", "cds ack n1"], "endpoints before the acknowledgement");
    assert_eq!(lab.receive(Type::Endpoint, &[named("a", "")], &[]), ["eds ack n2"], "one is missing");
    assert_eq!(lab.receive(Type::Endpoint, &[], &["b"]), ["eds ack n3", "lds"], "known not to exist");
    assert_eq!(lab.receive(Type::Listener, &[listener("l", "80")], &[]), ["rds +80", "lds ack n4"]);
    assert!(lab.proxy.complete.is_none());
    assert_eq!(lab.proxy.waits_for(&lab.world).collect::<Vec<_>>(), [(Type::Route, Some("80"))]);
    let vhds = Writer::default().text(1, "80").item(9, b"").0.clone();
    assert_eq!(lab.receive(Type::Route, &[("80", vhds)], &[]), ["vhds", "rds ack n5"]);
    assert!(lab.proxy.complete.is_none());
    assert_eq!(lab.receive(Type::VirtualHost, &[named("80/x", "")], &[]), ["vhds ack n6"]);
    assert!(lab.proxy.complete.is_some());
    assert_eq!(lab.state(), ["cds a", "cds b", "eds a", "lds l", "rds 80", "vhds 80/x"]);

    let sent = lab.receive(Type::Cluster, &[cluster("c", 1)], &["a"]);
    assert_eq!(sent, ["eds +c -a", "cds ack n7"]);
    lab.receive(Type::Endpoint, &[named("c", "")], &[]);
    let again = lab.begin();
    assert_eq!(again, ["cds =b/v1 =c/v1", "eds +b +c =c/v1", "lds =l/v1", "rds +80 =80/v1", "vhds =80/x/v1"]);
    assert!(lab.proxy.complete.is_some(), "nothing may come");
}

#[test]
fn a_state_of_the_world_proxy_asks_with_all_names_and_forgets_what_is_missing() {
    let mut lab = Lab::new(Protocol::Sotw);
    assert_eq!(lab.begin(), ["cds"]);
    let sent = lab.receive(Type::Cluster, &[cluster("a", 1), cluster("b", 1)], &[]);
    assert_eq!(sent, ["eds +a +b", "cds ack n1"]);
    let sent = lab.receive(Type::Endpoint, &[named("a", ""), named("b", ""), named("x", "")], &[]);
    assert_eq!(sent, ["eds +a +b ack n2", "lds"]);
    assert_eq!(lab.tally.total().unasked, 1);
    assert_eq!(lab.receive(Type::Listener, &[listener("l", "80")], &[]), ["rds +80", "lds ack n3"]);
    lab.receive(Type::Route, &[named("80", "")], &[]);
    assert!(lab.proxy.complete.is_some());

    let sent = lab.receive(Type::Cluster, &[cluster("b", 2)], &[]);
    assert_eq!(sent, ["eds +b ack n2", "cds ack n5"], "with the last nonce, as Envoy does");
    assert_eq!(lab.proxy.warming(), 1);
    lab.receive(Type::Endpoint, &[named("b", "")], &[]);
    assert_eq!(lab.proxy.warming(), 0);
    assert_eq!(lab.state(), ["cds b", "eds b", "lds l", "rds 80"]);
    assert_eq!(lab.begin(), ["cds", "eds +b", "lds", "rds +80"]);
    assert!(lab.proxy.complete.is_none());
}

#[test]
fn a_proxy_does_not_speak_of_clusters_while_one_is_warming() {
    let mut lab = Lab::new(Protocol::Delta);
    lab.begin();
    lab.receive(Type::Cluster, &[cluster("a", 1)], &[]);
    lab.receive(Type::Endpoint, &[named("a", "")], &[]);
    lab.receive(Type::Listener, &[], &[]);
    lab.receive(Type::Cluster, &[cluster("a", 2)], &[]);
    let endpoints_and_listeners = ["eds +a =a/v1", "lds"];
    assert_eq!(lab.begin(), endpoints_and_listeners);
    assert_eq!(lab.begin(), endpoints_and_listeners, "again");
    assert!(lab.proxy.complete.is_none());
    let sent = lab.receive(Type::Endpoint, &[named("a", "")], &[]);
    assert_eq!(sent, ["eds ack n5", "cds =a/v1"]);
    assert!(lab.proxy.complete.is_some());

    lab.receive(Type::Cluster, &[cluster("a", 3)], &[]);
    assert_eq!(lab.begin(), endpoints_and_listeners);
    assert_eq!(lab.step(Proxy::lose_patience), ["cds =a/v1"], "Envoy's `initial_fetch_timeout`");
}

#[test]
fn collections_bring_their_members_and_take_them_along() {
    let mut lab = Lab::new(Protocol::Delta);
    lab.begin();
    lab.receive(Type::Cluster, &[cluster("a", 1)], &[]);
    let assignment = |collection: &str| {
        let mut assignment = Writer::default();
        assignment.text(1, "a").message(2, |locality| _ = locality.message(8, |c| _ = c.text(2, collection)));
        assignment.0
    };
    assert_eq!(
        lab.receive(Type::Endpoint, &[("a", assignment("x/1/*"))], &[]),
        ["leds +x/1/*", "eds ack n2"]
    );
    let sent =
        lab.receive(Type::LbEndpoint, &[named("x/1/e1", ""), named("x/1/e2", ""), named("y/1/e", "")], &[]);
    assert_eq!(sent, ["leds ack n3", "lds"]);
    assert_eq!(lab.tally.total().unasked, 1);
    lab.receive(Type::LbEndpoint, &[], &["x/1/e1"]);
    assert_eq!(lab.state(), ["cds a", "eds a", "leds x/1/e2"]);
    let sent = lab.receive(Type::Endpoint, &[("a", assignment("x/2/*"))], &[]);
    assert_eq!(sent, ["leds +x/2/* -x/1/*", "eds ack n5"]);
    assert_eq!(lab.state(), ["cds a", "eds a"]);
    lab.receive(Type::LbEndpoint, &[], &[]);
    assert!(lab.proxy.waits_for(&lab.world).all(|(kind, _)| kind == Type::Listener), "an empty collection");
}

#[test]
fn a_collection_from_elsewhere_is_another_one() {
    let mut lab = Lab::new(Protocol::Delta);
    lab.begin();
    lab.receive(Type::Cluster, &[cluster("a", 1)], &[]);
    let assignment = |source: &str, weight: u64| {
        let mut assignment = Writer::default();
        assignment.text(1, "a").message(2, |locality| {
            locality.message(8, |c| _ = c.text(1, source).text(2, "x/1/*")).number(5, weight);
        });
        assignment.0
    };
    lab.receive(Type::Endpoint, &[("a", assignment("ads", 1))], &[]);
    lab.receive(Type::LbEndpoint, &[named("x/1/e1", ""), named("x/1/e2", "")], &[]);
    let kept = lab.receive(Type::Endpoint, &[("a", assignment("ads", 2))], &[]);
    assert_eq!(kept, ["eds ack n4"]);
    assert_eq!(lab.state(), ["cds a", "eds a", "leds x/1/e1", "leds x/1/e2"]);
    let asked = lab.receive(Type::Endpoint, &[("a", assignment("in other words", 2))], &[]);
    assert_eq!(asked, ["leds +x/1/*", "eds ack n5"]);
    assert_eq!(lab.state(), ["cds a", "eds a"]);
    lab.receive(Type::LbEndpoint, &[named("x/1/e1", "")], &[]);
    assert_eq!(lab.state(), ["cds a", "eds a", "leds x/1/e1"]);
    let mut hash = |source: &str, weight: u64| {
        let name = lab.world.name(Type::Endpoint, "a");
        let content = lab.world.content(name, &assignment(source, weight), "");
        lab.world.of_content(content).hash
    };
    assert_eq!(hash("ads", 1), hash("in other words", 1), "the same is said");
    assert_ne!(hash("ads", 1), hash("ads", 2));
}

#[test]
fn refusals_keep_what_was_there() {
    let mut lab = Lab::new(Protocol::Delta);
    lab.asks.nack = "cds:^b$".parse().unwrap();
    lab.begin();
    let sent = lab.receive(Type::Cluster, &[cluster("a", 1), cluster("b", 1)], &[]);
    assert_eq!(sent, ["eds +a", "cds ack n1 refused"]);
    assert_eq!(lab.state(), ["cds a"]);
    assert!(lab.proxy.refused);
    assert_eq!((lab.tally.acks, lab.tally.nacks), (0, 1));
}

#[test]
fn named_and_drawn_subscriptions() {
    let mut lab = Lab::new(Protocol::Delta);
    lab.asks.types = vec![];
    let name = lab.world.name(Type::Endpoint, "svc");
    lab.proxy = Proxy::new(0, 1, [name], &lab.world);
    assert_eq!(lab.begin(), ["eds +svc"]);
    lab.receive(Type::Endpoint, &[named("svc", "")], &[]);
    assert!(lab.proxy.complete.is_some());

    let mut lab = Lab::new(Protocol::Delta);
    lab.asks.clusters = 2;
    lab.begin();
    let sent = lab.receive(Type::Cluster, &[cluster("a", 1), cluster("b", 1), cluster("c", 1)], &[]);
    assert_eq!(sent[0].matches('+').count(), 2);
}

#[test]
fn a_change_is_measured_at_a_proxy_that_was_complete() {
    let mut lab = Lab::new(Protocol::Delta);
    lab.asks.types = vec![];
    let name = lab.world.name(Type::Endpoint, "svc");
    lab.proxy = Proxy::new(0, 1, [name], &lab.world);
    lab.begin();
    lab.receive(Type::Endpoint, &[named("svc", "old")], &[]);
    let marker = Marker::Contains(Arc::from(&b"new"[..]));
    let (kind, network, at) = (Type::Endpoint, None, Instant::now());
    lab.board.announce(vec![Expectation { sequence: 1, kind, name: "svc".into(), marker, network, at }]);
    lab.receive(Type::Endpoint, &[named("svc", "other")], &[]);
    assert_eq!(lab.watch.missing(), 1);
    lab.receive(Type::Endpoint, &[named("svc", "new")], &[]);
    assert_eq!((lab.watch.missing(), lab.tally.change[Type::Endpoint as usize].count()), (0, 1));
    assert_eq!(lab.tally.last(Type::Endpoint).count(), 1);
}

#[test]
fn without_an_answer_envoy_goes_on_after_a_while() {
    let mut lab = Lab::new(Protocol::Delta);
    lab.begin();
    lab.receive(Type::Cluster, &[cluster("a", 1)], &[]);
    assert_eq!(lab.step(|proxy, shared, send| proxy.lose_patience(shared, send)), ["lds"]);
    assert_eq!(lab.tally.unanswered, 1);
}
