//! How streams begin and end: who may open one, what belongs to whom, and orderly good-byes.

use std::{collections::BTreeMap, time::Duration};

use landbridge::snapshot::ResourceType::Cluster;
use tokio::net::TcpStream;
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use xds_tests::{
    client::{Client, Kind, Options, Protocol, channel},
    scripted::{self, Server, until},
};

const CDS: Kind = Kind::Snapshot(Cluster);
const SDS: Kind = Kind::Secret;
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/other";

/// Runs each scenario in both protocols.
macro_rules! scenarios {
    ($($name:ident)*) => {
        mod delta { $(#[tokio::test] async fn $name() { super::$name(super::Protocol::Delta).await })* }
        mod sotw { $(#[tokio::test] async fn $name() { super::$name(super::Protocol::Sotw).await })* }
    };
}

scenarios! {
    a_drain_says_good_bye a_drain_is_bounded old_connections_are_ended without_credentials
    a_node_of_another_workload own_secrets_only secrets_rotate_at_once no_secrets_without_encryption
    secrets_on_a_stream_of_their_own good_secrets_are_kept
}

async fn start(authenticated: bool) -> Server {
    let server = Server::start(scripted::Options { authenticated, ..Default::default() }).await;
    server.publish("a", "", "", "").await;
    server
}

fn web(protocol: Protocol) -> Options {
    Options { headers: vec![("x-identity", WEB.into())], ..Options::new(protocol, "web-1") }
}

async fn a_drain_says_good_bye(protocol: Protocol) {
    let server = start(false).await;
    let mut client =
        Client::connect(server.address, Options::new(protocol, "web-1")).await.expect("the stream opens");
    client.request(CDS, &[]).await;
    client.expect_ack(CDS, &["a"]).await;
    // One that has said nothing yet.
    let mut silent =
        Client::connect(server.address, Options::new(protocol, "web-2")).await.expect("the stream opens");
    server.shutdown.cancel();
    for client in [&mut client, &mut silent] {
        let status = client.end().await;
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("connect again"), "{status}");
    }
    tokio::time::timeout(Duration::from_secs(5), server.done).await.expect("in time").expect("no panic");
    assert!(TcpStream::connect(server.address).await.is_err(), "it no longer listens");
    assert!(server.streams.is_empty());
}

async fn a_drain_is_bounded(protocol: Protocol) {
    let mut options = scripted::Options::default();
    options.connections.grace = Duration::from_millis(200);
    let server = Server::start(options).await;
    let large: String = (0..20_000).map(|i| format!("a{i}={i} ")).collect();
    server.publish(&large, "", &large, "").await;
    // A client that does not read its last words.
    let mut client =
        Client::connect(server.address, Options::new(protocol, "web-1")).await.expect("the stream opens");
    client.request(CDS, &[]).await;
    until("the stream is there", || server.streams.len() == 1).await;
    server.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), server.done).await.expect("in time").expect("no panic");
}

async fn old_connections_are_ended(protocol: Protocol) {
    let mut options = scripted::Options::default();
    options.connections.max_age = Some(Duration::from_millis(200));
    let server = Server::start(options).await;
    server.publish("a", "", "", "").await;
    for _ in 0..2 {
        let options = Options::new(protocol, "web-1");
        let mut client = Client::connect(server.address, options).await.expect("the stream opens");
        client.request(CDS, &[]).await;
        client.expect_ack(CDS, &["a"]).await;
        let status = client.end().await;
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
}

async fn without_credentials(protocol: Protocol) {
    let server = start(true).await;
    for headers in [vec![], vec![("x-identity", "nonsense".to_owned())]] {
        let options = Options { headers, ..Options::new(protocol, "web-1") };
        let status = Client::connect(server.address, options).await.err().expect("the stream is refused");
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(!status.message().is_empty());
    }
}

async fn a_node_of_another_workload(protocol: Protocol) {
    let server = start(true).await;
    let mut options = web(protocol);
    options.headers = vec![("x-identity", "spiffe://cluster.local/ns/bank/sa/web".into())];
    let mut client = Client::connect(server.address, options).await.expect("the stream opens");
    client.request(CDS, &[]).await;
    let status = client.end().await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("shop") && status.message().contains("bank"), "{status}");
}

async fn own_secrets_only(protocol: Protocol) {
    let server = start(true).await;
    server.secrets.put(WEB, "default", "web's key");
    server.secrets.put(OTHER, "default", "other's key");
    server.secrets.put(OTHER, "special", "other's special key");
    let mut client = Client::connect(server.address, web(protocol)).await.expect("the stream opens");
    client.request(SDS, &["default", "special", OTHER]).await;
    let response = client.expect_ack(SDS, &["default"]).await;
    let text = String::from_utf8_lossy(response.get("default").expect("the secret")).into_owned();
    assert!(text.contains("web's key"), "{text}");
    client.expect_nothing().await;
    // What is refused holds up nothing else.
    client.request(CDS, &[]).await;
    client.expect_ack(CDS, &["a"]).await;
    assert!(!format!("{:?}", server.streams.list()).contains("key"), "no secret in any dump");
}

async fn secrets_rotate_at_once(protocol: Protocol) {
    let server = start(true).await;
    server.secrets.put(WEB, "default", "1");
    server.secrets.put(WEB, "ROOTCA", "1");
    let mut client = Client::connect(server.address, web(protocol)).await.expect("the stream opens");
    client.request(SDS, &["default"]).await;
    let first = client.expect(SDS).await;
    // As Envoy does: before it has acknowledged the first.
    client.request(SDS, &["ROOTCA"]).await;
    client.ack(&first).await;
    client.expect_ack(SDS, &["ROOTCA"]).await;
    for content in ["2", "3"] {
        server.secrets.put(WEB, "default", content);
        client.expect_ack(SDS, &["default"]).await;
    }
    client.expect_nothing().await;
}

async fn no_secrets_without_encryption(protocol: Protocol) {
    let server = start(false).await;
    server.secrets.put(WEB, "default", "web's key");
    let mut client = Client::connect(server.address, web(protocol)).await.expect("the stream opens");
    client.request(SDS, &["default"]).await;
    client.expect_nothing().await;
    let metrics = server.metrics();
    assert!(metrics.contains("landbridge_sds_withheld{reason=\"anonymous\"} 1"), "{metrics}");
}

async fn secrets_on_a_stream_of_their_own(protocol: Protocol) {
    let server = start(true).await;
    server.secrets.put(WEB, "default", "1");
    let options = Options { secrets_only: true, ..web(protocol) };
    let mut client = Client::connect(server.address, options).await.expect("the stream opens");
    client.request(CDS, &[]).await;
    client.request(SDS, &["default"]).await;
    client.expect_ack(SDS, &["default"]).await;
    server.secrets.put(WEB, "default", "2");
    client.expect_ack(SDS, &["default"]).await;
    assert!(server.streams.is_empty(), "such a stream is no proxy of its own");
}

/// A proxy that comes back with a secret that another server gave it, and that is as good as the newest.
async fn good_secrets_are_kept(protocol: Protocol) {
    let server = start(true).await;
    let mut content = 0;
    let mut rotate = || {
        content += 1;
        server.secrets.put(WEB, "default", &content.to_string());
    };
    rotate();
    let has = BTreeMap::from([("default".to_owned(), "00000000000000ff".to_owned())]);
    for what in ["rotated", "asked for again", "dropped and asked for"] {
        let mut client = Client::connect(server.address, web(protocol)).await.expect("the stream opens");
        client.resume(SDS, &["default"], &has, "ff").await;
        // State of the world does not say what the client has.
        if protocol == Protocol::Sotw {
            client.expect_ack(SDS, &["default"]).await;
        }
        client.expect_nothing().await;
        match what {
            "rotated" => rotate(),
            "asked for again" if protocol == Protocol::Delta => client.request(SDS, &["default"]).await,
            _ => {
                client.unsubscribe(SDS, &["default"]).await;
                client.request(SDS, &["default"]).await;
            }
        }
        client.expect_ack(SDS, &["default"]).await;
        client.expect_nothing().await;
        rotate();
        client.expect_ack(SDS, &["default"]).await;
    }
    // A version that is none is no word to take.
    let has = BTreeMap::from([("default".to_owned(), "v1".to_owned())]);
    let mut client = Client::connect(server.address, web(protocol)).await.expect("the stream opens");
    client.resume(SDS, &["default"], &has, "v1").await;
    client.expect_ack(SDS, &["default"]).await;
}

#[tokio::test]
async fn health_and_reflection() {
    let server = start(true).await;
    let channel = channel(server.address).await;
    let answer = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await;
    assert_eq!(answer.expect("health").into_inner().status().as_str_name(), "SERVING");

    let question = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let ads = "envoy.service.discovery.v3.AggregatedDiscoveryService";
    let questions = [
        question(MessageRequest::ListServices(String::new())),
        question(MessageRequest::FileContainingSymbol(ads.to_owned())),
    ];
    let mut client = ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(Request::new(tokio_stream::iter(questions))).await;
    let mut answers = answers.expect("reflection").into_inner();
    let list = answers.message().await.expect("an answer").expect("an answer").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = list else { panic!("{list:?}") };
    let names: Vec<&str> = list.service.iter().map(|s| s.name.as_str()).collect();
    assert!(names.contains(&ads), "{names:?}");
    assert!(names.contains(&"envoy.service.secret.v3.SecretDiscoveryService"), "{names:?}");
    let file = answers.message().await.expect("an answer").expect("an answer").message_response;
    assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))), "{file:?}");
}
