//! What every xDS client relies on, against the real server over TCP, in both protocols alike.

use std::collections::BTreeMap;

use landbridge::snapshot::ResourceType::{Cluster, Endpoint, Listener, Route};
use xds_tests::{
    client::{Client, Kind, Options, Protocol},
    scripted::{self, Server, until},
};

const CDS: Kind = Kind::Snapshot(Cluster);
const EDS: Kind = Kind::Snapshot(Endpoint);
const LDS: Kind = Kind::Snapshot(Listener);
const RDS: Kind = Kind::Snapshot(Route);

/// Runs each scenario in both protocols.
macro_rules! scenarios {
    ($($name:ident)*) => {
        mod delta { $(#[tokio::test] async fn $name() { super::$name(super::Protocol::Delta).await })* }
        mod sotw { $(#[tokio::test] async fn $name() { super::$name(super::Protocol::Sotw).await })* }
    };
}

scenarios! {
    first_fetch by_name unknown_names_are_answered unsubscribe empty_sets_are_answered changes_are_pushed
    warming removal_order nacks_are_reported_once_and_not_repeated anonymous_nacks_are_not_reported stale_nonce
    a_slow_client_gets_the_newest_only a_slow_client_does_not_hold_up_others reconnect class_change
    the_list_of_streams_tells_who_has_what
}

async fn start() -> Server {
    Server::start(scripted::Options::default()).await
}

async fn connect(server: &Server, protocol: Protocol) -> Client {
    Client::connect(server.address, Options::new(protocol, "web-1")).await.expect("the stream opens")
}

/// As Envoy begins.
async fn envoy(server: &Server, protocol: Protocol, endpoints: &[&str], routes: &[&str]) -> Client {
    let mut client = connect(server, protocol).await;
    for (kind, names) in [(CDS, [].as_slice()), (EDS, endpoints), (LDS, &[]), (RDS, routes)] {
        if kind.is_wildcard() || !names.is_empty() {
            client.request(kind, names).await;
            let response = client.expect(kind).await;
            client.ack(&response).await;
        }
    }
    client
}

/// What a CDS response holds after a change of `changed` among `all`.
fn part<'a>(protocol: Protocol, changed: &[&'a str], all: &[&'a str]) -> Vec<&'a str> {
    match protocol {
        Protocol::Delta => changed.to_vec(),
        Protocol::Sotw => all.to_vec(),
    }
}

async fn first_fetch(protocol: Protocol) {
    let server = start().await;
    server.publish("e1 s2", "e1=x", "l", "80").await;
    let mut client = connect(&server, protocol).await;
    client.request(CDS, &[]).await;
    let clusters = client.expect(CDS).await;
    assert_eq!(clusters.names(), ["e1", "s2"]);
    // Envoy asks before it acknowledges.
    client.request(EDS, &["e1"]).await;
    let endpoints = client.expect(EDS).await;
    assert_eq!(endpoints.names(), ["e1"]);
    client.ack(&clusters).await;
    client.ack(&endpoints).await;
    client.request(LDS, &[]).await;
    client.expect_ack(LDS, &["l"]).await;
    client.request(RDS, &["80"]).await;
    client.expect_ack(RDS, &["80"]).await;
    client.expect_nothing().await;
}

async fn by_name(protocol: Protocol) {
    let server = start().await;
    server.publish("a b c", "a b c", "", "").await;
    let mut client = connect(&server, protocol).await;
    client.request(CDS, &["b"]).await;
    client.expect_ack(CDS, &["b"]).await;
    client.request(EDS, &["a"]).await;
    client.expect_ack(EDS, &["a"]).await;
    client.request(EDS, &["b"]).await;
    client.expect_ack(EDS, &["b"]).await;
    server.publish("a=2 b=2 c=2", "a b=2 c=2", "", "").await;
    client.expect_ack(CDS, &["b"]).await;
    client.expect_ack(EDS, &["b"]).await;
    client.expect_nothing().await;
}

async fn unknown_names_are_answered(protocol: Protocol) {
    let server = start().await;
    server.publish("", "", "", "").await;
    let mut client = connect(&server, protocol).await;
    client.request(EDS, &["nobody"]).await;
    let empty = client.expect_ack(EDS, &["nobody"]).await;
    client.request(RDS, &["none"]).await;
    client.expect_ack(RDS, &["none"]).await;
    server.publish("", "nobody=here", "", "").await;
    let real = client.expect_ack(EDS, &["nobody"]).await;
    assert_ne!(empty.get("nobody"), real.get("nobody"));
    server.publish("", "", "", "").await;
    let again = client.expect_ack(EDS, &["nobody"]).await;
    assert_eq!(empty.get("nobody"), again.get("nobody"), "empty again, and not removed");
    assert!(again.removed.is_empty());
}

async fn unsubscribe(protocol: Protocol) {
    let server = start().await;
    server.publish("", "a b", "", "").await;
    let mut client = connect(&server, protocol).await;
    client.request(EDS, &["a", "b"]).await;
    client.expect_ack(EDS, &["a", "b"]).await;
    client.unsubscribe(EDS, &["a"]).await;
    client.expect_nothing().await;
    server.publish("", "a=2 b=2", "", "").await;
    client.expect_ack(EDS, &["b"]).await;
    client.request(EDS, &["a"]).await;
    client.expect_ack(EDS, &["a"]).await;
}

async fn empty_sets_are_answered(protocol: Protocol) {
    let server = start().await;
    let mut client = connect(&server, protocol).await;
    client.request(CDS, &[]).await;
    client.expect_ack(CDS, &[]).await;
    client.request(EDS, &[]).await;
    client.request(LDS, &[]).await;
    client.expect_ack(LDS, &[]).await;
    client.expect_nothing().await;
}

async fn changes_are_pushed(protocol: Protocol) {
    let server = start().await;
    server.publish("a b", "a", "l", "80").await;
    let mut client = envoy(&server, protocol, &["a"], &["80"]).await;
    server.publish("a b=2", "a=2", "l", "80=2").await;
    client.expect_ack(CDS, &part(protocol, &["b"], &["a", "b"])).await;
    client.expect_ack(EDS, &["a"]).await;
    client.expect_ack(RDS, &["80"]).await;
    server.publish("a b=2", "a=2", "l", "80=2").await;
    client.expect_nothing().await;
}

async fn warming(protocol: Protocol) {
    let server = start().await;
    server.publish("e1 e2", "e1 e2", "", "").await;
    let mut client = envoy(&server, protocol, &["e1", "e2"], &[]).await;
    server.publish("e1=2 e2", "e1 e2", "", "").await;
    let clusters = client.expect(CDS).await;
    if protocol == Protocol::Sotw {
        // Envoy repeats its request for the cluster that warms; it looks like an ACK.
        client.request(EDS, &[]).await;
    }
    client.expect_ack(EDS, &["e1"]).await;
    client.ack(&clusters).await;
    client.expect_nothing().await;
}

async fn removal_order(protocol: Protocol) {
    let server = start().await;
    server.publish("a b", "a b", "l=b", "80=b").await;
    let mut client = envoy(&server, protocol, &["a", "b"], &["80"]).await;
    server.publish("a", "a", "l=a", "80=a").await;
    let listeners = client.expect(LDS).await;
    let routes = client.expect(RDS).await;
    client.ack(&listeners).await;
    client.ack(&routes).await;
    let clusters = client.expect(CDS).await;
    match protocol {
        Protocol::Delta => assert_eq!(clusters.removed, ["b"]),
        Protocol::Sotw => assert_eq!(clusters.names(), ["a"]),
    }
    client.ack(&clusters).await;
    client.expect_ack(EDS, &["b"]).await;
    client.expect_nothing().await;
}

const REFUSAL: &str = "Error adding/updating cluster(s) bad: no such extension";

async fn nacks_are_reported_once_and_not_repeated(protocol: Protocol) {
    let options = scripted::Options { authenticated: true, ..Default::default() };
    let mut server = Server::start(options).await;
    server.publish("bad=1 good", "", "", "").await;
    let mut options = Options::new(protocol, "web-1");
    options.headers = vec![("x-identity", "spiffe://cluster.local/ns/shop/sa/web".into())];
    let mut client = Client::connect(server.address, options).await.expect("the stream opens");
    client.request(CDS, &[]).await;
    let first = client.expect_ack(CDS, &["bad", "good"]).await;
    server.publish("bad=2 good=2", "", "", "").await;
    let refused = client.expect(CDS).await;
    client.nack(&refused, REFUSAL).await;
    let nacks = server.nacks(1).await;
    assert_eq!((&*nacks[0].name, &*nacks[0].reason), ("bad", REFUSAL));
    client.expect_nothing().await;

    server.publish("bad=2 good=3", "", "", "").await;
    let next = client.expect_ack(CDS, &part(protocol, &["good"], &["bad", "good"])).await;
    if protocol == Protocol::Sotw {
        assert_eq!(next.get("bad"), first.get("bad"), "the last good bytes stand in");
    }
    server.publish("bad=3 good=3", "", "", "").await;
    client.expect_ack(CDS, &part(protocol, &["bad"], &["bad", "good"])).await;
    assert_eq!(server.nacks_so_far(), 1);
    assert!(server.metrics().contains("pilot_total_xds_rejects{type=\"cds\"} 1"), "{}", server.metrics());
    let status = server.streams.list()[0].kind(CDS);
    assert_eq!(status.refused.expect("a refusal").0, REFUSAL);
}

async fn anonymous_nacks_are_not_reported(protocol: Protocol) {
    let server = start().await;
    server.publish("bad", "", "", "").await;
    let mut client = connect(&server, protocol).await;
    client.request(CDS, &[]).await;
    let refused = client.expect(CDS).await;
    client.nack(&refused, REFUSAL).await;
    client.expect_nothing().await;
    assert_eq!(server.nacks_so_far(), 0, "nobody's word decides for others");
    assert!(server.metrics().contains("pilot_total_xds_rejects{type=\"cds\"} 1"));
}

async fn stale_nonce(protocol: Protocol) {
    let server = start().await;
    server.publish("a", "", "", "").await;
    let mut client = connect(&server, protocol).await;
    client.request(CDS, &[]).await;
    let mut response = client.expect(CDS).await;
    let right = std::mem::replace(&mut response.nonce, "nonsense".into());
    client.ack(&response).await;
    server.publish("a=2", "", "", "").await;
    client.expect_nothing().await;
    response.nonce = right;
    client.ack(&response).await;
    client.expect_ack(CDS, &["a"]).await;
    assert!(server.metrics().contains("pilot_xds_expired_nonce{type=\"cds\"} 1"), "{}", server.metrics());
}

async fn a_slow_client_gets_the_newest_only(protocol: Protocol) {
    let server = start().await;
    server.publish("", "a=0", "", "").await;
    let mut client = connect(&server, protocol).await;
    client.request(EDS, &["a"]).await;
    let first = client.expect(EDS).await;
    for i in 1..100 {
        server.publish("", &format!("a={i}"), "", "").await;
    }
    client.ack(&first).await;
    let last = client.expect_ack(EDS, &["a"]).await;
    let expected = prost_types::Any::decode(scripted::resource(Endpoint, "a", "99").any()).expect("an Any");
    assert_eq!(last.get("a"), Some(expected.value.as_slice()));
    client.expect_nothing().await;
}

async fn a_slow_client_does_not_hold_up_others(protocol: Protocol) {
    let server = start().await;
    server.publish("", "a=0", "", "").await;
    let mut slow = connect(&server, protocol).await;
    slow.request(EDS, &["a"]).await;
    let mut quick = connect(&server, protocol).await;
    quick.request(EDS, &["a"]).await;
    quick.expect_ack(EDS, &["a"]).await;
    for i in 1..20 {
        server.publish("", &format!("a={i}"), "", "").await;
        quick.expect_ack(EDS, &["a"]).await;
    }
    slow.expect(EDS).await;
}

async fn reconnect(protocol: Protocol) {
    let server = start().await;
    server.publish("a b", "a b", "l", "80").await;
    let mut client = connect(&server, protocol).await;
    let mut had = BTreeMap::new();
    for (kind, names) in [(CDS, [].as_slice()), (EDS, &["a", "b"]), (LDS, &[]), (RDS, &["80"])] {
        client.request(kind, names).await;
        let response = client.expect(kind).await;
        client.ack(&response).await;
        had.insert(kind, response);
    }
    drop(client);
    server.publish("a", "a=2 b", "l", "80").await;
    let mut client = connect(&server, protocol).await;
    for (kind, names) in [(CDS, [].as_slice()), (EDS, &["a", "b"]), (LDS, &[]), (RDS, &["80"])] {
        client.resume(kind, names, &had[&kind].versions, &had[&kind].version).await;
        match (protocol, kind) {
            (Protocol::Delta, CDS) => assert_eq!(client.expect_ack(CDS, &[]).await.removed, ["b"]),
            (Protocol::Delta, EDS) => drop(client.expect_ack(EDS, &["a"]).await),
            // What the client has is not sent again.
            (Protocol::Delta, _) => {}
            // A version describes a response, not what the client has: all of it is sent.
            (Protocol::Sotw, _) => {
                let response = client.expect(kind).await;
                let same = response.version == had[&kind].version;
                assert_eq!(same, matches!(kind, LDS | RDS), "versions are hashes of content");
                client.ack(&response).await;
            }
        }
    }
    client.expect_nothing().await;
}

async fn class_change(protocol: Protocol) {
    let server = start().await;
    server.publish("a b", "", "", "").await;
    let mut client = connect(&server, protocol).await;
    client.request(CDS, &[]).await;
    client.expect_ack(CDS, &["a", "b"]).await;
    server.move_class("a c");
    let response = client.expect_ack(CDS, &part(protocol, &["c"], &["a", "c"])).await;
    if protocol == Protocol::Delta {
        assert_eq!(response.removed, ["b"]);
    }
    server.publish("a=3 c", "", "", "").await;
    client.expect_ack(CDS, &part(protocol, &["a"], &["a", "c"])).await;
}

async fn the_list_of_streams_tells_who_has_what(protocol: Protocol) {
    let server = start().await;
    server.publish("a", "", "", "").await;
    let mut client = connect(&server, protocol).await;
    client.request(CDS, &[]).await;
    client.request(EDS, &["a", "b"]).await;
    let clusters = client.expect(CDS).await;
    let list = server.streams.list();
    let [stream] = list.as_slice() else { panic!("{} streams", list.len()) };
    assert_eq!((&*stream.proxy.id, stream.protocol), ("web-1.shop", protocol));
    let status = stream.kind(CDS);
    assert!(status.wildcard && status.acked.is_none());
    assert!(status.sent.is_some_and(|m| m.nonce.is(&clusters.nonce)), "{status:?}");
    client.ack(&clusters).await;
    until("the ACK is noted", || stream.kind(CDS).acked.is_some_and(|m| m.nonce.is(&clusters.nonce))).await;
    until("the names are noted", || stream.kind(EDS).names == 2).await;
    assert!(stream.bytes() > 0);
    drop(client);
    until("the stream is gone", || server.streams.is_empty()).await;
}

use prost::Message;
