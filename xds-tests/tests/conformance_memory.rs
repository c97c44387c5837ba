//! A server at its limit of memory, which is that of its process: so this test is alone in one.

use std::time::Duration;

use landbridge::{snapshot::ResourceType::Cluster, xds::overload::Bounds};
use tonic::Code;
use xds_tests::{
    client::{Client, Kind, Options, Protocol},
    process::resident_bytes,
    scripted::{self, Server},
};

const CDS: Kind = Kind::Snapshot(Cluster);
const MIB: usize = 1 << 20;

/// A client that has all clusters.
async fn served(server: &Server, pod: &str) -> Client {
    let options = Options::new(Protocol::Delta, pod);
    let mut client = Client::connect(server.address, options).await.expect("the stream opens");
    client.request(CDS, &[]).await;
    let response = client.expect(CDS).await;
    client.ack(&response).await;
    client
}

#[tokio::test]
async fn new_streams_are_refused_while_memory_is_short() {
    let bounds = Bounds {
        memory_bytes: Some(resident_bytes().expect("Linux") + 200 * MIB as u64),
        ..Bounds::default()
    };
    let server = Server::start(scripted::Options { bounds, ..Default::default() }).await;
    server.publish("a", "", "", "").await;
    let mut old = served(&server, "old").await;

    // Touched, so that it counts.
    let ballast = vec![1_u8; 400 * MIB];
    tokio::time::sleep(Duration::from_millis(150)).await;
    let refused = Client::connect(server.address, Options::new(Protocol::Delta, "new")).await;
    let status = refused.err().expect("there is no memory for it");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.metadata().contains_key("grpc-retry-pushback-ms"), "{status:?}");
    assert!(server.metrics().contains("refused_streams{reason=\"memory\"} 1"), "{}", server.metrics());

    server.publish("a b", "", "", "").await;
    assert!(old.expect(CDS).await.names().contains(&"b"), "who was there is served");
    assert_eq!(ballast[ballast.len() / 2], 1);
    drop(ballast);
    tokio::time::sleep(Duration::from_millis(150)).await;
    served(&server, "new").await;
}
