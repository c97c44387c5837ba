//! Clients that are wrong, greedy or malicious: each gets a clear answer, and nobody else notices.

use std::{num::NonZeroU32, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use landbridge::snapshot::ResourceType::{Cluster, Endpoint, Listener, Route};
use landbridge::xds::{Limits, listener::ConnectionSettings, server::Settings};
use landbridge_proto::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use xds_tests::{
    client::{Client, Kind, Options, Protocol, channel},
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
    an_oversized_request a_malformed_request a_contradictory_request one_hundred_thousand_names too_many_names
    a_name_without_end a_client_that_never_reads a_node_that_changes no_node a_node_that_makes_no_sense
    an_unknown_type no_type an_empty_stream a_silent_stream health_before_the_node too_many_streams_at_once
}

async fn start() -> Server {
    start_with(Settings::default()).await
}

async fn start_with(settings: Settings) -> Server {
    let server = Server::start(scripted::Options { settings, ..Default::default() }).await;
    server.publish("a", "a", "l", "80").await;
    server
}

async fn connect(server: &Server, protocol: Protocol) -> Client {
    Client::connect(server.address, Options::new(protocol, "web-1")).await.expect("the stream opens")
}

/// The server still serves others.
async fn still_serves(server: &Server, protocol: Protocol) {
    let mut client = connect(server, protocol).await;
    client.request(CDS, &[]).await;
    let response = client.expect(CDS).await;
    assert!(response.names().contains(&"a"));
}

async fn an_oversized_request(protocol: Protocol) {
    let server = start().await;
    let mut client = connect(&server, protocol).await;
    let names: Vec<String> = (0..5000).map(|i| format!("{i:01000}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    client.request(EDS, &names).await;
    let status = client.end().await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("too large"), "{status}");
    still_serves(&server, protocol).await;
}

async fn a_malformed_request(protocol: Protocol) {
    let server = start().await;
    let path = match protocol {
        Protocol::Delta => "DeltaAggregatedResources",
        Protocol::Sotw => "StreamAggregatedResources",
    };
    let good = DiscoveryRequest { type_url: CDS.type_url().into(), ..Default::default() }.encode_to_vec();
    for garbage in [
        vec![0xff; 100],
        // A length that goes beyond the message.
        vec![0x0a, 0xff, 0xff, 0xff, 0x7f],
        // A field that is not UTF-8.
        vec![0x22, 0x02, 0xc3, 0x28],
        good[..good.len() - 3].to_vec(),
        // Messages within messages, a thousand deep.
        (0..1000).fold(Vec::new(), |inner, _| {
            let mut outer = vec![0x12];
            prost::encoding::encode_varint(inner.len() as u64, &mut outer);
            outer.extend(inner);
            outer
        }),
    ] {
        let mut grpc = tonic::client::Grpc::new(channel(server.address).await);
        grpc.ready().await.expect("the connection is there");
        let path = format!("/envoy.service.discovery.v3.AggregatedDiscoveryService/{path}");
        let request = Request::new(tokio_stream::once(Bytes::from(garbage)));
        let path = path.parse().expect("a path");
        let status = match grpc.streaming(request, path, Raw).await {
            Ok(response) => response.into_inner().message().await.expect_err("no response to garbage"),
            Err(status) => status,
        };
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    // Not even HTTP.
    let mut socket = TcpStream::connect(server.address).await.expect("the server listens");
    let _ = socket.write_all(&[0x16; 10_000]).await;
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest).await;
    still_serves(&server, protocol).await;
}

async fn a_contradictory_request(protocol: Protocol) {
    let server = start().await;
    let mut client = connect(&server, protocol).await;
    match protocol {
        Protocol::Delta => {
            client
                .delta(EDS, |r| {
                    r.resource_names_subscribe = vec!["a".into(), "a".into(), "b".into()];
                    r.resource_names_unsubscribe = vec!["a".into(), "never".into(), "*".into()];
                    r.initial_resource_versions.insert("b".into(), "no version".into());
                    r.response_nonce = "before anything was sent".into();
                    r.error_detail = Some(Default::default());
                })
                .await;
        }
        Protocol::Sotw => {
            client
                .sotw(EDS, |r| {
                    r.resource_names = vec!["b".into(), "b".into()];
                    r.version_info = "from elsewhere".into();
                    r.response_nonce = "before anything was sent".into();
                    r.error_detail = Some(Default::default());
                })
                .await;
        }
    }
    client.expect_ack(EDS, &["b"]).await;
    client.expect_nothing().await;
}

async fn one_hundred_thousand_names(protocol: Protocol) {
    let server = start().await;
    let mut client = connect(&server, protocol).await;
    let names: Vec<String> = (0..99_999).map(|i| format!("n{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    client.request(EDS, &names).await;
    let mut answered = 0;
    while answered < names.len() {
        let response = client.expect(EDS).await;
        let bytes: usize = response.resources.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes < 4 << 20, "{bytes} bytes");
        answered += response.resources.len();
        client.ack(&response).await;
    }
    assert_eq!(answered, names.len());
    server.publish("a", "n7=x a", "l", "80").await;
    client.expect_ack(EDS, &["n7"]).await;
    still_serves(&server, protocol).await;
}

async fn too_many_names(protocol: Protocol) {
    let limits = Limits { names: 1000, ..Limits::default() };
    let server = start_with(Settings { limits, ..Settings::default() }).await;
    let mut client = connect(&server, protocol).await;
    let names: Vec<String> = (0..1001).map(|i| i.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    client.request(EDS, &names).await;
    let status = client.end().await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("1001") && status.message().contains("1000"), "{status}");
    still_serves(&server, protocol).await;
}

async fn a_name_without_end(protocol: Protocol) {
    let server = start().await;
    for name in ["x".repeat(100_000), String::new()] {
        let mut client = connect(&server, protocol).await;
        client.request(EDS, &[&name]).await;
        let status = client.end().await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().len() < 300, "{status}");
    }
}

async fn a_client_that_never_reads(protocol: Protocol) {
    let send_timeout = Duration::from_millis(300);
    let connections = ConnectionSettings { send_timeout, ..ConnectionSettings::default() };
    let server = Server::start(scripted::Options { connections, ..Default::default() }).await;
    let large: String = (0..40_000).map(|i| format!("a{i}={i} ")).collect();
    server.publish(&large, "", &large, "").await;
    let mut lazy = connect(&server, protocol).await;
    lazy.request(CDS, &[]).await;
    lazy.request(LDS, &[]).await;
    lazy.request(RDS, &["1"]).await;
    lazy.request(EDS, &["1"]).await;
    until("the stream is there", || server.streams.len() == 1).await;
    until("it was given up", || server.streams.is_empty()).await;
    server.publish("a", "", "", "").await;
    still_serves(&server, protocol).await;
    // Its connection is cut, so that what was buffered for it is gone too.
    let status = lazy.end().await;
    assert_ne!(status.code(), Code::Ok);
}

async fn a_node_that_changes(protocol: Protocol) {
    let server = start().await;
    let mut client = connect(&server, protocol).await;
    client.request(CDS, &[]).await;
    let response = client.expect(CDS).await;
    let node = |id: &str| Some(Node { id: id.into(), ..Node::default() });
    let same = "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local";
    for id in [same, "", "sidecar~10.0.0.2~other.shop~shop.svc.cluster.local"] {
        match protocol {
            Protocol::Delta => client.delta(CDS, |r| r.node = node(id)).await,
            Protocol::Sotw => client.sotw(CDS, |r| r.node = node(id)).await,
        }
    }
    drop(response);
    let status = client.end().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("web-1") && status.message().contains("other"), "{status}");
}

async fn refused_node(protocol: Protocol, node: Option<Node>) -> Status {
    let server = start().await;
    let options = Options { node, ..Options::new(protocol, "") };
    let mut client = Client::connect(server.address, options).await.expect("the stream opens");
    client.request(CDS, &[]).await;
    let status = client.end().await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(server.streams.is_empty());
    status
}

async fn no_node(protocol: Protocol) {
    let status = refused_node(protocol, None).await;
    assert!(status.message().contains("no node"), "{status}");
}

async fn a_node_that_makes_no_sense(protocol: Protocol) {
    let node = |id: String| Some(Node { id, ..Node::default() });
    let status = refused_node(protocol, node("sidecar~nowhere~web.shop~shop.svc".into())).await;
    assert!(status.message().contains("INSTANCE_IPS"), "{status}");
    let status = refused_node(protocol, node("~".repeat(1_000_000))).await;
    assert!(status.message().len() < 300, "{status}");
}

async fn an_unknown_type(protocol: Protocol) {
    let server = start().await;
    let mut client = connect(&server, protocol).await;
    for url in ["type.googleapis.com/istio.networking.nds.v1.NameTable", "nonsense", &"x".repeat(100_000)] {
        match protocol {
            Protocol::Delta => client.delta(CDS, |r| r.type_url = url.into()).await,
            Protocol::Sotw => client.sotw(CDS, |r| r.type_url = url.into()).await,
        }
    }
    client.request(CDS, &[]).await;
    client.expect_ack(CDS, &["a"]).await;
    client.expect_nothing().await;
}

async fn no_type(protocol: Protocol) {
    let server = start().await;
    let mut client = connect(&server, protocol).await;
    match protocol {
        Protocol::Delta => client.delta(CDS, |r| r.type_url.clear()).await,
        Protocol::Sotw => client.sotw(CDS, |r| r.type_url.clear()).await,
    }
    let status = client.end().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("type_url"), "{status}");
}

async fn an_empty_stream(protocol: Protocol) {
    let server = start().await;
    drop(connect(&server, protocol).await);
    still_serves(&server, protocol).await;
}

async fn a_silent_stream(protocol: Protocol) {
    let first_request_timeout = Duration::from_millis(100);
    let server = start_with(Settings { first_request_timeout, ..Settings::default() }).await;
    let mut client = connect(&server, protocol).await;
    let status = client.end().await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

async fn health_before_the_node(protocol: Protocol) {
    let server = start().await;
    let mut client = connect(&server, protocol).await;
    let health = "type.googleapis.com/istio.v1.HealthInformation";
    match protocol {
        Protocol::Delta => {
            {
                client.delta(CDS, |r| {
                    *r = DeltaDiscoveryRequest { type_url: health.into(), ..Default::default() }
                })
            }
            .await
        }
        Protocol::Sotw => {
            { client.sotw(CDS, |r| *r = DiscoveryRequest { type_url: health.into(), ..Default::default() }) }
                .await
        }
    }
    // The node was used up by the request that was replaced: send it again.
    let node = Options::new(protocol, "web-1").node;
    match protocol {
        Protocol::Delta => client.delta(CDS, |r| r.node = node).await,
        Protocol::Sotw => client.sotw(CDS, |r| r.node = node).await,
    }
    client.expect_ack(CDS, &["a"]).await;
    client.expect_nothing().await;
}

async fn too_many_streams_at_once(protocol: Protocol) {
    let streams_per_second = NonZeroU32::new(2);
    let server = start_with(Settings { streams_per_second, ..Settings::default() }).await;
    let channel = channel(server.address).await;
    let open = (0..10).map(|_| Client::open(channel.clone(), Options::new(protocol, "web-1")));
    let results = futures::future::join_all(open).await;
    let refused: Vec<Code> = results.iter().filter_map(|r| r.as_ref().err().map(Status::code)).collect();
    assert!(results.len() - refused.len() >= 2, "some begin");
    assert!(refused.len() >= 5, "{} were refused", refused.len());
    assert!(refused.iter().all(|code| *code == Code::ResourceExhausted));
}

/// Bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}
