//! More than a server can take on: those who are served already do not notice.

use std::time::{Duration, Instant};

use landbridge::{
    snapshot::ResourceType::Cluster,
    xds::{listener::ConnectionSettings, overload::Bounds},
};
use tonic::Code;
use xds_tests::{
    client::{Client, Kind, Options, Protocol},
    process::resident_bytes,
    scripted::{self, Server, until},
};

const CDS: Kind = Kind::Snapshot(Cluster);
const MIB: u64 = 1 << 20;
/// So many clusters make several megabytes: more than sockets and windows take.
const COUNT: usize = 2_000;

async fn connect(server: &Server, pod: &str) -> Client {
    Client::connect(server.address, Options::new(Protocol::Delta, pod)).await.expect("the stream opens")
}

#[tokio::test]
async fn streams_that_are_too_many_are_asked_to_go_elsewhere_bit_by_bit() {
    let bounds = Bounds { streams: Some(10), ..Bounds::default() };
    let shed_interval = Duration::from_millis(30);
    let connections = ConnectionSettings { shed_interval, ..ConnectionSettings::default() };
    let server = Server::start(scripted::Options { bounds, connections, ..Default::default() }).await;
    server.publish("a", "", "", "").await;
    let (mut clients, mut shed, mut kept) = (Vec::new(), 0, 0);
    for i in 0..30 {
        // Some are shed while others still come.
        match Client::connect(server.address, Options::new(Protocol::Delta, &format!("web-{i}"))).await {
            Ok(mut client) => {
                client.request(CDS, &[]).await;
                clients.push(client);
            }
            Err(_) => shed += 1,
        }
    }
    until("what was too much is gone", || server.streams.len() <= 10).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.streams.len(), 10, "no more than that");

    for mut client in clients {
        match client.next().await {
            Ok(response) => client.ack(&response.expect("a response or a status")).await,
            Err(_) => {
                shed += 1;
                continue;
            }
        }
        server.publish_now(&format!("a b{kept}"), "", "", "");
        match client.next().await {
            Ok(_) => kept += 1,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                shed += 1;
            }
        }
    }
    assert_eq!((shed, kept), (20, 10));
}

#[tokio::test]
async fn readers_that_stopped_delay_nobody_and_cost_little() {
    let server = Server::start(scripted::Options::default()).await;
    let clusters =
        |revision: usize| -> String { (0..COUNT).map(|i| format!("c{i}={revision}{i:03000} ")).collect() };
    server.publish(&clusters(0), "", "", "").await;
    let before = resident_bytes().expect("Linux");
    let mut stopped = Vec::new();
    for i in 0..200 {
        let mut client = connect(&server, &format!("stopped-{i}")).await;
        client.request(CDS, &[]).await;
        stopped.push(client);
    }
    until("all are there", || server.streams.len() == stopped.len()).await;
    let mut reader = served_in_parts(&server, "reader", COUNT).await;

    let start = Instant::now();
    // Those who do not read do not take the snapshot either.
    server.publish_now("last", "", "", "");
    let mut gone = 0;
    let mut news = false;
    while gone < COUNT || !news {
        let response = reader.expect(CDS).await;
        gone += response.removed.len();
        news |= response.names().contains(&"last");
        reader.ack(&response).await;
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // Both ends are in this process. The clusters are 6 MB: copied for each, they would be 1.2 GB.
    let grown = resident_bytes().expect("Linux").saturating_sub(before) / MIB;
    assert!(grown < 600, "{grown} MiB for {} clients that do not read", stopped.len());
}

/// A client that has all clusters, which come in several responses.
async fn served_in_parts(server: &Server, pod: &str, count: usize) -> Client {
    let mut client = connect(server, pod).await;
    client.request(CDS, &[]).await;
    let mut got = 0;
    while got < count {
        let response = client.expect(CDS).await;
        got += response.resources.len();
        client.ack(&response).await;
    }
    client
}
