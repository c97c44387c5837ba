//! Virtual hosts as resources of their own (VHDS), which only Delta streams carry, as Envoy takes them.

use std::collections::BTreeMap;

use landbridge::snapshot::ResourceType::{Route, VirtualHost};
use xds_tests::{
    client::{Client, Kind, Options, Protocol, Response},
    scripted::{self, Server},
};

const RDS: Kind = Kind::Snapshot(Route);
const VHDS: Kind = Kind::Snapshot(VirtualHost);

async fn start(routes: &str, hosts: &str) -> Server {
    let server = Server::start(scripted::Options { authenticated: true, ..Default::default() }).await;
    server.publish_hosts(routes, hosts).await;
    server
}

async fn connect(server: &Server, protocol: Protocol) -> Client {
    let identity = ("x-identity", "spiffe://cluster.local/ns/shop/sa/web".to_owned());
    let mut options = Options { headers: vec![identity], ..Options::new(protocol, "web-1") };
    if let Some(node) = &mut options.node {
        let account =
            prost_types::Value { kind: Some(prost_types::value::Kind::StringValue("web".to_owned())) };
        node.metadata =
            Some(prost_types::Struct { fields: [("SERVICE_ACCOUNT".to_owned(), account)].into() });
    }
    Client::connect(server.address, options).await.expect("the stream opens")
}

/// As Envoy begins: a route configuration, then everything that there is of virtual hosts.
async fn envoy(server: &Server, routes: &[&str]) -> (Client, Response) {
    let mut client = connect(server, Protocol::Delta).await;
    client.request(RDS, routes).await;
    client.expect_ack(RDS, routes).await;
    client.request(VHDS, &[]).await;
    let hosts = client.expect(VHDS).await;
    client.ack(&hosts).await;
    (client, hosts)
}

#[tokio::test]
async fn one_that_changes_is_sent_alone() {
    let server = start("v80", "v80/a v80/b").await;
    let (mut client, hosts) = envoy(&server, &["v80"]).await;
    assert_eq!(hosts.names(), ["v80/a", "v80/b"]);
    server.publish_hosts("v80", "v80/a v80/b=2 v80/c").await;
    client.expect_ack(VHDS, &["v80/b", "v80/c"]).await;
    server.publish_hosts("v80", "v80/b=2 v80/c").await;
    let gone = client.expect(VHDS).await;
    assert_eq!((gone.names().len(), gone.removed.clone()), (0, vec!["v80/a".to_owned()]));
    client.ack(&gone).await;
    // A newer route configuration keeps its hosts.
    server.publish_hosts("v80=2", "v80/b=2 v80/c").await;
    client.expect_ack(RDS, &["v80"]).await;
    client.expect_nothing().await;
}

/// A domain that moves is a conflict while only one of the two has arrived.
#[tokio::test]
async fn what_changes_together_comes_together() {
    let server = start("v80", "v80/a=x v80/b").await;
    let (mut client, _) = envoy(&server, &["v80"]).await;
    server.publish_hosts("v80", "v80/b=x").await;
    let moved = client.expect(VHDS).await;
    assert_eq!((moved.names(), moved.removed.as_slice()), (vec!["v80/b"], ["v80/a".to_owned()].as_slice()));
}

/// Without the removals a host that is gone would go on answering.
#[tokio::test]
async fn after_a_reconnect_only_differences_are_sent() {
    let server = start("v80 v90", "v80/a v80/b v90/c").await;
    let (mut client, hosts) = envoy(&server, &["v80", "v90"]).await;
    client.request(RDS, &["v90"]).await;
    let routes = client.expect(RDS).await;
    drop(client);
    server.publish_hosts("v80 v90", "v80/a=2 v80/d v90/c").await;

    let mut client = connect(&server, Protocol::Delta).await;
    let mut known = routes.versions.clone();
    known.insert("v80".to_owned(), scripted::resource(Route, "v80", "").version.to_string());
    client.resume(RDS, &["v80", "v90"], &known, "").await;
    client.resume(VHDS, &[], &hosts.versions, "").await;
    let news = client.expect(VHDS).await;
    assert_eq!(
        (news.names(), news.removed.as_slice()),
        (vec!["v80/a", "v80/d"], ["v80/b".to_owned()].as_slice())
    );
    client.ack(&news).await;
    client.expect_nothing().await;
}

/// Envoy drops hosts that come before their route configuration, but says on a reconnect that it has them.
#[tokio::test]
async fn a_route_configuration_gets_its_hosts_after_it() {
    let server = start("v80", "v80/a").await;
    let (mut client, _) = envoy(&server, &["v80"]).await;
    server.publish_hosts("v80 v90", "v80/a v90/b v90/c").await;
    client.expect_nothing().await;
    client.request(RDS, &["v90"]).await;
    client.expect_ack(RDS, &["v90"]).await;
    let hosts = client.expect_ack(VHDS, &["v90/b", "v90/c"]).await;
    // Dropped and taken up again: the same.
    client.unsubscribe(RDS, &["v90"]).await;
    client.request(RDS, &["v90"]).await;
    client.expect_ack(RDS, &["v90"]).await;
    client.expect_ack(VHDS, &["v90/b", "v90/c"]).await;
    client.expect_nothing().await;
    drop(client);

    // It has hosts and no place for them.
    let mut client = connect(&server, Protocol::Delta).await;
    let known: BTreeMap<_, _> =
        [("v80".to_owned(), scripted::resource(Route, "v80", "").version.to_string())].into();
    client.resume(RDS, &["v80", "v90"], &known, "").await;
    client.expect_ack(RDS, &["v90"]).await;
    let mut has = hosts.versions;
    has.insert("v80/a".to_owned(), scripted::resource(VirtualHost, "v80/a", "").version.to_string());
    client.resume(VHDS, &[], &has, "").await;
    client.expect_ack(VHDS, &["v90/b", "v90/c"]).await;
    client.expect_nothing().await;
}

/// A listener waits until its hosts came, also where there are none.
#[tokio::test]
async fn a_route_configuration_without_hosts_is_answered() {
    let server = start("v80 v90", "v80/a").await;
    let (mut client, _) = envoy(&server, &["v80"]).await;
    client.request(RDS, &["v90"]).await;
    client.expect_ack(RDS, &["v90"]).await;
    let answer = client.expect(VHDS).await;
    assert!(
        answer.resources.is_empty() && answer.removed.iter().all(|name| name.starts_with("v90/")),
        "{answer:?}"
    );
    assert_eq!(answer.removed.len(), 1);
    client.ack(&answer).await;
    client.expect_nothing().await;
}

/// Envoy holds on to a draining listener's route configuration; without `vhds` it would follow hosts for ever.
#[tokio::test]
async fn a_route_configuration_that_vanished_stays_while_it_is_asked_for() {
    let server = start("v80 v90", "v80/a v90/b").await;
    let (mut client, _) = envoy(&server, &["v80", "v90"]).await;
    server.publish_hosts("v80", "v80/a").await;
    let gone = client.expect(VHDS).await;
    assert_eq!(gone.removed, ["v90/b"]);
    client.ack(&gone).await;
    client.expect_nothing().await;
    server.publish_hosts("v80 v90", "v80/a v90/b=2").await;
    client.expect_ack(VHDS, &["v90/b"]).await;
    client.expect_nothing().await;
}

/// Nothing of a refused response is in force. The culprit is found even if the proxy does not name it, and is the only one
/// that is reported and held back.
#[tokio::test]
async fn of_many_only_the_bad_one_is_held_back() {
    for named in [true, false] {
        let mut server = start("v80", "v80/a").await;
        let (mut client, _) = envoy(&server, &["v80"]).await;
        server.publish_hosts("v80", "v80/b v80/c v80/d=bad v80/e").await;
        let mut has: BTreeMap<String, Vec<u8>> = [("v80/a".to_owned(), Vec::new())].into();
        let mut refusals = 0;
        while has.keys().map(String::as_str).collect::<Vec<_>>() != ["v80/b", "v80/c", "v80/e"] {
            let response = client.expect(VHDS).await;
            if response.names().contains(&"v80/d") {
                let name = if named { " in \"v80/d\"" } else { "" };
                client.nack(&response, &format!("Duplicate entry of domain bad{name}")).await;
                refusals += 1;
                continue;
            }
            has.extend(response.resources.iter().cloned());
            response.removed.iter().for_each(|name| drop(has.remove(name)));
            client.ack(&response).await;
        }
        let reported = server.nacks(1).await;
        client.expect_nothing().await;
        assert_eq!(reported.iter().map(|n| &*n.name).collect::<Vec<_>>(), ["v80/d"], "named: {named}");
        assert!(refusals <= if named { 1 } else { 3 }, "{refusals} refusals");
        // Mended, it goes out.
        server.publish_hosts("v80", "v80/b v80/c v80/d=good v80/e").await;
        client.expect_ack(VHDS, &["v80/d"]).await;
        client.expect_nothing().await;
    }
}

/// A proxy that gets its hosts in route configurations may still ask (it had another server before): what it is told about
/// hosts would undo its routes.
#[tokio::test]
async fn where_hosts_are_not_served_nothing_is_said_about_them() {
    let server = start("80", "").await;
    // A class without virtual hosts.
    server.move_class("");
    let mut client = connect(&server, Protocol::Delta).await;
    client.resume(VHDS, &[], &[("v80/a".to_owned(), "0123456789abcdef".to_owned())].into(), "").await;
    client.expect_nothing().await;
}
