//! A mesh of typed objects for the benches: services with endpoints in two clusters, and proxies.
#![allow(dead_code, reason = "each bench uses a part")]

use std::{sync::Arc, time::Instant};

use landbridge::{
    index::Options,
    model::{
        Change, ClusterId, Kind as ObjectKind, Labels, Object, ObjectKey,
        kubernetes::{EndpointSlice, Meta, Pod, Service, ServicePort, SliceEndpoint, SlicePort},
        locality::Locality,
        node::{Extensions, Interception, Proxy, ProxyKind, SecretSource},
        port::{TargetPort, Transport},
    },
    pipeline::State,
    snapshot::{Command, Snapshot, StreamId},
};

pub const NAMESPACES: usize = 10;

fn meta(namespace: &str, name: &str) -> Meta {
    Meta { namespace: namespace.into(), name: name.into(), ..Meta::default() }
}

fn key(kind: ObjectKind, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { cluster: "east".into(), kind, namespace: namespace.into(), name: name.into() }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

fn namespace(service: usize) -> String {
    format!("ns{}", service % NAMESPACES)
}

/// The slice of a service. `ready` is the state of its first endpoint.
pub fn slice(service: usize, endpoints: usize, ready: bool) -> Change {
    let (ns, name) = (namespace(service), format!("svc{service}"));
    let endpoint = |i: usize| SliceEndpoint {
        addresses: vec![
            [10, (service / 250) as u8 + (i / 250) as u8, (service % 250) as u8, (i % 250) as u8].into(),
        ],
        ready: ready || i > 0,
        serving: true,
        pod: Some(format!("{name}-{i}").into()),
        ..SliceEndpoint::default()
    };
    let slice = EndpointSlice {
        meta: meta(&ns, &name),
        service: name.as_str().into(),
        ports: vec![SlicePort { name: "http".into(), number: 8080 }],
        endpoints: (0..endpoints).map(endpoint).collect(),
    };
    Change::Upsert(key(ObjectKind::EndpointSlice, &ns, &name), Object::EndpointSlice(Arc::new(slice)))
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
    changes.push(slice(service, endpoints, true));
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

/// A pipeline's state with this mesh.
pub fn state(services: usize, endpoints: usize) -> State {
    let mut state = State::new(Options {
        config_cluster: ClusterId::from("east"),
        failover_by_default: true,
        domain: "cluster.local".into(),
    });
    state.apply((0..services).flat_map(|s| objects(s, endpoints)).collect(), Instant::now());
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
        dns_domain: format!("{ns}.svc.cluster.local").into(),
        istio_version: None,
        user_agent: None,
    }
}
