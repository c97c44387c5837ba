//! A mesh of typed objects for the benches: services with endpoints in two clusters, and proxies.
#![allow(dead_code, reason = "each bench uses a part")]

use std::{sync::Arc, time::Instant};

use landbridge::{
    index::Options,
    model::{
        Change, ClusterId, Kind as ObjectKind, Labels, Object, ObjectKey,
        endpoint::Health,
        kubernetes::{EndpointSlice, Meta, Node, Pod, Service, ServicePort, SliceEndpoint, SlicePort},
        locality::Locality,
        node::{Extensions, Interception, Proxy, ProxyKind, SecretSource, VirtualHosts},
        port::{TargetPort, Transport},
    },
    pipeline::State,
    snapshot::{Command, Snapshot, StreamId},
};

pub const NAMESPACES: usize = 10;

pub fn meta(namespace: &str, name: &str) -> Meta {
    Meta { namespace: namespace.into(), name: name.into(), ..Meta::default() }
}

pub fn key(kind: ObjectKind, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { cluster: "east".into(), kind, namespace: namespace.into(), name: name.into() }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

pub fn namespace(service: usize) -> String {
    format!("ns{}", service % NAMESPACES)
}

/// Kubernetes puts at most so many endpoints into a slice.
const SLICE: usize = 100;
/// Zones, with a node in each.
const ZONES: usize = 3;

/// The slices of a service, of at most a hundred endpoints each; the first alone changes with `ready`, the state of its
/// first endpoint.
pub fn slices(service: usize, endpoints: usize, ready: bool) -> Vec<Change> {
    (0..endpoints.div_ceil(SLICE)).map(|n| slice_of(service, n, endpoints, ready)).collect()
}

/// The first slice of a service. `ready` is the state of its first endpoint.
pub fn slice(service: usize, endpoints: usize, ready: bool) -> Change {
    slice_of(service, 0, endpoints, ready)
}

fn slice_of(service: usize, number: usize, endpoints: usize, ready: bool) -> Change {
    let (ns, name) = (namespace(service), format!("svc{service}"));
    let slice_name = format!("{name}-{number}");
    let endpoint = |i: usize| SliceEndpoint {
        health: Health::of(ready || i > 0, true, false),
        node: Some(format!("node-{}", i % ZONES).into()),
        pod: Some(format!("{name}-{i}").into()),
        ..SliceEndpoint::at([
            10,
            (service / 250) as u8 + (i / 250) as u8,
            (service % 250) as u8,
            (i % 250) as u8,
        ])
    };
    let slice = EndpointSlice {
        namespace: ns.as_str().into(),
        name: slice_name.as_str().into(),
        service: name.as_str().into(),
        ports: [SlicePort { name: "http".into(), number: 8080 }].into(),
        endpoints: (number * SLICE..endpoints.min((number + 1) * SLICE)).map(endpoint).collect(),
    };
    Change::Upsert(key(ObjectKind::EndpointSlice, &ns, &slice_name), Object::EndpointSlice(Arc::new(slice)))
}

fn nodes() -> impl Iterator<Item = Change> {
    (0..ZONES).map(|i| {
        let name = format!("node-{i}");
        let zone = format!("region-{i}");
        let mut meta = meta("", &name);
        meta.labels =
            labels(&[("topology.kubernetes.io/region", "region"), ("topology.kubernetes.io/zone", &zone)]);
        let node = Node { meta, external_ips: Vec::new() };
        Change::Upsert(key(ObjectKind::Node, "", &name), Object::Node(Arc::new(node)))
    })
}

/// A service with its pods and its slice.
pub fn objects(service: usize, endpoints: usize) -> Vec<Change> {
    let (ns, name) = (namespace(service), format!("svc{service}"));
    let definition = Service {
        meta: meta(&ns, &name),
        cluster_ips: vec![[10, 96, (service / 250) as u8, (service % 250) as u8].into()],
        ports: vec![ServicePort {
            name: "http".into(),
            number: 80,
            transport: Transport::Tcp,
            app_protocol: None,
            target: TargetPort::Number(8080),
            node_port: 0,
        }],
        selector: labels(&[("app", &name)]),
        ..Service::default()
    };
    let mut changes =
        vec![Change::Upsert(key(ObjectKind::Service, &ns, &name), Object::Service(Arc::new(definition)))];
    for i in 0..endpoints {
        let pod_name = format!("{name}-{i}");
        let mut meta = meta(&ns, &pod_name);
        meta.labels = labels(&[("app", &name), ("security.istio.io/tlsMode", "istio")]);
        let pod = Pod {
            meta,
            service_account: name.as_str().into(),
            workload: name.as_str().into(),
            ..Pod::default()
        };
        changes.push(Change::Upsert(key(ObjectKind::Pod, &ns, &pod_name), Object::Pod(Arc::new(pod))));
    }
    changes.extend(slices(service, endpoints, true));
    changes
}

/// All of a service is gone.
pub fn withdrawn(service: usize, endpoints: usize) -> Vec<Change> {
    let gone = |change| match change {
        Change::Upsert(key, _) => Change::Remove(key),
        other => other,
    };
    objects(service, endpoints).into_iter().map(gone).collect()
}

/// A pipeline's state without a mesh.
pub fn empty() -> State {
    State::new(Options {
        config_cluster: ClusterId::from("east"),
        failover_by_default: true,
        domain: "cluster.local".into(),
        mcs: Default::default(),
    })
}

/// A pipeline's state with this mesh.
pub fn state(services: usize, endpoints: usize) -> State {
    let mut state = empty();
    let objects = (0..services).flat_map(|s| objects(s, endpoints));
    state.apply(nodes().chain(objects).collect(), Instant::now());
    state
}

/// Attaches so many sidecars, spread over the namespaces.
pub fn attach(state: &mut State, proxies: usize) {
    (0..proxies).for_each(|i| attach_one(state, i));
}

/// Attaches one sidecar.
pub fn attach_one(state: &mut State, i: usize) {
    let (answer, _) = tokio::sync::oneshot::channel();
    state.command(Command::Attach(StreamId(i as u64), Arc::new(proxy(i)), answer));
}

/// What the first proxy sees.
pub fn snapshot(state: &State) -> Arc<Snapshot> {
    let mut proxies = state.classes.proxies();
    proxies.find(|(id, ..)| id.0 == 0).map(|(_, _, _, snapshot)| snapshot).expect("a proxy is attached")
}

fn proxy(i: usize) -> Proxy {
    let ns: Arc<str> = namespace(i).into();
    Proxy {
        id: format!("client-{i}.{ns}").into(),
        node_id: "".into(),
        kind: ProxyKind::Sidecar,
        ips: vec![[10, 200, (i / 250) as u8, (i % 250) as u8].into()],
        namespace: ns.clone(),
        name: format!("client-{i}").into(),
        service_account: None,
        cluster: "east".into(),
        network: "".into(),
        labels: Labels::new(),
        locality: Locality::default(),
        node: None,
        requested_networks: None,
        interception: Interception::Redirect,
        extensions: Extensions::default(),
        secrets: SecretSource::Ads,
        virtual_hosts: VirtualHosts::OneByOne,
        one_by_one_above: None,
        dns_domain: format!("{ns}.svc.cluster.local").into(),
        istio_version: None,
        user_agent: None,
    }
}
