//! The builders from scratch: resources of one type for a whole proxy, built and encoded; their floor is prost encoding
//! the finished messages in the same run. Shapes are those of istiod's own benchmarks (`performance.md`, A5): services in
//! one place, without failover.

mod mesh;

use std::{sync::Arc, time::Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use landbridge::{
    index::Index,
    model::{
        Change, Kind, Object,
        destination_rule::{ConnectionPool, DestinationRule},
        gateway::{Gateway, Server, ServerTlsMode},
        node::{Extensions, Interception, ProxyKind, SecretSource},
    },
    pipeline::State,
    resource::{Built, cds, lds, rds},
    view::{ClusterView, GatewayView, ListenerView, RouteView, Scope, VirtualHosts},
};
use landbridge_proto::envoy::config::{
    cluster::v3::Cluster,
    listener::v3::Listener,
    route::v3::{RouteConfiguration, VirtualHost},
};
use prost::Message;

/// Services of the gateway's benchmarks.
const MANY: usize = 1_000;

fn clusters(kind: ProxyKind, sni_dnat: bool) -> ClusterView {
    ClusterView {
        kind,
        scope: Scope::Public,
        secrets: SecretSource::Ads,
        extensions: Extensions::default(),
        sni_dnat,
    }
}

fn listeners() -> ListenerView {
    ListenerView {
        scope: Scope::Public,
        cluster: "east".into(),
        interception: Interception::Redirect,
        extensions: Extensions::default(),
        own_headless_ips: Default::default(),
    }
}

fn routes(virtual_hosts: VirtualHosts) -> RouteView {
    RouteView { scope: Scope::Public, namespace: "ns0".into(), cluster: "east".into(), virtual_hosts }
}

fn all_clusters(index: &Index, view: &ClusterView) -> Vec<Built> {
    let of_services = index.services().flat_map(|s| cds::service(index, view, s));
    cds::fixed(index, view).into_iter().chain(of_services).collect()
}

fn all_listeners(index: &Index, view: &ListenerView) -> Vec<Built> {
    let of_ports = index.ports().flat_map(|p| lds::outbound::port(index, view, p));
    let of_services = index.services().flat_map(|s| lds::outbound::service(index, view, s));
    lds::outbound::fixed(index, view).into_iter().chain(of_ports).chain(of_services).collect()
}

/// One shape: `build` against the encoding of what it built.
fn shape<M: Message + Default>(
    c: &mut Criterion,
    name: &str,
    count: usize,
    mut build: impl FnMut() -> Vec<Built>,
) {
    let built = build();
    assert_eq!(built.len(), count, "{name}");
    let decode = |b: &Built| M::decode(b.message.as_slice()).expect("our own bytes");
    let messages: Vec<M> = built.iter().map(decode).collect();
    let mut group = c.benchmark_group("builders");
    group.throughput(Throughput::Bytes(built.iter().map(|b| b.message.len() as u64).sum()));
    group.bench_function(BenchmarkId::new("landbridge", name), |b| b.iter(&mut build));
    group.bench_function(BenchmarkId::new("floor_prost_encode", name), |b| {
        b.iter(|| messages.iter().map(Message::encode_to_vec).collect::<Vec<_>>());
    });
}

/// A rule for a service that is like no other's.
fn rule(service: usize) -> Change {
    let (namespace, name) = (mesh::namespace(service), format!("svc{service}"));
    let meta = mesh::meta(&namespace, &name);
    let host = format!("{name}.{namespace}.svc.cluster.local");
    let pool = ConnectionPool { max_connections: Some(service as u32), ..ConnectionPool::default() };
    let mut rule = DestinationRule { meta, host: host.into(), ..DestinationRule::default() };
    rule.policy.settings.connection_pool = Some(pool);
    Change::Upsert(
        mesh::key(Kind::DestinationRule, &namespace, &name),
        Object::DestinationRule(Arc::new(rule)),
    )
}

/// Services whose protocol is found out connection by connection.
fn automatic(services: usize) -> State {
    let unnamed = |change| match change {
        Change::Upsert(key, Object::Service(mut service)) => {
            Arc::make_mut(&mut service).ports.iter_mut().for_each(|port| port.name = "".into());
            Change::Upsert(key, Object::Service(service))
        }
        other => other,
    };
    let mut state = mesh::empty();
    state.apply((0..services).flat_map(|s| mesh::objects(s, 1)).map(unnamed).collect(), Instant::now());
    state
}

fn east_west_gateway() -> Change {
    let server = Server {
        port: 15443,
        port_name: "tls".into(),
        protocol: "TLS".into(),
        tls: Some(ServerTlsMode::AutoPassthrough),
        hosts: vec![("*".into(), "*.local".into())],
    };
    let meta = mesh::meta("istio-system", "east-west");
    let key = mesh::key(Kind::Gateway, &meta.namespace, &meta.name);
    let gateway = Gateway { meta, servers: vec![server], ..Gateway::default() };
    Change::Upsert(key, Object::Gateway(Arc::new(gateway)))
}

fn builders(c: &mut Criterion) {
    // 103 services, BlackHoleCluster and PassthroughCluster.
    let state = mesh::state(103, 1);
    let view = clusters(ProxyKind::Sidecar, false);
    shape::<Cluster>(c, "http_clusters_105", 105, || all_clusters(&state.index, &view));

    // The same with a rule for each that is like no other's, so that none has a template.
    let mut ruled = mesh::state(103, 1);
    ruled.apply((0..103).map(rule).collect(), Instant::now());
    shape::<Cluster>(c, "unlike_clusters_105", 105, || all_clusters(&ruled.index, &view));

    // 102 services of unnamed protocol, and virtualOutbound.
    let automatic = automatic(102);
    let view = listeners();
    shape::<Listener>(c, "automatic_listeners_103", 103, || all_listeners(&automatic.index, &view));

    // One table of 100 services; and the same as single virtual hosts.
    let hundred = mesh::state(100, 1);
    let together = routes(VirtualHosts::Together);
    shape::<RouteConfiguration>(c, "route_table_100", 1, || rds::port(&hundred.index, &together, 80));
    let one_by_one = routes(VirtualHosts::OneByOne);
    shape::<VirtualHost>(c, "virtual_hosts_100", 100, || {
        let services = hundred.index.services();
        services.flat_map(|s| rds::service(&hundred.index, &one_by_one, s)).collect()
    });

    // An east-west gateway of 1,000 services: a cluster each for callers inside and for what arrives by SNI, a chain each in
    // its listener. It has no routes: the table of a sidecar's port with as many hosts stands in for istiod's.
    let mut many = mesh::state(MANY, 1);
    many.apply(vec![east_west_gateway()], Instant::now());
    let index = &many.index;
    let view = clusters(ProxyKind::Router, false);
    shape::<Cluster>(c, "gateway_clusters_1000", MANY + 1, || all_clusters(index, &view));
    let view = clusters(ProxyKind::Router, true);
    shape::<Cluster>(c, "gateway_clusters_and_sni_2000", 2 * MANY + 1, || all_clusters(index, &view));
    let view = GatewayView {
        scope: Scope::Public,
        gateways: index.gateways().into_iter().cloned().map(landbridge::view::GatewayRef).collect(),
        extensions: Extensions::default(),
        secrets: SecretSource::Agent,
    };
    shape::<Listener>(c, "gateway_listener_1000", 1, || lds::gateway::build(index, &view));
    shape::<RouteConfiguration>(c, "route_table_1000", 1, || rds::port(index, &together, 80));
}

criterion_group!(benches, builders);
criterion_main!(benches);
