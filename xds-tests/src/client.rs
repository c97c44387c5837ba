//! A scripted ADS client for both protocols: it says what it is told to and hands over what it gets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use landbridge_proto::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, Resource},
    },
    google::rpc,
    landbridge::envelope::{DeltaDiscoveryResponse, DiscoveryResponse},
    service::{
        ads::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        sds::secret_discovery_service_client::SecretDiscoveryServiceClient,
    },
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, metadata::MetadataValue, transport::Channel};

pub use landbridge::xds::{Kind, Protocol};

/// For how long an expected response is waited for. Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A response, of either protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Its type.
    pub kind: Kind,
    /// Its nonce.
    pub nonce: String,
    /// `version_info` or `system_version_info`.
    pub version: String,
    /// Encoded messages, in order. The names are missing in state-of-the-world responses: see [`name_of`].
    pub resources: Vec<(String, Vec<u8>)>,
    /// The versions of the resources (Delta).
    pub versions: BTreeMap<String, String>,
    /// What is gone (Delta).
    pub removed: Vec<String>,
}

impl Response {
    /// The names of its resources.
    pub fn names(&self) -> Vec<&str> {
        self.resources.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The bytes of one of its resources.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.resources.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes.as_slice())
    }
}

/// The name inside a message: all types that are served have it as their first field.
pub fn name_of(message: &[u8]) -> String {
    #[derive(Clone, PartialEq, Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }
    Named::decode(message).map(|m| m.name).unwrap_or_default()
}

enum Wire {
    Delta(mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>),
    Sotw(mpsc::Sender<DiscoveryRequest>, Streaming<DiscoveryResponse>),
}

/// One stream.
pub struct Client {
    wire: Wire,
    node: Option<Node>,
    names: BTreeMap<Kind, BTreeSet<String>>,
    nonces: BTreeMap<Kind, String>,
    versions: BTreeMap<Kind, String>,
    barriers: usize,
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// The form of the stream.
    pub protocol: Protocol,
    /// Sent with the first request.
    pub node: Option<Node>,
    /// Sent as metadata.
    pub headers: Vec<(&'static str, String)>,
    /// Whether it is the secret discovery service.
    pub secrets_only: bool,
}

impl Options {
    /// A sidecar with this pod name in namespace `shop`.
    pub fn new(protocol: Protocol, pod: &str) -> Self {
        let id = format!("sidecar~10.0.0.1~{pod}.shop~shop.svc.cluster.local");
        let node = Some(Node { id, ..Node::default() });
        Self { protocol, node, headers: Vec::new(), secrets_only: false }
    }
}

/// A plaintext connection.
pub async fn channel(server: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{server}")).expect("a socket address makes a URI");
    endpoint.connect().await.expect("the server listens")
}

impl Client {
    /// Opens a stream on a connection of its own.
    pub async fn connect(server: SocketAddr, options: Options) -> Result<Self, Status> {
        Self::open(channel(server).await, options).await
    }

    /// Opens a stream.
    pub async fn open(channel: Channel, options: Options) -> Result<Self, Status> {
        let Options { protocol, node, headers, secrets_only } = options;
        fn stream<T: Send + 'static>(
            headers: &[(&'static str, String)],
        ) -> (mpsc::Sender<T>, Request<ReceiverStream<T>>) {
            let (sender, receiver) = mpsc::channel(16);
            let mut request = Request::new(ReceiverStream::new(receiver));
            for (key, value) in headers {
                let value: MetadataValue<_> = value.parse().expect("header values are ASCII");
                request.metadata_mut().insert(*key, value);
            }
            (sender, request)
        }
        let max = 256 << 20;
        let wire = match protocol {
            Protocol::Delta => {
                let (sender, request) = stream(&headers);
                let responses = if secrets_only {
                    SecretDiscoveryServiceClient::new(channel).delta_secrets(request).await?
                } else {
                    let mut client =
                        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(max);
                    client.delta_aggregated_resources(request).await?
                };
                Wire::Delta(sender, responses.into_inner())
            }
            Protocol::Sotw => {
                let (sender, request) = stream(&headers);
                let responses = if secrets_only {
                    SecretDiscoveryServiceClient::new(channel).stream_secrets(request).await?
                } else {
                    let mut client =
                        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(max);
                    client.stream_aggregated_resources(request).await?
                };
                Wire::Sotw(sender, responses.into_inner())
            }
        };
        Ok(Self {
            wire,
            node,
            names: BTreeMap::new(),
            nonces: BTreeMap::new(),
            versions: BTreeMap::new(),
            barriers: 0,
        })
    }

    /// Asks for these names too; for none of a wildcard type: for everything.
    pub async fn request(&mut self, kind: Kind, names: &[&str]) {
        let all = self.names.entry(kind).or_default();
        all.extend(names.iter().map(|n| (*n).to_owned()));
        match &self.wire {
            Wire::Delta(..) => self.delta(kind, |r| r.resource_names_subscribe = strings(names)).await,
            Wire::Sotw(..) => self.sotw(kind, |_| ()).await,
        }
    }

    /// Asks for these names no longer.
    pub async fn unsubscribe(&mut self, kind: Kind, names: &[&str]) {
        let all = self.names.entry(kind).or_default();
        all.retain(|name| !names.contains(&name.as_str()));
        match &self.wire {
            Wire::Delta(..) => self.delta(kind, |r| r.resource_names_unsubscribe = strings(names)).await,
            Wire::Sotw(..) => self.sotw(kind, |_| ()).await,
        }
    }

    /// The first request of a type on a new stream, of a client that has all this (Delta: name and version of each;
    /// state of the world: the last version).
    pub async fn resume(
        &mut self,
        kind: Kind,
        names: &[&str],
        has: &BTreeMap<String, String>,
        version: &str,
    ) {
        self.names.insert(kind, strings(names).into_iter().collect());
        match &self.wire {
            Wire::Delta(..) => {
                self.delta(kind, |r| {
                    r.resource_names_subscribe = strings(names);
                    r.initial_resource_versions = has.clone();
                })
                .await;
            }
            Wire::Sotw(..) => self.sotw(kind, |r| r.version_info = version.to_owned()).await,
        }
    }

    /// Accepts a response.
    pub async fn ack(&mut self, response: &Response) {
        self.versions.insert(response.kind, response.version.clone());
        self.answer(response, None).await;
    }

    /// Refuses a response.
    pub async fn nack(&mut self, response: &Response, reason: &str) {
        self.answer(response, Some(reason)).await;
    }

    async fn answer(&mut self, response: &Response, refusal: Option<&str>) {
        let detail = refusal.map(|r| rpc::Status { code: 13, message: r.to_owned(), ..Default::default() });
        let nonce = response.nonce.clone();
        match &self.wire {
            Wire::Delta(..) => {
                self.delta(response.kind, |r| (r.response_nonce, r.error_detail) = (nonce, detail)).await;
            }
            Wire::Sotw(..) => {
                self.sotw(response.kind, |r| (r.response_nonce, r.error_detail) = (nonce, detail)).await;
            }
        }
    }

    /// Sends a Delta request; the change is made to one with type and node.
    pub async fn delta(&mut self, kind: Kind, change: impl FnOnce(&mut DeltaDiscoveryRequest)) {
        let mut request = DeltaDiscoveryRequest {
            node: self.node.take(),
            type_url: kind.type_url().to_owned(),
            ..Default::default()
        };
        change(&mut request);
        let Wire::Delta(sender, _) = &self.wire else { panic!("a Delta request on a SotW stream") };
        // A stream that the server ended is noticed by who reads.
        let _ = sender.send(request).await;
    }

    /// Sends a state-of-the-world request; the change is made to one with type, node, names and the last nonce.
    pub async fn sotw(&mut self, kind: Kind, change: impl FnOnce(&mut DiscoveryRequest)) {
        let names = self.names.get(&kind).into_iter().flatten().cloned().collect();
        let mut request = DiscoveryRequest {
            node: self.node.take(),
            type_url: kind.type_url().to_owned(),
            resource_names: names,
            response_nonce: self.nonces.get(&kind).cloned().unwrap_or_default(),
            version_info: self.versions.get(&kind).cloned().unwrap_or_default(),
            ..Default::default()
        };
        change(&mut request);
        let Wire::Sotw(sender, _) = &self.wire else { panic!("a SotW request on a Delta stream") };
        let _ = sender.send(request).await;
    }

    /// The next response, or how the stream ended.
    pub async fn next(&mut self) -> Result<Option<Response>, Status> {
        let next = async {
            match &mut self.wire {
                Wire::Delta(_, responses) => responses.message().await.map(|r| r.map(of_delta)),
                Wire::Sotw(_, responses) => responses.message().await.map(|r| r.map(of_sotw)),
            }
        };
        let response = tokio::time::timeout(PATIENCE, next).await.expect("a response or an end in time")?;
        if let Some(response) = &response {
            self.nonces.insert(response.kind, response.nonce.clone());
        }
        Ok(response)
    }

    /// The next response, which has to be of this type.
    pub async fn expect(&mut self, kind: Kind) -> Response {
        let response = self.next().await.expect("the stream goes on").expect("the stream goes on");
        assert_eq!(response.kind, kind, "{response:?}");
        response
    }

    /// The next response, of this type and with exactly these resources; accepted.
    pub async fn expect_ack(&mut self, kind: Kind, names: &[&str]) -> Response {
        let response = self.expect(kind).await;
        assert_eq!(response.names(), names, "removed: {:?}", response.removed);
        self.ack(&response).await;
        response
    }

    /// There is nothing to be sent: an answer to a question of now is the next that comes. Virtual hosts are the last in the
    /// order of the server and routes come before them, so it asks for one after the other; there must be none unanswered.
    pub async fn expect_nothing(&mut self) {
        self.barrier().await;
        self.barrier().await;
    }

    async fn barrier(&mut self) {
        self.barriers += 1;
        let name = format!("barrier-{}", self.barriers);
        let routes = Kind::Snapshot(landbridge::snapshot::ResourceType::Route);
        self.request(routes, &[&name]).await;
        let response = self.next().await.expect("the stream goes on").expect("the stream goes on");
        assert_eq!((response.kind, response.names()), (routes, vec![name.as_str()]), "{response:?}");
        self.ack(&response).await;
        self.unsubscribe(routes, &[&name]).await;
    }

    /// The status with which the server ends the stream; responses before it are dropped.
    pub async fn end(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok("the stream ended"),
                Err(status) => return status,
            }
        }
    }
}

fn of_delta(response: DeltaDiscoveryResponse) -> Response {
    let (mut resources, mut versions) = (Vec::new(), BTreeMap::new());
    for bytes in &response.resources {
        let resource = Resource::decode(bytes.as_ref()).expect("a Resource");
        let any = resource.resource.expect("a Resource has a message");
        assert_eq!(any.type_url, response.type_url);
        versions.insert(resource.name.clone(), resource.version);
        resources.push((resource.name, any.value));
    }
    Response {
        kind: Kind::from_type_url(&response.type_url).expect("a known type"),
        nonce: response.nonce,
        version: response.system_version_info,
        resources,
        versions,
        removed: response.removed_resources,
    }
}

fn of_sotw(response: DiscoveryResponse) -> Response {
    let resources = response.resources.iter().map(|bytes| {
        let any = prost_types::Any::decode(bytes.as_ref()).expect("an Any");
        assert_eq!(any.type_url, response.type_url);
        (name_of(&any.value), any.value)
    });
    Response {
        kind: Kind::from_type_url(&response.type_url).expect("a known type"),
        nonce: response.nonce,
        version: response.version_info,
        resources: resources.collect(),
        versions: BTreeMap::new(),
        removed: Vec::new(),
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}
