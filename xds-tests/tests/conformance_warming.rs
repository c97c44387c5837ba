//! What a stream leaves behind that ends between a changed cluster and the assignment which this waits for. Only a real Envoy
//! can tell what it says then on the next one.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::{Stream, StreamExt as _, stream, stream::BoxStream};
use landbridge::snapshot::ResourceType;
use landbridge_proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
    landbridge::envelope::{DeltaDiscoveryResponse, DiscoveryResponse},
    service::ads::{
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
    },
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};
use xds_tests::{
    client::{Kind, Protocol, channel},
    envoy,
    process::Process,
    scripted::{self, Server},
};

#[tokio::test]
async fn a_cluster_that_warms_gets_its_endpoints_from_the_next_delta_stream() {
    a_stream_ends_after_a_cluster(Protocol::Delta).await;
}

#[tokio::test]
async fn a_cluster_that_warms_gets_its_endpoints_from_the_next_sotw_stream() {
    a_stream_ends_after_a_cluster(Protocol::Sotw).await;
}

async fn a_stream_ends_after_a_cluster(protocol: Protocol) {
    let server = Server::start(scripted::Options::default()).await;
    server.publish("e1=1", "e1", "", "").await;
    let relay = Relay::start(server.address).await;
    let mut envoy = Envoy::start(protocol, relay.address);
    envoy.until(["cluster_added: 2", "warming_clusters: 0"]).await;

    relay.end_after_clusters.store(true, SeqCst);
    server.publish_now("e1=2", "e1", "", "");
    envoy.until(["cluster_modified: 1", "warming_clusters: 0"]).await;
    assert_eq!(relay.streams.load(SeqCst), 2, "one has ended, another has begun");

    server.publish_now("e1=2 e2", "e1 e2", "", "");
    envoy.until(["cluster_added: 3", "warming_clusters: 0"]).await;
}

// === relay ===

/// Between Envoy and the server: hands on what both say, and ends a stream when it is told to.
#[derive(Clone)]
struct Relay {
    address: SocketAddr,
    server: SocketAddr,
    /// How many streams there were.
    streams: Arc<AtomicUsize>,
    /// Ends the stream after the next response with clusters.
    end_after_clusters: Arc<AtomicBool>,
}

impl Relay {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let relay = Self { address, server, streams: Arc::default(), end_after_clusters: Arc::default() };
        let router = tonic::transport::Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(relay.clone()));
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        relay
    }

    async fn open(&self) -> AggregatedDiscoveryServiceClient<tonic::transport::Channel> {
        self.streams.fetch_add(1, SeqCst);
        AggregatedDiscoveryServiceClient::new(channel(self.server).await)
    }

    fn responses<T: Send + 'static>(
        &self,
        from: Streaming<T>,
        type_url: fn(&T) -> &str,
    ) -> Response<BoxStream<'static, Result<T, Status>>> {
        let end = self.end_after_clusters.clone();
        let clusters = Kind::Snapshot(ResourceType::Cluster).type_url();
        let until_it_ends = from.flat_map(move |response| {
            let last = response.as_ref().is_ok_and(|response| type_url(response) == clusters)
                && end.swap(false, SeqCst);
            let end = last.then(|| Err(Status::unavailable("the test ends this stream")));
            stream::iter([response]).chain(stream::iter(end))
        });
        Response::new(until_it_ends.boxed())
    }
}

fn requests<T: Send + 'static>(from: Request<Streaming<T>>) -> impl Stream<Item = T> + Send + use<T> {
    tokio_stream::StreamExt::map_while(from.into_inner(), Result::ok)
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Relay {
    type StreamAggregatedResourcesStream = BoxStream<'static, Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = BoxStream<'static, Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let mut client = self.open().await;
        let responses = client.stream_aggregated_resources(requests(request)).await?;
        Ok(self.responses(responses.into_inner(), |response| &response.type_url))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let mut client = self.open().await;
        let responses = client.delta_aggregated_resources(requests(request)).await?;
        Ok(self.responses(responses.into_inner(), |response| &response.type_url))
    }
}

// === Envoy ===

/// Stock Envoy on loopback, without listeners of its own.
struct Envoy {
    process: Process,
    folder: TempDir,
}

impl Envoy {
    fn start(protocol: Protocol, ads: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("bootstrap.json"), bootstrap(protocol, ads).to_string()).expect("a file");
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let mut command = Command::new(envoy::find(repository).expect("Envoy"));
        command.arg("--config-path").arg(file("bootstrap.json"));
        command.arg("--admin-address-path").arg(file("admin"));
        command.args(["--concurrency", "1", "--disable-hot-restart"]);
        let process = Process::start_at(None, "envoy", command, &file("envoy.log")).expect("it starts");
        Self { process, folder }
    }

    /// Waits until all of these are among the statistics of its cluster manager.
    async fn until(&mut self, lines: [&str; 2]) {
        let admin: PathBuf = self.folder.path().join("admin");
        let there = async || {
            let Ok(admin) = std::fs::read_to_string(&admin) else { return false };
            let url = format!("http://{admin}/stats?filter=cluster_manager");
            let Ok(stats) = reqwest::get(url).await else { return false };
            let stats = stats.text().await.unwrap_or_default();
            lines.iter().all(|line| stats.contains(line))
        };
        let done = self.process.await_ready(Duration::from_secs(10), there).await;
        done.unwrap_or_else(|error| panic!("{lines:?}: {error:#}"));
    }
}

fn bootstrap(protocol: Protocol, ads: SocketAddr) -> serde_json::Value {
    let api_type = match protocol {
        Protocol::Delta => "DELTA_GRPC",
        Protocol::Sotw => "GRPC",
    };
    let address = |port| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let over_ads = json!({"ads": {}, "resource_api_version": "V3"});
    let http2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({
        "node": {"id": "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local", "cluster": "web.shop"},
        "admin": {"address": address(0)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": api_type,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "ads"}}],
            },
            "cds_config": over_ads,
            "lds_config": over_ads,
        },
        "static_resources": {"clusters": [{
            "name": "ads",
            "typed_extension_protocol_options": {http2: {
                "@type": format!("type.googleapis.com/{http2}"),
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {
                "cluster_name": "ads",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(ads.port())}}]}],
            },
        }]},
    })
}
