//! What the derived tables say, told with typed objects.

mod crossing;

use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::model::{
    Kind, Labels, Object, ObjectKey,
    destination_rule::{ConnectionPool, DestinationRule, PolicySettings, Subset, TrafficPolicy},
    endpoint::Health,
    kubernetes::{
        EndpointSlice, Meta, Namespace, Node, Pod, Service as Definition, ServicePort, ServiceType,
        SliceEndpoint, SlicePort,
    },
    peer_authentication::PeerAuthentication,
    port::{Protocol, TargetPort, Transport},
    service::Resolution,
};

fn index() -> Index {
    Index::new(Options {
        config_cluster: "east".into(),
        failover_by_default: true,
        domain: "cluster.local".into(),
        mcs: Default::default(),
    })
}

fn put(cluster: &str, object: Object) -> Change {
    let meta = match &object {
        Object::EndpointSlice(o) => {
            return Change::Upsert(mk_key(cluster, Kind::EndpointSlice, &o.namespace, &o.name), object);
        }
        Object::Namespace(o) => &o.meta,
        Object::Node(o) => &o.meta,
        Object::ServiceAccount(o) => &o.meta,
        Object::Service(o) => &o.meta,
        Object::Pod(o) => &o.meta,
        Object::MeshConfig(_) => {
            return Change::Upsert(mk_key(cluster, Kind::MeshConfig, "istio-system", "istio"), object);
        }
        Object::Gateway(o) => &o.meta,
        Object::DestinationRule(o) => &o.meta,
        Object::PeerAuthentication(o) => &o.meta,
        Object::ServiceExport(o) => &o.meta,
        Object::ServiceImport(o) => &o.meta,
        Object::RemoteSecret(_) => panic!("secrets do not come here"),
    };
    Change::Upsert(mk_key(cluster, object.kind(), &meta.namespace, &meta.name), object)
}

fn mk_key(cluster: &str, kind: Kind, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { cluster: cluster.into(), kind, namespace: namespace.into(), name: name.into() }
}

fn mk_labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

fn mk_meta(namespace: &str, name: &str, created: i64) -> Meta {
    Meta { namespace: namespace.into(), name: name.into(), created, ..Meta::default() }
}

fn mk_port(name: &str, number: u16, target: TargetPort) -> ServicePort {
    ServicePort {
        name: name.into(),
        number,
        transport: Transport::Tcp,
        app_protocol: None,
        target,
        node_port: 0,
    }
}

fn mk_service(name: &str, created: i64, ip: [u8; 4], ports: Vec<ServicePort>) -> Definition {
    Definition {
        meta: mk_meta("production", name, created),
        cluster_ips: vec![ip.into()],
        ports,
        selector: mk_labels(&[("app", name)]),
        ..Definition::default()
    }
}

fn http(number: u16) -> ServicePort {
    mk_port("http", number, TargetPort::Number(8080))
}

fn mk_pod(name: &str, labels: &[(&str, &str)]) -> Pod {
    let mut meta = mk_meta("production", name, 0);
    meta.labels = mk_labels(labels);
    Pod { meta, service_account: "backend".into(), node: Some("n1".into()), ..Pod::default() }
}

fn mk_slice(name: &str, pod: Option<&str>, ready: bool, terminating: bool, serving: bool) -> EndpointSlice {
    let endpoint = SliceEndpoint {
        health: Health::of(ready, serving, terminating),
        node: Some("n1".into()),
        pod: pod.map(Into::into),
        ..SliceEndpoint::at([10, 1, 0, 1])
    };
    EndpointSlice {
        namespace: "production".into(),
        name: name.into(),
        service: "backend".into(),
        ports: [SlicePort { name: "http".into(), number: 8080 }].into(),
        endpoints: [endpoint].into_iter().collect(),
    }
}

fn mk_node(zone: &str) -> Node {
    let mut meta = mk_meta("", "n1", 0);
    meta.labels =
        mk_labels(&[("topology.kubernetes.io/region", "us-east"), ("topology.kubernetes.io/zone", zone)]);
    Node { meta, external_ips: Vec::new() }
}

fn mk_system_namespace(network: &str) -> Namespace {
    let mut meta = mk_meta("", "istio-system", 0);
    meta.labels = mk_labels(&[("topology.istio.io/network", network)]);
    Namespace { meta }
}

fn mk_rule(namespace: &str, name: &str, host: &str, max_connections: Option<u32>) -> DestinationRule {
    let pool = max_connections.map(|n| ConnectionPool { max_connections: Some(n), ..Default::default() });
    let settings = PolicySettings { connection_pool: pool, ..Default::default() };
    DestinationRule {
        meta: mk_meta(namespace, name, 0),
        host: host.into(),
        policy: TrafficPolicy { settings, ports: BTreeMap::new() },
        ..DestinationRule::default()
    }
}

fn backend(index: &Index) -> Arc<Service> {
    let key = index.service_key(&("production".into(), "backend".into()));
    index.service(&key).expect("backend is there").clone()
}

#[test]
fn definitions_of_two_clusters_are_one_service() {
    let mut index = index();
    let mut west = mk_service("backend", 1, [10, 2, 0, 1], vec![http(80), http(8081)]);
    west.ports[0].app_protocol = Some("tcp".into());
    index.update([
        put(
            "east",
            Object::Service(Arc::new(mk_service("backend", 2, [10, 1, 0, 1], vec![http(80), http(9090)]))),
        ),
        put("west", Object::Service(Arc::new(west))),
    ]);
    let service = backend(&index);
    assert_eq!(&*service.key.host, "backend.production.svc.cluster.local");
    let ports: Vec<_> = service.ports.iter().map(|p| (p.number, p.protocol)).collect();
    // West is older: its word on port 80 holds; ports of either are there.
    assert_eq!(ports, [(80, Protocol::Tcp), (8081, Protocol::Http), (9090, Protocol::Http)]);
    assert_eq!(service.conflicts.len(), 1, "{:?}", service.conflicts);
    assert_eq!(service.vips_for(&"east".into()), ["10.1.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(service.vips_for(&"north".into()), ["10.1.0.1".parse::<std::net::IpAddr>().unwrap()]);

    index.update([Change::Remove(mk_key("west", Kind::Service, "production", "backend"))]);
    assert_eq!(backend(&index).ports.len(), 2);
    index.update([Change::Remove(mk_key("east", Kind::Service, "production", "backend"))]);
    assert_eq!(index.services().count(), 0);
    assert_eq!(index.ports().count(), 0);
}

#[test]
fn an_equal_object_changes_nothing() {
    let mut index = index();
    let service = Object::Service(Arc::new(mk_service("backend", 0, [10, 1, 0, 1], vec![http(80)])));
    assert!(!index.update([put("east", service.clone())]).is_empty());
    let Object::Service(inner) = service else { unreachable!("made above") };
    assert!(index.update([put("east", Object::Service(Arc::new((*inner).clone())))]).is_empty());
}

#[test]
fn an_endpoint_is_what_its_pod_node_and_namespace_say() {
    let mut index = index();
    let labels = [("app", "backend"), ("security.istio.io/tlsMode", "istio")];
    index.update([
        put("west", Object::Service(Arc::new(mk_service("backend", 0, [10, 2, 0, 1], vec![http(80)])))),
        put("west", Object::EndpointSlice(Arc::new(mk_slice("s", Some("p"), true, false, true)))),
    ]);
    let service = backend(&index);
    let unknown = index.endpoints(&service.key).iter().next().expect("one endpoint");
    assert_eq!(unknown.workload().identity, None, "a pod that is not known yet has no identity");

    // Each of them arrives late, and each is taken in.
    index.update([put("west", Object::Pod(Arc::new(mk_pod("p", &labels))))]);
    index.update([put("west", Object::Node(Arc::new(mk_node("us-east-1b"))))]);
    index.update([put("west", Object::Namespace(Arc::new(mk_system_namespace("network2"))))]);
    let endpoint = index.endpoints(&service.key).iter().next().expect("one endpoint");
    let workload = endpoint.workload();
    assert_eq!(workload.identity.as_deref(), Some("spiffe://cluster.local/ns/production/sa/backend"));
    assert_eq!(workload.locality.to_string(), "us-east/us-east-1b");
    assert_eq!(workload.network.as_str(), "network2");
    assert!(workload.accepts_mtls);
    for (label, value) in [
        ("topology.istio.io/cluster", "west"),
        ("topology.istio.io/network", "network2"),
        ("topology.kubernetes.io/zone", "us-east-1b"),
        ("kubernetes.io/hostname", "n1"),
    ] {
        assert_eq!(endpoint.labels().get(label).map(|v| v.as_ref()), Some(value));
    }
    // The pod's own label wins over the namespace's.
    let own = [("app", "backend"), ("topology.istio.io/network", "special"), ("istio-locality", "r.z.s")];
    index.update([put("west", Object::Pod(Arc::new(mk_pod("p", &own))))]);
    let endpoint = index.endpoints(&service.key).iter().next().expect("one endpoint");
    assert_eq!(endpoint.workload().network.as_str(), "special");
    assert_eq!(endpoint.workload().locality.to_string(), "r/z/s");
}

#[test]
fn what_endpoints_share_is_one_object_while_it_is_used() {
    let mut index = index();
    let endpoint = |i: u8| SliceEndpoint {
        node: Some("n1".into()),
        pod: Some(format!("p{i}").into()),
        ..SliceEndpoint::at([10, 1, 0, i])
    };
    let slice = |name: &str, ips: std::ops::Range<u8>| {
        let mut slice = mk_slice(name, None, true, false, true);
        slice.endpoints = ips.map(endpoint).collect();
        put("west", Object::EndpointSlice(Arc::new(slice)))
    };
    index.update([
        put("west", Object::Service(Arc::new(mk_service("backend", 0, [10, 2, 0, 1], vec![http(80)])))),
        put("west", Object::Node(Arc::new(mk_node("us-east-1b")))),
        slice("a", 0..3),
        slice("b", 2..5),
    ]);
    for i in 0..5 {
        index.update([put("west", Object::Pod(Arc::new(mk_pod(&format!("p{i}"), &[("app", "x")]))))]);
    }
    let key = backend(&index).key.clone();
    let addresses = |index: &Index| -> Vec<String> {
        index.endpoints(&key).iter().map(|e| format!("{}:{}", e.name(), e.address())).collect()
    };
    // One that is in both slices counts once.
    assert_eq!(
        addresses(&index),
        ["p0:10.1.0.0", "p1:10.1.0.1", "p2:10.1.0.2", "p3:10.1.0.3", "p4:10.1.0.4"]
    );
    assert_eq!(index.workloads.len(), 1);

    // The controller has moved it: it stays, out of the second slice.
    index.update([slice("a", 0..2)]);
    assert_eq!(addresses(&index).len(), 5);
    index.update([put("west", Object::Pod(Arc::new(mk_pod("p4", &[("app", "y")]))))]);
    assert_eq!(index.workloads.len(), 2);
    index.update(
        ["a", "b"].map(|name| Change::Remove(mk_key("west", Kind::EndpointSlice, "production", name))),
    );
    assert_eq!((addresses(&index).len(), index.workloads.len()), (0, 0));
}

#[test]
fn health_follows_the_conditions() {
    // ready, terminating, serving
    let cases = [
        ((true, false, true), Health::Healthy),
        ((false, false, false), Health::Unhealthy),
        ((false, true, true), Health::Draining),
        ((false, true, false), Health::Terminating),
    ];
    for ((ready, terminating, serving), expected) in cases {
        let mut index = index();
        index.update([
            put("east", Object::Service(Arc::new(mk_service("backend", 0, [10, 2, 0, 1], vec![http(80)])))),
            put("east", Object::EndpointSlice(Arc::new(mk_slice("s", None, ready, terminating, serving)))),
        ]);
        let service = backend(&index);
        assert_eq!(index.endpoints(&service.key).iter().next().map(|e| e.health()), Some(expected));
    }
}

#[test]
fn a_cluster_that_is_away_keeps_its_endpoints() {
    let mut index = index();
    index.update([
        put("west", Object::Service(Arc::new(mk_service("backend", 0, [10, 2, 0, 1], vec![http(80)])))),
        put("west", Object::EndpointSlice(Arc::new(mk_slice("s", None, true, false, true)))),
    ]);
    let stale = ClusterState::Stale { since: std::time::SystemTime::now(), reason: "gone".into() };
    assert!(index.update([Change::Cluster("west".into(), stale)]).is_empty());
    assert_eq!(index.endpoints(&backend(&index).key).iter().count(), 1);
}

#[test]
fn gateways_are_labelled_services_with_an_address() {
    let mut index = index();
    let mut gateway =
        mk_service("eastwest", 0, [10, 2, 0, 9], vec![mk_port("tls", 15443, TargetPort::Number(15443))]);
    gateway.meta.labels = mk_labels(&[("topology.istio.io/network", "network2")]);
    gateway.kind = ServiceType::LoadBalancer;
    index.update([put("west", Object::Service(Arc::new(gateway.clone())))]);
    assert!(!index.networks().any(), "no address yet");

    gateway.external_addresses = vec!["172.30.0.2".into()];
    let delta = index.update([put("west", Object::Service(Arc::new(gateway.clone())))]);
    assert!(delta.everything, "a network's gateway concerns every assignment");
    let found = index.networks().gateways(&"network2".into(), &"west".into());
    assert_eq!(found.iter().map(|g| (&*g.address, g.port)).collect::<Vec<_>>(), [("172.30.0.2", 15443)]);
    // Another cluster of the same network is entered by the same gateway.
    assert_eq!(index.networks().gateways(&"network2".into(), &"south".into()).len(), 1);

    gateway.meta.labels.insert("networking.istio.io/gatewayPort".into(), "443".into());
    index.update([put("west", Object::Service(Arc::new(gateway)))]);
    assert!(!index.networks().any(), "the port that the label names is not a port of the Service");
}

#[test]
fn rules_of_the_client_then_the_service_then_the_root() {
    let mut index = index();
    index.update([put(
        "east",
        Object::Service(Arc::new(mk_service("backend", 0, [10, 2, 0, 1], vec![http(80)]))),
    )]);
    let host = "backend.production.svc.cluster.local";
    let connections = |index: &Index, namespace: &str| {
        let scope = index.scope(&namespace.into());
        let rule = index.rule(&scope, &backend(index))?;
        rule.policy.settings.connection_pool.as_ref()?.max_connections
    };
    let rule =
        |ns, name, host, n| put("east", Object::DestinationRule(Arc::new(mk_rule(ns, name, host, Some(n)))));

    index.update([rule("istio-system", "mesh", "*.cluster.local", 1)]);
    assert_eq!(connections(&index, "shop"), Some(1));
    index.update([rule("production", "wild", "*.production.svc.cluster.local", 2)]);
    assert_eq!(connections(&index, "shop"), Some(2));
    index.update([rule("production", "exact", host, 3)]);
    assert_eq!(connections(&index, "shop"), Some(3));
    index.update([rule("shop", "mine", host, 4)]);
    assert_eq!(connections(&index, "shop"), Some(4), "a client's own rule wins");
    assert_eq!(connections(&index, "other"), Some(3), "and is nobody else's");
    assert_eq!(index.scope(&"other".into()), Scope::Public);

    // Rules of the west are not in force: the config cluster is east.
    index.update([put(
        "west",
        Object::DestinationRule(Arc::new(mk_rule("production", "exact", host, Some(9)))),
    )]);
    assert_eq!(connections(&index, "other"), Some(3));
}

#[test]
fn two_rules_for_one_host_are_merged() {
    let mut index = index();
    index.update([put(
        "east",
        Object::Service(Arc::new(mk_service("backend", 0, [10, 2, 0, 1], vec![http(80)]))),
    )]);
    let host = "backend.production.svc.cluster.local";
    let subset = |name: &str| Subset { name: name.into(), ..Subset::default() };
    let mut first = mk_rule("production", "a", host, None);
    first.subsets = vec![subset("v1")];
    let mut second = mk_rule("production", "b", host, Some(5));
    second.subsets = vec![subset("v1"), subset("v2")];
    index.update([
        put("east", Object::DestinationRule(Arc::new(second))),
        put("east", Object::DestinationRule(Arc::new(first))),
    ]);
    let service = backend(&index);
    let rule = index.rule(&Scope::Public, &service).expect("a rule");
    assert_eq!(rule.subsets.iter().map(|s| &*s.name).collect::<Vec<_>>(), ["v1", "v2"]);
    assert!(rule.policy.settings.connection_pool.is_some(), "from the first that says anything");
    assert_eq!(rule.sources.len(), 2);
}

#[test]
fn peer_authentication_workload_then_namespace_then_mesh() {
    let mut index = index();
    let mk = |namespace: &str, name: &str, selector: Option<Labels>, mode, ports| {
        let meta = mk_meta(namespace, name, 0);
        put("east", Object::PeerAuthentication(Arc::new(PeerAuthentication { meta, selector, mode, ports })))
    };
    let workload = |app: &str| Workload {
        namespace: "production".into(),
        labels: mk_labels(&[("app", app)]),
        ..mk_workload()
    };
    assert_eq!(index.workload_mtls(&workload("a"), 80), MtlsMode::Permissive);
    index.update([mk("istio-system", "default", None, Some(MtlsMode::Strict), BTreeMap::new())]);
    assert_eq!(index.workload_mtls(&workload("a"), 80), MtlsMode::Strict);
    index.update([mk("production", "default", None, Some(MtlsMode::Disable), BTreeMap::new())]);
    assert_eq!(index.service_mtls("production"), MtlsMode::Disable);
    assert_eq!(index.service_mtls("shop"), MtlsMode::Strict);
    let ports = BTreeMap::from([(8080, Some(MtlsMode::Permissive)), (9000, None)]);
    index.update([mk("production", "a", Some(mk_labels(&[("app", "a")])), Some(MtlsMode::Strict), ports)]);
    assert_eq!(index.workload_mtls(&workload("a"), 8080), MtlsMode::Permissive);
    assert_eq!(index.workload_mtls(&workload("a"), 9000), MtlsMode::Strict);
    assert_eq!(index.workload_mtls(&workload("b"), 8080), MtlsMode::Disable);
}

fn mk_workload() -> Workload {
    Workload {
        cluster: "east".into(),
        network: "".into(),
        namespace: "".into(),
        locality: Default::default(),
        labels: Labels::new(),
        identity: None,
        accepts_mtls: false,
        weight: 1,
        name: None,
        telemetry: None,
    }
}

#[test]
fn private_services_make_a_scope() {
    let mut index = index();
    let mut hidden = mk_service("hidden", 0, [10, 2, 0, 1], vec![http(80)]);
    hidden.meta.annotations = mk_labels(&[("networking.istio.io/exportTo", ".")]);
    index.update([put("east", Object::Service(Arc::new(hidden)))]);
    assert_eq!(index.scope(&"production".into()), Scope::Namespace("production".into()));
    assert_eq!(index.visible(&Scope::Public).len(), 0);
    assert_eq!(index.visible(&index.scope(&"production".into())).len(), 1);
}

#[test]
fn a_service_may_be_an_alias_or_headless() {
    let mut index = index();
    let mut alias = mk_service("alias", 0, [0, 0, 0, 0], vec![]);
    alias.kind = ServiceType::ExternalName("backend.production.svc.cluster.local".into());
    alias.cluster_ips.clear();
    let mut headless = mk_service("backend", 0, [0, 0, 0, 0], vec![http(80)]);
    headless.headless = true;
    headless.cluster_ips.clear();
    index.update([put("east", Object::Service(Arc::new(headless)))]);
    let delta = index.update([put("east", Object::Service(Arc::new(alias)))]);
    assert_eq!(backend(&index).resolution, Resolution::Passthrough);
    assert!(delta.ports.contains(&80), "an alias is a domain of its target's routes");
    assert_eq!(
        delta.names.iter().map(|k| &*k.host).collect::<Vec<_>>(),
        ["backend.production.svc.cluster.local"]
    );
}

/// What two clusters say of one service, west being older: what is said about it, and what holds.
#[test]
fn contradicting_definitions_are_named_and_the_oldest_holds() {
    type Edit = fn(&mut Definition);
    let cases: [(Edit, &[&str]); 7] = [
        (|_| {}, &[]),
        // Further ports contradict nothing.
        (|east| east.ports.push(http(9090)), &[]),
        (
            |east| east.ports[0].app_protocol = Some("tcp".into()),
            &["port 80: east says \"http\" (Tcp), west"],
        ),
        (|east| east.headless = true, &["east and west disagree on the service's type; west, the oldest"]),
        (|east| east.kind = ServiceType::ExternalName("x".into()), &["service's type"]),
        (|east| east.node_local = true, &["internalTrafficPolicy"]),
        (
            |east| drop(east.meta.annotations.insert("networking.istio.io/exportTo".into(), ".".into())),
            &["who sees it (exportTo)"],
        ),
    ];
    for (change, expected) in cases {
        let mut index = index();
        let west = mk_service("backend", 1, [10, 2, 0, 1], vec![http(80)]);
        let mut east = mk_service("backend", 2, [10, 1, 0, 1], vec![http(80)]);
        change(&mut east);
        index.update([put("east", Object::Service(Arc::new(east)))]);
        index.update([put("west", Object::Service(Arc::new(west)))]);
        let service = backend(&index);
        assert_eq!(service.conflicts.len(), expected.len(), "{:?}", service.conflicts);
        for (said, words) in service.conflicts.iter().zip(expected) {
            assert!(said.contains(words), "{said}");
        }
        let holds = (service.resolution == Resolution::ClientSide, service.node_local, &service.export_to);
        assert_eq!(holds, (true, false, &ExportTo::Public));
        assert_eq!(service.ports[0].protocol, Protocol::Http);
    }
}
