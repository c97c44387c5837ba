//! The real xDS server over TCP, with a pipeline that publishes what a test says.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use landbridge::{
    authn,
    model::identity::{Spiffe, SpiffeError},
    resource::proto,
    snapshot::{
        Attacher, Command, Encoded, Feed, Nack, ResourceSet, ResourceType, Resources, Snapshot, StreamId,
        Tether, Version,
    },
    xds::{
        Access, Authenticate, Kind, Peer,
        listener::{self, ConnectionSettings},
        metrics::Metrics,
        overload::{Bounds, Overload},
        secrets::{Secret, SecretProvider},
        server::{self, Context, Settings},
        status::Streams,
    },
};
use landbridge_proto::envoy::{
    config::{
        cluster::v3::{Cluster, cluster},
        endpoint::v3::{ClusterLoadAssignment, LbEndpoint, lb_endpoint},
        listener::v3::Listener,
        route::v3::{RouteConfiguration, VirtualHost},
    },
    extensions::transport_sockets::tls,
};
use parking_lot::Mutex;
use prost::Message;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A server.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who is connected.
    pub streams: Arc<Streams>,
    /// The secret of every identity that has one.
    pub secrets: Arc<Secrets>,
    /// Tells it to drain.
    pub shutdown: CancellationToken,
    /// Ends when it has drained.
    pub done: JoinHandle<()>,
    /// Its metrics.
    pub metrics: prometheus_client::registry::Registry,
    class: Arc<Mutex<Class>>,
    nacks: watch::Receiver<Vec<(StreamId, Nack)>>,
    epoch: AtomicU64,
}

/// The class of all streams.
struct Class {
    feed: Feed,
    streams: BTreeMap<StreamId, Tether>,
}

/// How to start it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whether the header `x-identity` decides who a client is. Otherwise everybody is nobody.
    pub authenticated: bool,
    /// How streams are treated.
    pub settings: Settings,
    /// How many streams there may be.
    pub bounds: Bounds,
    /// How connections are treated.
    pub connections: ConnectionSettings,
}

impl Server {
    /// Starts on a free port of 127.0.0.1, with nothing published.
    pub async fn start(options: Options) -> Self {
        let class = Class { feed: Feed::new(Snapshot::empty()), streams: BTreeMap::new() };
        let class = Arc::new(Mutex::new(class));
        let classes = class.clone();
        let (noted, nacks) = watch::channel(Vec::new());
        let (attacher, mut commands) = Attacher::new();
        tokio::spawn(async move {
            while let Some(command) = commands.recv().await {
                let mut class = classes.lock();
                match command {
                    Command::Attach(id, _, answer) => {
                        let (tether, follower) = class.feed.attach(id);
                        class.streams.insert(id, tether);
                        let _ = answer.send(follower);
                    }
                    Command::Detach(id) => {
                        class.feed.leave(id);
                        class.streams.remove(&id);
                    }
                    Command::Nack(id, nack) => noted.send_modify(|all| all.push((id, nack))),
                }
            }
        });
        let mut metrics = prometheus_client::registry::Registry::default();
        let counters = Metrics::register(&mut metrics);
        let overload = Arc::new(Overload::new(options.bounds, counters.clone()));
        let (streams, secrets) = (Arc::new(Streams::default()), Arc::new(Secrets::default()));
        let context = Context {
            attacher,
            secrets: secrets.clone(),
            streams: streams.clone(),
            shared: Arc::default(),
            metrics: counters,
            overload: overload.clone(),
            settings: options.settings,
        };
        let access = match options.authenticated {
            true => Access::Authenticated(Arc::new(ByHeader)),
            false => Access::Anonymous,
        };
        let (router, _health) = server::routes(Arc::new(context), access);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shutdown = CancellationToken::new();
        let serving =
            listener::serve(listener, None, router, options.connections, overload, shutdown.clone());
        Self {
            address,
            streams,
            secrets,
            shutdown,
            done: tokio::spawn(serving),
            metrics,
            class,
            nacks,
            epoch: AtomicU64::new(0),
        }
    }

    /// Publishes resources given as `name=content` words, and returns when all streams saw them.
    pub async fn publish(&self, clusters: &str, endpoints: &str, listeners: &str, routes: &str) {
        let epoch = self.publish_now(clusters, endpoints, listeners, routes);
        let seen = || self.streams.list().iter().all(|s| s.snapshot().epoch >= epoch);
        until("all streams saw the snapshot", seen).await;
    }

    /// Publishes routes and virtual hosts only, and returns when all streams saw them.
    pub async fn publish_hosts(&self, routes: &str, hosts: &str) {
        let epoch = self.send(["", "", "", routes, hosts, ""]);
        let seen = || self.streams.list().iter().all(|s| s.snapshot().epoch >= epoch);
        until("all streams saw the snapshot", seen).await;
    }

    /// Publishes clusters, assignments and endpoints only, and returns when all streams saw them.
    pub async fn publish_endpoints(&self, clusters: &str, assignments: &str, endpoints: &str) {
        let epoch = self.send([clusters, assignments, "", "", "", endpoints]);
        let seen = || self.streams.list().iter().all(|s| s.snapshot().epoch >= epoch);
        until("all streams saw the snapshot", seen).await;
    }

    /// As [`Self::publish`], without waiting for streams.
    pub fn publish_now(&self, clusters: &str, endpoints: &str, listeners: &str, routes: &str) -> u64 {
        self.send([clusters, endpoints, listeners, routes, "", ""])
    }

    fn send(&self, [clusters, endpoints, listeners, routes, hosts, pieces]: [&str; 6]) -> u64 {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        let snapshot = Snapshot {
            epoch,
            clusters: set(ResourceType::Cluster, clusters),
            endpoints: set(ResourceType::Endpoint, endpoints),
            listeners: set(ResourceType::Listener, listeners),
            routes: set(ResourceType::Route, routes),
            virtual_hosts: set(ResourceType::VirtualHost, hosts),
            lb_endpoints: set(ResourceType::LbEndpoint, pieces),
            ..Snapshot::empty()
        };
        let feed = &mut self.class.lock().feed;
        feed.publish(snapshot);
        // Tests wait until all saw it, and not those alone that have to.
        feed.refresh(usize::MAX);
        epoch
    }

    /// Moves all streams to another class, as when a proxy's pod becomes known.
    pub fn move_class(&self, clusters: &str) {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        let clusters = set(ResourceType::Cluster, clusters);
        let mut feed = Feed::new(Snapshot { epoch, clusters, ..Snapshot::empty() });
        let class = &mut *self.class.lock();
        class.streams.values().for_each(|stream| feed.take_over(stream));
        class.feed = feed;
    }

    /// What streams reported as refused, when there are `count` reports.
    pub async fn nacks(&mut self, count: usize) -> Vec<Nack> {
        let waiting = self.nacks.wait_for(|all| all.len() >= count);
        let all = tokio::time::timeout(Duration::from_secs(10), waiting).await;
        all.expect("reports in time").expect("the pipeline lives").iter().map(|(_, n)| n.clone()).collect()
    }

    /// How many reports there are so far.
    pub fn nacks_so_far(&self) -> usize {
        self.nacks.borrow().len()
    }

    /// The metrics as text.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).expect("a String takes all");
        text
    }
}

/// Waits for a condition.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn set(kind: ResourceType, words: &str) -> Resources {
    let set: ResourceSet = words
        .split_whitespace()
        .map(|word| word.split_once('=').unwrap_or((word, "")))
        .map(|(name, content)| (Arc::<str>::from(name), resource(kind, name, content)))
        .collect();
    Resources::new(vec![set])
}

/// A resource whose bytes differ with `content`. Clusters whose name begins with `e` take their endpoints from EDS, route
/// configurations whose name begins with `v` their hosts from VHDS, and assignments whose name ends with `p` their endpoints
/// from LEDS: those named `xdstp:///NAME/…`.
pub fn resource(kind: ResourceType, name: &str, content: &str) -> Arc<Encoded> {
    let name_owned = name.to_owned();
    let is_eds = name.starts_with('e');
    let message = match kind {
        ResourceType::Cluster => Cluster {
            name: name_owned,
            alt_stat_name: content.to_owned(),
            cluster_discovery_type: is_eds
                .then_some(cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds as i32)),
            eds_cluster_config: is_eds
                .then(|| cluster::EdsClusterConfig { eds_config: Some(proto::ads()), ..Default::default() }),
            ..Default::default()
        }
        .encode_to_vec(),
        ResourceType::Endpoint => {
            let mut assignment = ClusterLoadAssignment { cluster_name: name_owned, ..Default::default() };
            assignment.named_endpoints.insert(content.to_owned(), Default::default());
            assignment.encode_to_vec()
        }
        ResourceType::LbEndpoint => {
            let host = lb_endpoint::HostIdentifier::EndpointName(content.to_owned());
            LbEndpoint { host_identifier: Some(host), ..Default::default() }.encode_to_vec()
        }
        ResourceType::Listener => {
            Listener { name: name_owned, stat_prefix: content.to_owned(), ..Default::default() }
                .encode_to_vec()
        }
        ResourceType::Route => RouteConfiguration {
            name: name_owned,
            internal_only_headers: vec![content.to_owned()],
            ..Default::default()
        }
        .encode_to_vec(),
        ResourceType::VirtualHost => {
            VirtualHost { name: name_owned, domains: vec![content.to_owned()], ..Default::default() }
                .encode_to_vec()
        }
    };
    if kind == ResourceType::Endpoint && name.ends_with('p') {
        // Two spellings that differ in a field that nobody reads.
        let second = [message.as_slice(), &[0xf8, 0x07, 0x01]].concat();
        let prefix = Some(format!("xdstp:///{name}/").into());
        let messages = [message.as_slice(), second.as_slice()];
        let none = Arc::new([]);
        return Arc::new(Encoded::in_two_spellings(&name.into(), kind.type_url(), messages, prefix, none));
    }
    let waits_for = match kind {
        ResourceType::Cluster => is_eds.then(|| name.into()),
        ResourceType::Route => name.starts_with('v').then(|| format!("{name}/").into()),
        _ => None,
    };
    Arc::new(Encoded::new(name.into(), kind.type_url(), &message, waits_for, Arc::new([])))
}

/// Believes the header `x-identity`.
struct ByHeader;

impl Authenticate for ByHeader {
    fn authenticate<'a>(
        &'a self,
        headers: &'a http::HeaderMap,
        _: &'a Peer,
    ) -> BoxFuture<'a, Result<authn::Peer, String>> {
        Box::pin(async {
            let value = headers.get("x-identity").ok_or("no credentials; send x-identity")?;
            let text = value.to_str().map_err(|e| e.to_string())?;
            let identity: Spiffe = text.parse().map_err(|e: SpiffeError| e.to_string())?;
            Ok(authn::Peer { identity: Some(identity), method: authn::Method::Token, cluster_id: None })
        })
    }
}

/// One secret, none while it is not made yet.
type Slot = watch::Sender<Option<Arc<Encoded>>>;

/// Secrets by identity and name.
#[derive(Default)]
pub struct Secrets {
    all: std::sync::Mutex<BTreeMap<(String, String), Slot>>,
}

impl Secrets {
    /// Sets or rotates one.
    pub fn put(&self, identity: &str, name: &str, content: &str) {
        let inline =
            landbridge_proto::envoy::config::core::v3::data_source::Specifier::InlineString(content.into());
        let secret = tls::v3::Secret {
            name: name.to_owned(),
            r#type: Some(tls::v3::secret::Type::GenericSecret(tls::v3::GenericSecret {
                secret: Some(landbridge_proto::envoy::config::core::v3::DataSource {
                    specifier: Some(inline),
                    ..Default::default()
                }),
                ..Default::default()
            })),
        };
        let bytes = secret.encode_to_vec();
        let encoded = Encoded::new(name.into(), Kind::Secret.type_url(), &bytes, None, Arc::new([]));
        let mut all = self.all.lock().expect("no test panics with this lock");
        let sender =
            all.entry((identity.to_owned(), name.to_owned())).or_insert_with(|| watch::channel(None).0);
        sender.send_replace(Some(Arc::new(encoded)));
    }
}

impl SecretProvider for Secrets {
    /// Takes the word of everybody who says that he has one, until it is rotated.
    fn subscribe(&self, identity: &Spiffe, name: &str, known: Option<Version>) -> Option<Box<dyn Secret>> {
        let all = self.all.lock().expect("no test panics with this lock");
        let receiver = all.get(&(identity.to_string(), name.to_owned()))?.subscribe();
        Some(Box::new(Kept { receiver, kept: known.is_some() }))
    }
}

/// A secret without bytes while the proxy keeps what it has.
struct Kept {
    receiver: watch::Receiver<Option<Arc<Encoded>>>,
    kept: bool,
}

impl Secret for Kept {
    fn current(&mut self) -> Option<Arc<Encoded>> {
        if self.kept { None } else { self.receiver.current() }
    }

    fn changed(&mut self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            let lives = self.receiver.changed().await.is_ok();
            self.kept = false;
            lives
        })
    }
}
