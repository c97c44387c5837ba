//! Endpoints as resources of their own (LEDS), which only Delta streams carry, as Envoy takes them.

use std::collections::BTreeMap;

use landbridge::snapshot::ResourceType::{Cluster, Endpoint, LbEndpoint};
use xds_tests::{
    client::{Client, Kind, Options, Protocol, Response},
    scripted::{self, Server},
};

const CDS: Kind = Kind::Snapshot(Cluster);
const EDS: Kind = Kind::Snapshot(Endpoint);
const LEDS: Kind = Kind::Snapshot(LbEndpoint);

const A: &str = "xdstp:///ep/0/a";
const B: &str = "xdstp:///ep/0/b";
const C: &str = "xdstp:///ep/1/c";
const NEAR: &str = "xdstp:///ep/0/*";
const FAR: &str = "xdstp:///ep/1/*";

async fn start(endpoints: &[&str]) -> Server {
    let server = Server::start(scripted::Options::default()).await;
    publish(&server, endpoints).await;
    server
}

async fn publish(server: &Server, endpoints: &[&str]) {
    server.publish_endpoints("ep", "ep", &endpoints.join(" ")).await;
}

async fn connect(server: &Server) -> Client {
    Client::connect(server.address, Options::new(Protocol::Delta, "web-1")).await.expect("the stream opens")
}

/// As Envoy begins: a cluster, its assignment, and the collections that it names.
async fn envoy(server: &Server) -> (Client, Response, Response) {
    let mut client = connect(server).await;
    client.request(CDS, &[]).await;
    client.expect_ack(CDS, &["ep"]).await;
    client.request(EDS, &["ep"]).await;
    let assignment = client.expect(EDS).await;
    client.request(LEDS, &[NEAR, FAR]).await;
    client.ack(&assignment).await;
    let endpoints = client.expect(LEDS).await;
    client.ack(&endpoints).await;
    (client, assignment, endpoints)
}

#[tokio::test]
async fn one_that_changes_is_sent_alone() {
    let server = start(&[A, B, C]).await;
    let (mut client, _, endpoints) = envoy(&server).await;
    assert_eq!(endpoints.names(), [A, B, C]);
    publish(&server, &[A, "xdstp:///ep/0/b=2", C]).await;
    client.expect_ack(LEDS, &[B]).await;
    publish(&server, &[A, C]).await;
    let gone = client.expect(LEDS).await;
    assert_eq!((gone.names().len(), gone.removed.as_slice()), (0, [B.to_owned()].as_slice()));
    client.ack(&gone).await;
    client.expect_nothing().await;
}

/// Envoy takes the collections of one response in any order.
#[tokio::test]
async fn what_changes_its_collection_is_added_before_it_is_removed() {
    let server = start(&[A, B, C]).await;
    let (mut client, ..) = envoy(&server).await;
    publish(&server, &[A, "xdstp:///ep/1/b", C]).await;
    let added = client.expect(LEDS).await;
    assert_eq!((added.names(), added.removed.len()), (vec!["xdstp:///ep/1/b"], 0));
    client.ack(&added).await;
    let removed = client.expect(LEDS).await;
    assert_eq!((removed.names().len(), removed.removed.as_slice()), (0, [B.to_owned()].as_slice()));
    client.ack(&removed).await;
    client.expect_nothing().await;
}

/// It says which assignment it has, and nothing of endpoints: those that it has must be forgotten.
#[tokio::test]
async fn after_a_reconnect_the_assignment_is_spelt_in_the_other_way() {
    let server = start(&[A, B, C]).await;
    let (client, assignment, _) = envoy(&server).await;
    drop(client);
    publish(&server, &[A, C]).await;
    let mut version = assignment.versions;
    let mut bytes = vec![assignment.resources[0].1.clone()];
    for _ in 0..3 {
        let mut client = connect(&server).await;
        let cluster = scripted::resource(Cluster, "ep", "").version.to_string();
        client.resume(CDS, &[], &[("ep".to_owned(), cluster)].into(), "").await;
        client.resume(EDS, &["ep"], &version, "").await;
        client.resume(LEDS, &[NEAR, FAR], &BTreeMap::new(), "").await;
        let respelt = client.expect(EDS).await;
        assert_ne!(respelt.versions, version);
        // Not before the client has forgotten what it had.
        client.expect_nothing().await;
        client.request(LEDS, &[NEAR, FAR]).await;
        client.ack(&respelt).await;
        client.expect_ack(LEDS, &[A, C]).await;
        client.expect_nothing().await;
        version = respelt.versions.clone();
        bytes.push(respelt.resources[0].1.clone());
    }
    assert!(bytes[0] == bytes[2] && bytes[1] == bytes[3] && bytes[0] != bytes[1], "one way and the other");
}

/// Envoy makes a second cluster beside the first, and does not ask again for what the first has asked for.
#[tokio::test]
async fn a_cluster_that_changes_gets_its_endpoints_again() {
    let server = start(&[A, B, C]).await;
    let (mut client, ..) = envoy(&server).await;
    server.publish_endpoints("ep=2", "ep", &[A, "xdstp:///ep/0/b=2", C].join(" ")).await;
    let cluster = client.expect(CDS).await;
    let assignment = client.expect(EDS).await;
    client.expect_nothing().await;
    client.ack(&assignment).await;
    let endpoints = client.expect(LEDS).await;
    assert_eq!(endpoints.names(), [A, B, C]);
    client.ack(&endpoints).await;
    client.ack(&cluster).await;
    client.expect_nothing().await;
}

/// An assignment whose groups change has collections with other names. Nothing is said of the old ones, which Envoy uses
/// until the new ones have come.
#[tokio::test]
async fn a_collection_that_vanishes_is_left_alone() {
    let server = start(&[A, B, C]).await;
    let (mut client, ..) = envoy(&server).await;
    publish(&server, &[A, B]).await;
    client.expect_nothing().await;
    // It was never told: what has gone meanwhile goes now.
    publish(&server, &[A, B, "xdstp:///ep/1/d"]).await;
    let back = client.expect(LEDS).await;
    assert_eq!((back.names(), back.removed.as_slice()), (vec!["xdstp:///ep/1/d"], [C.to_owned()].as_slice()));
}

/// A cluster must not become warm without endpoints.
#[tokio::test]
async fn a_collection_that_does_not_exist_is_not_answered() {
    let server = start(&[A]).await;
    let mut client = connect(&server).await;
    client.request(EDS, &["ep"]).await;
    client.expect_ack(EDS, &["ep"]).await;
    client.request(LEDS, &[FAR]).await;
    client.expect_nothing().await;
    client.request(LEDS, &[NEAR]).await;
    client.expect_ack(LEDS, &[A]).await;
    client.unsubscribe(LEDS, &[NEAR]).await;
    publish(&server, &[A, B]).await;
    client.expect_nothing().await;
    client.request(LEDS, &[NEAR]).await;
    client.expect_ack(LEDS, &[A, B]).await;
}

/// Before its assignment there is no place for an endpoint.
#[tokio::test]
async fn without_its_assignment_nothing_is_said_about_endpoints() {
    let server = start(&[A]).await;
    let mut client = connect(&server).await;
    client.request(LEDS, &[NEAR, "xdstp:///other/0/*", A]).await;
    client.expect_nothing().await;
}
