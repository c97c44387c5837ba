//! A mesh of two clusters in two networks, made of typed objects.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{
    index::{Index, Options, Scope},
    model::{
        Change, Kind, Labels, Object, ObjectKey,
        destination_rule::{
            DestinationRule, LoadBalancer, LocalityLb, OutlierDetection, PolicySettings, Subset,
            TrafficPolicy,
        },
        endpoint::Health,
        gateway::{Gateway, Server, ServerTlsMode},
        kubernetes::{
            EndpointSlice, Meta, Namespace, Node, Pod, Service, ServicePort, ServiceType, SliceEndpoint,
            SlicePort,
        },
        locality::Locality,
        mcs::{ServiceExport, ServiceImport},
        mesh::MeshConfig,
        name::NetworkId,
        node::{Extensions, Interception, ProxyKind, SecretSource},
        peer_authentication::{MtlsMode, PeerAuthentication},
        port::{Protocol, TargetPort, Transport},
        service::ServiceKey,
    },
    view::{
        ClusterView, EndpointView, GatewayRef, GatewayView, InboundPort, InboundView, ListenerView,
        PassthroughMode, RouteView, VirtualHosts,
    },
};

pub const NS: &str = "production";

pub fn mk_labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

pub fn mk_meta(namespace: &str, name: &str) -> Meta {
    Meta { namespace: namespace.into(), name: name.into(), ..Meta::default() }
}

pub fn put(cluster: &str, object: Object) -> Change {
    let meta = match &object {
        Object::Namespace(o) => o.meta.clone(),
        Object::Node(o) => o.meta.clone(),
        Object::ServiceAccount(o) => o.meta.clone(),
        Object::Service(o) => o.meta.clone(),
        Object::Pod(o) => o.meta.clone(),
        Object::EndpointSlice(o) => mk_meta(&o.namespace, &o.name),
        Object::MeshConfig(_) => mk_meta("istio-system", "istio"),
        Object::Gateway(o) => o.meta.clone(),
        Object::DestinationRule(o) => o.meta.clone(),
        Object::PeerAuthentication(o) => o.meta.clone(),
        Object::ServiceExport(o) => o.meta.clone(),
        Object::ServiceImport(o) => o.meta.clone(),
        Object::RemoteSecret(_) => panic!("secrets do not come here"),
    };
    let key = ObjectKey {
        cluster: cluster.into(),
        kind: object.kind(),
        namespace: meta.namespace,
        name: meta.name,
    };
    Change::Upsert(key, object)
}

/// Ports as `name:port:target`.
pub fn mk_service(namespace: &str, name: &str, ip: Option<&str>, ports: &[(&str, u16, u16)]) -> Service {
    let port = |(name, number, target): &(&str, u16, u16)| ServicePort {
        name: (*name).into(),
        number: *number,
        transport: Transport::Tcp,
        app_protocol: None,
        target: TargetPort::Number(*target),
        node_port: 0,
    };
    Service {
        meta: mk_meta(namespace, name),
        cluster_ips: ip.map(|ip| ip.parse().unwrap()).into_iter().collect(),
        headless: ip.is_none(),
        ports: ports.iter().map(port).collect(),
        selector: mk_labels(&[("app", name)]),
        ..Service::default()
    }
}

/// A pod with its endpoint slice.
pub struct Workload<'a> {
    pub cluster: &'a str,
    pub namespace: &'a str,
    pub service: &'a str,
    pub name: &'a str,
    pub ip: &'a str,
    pub node: &'a str,
    pub mtls: bool,
    pub ready: bool,
    pub labels: &'a [(&'a str, &'a str)],
}

impl Workload<'_> {
    pub fn changes(&self, ports: &[(&str, u16)]) -> Vec<Change> {
        let mut labels = mk_labels(self.labels);
        labels.insert("app".into(), self.service.into());
        if self.mtls {
            labels.insert("security.istio.io/tlsMode".into(), "istio".into());
        }
        let ip: IpAddr = self.ip.parse().unwrap();
        let pod = Pod {
            meta: Meta { labels, ..mk_meta(self.namespace, self.name) },
            ips: vec![ip],
            service_account: self.service.into(),
            node: Some(self.node.into()),
            workload: self.service.into(),
            ..Pod::default()
        };
        let endpoint = SliceEndpoint {
            health: if self.ready { Health::Healthy } else { Health::Unhealthy },
            node: Some(self.node.into()),
            pod: Some(self.name.to_owned().into()),
            ..SliceEndpoint::at(ip)
        };
        vec![
            put(self.cluster, Object::Pod(Arc::new(pod))),
            slice(self.cluster, self.namespace, self.service, self.name, ports, [endpoint]),
        ]
    }
}

fn slice(
    cluster: &str,
    namespace: &str,
    service: &str,
    name: &str,
    ports: &[(&str, u16)],
    endpoints: impl IntoIterator<Item = SliceEndpoint<'static>>,
) -> Change {
    let slice = EndpointSlice {
        namespace: namespace.into(),
        name: name.into(),
        service: service.into(),
        ports: ports.iter().map(|(n, p)| SlicePort { name: (*n).into(), number: *p }).collect(),
        endpoints: endpoints.into_iter().collect(),
    };
    put(cluster, Object::EndpointSlice(Arc::new(slice)))
}

/// A slice of an HTTP service.
pub fn mk_slice(
    cluster: &str,
    service: &str,
    name: &str,
    endpoints: impl IntoIterator<Item = SliceEndpoint<'static>>,
) -> Change {
    slice(cluster, NS, service, name, &[("http", 8080)], endpoints)
}

pub fn pod<'a>(
    cluster: &'a str,
    service: &'a str,
    name: &'a str,
    ip: &'a str,
    node: &'a str,
) -> Workload<'a> {
    Workload { cluster, namespace: NS, service, name, ip, node, mtls: true, ready: true, labels: &[] }
}

pub fn mk_rule(name: &str, settings: PolicySettings) -> Change {
    let rule = DestinationRule {
        meta: mk_meta(NS, name),
        host: format!("{name}.{NS}.svc.cluster.local").into(),
        policy: TrafficPolicy { settings, ports: BTreeMap::new() },
        ..DestinationRule::default()
    };
    put("east", Object::DestinationRule(Arc::new(rule)))
}

pub fn with_locality(locality: LocalityLb) -> PolicySettings {
    PolicySettings {
        outlier_detection: Some(OutlierDetection { consecutive_5xx: Some(3), ..Default::default() }),
        load_balancer: Some(LoadBalancer { locality: Some(locality), ..Default::default() }),
        ..Default::default()
    }
}

pub fn empty(failover_by_default: bool) -> Index {
    Index::new(Options {
        config_cluster: "east".into(),
        failover_by_default,
        domain: "cluster.local".into(),
        mcs: Default::default(),
    })
}

fn mk_node(name: &str, region: &str, zone: &str) -> Object {
    let mut meta = mk_meta("", name);
    meta.labels =
        mk_labels(&[("topology.kubernetes.io/region", region), ("topology.kubernetes.io/zone", zone)]);
    Object::Node(Arc::new(Node { meta, external_ips: Vec::new() }))
}

/// Networks, nodes and gateways of both clusters.
pub fn ground() -> Vec<Change> {
    let mut changes = Vec::new();
    for (cluster, network, gateway) in [("east", "net1", "172.30.0.1"), ("west", "net2", "172.30.0.2")] {
        let network_label = mk_labels(&[("topology.istio.io/network", network)]);
        let meta = Meta { labels: network_label.clone(), ..mk_meta("", "istio-system") };
        changes.push(put(cluster, Object::Namespace(Arc::new(Namespace { meta }))));
        let mut service = mk_service(
            "istio-system",
            "eastwest",
            Some("10.96.9.9"),
            &[("tls", 15443, 15443), ("status", 15021, 15021)],
        );
        service.kind = ServiceType::LoadBalancer;
        service.meta.labels = network_label;
        service.external_addresses = vec![gateway.into()];
        changes.push(put(cluster, Object::Service(Arc::new(service))));
    }
    changes.push(put("east", mk_node("e-a", "us-east-1", "us-east-1a")));
    changes.push(put("east", mk_node("e-b", "us-east-1", "us-east-1b")));
    changes.push(put("west", mk_node("w-a", "us-central1", "us-central1-a")));
    changes.push(put("west", mk_node("w-b", "us-central1", "us-central1-b")));
    changes
}

/// `backend`: in the east a and b, and one that is not ready; in the west two in a, one in b.
pub fn backend() -> Vec<Change> {
    let mut changes = Vec::new();
    for (cluster, ip) in [("east", "10.96.1.10"), ("west", "10.97.1.10")] {
        let service = mk_service(NS, "backend", Some(ip), &[("http", 80, 8080)]);
        changes.push(put(cluster, Object::Service(Arc::new(service))));
    }
    let sick = Workload { ready: false, ..pod("east", "backend", "backend-2", "10.1.0.12", "e-a") };
    for workload in [
        pod("east", "backend", "backend-0", "10.1.0.10", "e-a"),
        pod("east", "backend", "backend-1", "10.1.0.11", "e-b"),
        sick,
        pod("west", "backend", "backend-0", "10.2.0.10", "w-a"),
        pod("west", "backend", "backend-1", "10.2.0.11", "w-a"),
        pod("west", "backend", "backend-2", "10.2.0.12", "w-b"),
    ] {
        changes.extend(workload.changes(&[("http", 8080)]));
    }
    changes
}

/// Everything awkward besides: protocols, headless, alias, plaintext, STRICT, subsets.
pub fn others() -> Vec<Change> {
    let mixed_ports = [
        ("http-web", 80, 8080),
        ("grpc", 9000, 9000),
        ("tcp-raw", 7000, 7000),
        ("plain", 6000, 6000),
        ("https-x", 8443, 8443),
    ];
    let slice_ports =
        [("http-web", 8080), ("grpc", 9000), ("tcp-raw", 7000), ("plain", 6000), ("https-x", 8443)];
    let mut alias = mk_service(NS, "ext", None, &[("http", 80, 80)]);
    alias.headless = false;
    alias.kind = ServiceType::ExternalName(format!("backend.{NS}.svc.cluster.local").into());
    let mut changes = vec![
        put("east", Object::Service(Arc::new(mk_service(NS, "mixed", Some("10.96.1.12"), &mixed_ports)))),
        put("east", Object::Service(Arc::new(mk_service(NS, "stateful", None, &[("tcp-db", 5432, 5432)])))),
        put(
            "east",
            Object::Service(Arc::new(mk_service("legacy", "old", Some("10.96.1.14"), &[("http", 80, 8080)]))),
        ),
        put("east", Object::Service(Arc::new(alias))),
    ];
    changes.extend(pod("east", "mixed", "mixed-0", "10.1.0.16", "e-a").changes(&slice_ports));
    changes.extend(pod("west", "mixed", "mixed-0", "10.2.0.16", "w-a").changes(&slice_ports));
    changes.extend(pod("east", "stateful", "stateful-0", "10.1.0.18", "e-a").changes(&[("tcp-db", 5432)]));
    for (cluster, ip, node) in [("east", "10.1.0.22", "e-a"), ("west", "10.2.0.22", "w-a")] {
        let old = Workload { namespace: "legacy", mtls: false, ..pod(cluster, "old", "old-0", ip, node) };
        changes.extend(old.changes(&[("http", 8080)]));
    }
    let rule = DestinationRule {
        meta: mk_meta(NS, "mixed"),
        host: format!("mixed.{NS}.svc.cluster.local").into(),
        subsets: vec![Subset {
            name: "east".into(),
            labels: mk_labels(&[("topology.istio.io/cluster", "east")]),
            policy: TrafficPolicy::default(),
        }],
        ..DestinationRule::default()
    };
    changes.push(put("east", Object::DestinationRule(Arc::new(rule))));
    changes
}

pub fn export(cluster: &str) -> Change {
    put(cluster, Object::ServiceExport(Arc::new(ServiceExport { meta: mk_meta(NS, "backend") })))
}

pub fn import(cluster: &str, ip: &str) -> Change {
    let ips = vec![ip.parse().unwrap()];
    put(cluster, Object::ServiceImport(Arc::new(ServiceImport { meta: mk_meta(NS, "backend"), ips })))
}

pub fn gateway() -> Gateway {
    Gateway {
        meta: mk_meta("istio-system", "cross-network-gateway"),
        selector: mk_labels(&[("istio", "eastwestgateway")]),
        servers: vec![Server {
            port: 15443,
            port_name: "tls".into(),
            protocol: "TLS".into(),
            tls: Some(ServerTlsMode::AutoPassthrough),
            hosts: vec![("*".into(), "*.local".into())],
        }],
    }
}

pub fn mesh(failover_by_default: bool) -> Index {
    let mut index = empty(failover_by_default);
    index.update(ground().into_iter().chain(backend()).chain(others()));
    index
}

pub fn set_mesh(index: &mut Index, mesh: MeshConfig) {
    index.update([put("east", Object::MeshConfig(Arc::new(mesh)))]);
}

pub fn mk_peer(name: &str, selector: &[(&str, &str)], mode: MtlsMode) -> Change {
    let selector = (!selector.is_empty()).then(|| mk_labels(selector));
    let peer =
        PeerAuthentication { meta: mk_meta(NS, name), selector, mode: Some(mode), ports: BTreeMap::new() };
    put("east", Object::PeerAuthentication(Arc::new(peer)))
}

pub fn service_key(name: &str) -> ServiceKey {
    ServiceKey { host: format!("{name}.{NS}.svc.cluster.local").into(), namespace: NS.into() }
}

pub const NO_EXTENSIONS: Extensions = Extensions { alpn: false, metadata_exchange: false, stats: false };
pub const ALL_EXTENSIONS: Extensions = Extensions { alpn: true, metadata_exchange: true, stats: true };

pub fn cluster_view() -> ClusterView {
    ClusterView {
        kind: ProxyKind::Sidecar,
        scope: Scope::Public,
        secrets: SecretSource::Ads,
        extensions: NO_EXTENSIONS,
        sni_dnat: false,
    }
}

/// Of a sidecar in the east, zone a.
pub fn endpoint_view() -> EndpointView {
    EndpointView {
        kind: ProxyKind::Sidecar,
        scope: Scope::Public,
        cluster: "east".into(),
        network: "net1".into(),
        requested_networks: None,
        locality: Locality::new("us-east-1", "us-east-1a", ""),
        labels: mk_labels(&[
            ("topology.istio.io/network", "net1"),
            ("topology.kubernetes.io/region", "us-east-1"),
            ("topology.kubernetes.io/zone", "us-east-1a"),
        ]),
        node: Some("e-a".into()),
        sni_dnat: false,
        workloads: true,
        one_by_one_above: None,
    }
}

pub fn listener_view() -> ListenerView {
    ListenerView {
        scope: Scope::Public,
        cluster: "east".into(),
        interception: Interception::Redirect,
        extensions: NO_EXTENSIONS,
        own_headless_ips: [].into(),
    }
}

pub fn route_view() -> RouteView {
    RouteView {
        scope: Scope::Public,
        namespace: NS.into(),
        cluster: "east".into(),
        virtual_hosts: VirtualHosts::Together,
    }
}

pub fn gateway_view() -> GatewayView {
    GatewayView {
        scope: Scope::Public,
        gateways: vec![GatewayRef(Arc::new(gateway()))],
        extensions: NO_EXTENSIONS,
        secrets: SecretSource::Ads,
    }
}

/// Of a workload with a port of each class.
pub fn inbound_view(mode: MtlsMode) -> InboundView {
    let port = |target, service_port, protocol| InboundPort {
        target,
        service_port,
        service: service_key("mixed"),
        service_name: "mixed".into(),
        protocol,
        mode,
    };
    InboundView {
        ports: vec![
            port(6000, 6000, Protocol::Auto),
            port(7000, 7000, Protocol::Tcp),
            port(8080, 80, Protocol::Http),
            port(9000, 9000, Protocol::Grpc),
        ],
        passthrough: PassthroughMode { default: mode, ports: vec![(9999, MtlsMode::Disable)] },
        interception: Interception::Redirect,
        extensions: NO_EXTENSIONS,
        secrets: SecretSource::Ads,
        bind: vec!["10.1.0.16".parse().unwrap()],
    }
}

pub fn network(name: &str) -> NetworkId {
    name.into()
}

pub fn removed(cluster: &str, kind: Kind, name: &str) -> Change {
    Change::Remove(ObjectKey { cluster: cluster.into(), kind, namespace: NS.into(), name: name.into() })
}
