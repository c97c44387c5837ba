//! Two clusters with a service in both, a gateway, a rule, and one sidecar attached.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{Request, StatusCode},
};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use crate::{
    admin::{AdminState, router},
    gateways::{Gateways, resolve::Unresolved},
    index::Options,
    model::{
        Change, ClusterId, Labels, NetworkId, Object, ObjectKey,
        change::ClusterState,
        destination_rule::{DestinationRule, OutlierDetection},
        endpoint::Health,
        kubernetes::{
            EndpointSlice, Meta, Namespace, Node, Pod, Service, ServicePort, ServiceType, SliceEndpoint,
            SlicePort,
        },
        locality::Locality,
        node::{Extensions, Interception, Proxy, ProxyKind, SecretSource, VirtualHosts},
        port::{TargetPort, Transport},
        remote_secret::Kubeconfig,
    },
    pipeline::{Inspection, Inspector, State},
    registry::{
        Problem, Severity, SourceStatus, Sources,
        remote::{Desired, SecretName},
    },
    snapshot::{Attacher, Attachment, ResourceType, Snapshot},
    xds::{
        Kind, Nonce, Protocol,
        status::{Connected, Mark, Streams},
    },
};

/// A router with what it shows behind it.
pub struct World {
    router: Router,
    _ready: watch::Sender<bool>,
    _attachment: Option<Attachment>,
    _connected: Connected,
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| (Arc::from(*k), Arc::from(*v))).collect()
}

fn meta(namespace: &str, name: &str, pairs: &[(&str, &str)]) -> Meta {
    Meta { namespace: namespace.into(), name: name.into(), labels: labels(pairs), ..Meta::default() }
}

fn upsert(cluster: &str, meta: &Meta, object: Object) -> Change {
    let key = ObjectKey {
        cluster: cluster.into(),
        kind: object.kind(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
    };
    Change::Upsert(key, object)
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: name.into(),
        number,
        transport: Transport::Tcp,
        app_protocol: None,
        target: TargetPort::Number(number),
        node_port: 0,
    }
}

fn service(cluster: &str, name: &str, ip: &str, ports: Vec<ServicePort>) -> Change {
    let meta = meta("production", name, &[]);
    let object = Service {
        meta: meta.clone(),
        cluster_ips: ip.parse().into_iter().collect(),
        headless: ip.is_empty(),
        ports,
        selector: labels(&[("app", name)]),
        ..Service::default()
    };
    upsert(cluster, &meta, Object::Service(Arc::new(object)))
}

fn pod(cluster: &str, app: &str, name: &str, ip: &str) -> Change {
    let meta = meta("production", name, &[("app", app), ("security.istio.io/tlsMode", "istio")]);
    let object = Pod {
        meta: meta.clone(),
        ips: ip.parse().into_iter().collect(),
        service_account: app.into(),
        node: Some(format!("{cluster}-node").into()),
        named_ports: Vec::new(),
        workload: app.into(),
        finished: false,
    };
    upsert(cluster, &meta, Object::Pod(Arc::new(object)))
}

fn slice(cluster: &str, service: &str, pods: &[(&'static str, &str, bool)]) -> Change {
    let meta = meta("production", &format!("{service}-x"), &[]);
    let endpoint = |(name, ip, ready): &(&'static str, &str, bool)| SliceEndpoint {
        health: if *ready { Health::Healthy } else { Health::Unhealthy },
        pod: Some((*name).into()),
        ..SliceEndpoint::at(ip.parse::<std::net::IpAddr>().expect("an address"))
    };
    let object = EndpointSlice {
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        service: service.into(),
        ports: [SlicePort { name: "http".into(), number: 8080 }].into(),
        endpoints: pods.iter().map(endpoint).collect(),
    };
    upsert(cluster, &meta, Object::EndpointSlice(Arc::new(object)))
}

fn ground(cluster: &str, region: &str) -> Vec<Change> {
    let namespace = meta("", "istio-system", &[("topology.istio.io/network", &format!("net-{cluster}"))]);
    let node = meta(
        "",
        &format!("{cluster}-node"),
        &[("topology.kubernetes.io/region", region), ("topology.kubernetes.io/zone", &format!("{region}a"))],
    );
    vec![
        upsert(cluster, &namespace.clone(), Object::Namespace(Arc::new(Namespace { meta: namespace }))),
        upsert(cluster, &node.clone(), Object::Node(Arc::new(Node { meta: node, external_ips: Vec::new() }))),
    ]
}

/// `backend` in both clusters, `web` in the first, an alias, and the gateway of the second.
pub fn objects() -> Vec<Change> {
    let mut all = [ground("east", "us-east-1"), ground("west", "us-west-2")].concat();
    let gateway = meta("istio-system", "istio-eastwestgateway", &[("topology.istio.io/network", "net-west")]);
    let alias = meta("production", "old-backend", &[]);
    let mut rule = DestinationRule {
        meta: meta("production", "backend", &[]),
        host: "backend.production.svc.cluster.local".into(),
        ..DestinationRule::default()
    };
    let outlier = OutlierDetection { interval: Some(Duration::from_secs(10)), ..OutlierDetection::default() };
    rule.policy.settings.outlier_detection = Some(outlier);
    all.extend([
        service("east", "backend", "10.1.0.10", vec![port("http", 80)]),
        // The port's name contradicts the other cluster's.
        service("west", "backend", "10.2.0.10", vec![port("tcp", 80)]),
        service("east", "web", "10.1.0.11", vec![port("http", 80)]),
        pod("east", "backend", "backend-1", "10.10.0.1"),
        pod("east", "web", "web-1", "10.10.0.9"),
        pod("west", "backend", "backend-a", "10.20.0.1"),
        pod("west", "backend", "backend-b", "10.20.0.2"),
        slice("east", "backend", &[("backend-1", "10.10.0.1", true)]),
        slice("east", "web", &[("web-1", "10.10.0.9", false)]),
        slice("west", "backend", &[("backend-a", "10.20.0.1", true), ("backend-b", "10.20.0.2", true)]),
        upsert(
            "west",
            &gateway.clone(),
            Object::Service(Arc::new(Service {
                meta: gateway,
                kind: ServiceType::LoadBalancer,
                cluster_ips: "10.2.0.99".parse().into_iter().collect(),
                ports: vec![port("tls", 15443)],
                external_addresses: vec!["203.0.113.2".into()],
                ..Service::default()
            })),
        ),
        upsert(
            "east",
            &alias.clone(),
            Object::Service(Arc::new(Service {
                meta: alias,
                kind: ServiceType::ExternalName("backend.production.svc.cluster.local".into()),
                ..Service::default()
            })),
        ),
        upsert("east", &rule.meta.clone(), Object::DestinationRule(Arc::new(rule))),
        Change::Cluster("east".into(), ClusterState::Synced),
        Change::Cluster(
            "west".into(),
            ClusterState::Stale {
                since: SystemTime::now() - Duration::from_secs(90),
                reason: "directory is gone".into(),
            },
        ),
    ]);
    all
}

/// A sidecar beside `web-1` in the first cluster.
pub fn sidecar() -> Proxy {
    Proxy {
        id: "web-1.production".into(),
        node_id: "sidecar~10.10.0.9~web-1.production~production.svc.cluster.local".into(),
        kind: ProxyKind::Sidecar,
        ips: "10.10.0.9".parse().into_iter().collect(),
        namespace: "production".into(),
        name: "web-1".into(),
        service_account: Some("web".into()),
        cluster: ClusterId::from("east"),
        network: NetworkId::from("net-east"),
        labels: labels(&[("app", "web")]),
        locality: Locality::new("us-east-1", "us-east-1a", ""),
        node: None,
        requested_networks: None,
        interception: Interception::Redirect,
        extensions: Extensions::default(),
        secrets: SecretSource::Ads,
        virtual_hosts: VirtualHosts::OneByOne,
        one_by_one_above: None,
        dns_domain: "production.svc.cluster.local".into(),
        istio_version: Some("1.30.2".into()),
        user_agent: Some("envoy/1.40.0".into()),
    }
}

/// The sidecar's stream: clusters accepted, endpoints under way, listeners refused, routes not asked for.
fn stream() -> (Arc<Streams>, Connected) {
    let streams = Arc::new(Streams::default());
    let peer = SocketAddr::from(([10, 10, 0, 9], 40_001));
    let identity = "spiffe://cluster.local/ns/production/sa/web".parse().ok();
    let snapshot = Arc::new(Snapshot::empty());
    let connected = streams.connect(Arc::new(sidecar()), peer, identity, Protocol::Delta, snapshot);
    let now = SystemTime::now();
    let mark = |nonce| Some(Mark { nonce, epoch: 1, at: now });
    let (first, second) = (Nonce::FIRST, Nonce::FIRST.next());
    let status = &connected.status;
    status.update(Kind::Snapshot(ResourceType::Cluster), |kind| {
        (kind.wildcard, kind.sent, kind.acked) = (true, mark(first), mark(first));
    });
    status.update(Kind::Snapshot(ResourceType::Endpoint), |kind| {
        (kind.names, kind.sent, kind.acked) = (3, mark(second), mark(first));
    });
    status.update(Kind::Snapshot(ResourceType::Listener), |kind| {
        (kind.wildcard, kind.sent) = (true, mark(first));
        kind.refused = Some(Box::new(("Error adding/updating listener(s) 0.0.0.0_80: bad".to_owned(), now)));
    });
    (streams, connected)
}

/// A source with a file that does not make sense.
fn sources() -> Sources {
    let sources = Sources::default();
    sources.insert(SourceStatus::new("east".into()));
    sources.insert(source());
    let secret = SecretName { namespace: "istio-system".into(), name: "two".into() };
    let desired = Desired { secret, kubeconfig: Kubeconfig::new(&b"hush"[..]) };
    let desired = ["west", "north"].map(|id| (id.into(), desired.clone())).into();
    let refused = [("north".into(), ("is no text".to_owned(), "make it again".to_owned()))].into();
    sources.joined().set(&"east".into(), &desired, |_| None, &refused, Vec::new());
    sources
}

fn source() -> SourceStatus {
    let source = SourceStatus::new("west".into());
    source.set_problems(vec![Problem {
        cluster: "west".into(),
        file: Some("rules.yaml".into()),
        line: Some(12),
        object: Some("production/DestinationRule/payment".into()),
        field: "spec.host".to_owned(),
        severity: Severity::Error,
        reason: "is missing".to_owned(),
        remedy: "add spec.host".to_owned(),
    }]);
    source
}

impl World {
    /// Everything there, the second cluster away.
    pub async fn ready() -> Self {
        Self::new(objects(), true).await
    }

    /// The first cluster is being read, of the second nothing was heard.
    pub async fn unready() -> Self {
        Self::new(vec![Change::Cluster("east".into(), ClusterState::Syncing)], false).await
    }

    /// A pipeline that ended.
    pub async fn without_pipeline() -> Self {
        let (inspector, questions) = Inspector::new();
        drop(questions);
        Self::around(inspector, true, None)
    }

    async fn new(changes: Vec<Change>, is_ready: bool) -> Self {
        let mut state = State::new(Options {
            config_cluster: "east".into(),
            failover_by_default: true,
            domain: "cluster.local".into(),
            mcs: Default::default(),
        });
        state.apply(changes, Instant::now());
        let (attacher, mut commands) = Attacher::new();
        let attach = tokio::spawn(async move { attacher.attach(Arc::new(sidecar())).await });
        if let Some(command) = commands.recv().await {
            state.command(command);
        }
        let attachment = attach.await.expect("the task ends").expect("the state answers");
        let (inspector, questions) = Inspector::new();
        tokio::spawn(answer(state, questions));
        Self::around(inspector, is_ready, Some(attachment))
    }

    fn around(inspector: Inspector, is_ready: bool, attachment: Option<Attachment>) -> Self {
        let (ready, is_ready) = watch::channel(is_ready);
        let mut metrics = Registry::default();
        let counter: Counter = Counter::default();
        counter.inc_by(3);
        metrics.register("test_counter", "Counts", counter);
        let (streams, connected) = stream();
        let state = AdminState {
            inspector,
            ready: is_ready,
            metrics: Arc::new(metrics),
            started: Instant::now(),
            streams,
            sources: sources(),
            gateways: Gateways::default(),
            unresolved: Unresolved::default(),
        };
        Self { router: router(state), _ready: ready, _attachment: attachment, _connected: connected }
    }

    /// GET from this machine: status and body.
    pub async fn get(&self, path: &str) -> (StatusCode, String) {
        self.get_from(Some("127.0.0.1:40000"), path).await
    }

    /// GET from a peer.
    pub async fn get_from(&self, peer: Option<&str>, path: &str) -> (StatusCode, String) {
        let mut request = Request::get(path).body(Body::empty()).expect("a request");
        if let Some(peer) = peer {
            let peer: SocketAddr = peer.parse().expect("an address");
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        let response = self.router.clone().oneshot(request).await.expect("routers do not fail");
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    /// GET of JSON that has to be there.
    pub async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"))
    }
}

async fn answer(state: State, mut questions: mpsc::Receiver<Inspection>) {
    while let Some(question) = questions.recv().await {
        question(&state);
    }
}
