//! A generated mesh as landbridge reads it: nothing to complain of, the resources that the truth says, and every change as
//! it was announced. Without proxies and sockets: files, watcher, pipeline.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddrV4,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use landbridge::{
    index::Options,
    model::{
        Batch, ClusterId, Labels, NetworkId,
        change::ClusterState,
        locality::Locality,
        node::{Extensions, Interception, Proxy, ProxyKind, SecretSource, VirtualHosts},
    },
    pipeline::State,
    registry::{FileSource, SourceStatus},
    snapshot::{Command, Snapshot, StreamId},
};
use landbridge_proto::envoy::config::{
    core::v3::{HealthStatus, address, socket_address},
    endpoint::v3::{ClusterLoadAssignment, lb_endpoint},
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use xds_load::{
    expect::{Expectation, Type},
    mesh::{
        Assignment, Large, Mesh, Port, Spec,
        churn::{Churn, Script},
        directory::Directories,
    },
};

fn spec() -> Spec {
    Spec {
        clusters: 3,
        networks: 2,
        regions: 2,
        namespaces: 4,
        services: 24,
        endpoints: 7,
        everywhere: 0.5,
        large: Large { services: 1, endpoints: 130 },
        ports: vec![
            vec![Port { name: "http".into(), port: 80, target: 8080 }],
            vec![
                Port { name: "grpc".into(), port: 9000, target: 9000 },
                Port { name: "tcp-db".into(), port: 5432, target: 5432 },
            ],
        ],
        headless: 0.1,
        sidecars: 0.9,
        clients: 12,
        scopes: 2,
        private: 0.2,
        rules: 0.5,
        subsets: 0.5,
        strict: 0.5,
        ..Spec::default()
    }
}

/// The clusters as landbridge knows them, with a proxy for each of the mesh's clients.
struct World {
    state: State,
    batches: mpsc::Receiver<Batch>,
    sources: Vec<SourceStatus>,
    stop: CancellationToken,
    /// Cluster and namespace of each stream.
    clients: Vec<(usize, Arc<str>)>,
}

impl World {
    async fn read(mesh: &Mesh, root: &Path) -> Self {
        let (sender, batches) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let mut sources = Vec::new();
        for (cluster, dir) in mesh.directories(root) {
            let cluster = ClusterId::from(cluster.as_str());
            let status = SourceStatus::new(cluster.clone());
            sources.push(status.clone());
            tokio::spawn(FileSource::new(cluster, dir).run(sender.clone(), status, stop.clone()));
        }
        let state = State::new(Options {
            config_cluster: "cluster-0".into(),
            failover_by_default: true,
            domain: "cluster.local".into(),
            mcs: Default::default(),
        });
        let mut world = Self { state, batches, sources, stop, clients: Vec::new() };
        let clusters = mesh.spec().clusters;
        let synced = |w: &Self| w.state.index.clusters().filter(|(_, s)| **s == ClusterState::Synced).count();
        world.until("all clusters are read", |w| synced(w) == clusters).await;
        for (i, client) in mesh.proxies().take(mesh.spec().clients).enumerate() {
            let (answer, _) = tokio::sync::oneshot::channel();
            let stream = StreamId(i as u64);
            world.state.command(Command::Attach(stream, Arc::new(proxy(&client)), answer));
            world.clients.push((client.cluster, client.namespace));
        }
        world
    }

    /// Takes in what the sources say until the condition holds.
    async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds(self) {
            assert!(Instant::now() < deadline, "not within 20 s: {what}");
            let next = tokio::time::timeout(Duration::from_millis(50), self.batches.recv());
            if let Ok(Some(batch)) = next.await {
                self.state.apply(batch.changes, Instant::now());
            }
        }
    }

    fn snapshot(&self, stream: usize) -> Arc<Snapshot> {
        let found = self.state.classes.proxies().find(|(id, ..)| id.0 == stream as u64);
        found.map(|(_, _, _, snapshot)| snapshot).expect("attached")
    }

    /// The first client that does not have it as expected, if there is one; those that do not have the resource are not asked.
    fn misses(&self, mesh: &Mesh, expected: &Expectation) -> Option<usize> {
        (0..self.clients.len()).find(|client| {
            let network = format!("network-{}", mesh.spec().network(self.clients[*client].0));
            let concerns = expected.network.as_ref().is_none_or(|wanted| **wanted == *network);
            concerns && !holds(&self.snapshot(*client), expected)
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn proxy(client: &xds_load::mesh::Proxy) -> Proxy {
    Proxy {
        id: format!("{}.{}", client.name, client.namespace).into(),
        node_id: "".into(),
        kind: ProxyKind::Sidecar,
        ips: vec![client.address.into()],
        namespace: client.namespace.clone(),
        name: client.name.clone(),
        service_account: Some(client.service_account.clone()),
        cluster: format!("cluster-{}", client.cluster).as_str().into(),
        network: NetworkId::from(""),
        labels: Labels::new(),
        locality: Locality::default(),
        node: None,
        requested_networks: None,
        interception: Interception::Redirect,
        extensions: Extensions::default(),
        secrets: SecretSource::Ads,
        virtual_hosts: VirtualHosts::Together,
        one_by_one_above: None,
        dns_domain: format!("{}.svc.cluster.local", client.namespace).into(),
        istio_version: None,
        user_agent: None,
    }
}

fn holds(snapshot: &Snapshot, expected: &Expectation) -> bool {
    let set = match expected.kind {
        Type::Cluster => &snapshot.clusters,
        Type::Endpoint => &snapshot.endpoints,
        Type::Route => &snapshot.routes,
        other => panic!("no script announces {other:?}"),
    };
    let bytes = set.get(&expected.name).map(|resource| resource.any().to_vec());
    let marker = &expected.marker;
    match bytes {
        // A service that others may not see is no miss of theirs.
        None => !marker.wants() || expected.kind == Type::Endpoint,
        Some(any) => {
            let any = prost_types::Any::decode(any.as_slice()).expect("an Any");
            marker.is_in(expected.kind, &any.value) == marker.wants()
        }
    }
}

/// An assignment as a proxy reads it, by health.
fn decode(any: &[u8]) -> (BTreeSet<SocketAddrV4>, BTreeSet<SocketAddrV4>) {
    let any = prost_types::Any::decode(any).expect("an Any");
    let message = ClusterLoadAssignment::decode(any.value.as_slice()).expect("an assignment");
    let (mut up, mut down) = (BTreeSet::new(), BTreeSet::new());
    for endpoint in message.endpoints.iter().flat_map(|group| &group.lb_endpoints) {
        let Some(lb_endpoint::HostIdentifier::Endpoint(at)) = &endpoint.host_identifier else { continue };
        let Some(address::Address::SocketAddress(at)) = at.address.as_ref().and_then(|a| a.address.as_ref())
        else {
            continue;
        };
        let Some(socket_address::PortSpecifier::PortValue(port)) = at.port_specifier else { continue };
        let at = SocketAddrV4::new(at.address.parse().expect("an address"), port as u16);
        let unhealthy = endpoint.health_status == HealthStatus::Unhealthy as i32;
        if unhealthy {
            down.insert(at)
        } else {
            up.insert(at)
        };
    }
    (up, down)
}

fn compare(world: &World, mesh: &Mesh) {
    for (client, (cluster, namespace)) in world.clients.iter().enumerate() {
        let snapshot = world.snapshot(client);
        let names =
            snapshot.clusters.iter().map(|c| c.name.to_string()).filter(|n| n.starts_with("outbound|"));
        let (names, expected) = (names.collect::<BTreeSet<_>>(), mesh.cluster_names(namespace));
        let differ: Vec<_> = names.symmetric_difference(&expected).collect();
        assert_eq!(differ, Vec::<&String>::new(), "in {namespace}");
        let got: BTreeMap<_, _> =
            snapshot.endpoints.iter().map(|e| (e.name.to_string(), decode(&e.any()))).collect();
        let expected = mesh.assignments(*cluster, namespace);
        assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, Assignment { ready, unready, gateways }) in expected {
            let (up, down) = &got[&name];
            let all_up: BTreeSet<_> = ready.union(&gateways).copied().collect();
            assert_eq!(*up, all_up, "{name} in cluster-{cluster}");
            assert_eq!(*down, unready, "{name} in cluster-{cluster}");
        }
    }
}

#[tokio::test]
async fn a_mesh_is_read_without_problems_and_means_what_its_truth_says() {
    let root = tempfile::tempdir().unwrap();
    let directories = Directories::new(root.path().join("mesh"));
    let mesh = Mesh::generate(spec()).unwrap();
    directories.write(&mesh).unwrap();
    let mut world = World::read(&mesh, &root.path().join("mesh")).await;
    for source in &world.sources {
        let report = source.report();
        assert_eq!(report.problems, [], "nothing to complain of in {}", report.cluster);
        assert_eq!(report.not_read, BTreeMap::new(), "every object is read");
    }
    compare(&world, &mesh);

    let scripts = [
        Script::Rate { per_second: 100.0, seconds: 0.4, replace: 0.5 },
        Script::Create { services: 2, seconds: 0.0 },
        Script::Configure { changes: 2, seconds: 0.0 },
        Script::Outage { cluster: 1, seconds: 0.0 },
        Script::Remove { services: 2, seconds: 0.0 },
        Script::Unknown { cluster: 0, seconds: 0.0 },
    ];
    let mut mesh = mesh;
    for script in scripts {
        let mut churn = Churn::new(mesh, script.clone(), directories.clone());
        let mut announced = Vec::new();
        while churn.next(|expected| announced = expected).await.unwrap() {
            for expected in &announced {
                let what = format!("{script:?}: {expected:?}");
                world.until(&what, |w| w.misses(churn.mesh(), expected).is_none()).await;
            }
        }
        mesh = churn.into_mesh();
    }
    // What was moved back is read again.
    world.until("nothing is to come", |w| w.batches.is_empty()).await;
    compare(&world, &mesh);
}
