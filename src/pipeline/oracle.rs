//! The oracle: whatever happened, in whatever order, what is published incrementally equals what a fresh control plane
//! builds from the objects as they are now, byte for byte.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use landbridge_proto::envoy::config::{
    endpoint::v3::{ClusterLoadAssignment, locality_lb_endpoints::LbConfig},
    route::v3::{RouteConfiguration, VirtualHost},
};
use proptest::prelude::*;
use prost::Message;
use tokio::sync::oneshot;

use super::{
    State,
    oracle_gateways::{dead, resolved},
};
use crate::{
    index::Options,
    model::{
        Change, ClusterId, Kind, Labels, NetworkId, Object, ObjectKey,
        destination_rule::{
            ConnectionPool, DestinationRule, Distribute, LbAlgorithm, LoadBalancer, LocalityLb,
            OutlierDetection, PolicySettings, Subset, TrafficPolicy,
        },
        endpoint::Health,
        gateway::{Gateway, Server, ServerTlsMode},
        kubernetes::{
            EndpointSlice, Meta, Namespace, Node, Pod, Service, ServicePort, ServiceType, SliceEndpoint,
            SlicePort,
        },
        locality::Locality,
        mcs::{Mcs, ServiceExport, ServiceImport},
        mesh::MeshConfig,
        node::{Extensions, Interception, Proxy, ProxyKind, SecretSource, VirtualHosts},
        peer_authentication::{MtlsMode, PeerAuthentication},
        port::{TargetPort, Transport},
        service::ExportTo,
        staleness::Treatment,
    },
    snapshot::{Command, Encoded, Nack, ResourceType, Snapshot, StreamId},
};

const CLUSTERS: [&str; 2] = ["east", "west"];
const NAMESPACES: [&str; 2] = ["production", "shop"];
const NAMES: [&str; 3] = ["a", "b", "c"];
const ROOT: &str = "istio-system";

/// One step of a history. The small numbers choose among a few variants of each thing.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Put(usize, Thing, u8),
    Remove(usize, Thing),
    Forget(usize),
    Treat(usize, Treatment),
    DeadGateways(u8),
    Resolve(u8),
    Attach(u8),
    Detach(usize),
    Nack(usize, ResourceType, usize),
}

/// An object that histories are about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Thing {
    Namespace,
    Node(u8),
    Service(usize, usize),
    Slice(usize, usize, u8),
    Pod(usize, u8),
    Mesh,
    Gateway,
    EastWest,
    Rule(usize, usize),
    Peer(usize),
    Export(usize, usize),
    Import(usize, usize),
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let namespace = 0..NAMESPACES.len();
    let name = 0..NAMES.len();
    let thing = prop_oneof![
        1 => Just(Thing::Namespace),
        2 => (0..2u8).prop_map(Thing::Node),
        6 => (namespace.clone(), name.clone()).prop_map(|(ns, n)| Thing::Service(ns, n)),
        8 => (namespace.clone(), name.clone(), 0..2u8).prop_map(|(ns, n, k)| Thing::Slice(ns, n, k)),
        5 => (namespace.clone(), 0..4u8).prop_map(|(ns, n)| Thing::Pod(ns, n)),
        2 => Just(Thing::Mesh),
        1 => Just(Thing::Gateway),
        2 => Just(Thing::EastWest),
        4 => (namespace.clone(), name.clone()).prop_map(|(ns, n)| Thing::Rule(ns, n)),
        3 => (namespace.clone(), name.clone()).prop_map(|(ns, n)| Thing::Export(ns, n)),
        4 => (namespace.clone(), name).prop_map(|(ns, n)| Thing::Import(ns, n)),
        3 => (0..3usize).prop_map(Thing::Peer),
    ];
    let cluster = 0..CLUSTERS.len();
    let kind = prop::sample::select(ResourceType::ALL.to_vec());
    let treatment = prop::sample::select(vec![Treatment::Keep, Treatment::Deprioritise, Treatment::Withdraw]);
    let step = prop_oneof![
        12 => (cluster.clone(), thing.clone(), 0..6u8).prop_map(|(c, t, v)| Step::Put(c, t, v)),
        3 => (cluster.clone(), thing).prop_map(|(c, t)| Step::Remove(c, t)),
        1 => cluster.clone().prop_map(Step::Forget),
        1 => (cluster, treatment).prop_map(|(c, t)| Step::Treat(c, t)),
        1 => (0..16u8).prop_map(Step::DeadGateways),
        1 => (0..4u8).prop_map(Step::Resolve),
        3 => (0..6u8).prop_map(Step::Attach),
        1 => (0..8usize).prop_map(Step::Detach),
        1 => (0..8usize, kind, 0..50usize).prop_map(|(s, k, n)| Step::Nack(s, k, n)),
    ];
    prop::collection::vec(step, 1..60)
}

/// Off in a third of the histories and more.
pub(super) fn mcs() -> impl Strategy<Value = Mcs> {
    let any = (any::<bool>(), any::<bool>(), any::<bool>());
    let any = any.prop_map(|(hosts, discovery, cluster_local)| Mcs { hosts, discovery, cluster_local });
    prop_oneof![Just(Mcs::default()), any.clone(), any]
}

// === objects ===

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

fn meta(namespace: &str, name: &str, pairs: &[(&str, &str)]) -> Meta {
    Meta { namespace: namespace.into(), name: name.into(), labels: labels(pairs), ..Meta::default() }
}

fn key(cluster: usize, kind: Kind, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { cluster: CLUSTERS[cluster].into(), kind, namespace: namespace.into(), name: name.into() }
}

fn port(name: &str, number: u16, target: u16) -> ServicePort {
    ServicePort {
        name: name.into(),
        number,
        transport: Transport::Tcp,
        app_protocol: None,
        target: TargetPort::Number(target),
        node_port: 0,
    }
}

pub(super) fn identify(cluster: usize, thing: Thing) -> ObjectKey {
    let rule_name = |n: usize| format!("rule-{n}");
    match thing {
        Thing::Namespace => key(cluster, Kind::Namespace, "", ROOT),
        Thing::Node(n) => key(cluster, Kind::Node, "", &format!("node-{n}")),
        Thing::Service(ns, n) => key(cluster, Kind::Service, NAMESPACES[ns], NAMES[n]),
        Thing::Slice(ns, n, k) => {
            key(cluster, Kind::EndpointSlice, NAMESPACES[ns], &format!("{}-{k}", NAMES[n]))
        }
        Thing::Pod(ns, n) => key(cluster, Kind::Pod, NAMESPACES[ns], &format!("pod-{n}")),
        Thing::Mesh => key(cluster, Kind::MeshConfig, ROOT, "istio"),
        Thing::Gateway => key(cluster, Kind::Gateway, ROOT, "cross-network-gateway"),
        Thing::EastWest => key(cluster, Kind::Service, ROOT, "istio-eastwestgateway"),
        Thing::Rule(ns, n) => key(cluster, Kind::DestinationRule, NAMESPACES[ns], &rule_name(n)),
        Thing::Peer(n) => key(cluster, Kind::PeerAuthentication, ["production", "shop", ROOT][n], "default"),
        Thing::Export(ns, n) => key(cluster, Kind::ServiceExport, NAMESPACES[ns], NAMES[n]),
        Thing::Import(ns, n) => key(cluster, Kind::ServiceImport, NAMESPACES[ns], NAMES[n]),
    }
}

pub(super) fn object(cluster: usize, thing: Thing, variant: u8) -> Object {
    let c = CLUSTERS[cluster];
    match thing {
        Thing::Namespace => {
            let network = [c, "shared", ""][usize::from(variant % 3)];
            let pairs: &[_] =
                if network.is_empty() { &[] } else { &[("topology.istio.io/network", network)] };
            Object::Namespace(Arc::new(Namespace { meta: meta("", ROOT, pairs) }))
        }
        Thing::Node(n) => {
            let zone = format!("zone-{}", variant % 3);
            let pairs =
                [("topology.kubernetes.io/region", c), ("topology.kubernetes.io/zone", zone.as_str())];
            Object::Node(Arc::new(Node {
                meta: meta("", &format!("node-{n}"), &pairs),
                external_ips: Vec::new(),
            }))
        }
        Thing::Service(ns, n) => Object::Service(Arc::new(service(cluster, ns, n, variant))),
        Thing::Slice(ns, n, k) => {
            let endpoints = (0..variant % 4).map(|i| SliceEndpoint {
                health: Health::of(i != 2, true, variant == 5 && i == 2),
                node: Some(format!("node-{}", i % 2).into()),
                pod: (i < 3).then(|| format!("pod-{i}").into()),
                ..SliceEndpoint::at([10, cluster as u8, ns as u8, i + 4 * k])
            });
            Object::EndpointSlice(Arc::new(EndpointSlice {
                namespace: NAMESPACES[ns].into(),
                name: format!("{}-{k}", NAMES[n]).into(),
                service: NAMES[(n + usize::from(variant == 4)) % NAMES.len()].into(),
                ports: [
                    SlicePort { name: "http".into(), number: 8080 },
                    SlicePort { name: "tcp-x".into(), number: 9000 },
                ]
                .into(),
                endpoints: endpoints.collect(),
            }))
        }
        Thing::Pod(ns, n) => {
            let mut pairs = vec![("app", NAMES[usize::from(variant) % NAMES.len()])];
            if variant < 4 {
                pairs.push(("security.istio.io/tlsMode", "istio"));
            }
            if variant == 3 {
                pairs.push(("topology.istio.io/network", "shared"));
            }
            Object::Pod(Arc::new(Pod {
                meta: meta(NAMESPACES[ns], &format!("pod-{n}"), &pairs),
                ips: vec![([10, cluster as u8, ns as u8, n]).into()],
                service_account: ["default", "special"][usize::from(variant % 2)].into(),
                node: Some(format!("node-{}", n % 2).into()),
                named_ports: Vec::new(),
                workload: "w".into(),
                finished: false,
            }))
        }
        Thing::Mesh => Object::MeshConfig(Arc::new(MeshConfig {
            registry_only: variant.is_multiple_of(2),
            trust_domain: ["cluster.local", "company.com"][usize::from(variant / 3)].into(),
            outlier_detection: (variant == 5).then(OutlierDetection::default),
            default_service_export_to: match variant {
                1 => ExportTo::Namespaces(["production".into()].into()),
                _ => ExportTo::Public,
            },
            cluster_local: cluster_local(variant),
            ..MeshConfig::default()
        })),
        Thing::Gateway => {
            let server = Server {
                port: 15443,
                port_name: "tls".into(),
                protocol: "TLS".into(),
                tls: Some(
                    [ServerTlsMode::AutoPassthrough, ServerTlsMode::Passthrough][usize::from(variant == 5)],
                ),
                hosts: vec![("*".into(), "*.local".into())],
            };
            Object::Gateway(Arc::new(Gateway {
                meta: meta(ROOT, "cross-network-gateway", &[]),
                selector: labels(&[("istio", "eastwestgateway")]),
                servers: vec![server],
            }))
        }
        Thing::EastWest => Object::Service(Arc::new(Service {
            meta: meta(
                ROOT,
                "istio-eastwestgateway",
                &[("topology.istio.io/network", [c, "shared"][usize::from(variant % 2)])],
            ),
            kind: ServiceType::LoadBalancer,
            cluster_ips: vec![([10, 96, cluster as u8, 250]).into()],
            ports: vec![port("tls", 15443, 15443)],
            external_addresses: match variant {
                5 => vec![format!("gateway.{c}.example.com").into()],
                _ => (0..variant % 3).map(|i| format!("172.30.{cluster}.{i}").into()).collect(),
            },
            ..Service::default()
        })),
        Thing::Rule(ns, n) => Object::DestinationRule(Arc::new(rule(ns, n, variant))),
        Thing::Peer(n) => {
            let mode = [None, Some(MtlsMode::Strict), Some(MtlsMode::Permissive), Some(MtlsMode::Disable)];
            let selected = variant >= 4;
            Object::PeerAuthentication(Arc::new(PeerAuthentication {
                meta: meta(["production", "shop", ROOT][n], "default", &[]),
                selector: selected.then(|| labels(&[("app", "a")])),
                mode: mode[usize::from(variant % 4)],
                ports: if selected {
                    BTreeMap::from([(8080, Some(MtlsMode::Disable)), (7, None)])
                } else {
                    BTreeMap::new()
                },
            }))
        }
        Thing::Export(ns, n) => {
            Object::ServiceExport(Arc::new(ServiceExport { meta: meta(NAMESPACES[ns], NAMES[n], &[]) }))
        }
        Thing::Import(ns, n) => {
            // Addresses of the set may be those of services, by mistake; a headless import has none.
            let ip = |i: u8| [10, [97, 97, 96][usize::from(variant / 2)], 0, (ns * 8 + n) as u8 + i].into();
            Object::ServiceImport(Arc::new(ServiceImport {
                meta: meta(NAMESPACES[ns], NAMES[n], &[]),
                ips: (0..variant % 3).map(ip).collect(),
            }))
        }
    }
}

/// Settings for all of a namespace, with exceptions, for either host of a service.
fn cluster_local(variant: u8) -> Vec<(Arc<str>, bool)> {
    let settings: &[_] = match variant {
        3 => &[("*.shop.svc.cluster.local", true), ("b.shop.svc.cluster.local", false)],
        4 => &[("*.clusterset.local", true), ("a.shop.svc.clusterset.local", false)],
        _ => &[],
    };
    settings.iter().map(|(host, local)| ((*host).into(), *local)).collect()
}

fn service(cluster: usize, ns: usize, n: usize, variant: u8) -> Service {
    let mut service = Service {
        meta: meta(NAMESPACES[ns], NAMES[n], &[]),
        // Address ranges of clusters overlap: what is `b` in one may be `c` in the other.
        cluster_ips: vec![([10, 96, 0, (ns * 8 + (n + cluster) % NAMES.len()) as u8]).into()],
        ports: vec![port("http", 80, 8080)],
        selector: labels(&[("app", NAMES[n])]),
        ..Service::default()
    };
    match variant {
        1 => service.ports.push(port("tcp-x", 9000, 9000)),
        2 => {
            service.headless = true;
            service.cluster_ips.clear();
            service.ports = vec![port("tcp-x", 9000, 9000)];
        }
        3 => {
            service.kind = ServiceType::ExternalName("a.production.svc.cluster.local".into());
            service.cluster_ips.clear();
            service.selector.clear();
        }
        4 => {
            service.node_local = true;
            service.cluster_ips.clear();
            service.ports = vec![port("grpc-web", 80, 8080), port("mongo", 9000, 9000)];
        }
        5 => {
            service.meta.annotations = labels(&[("networking.istio.io/exportTo", ".")]);
            service.ports = vec![port("auto", 80, 8080), port("https-x", 8443, 8443)];
        }
        _ => {}
    }
    service
}

fn rule(ns: usize, n: usize, variant: u8) -> DestinationRule {
    let mut settings = PolicySettings::default();
    let locality = |lb: LocalityLb| {
        Some(LoadBalancer { algorithm: LbAlgorithm::RoundRobin, locality: Some(lb), warmup: None })
    };
    match variant {
        0 => {
            settings.connection_pool = Some(ConnectionPool { max_connections: Some(7), ..Default::default() })
        }
        1 => {
            settings.outlier_detection =
                Some(OutlierDetection { consecutive_5xx: Some(3), ..Default::default() })
        }
        2 => {
            settings.outlier_detection = Some(OutlierDetection::default());
            settings.load_balancer = locality(LocalityLb {
                failover_priority: vec!["topology.istio.io/network".into(), "app".into()],
                ..LocalityLb::default()
            });
        }
        3 => {
            settings.load_balancer = locality(LocalityLb {
                distribute: vec![Distribute {
                    from: "east/*".into(),
                    to: BTreeMap::from([("east/*".into(), 80), ("west/*".into(), 20)]),
                }],
                ..LocalityLb::default()
            });
        }
        _ => {}
    }
    let subset =
        Subset { name: "v1".into(), labels: labels(&[("app", "a")]), policy: TrafficPolicy::default() };
    let host = if variant == 4 {
        "*.shop.svc.cluster.local".to_owned()
    } else {
        format!("{}.{}.svc.cluster.local", NAMES[n], NAMESPACES[usize::from(variant == 5) ^ ns])
    };
    DestinationRule {
        meta: meta(NAMESPACES[ns], &format!("rule-{n}"), &[]),
        host: host.into(),
        export_to: if variant == 1 { vec![".".into()] } else { Vec::new() },
        workload_selector: None,
        policy: TrafficPolicy { settings, ports: BTreeMap::new() },
        subsets: if variant.is_multiple_of(2) { vec![subset] } else { Vec::new() },
    }
}

fn proxy(variant: u8) -> Proxy {
    let cluster = CLUSTERS[usize::from(variant % 2)];
    let router = variant >= 4;
    let namespace = if router { ROOT } else { NAMESPACES[usize::from(variant / 2)] };
    Proxy {
        id: format!("pod-0.{namespace}").into(),
        node_id: format!("x~10.0.0.1~pod-0.{namespace}~{namespace}.svc.cluster.local").into(),
        kind: if router { ProxyKind::Router } else { ProxyKind::Sidecar },
        ips: vec![([10, variant % 2, variant / 2, 0]).into()],
        namespace: namespace.into(),
        name: "pod-0".into(),
        service_account: None,
        cluster: cluster.into(),
        network: if variant == 3 { NetworkId::from("") } else { cluster.into() },
        labels: if router { labels(&[("istio", "eastwestgateway")]) } else { labels(&[("app", "a")]) },
        locality: Locality::new(cluster, "zone-0", ""),
        node: Some("node-0".into()),
        requested_networks: router.then(|| [NetworkId::from(cluster)].into()),
        interception: if variant == 1 { Interception::None } else { Interception::Redirect },
        extensions: Extensions::default(),
        secrets: SecretSource::Ads,
        virtual_hosts: if variant == 2 { VirtualHosts::Together } else { VirtualHosts::OneByOne },
        one_by_one_above: [None, Some(0), Some(1), Some(2), Some(1), None][usize::from(variant)],
        dns_domain: format!("{namespace}.svc.cluster.local").into(),
        istio_version: None,
        user_agent: None,
    }
}

// === the two worlds ===

pub(super) fn options() -> Options {
    Options {
        config_cluster: ClusterId::from("east"),
        failover_by_default: true,
        domain: "cluster.local".into(),
        mcs: Default::default(),
    }
}

pub(super) fn attach(state: &mut State, id: u64, variant: u8) {
    let (answer, _answered) = oneshot::channel();
    state.command(Command::Attach(StreamId(id), Arc::new(proxy(variant)), answer));
}

pub(super) fn snapshots(state: &State) -> HashMap<StreamId, Arc<Snapshot>> {
    state.classes.proxies().map(|(id, _, _, snapshot)| (id, snapshot)).collect()
}

fn play(history: Vec<Step>, mcs: Mcs) -> Result<(), TestCaseError> {
    let options = || Options { mcs, ..options() };
    let mut state = State::new(options());
    let mut objects: BTreeMap<ObjectKey, Object> = BTreeMap::new();
    let mut treatments: BTreeMap<ClusterId, Treatment> = BTreeMap::new();
    let mut dead_gateways = dead(0);
    let mut addresses = resolved(0);
    let mut attached: Vec<(u64, u8)> = Vec::new();
    let mut refused = Vec::new();
    for (now, step) in history.into_iter().enumerate() {
        match step {
            Step::Put(cluster, thing, variant) => {
                let (key, object) = (identify(cluster, thing), object(cluster, thing, variant));
                objects.insert(key.clone(), object.clone());
                state.apply(vec![Change::Upsert(key, object)], Instant::now());
            }
            Step::Remove(cluster, thing) => {
                let key = identify(cluster, thing);
                objects.remove(&key);
                state.apply(vec![Change::Remove(key)], Instant::now());
            }
            Step::Forget(cluster) => {
                let id = ClusterId::from(CLUSTERS[cluster]);
                objects.retain(|key, _| key.cluster != id);
                treatments.remove(&id);
                state.apply(vec![Change::Forget(id)], Instant::now());
            }
            Step::Treat(cluster, treatment) => {
                let id = ClusterId::from(CLUSTERS[cluster]);
                treatments.insert(id.clone(), treatment);
                state.treat(vec![(id, treatment)], Instant::now());
            }
            Step::DeadGateways(some) => {
                dead_gateways = dead(some);
                state.set_dead_gateways(dead_gateways.clone(), Instant::now());
            }
            Step::Resolve(variant) => {
                addresses = resolved(variant);
                state.set_gateway_addresses(addresses.clone(), Instant::now());
            }
            Step::Attach(variant) => {
                attach(&mut state, now as u64, variant);
                attached.push((now as u64, variant));
            }
            Step::Detach(n) if n < attached.len() => {
                let (id, _) = attached.remove(n);
                state.command(Command::Detach(StreamId(id)));
            }
            Step::Nack(n, kind, which) if n < attached.len() => {
                let id = StreamId(attached[n].0);
                let snapshot = snapshots(&state).remove(&id).expect("an attached stream has a snapshot");
                let resources = snapshot.get(kind);
                if let Some(bad) = resources.iter().nth(which % resources.len().max(1)) {
                    let nack =
                        Nack { kind, name: bad.name.clone(), version: bad.version, reason: "refused".into() };
                    refused.push((kind, bad.name.clone(), bad.version));
                    state.command(Command::Nack(id, nack));
                }
            }
            Step::Detach(_) | Step::Nack(..) => {}
        }
    }

    let mut fresh = State::new(options());
    fresh.apply(objects.into_iter().map(|(k, o)| Change::Upsert(k, o)).collect(), Instant::now());
    fresh.treat(treatments.into_iter().collect(), Instant::now());
    fresh.set_dead_gateways(dead_gateways, Instant::now());
    fresh.set_gateway_addresses(addresses, Instant::now());
    for (id, variant) in &attached {
        attach(&mut fresh, *id, *variant);
    }

    prop_assert_eq!(state.index.services().collect::<Vec<_>>(), fresh.index.services().collect::<Vec<_>>());
    for service in fresh.index.services() {
        prop_assert_eq!(state.index.endpoints(&service.key), fresh.index.endpoints(&service.key));
    }
    prop_assert_eq!(state.index.networks(), fresh.index.networks());
    prop_assert_eq!(state.index.discriminators(), fresh.index.discriminators());
    prop_assert_eq!(state.classes.len(), fresh.classes.len());

    let (published, rebuilt) = (snapshots(&state), snapshots(&fresh));
    for (id, expected) in &rebuilt {
        let actual = &published[id];
        for kind in ResourceType::ALL {
            let content = |s: &Snapshot| -> BTreeMap<_, _> {
                s.get(kind).iter().map(|e| (e.name.clone(), e.version)).collect()
            };
            let (mut actual, mut expected) = (content(actual), content(expected));
            // What was refused stays at other bytes, or away: never at the refused ones.
            for (_, name, version) in refused.iter().filter(|(k, _, _)| *k == kind) {
                prop_assert_ne!(actual.get(name), Some(version));
                if expected.get(name) == Some(version) {
                    actual.remove(name);
                    expected.remove(name);
                }
            }
            prop_assert_eq!(actual, expected, "{:?} of {:?}", kind, id);
        }
    }
    if refused.is_empty() {
        published.values().try_for_each(|snapshot| no_domain_occurs_twice(snapshot))?;
        published.values().try_for_each(|snapshot| no_collection_is_empty(snapshot))?;
    }
    prop_assert_eq!(state.totals.failed_builds, 0);
    Ok(())
}

/// A cluster would become warm without endpoints, or wait for ever; and no endpoint is without a place.
fn no_collection_is_empty(snapshot: &Snapshot) -> Result<(), TestCaseError> {
    let mut found = 0;
    for assignment in snapshot.endpoints.iter() {
        let spellings = [Some(assignment), assignment.respelt.as_ref()];
        let [first, second] = spellings.map(|spelling| spelling.map(|s| decode::<ClusterLoadAssignment>(s)));
        let groups = first.into_iter().flat_map(|assignment| assignment.endpoints);
        let again = second.map(|second| second.endpoints);
        for (i, group) in groups.enumerate() {
            let Some(LbConfig::LedsClusterLocalityConfig(config)) = &group.lb_config else {
                prop_assert!(again.is_none() && assignment.waits_for.is_none());
                continue;
            };
            let same =
                again.as_ref().and_then(|again| again.get(i)).and_then(|group| group.lb_config.clone());
            let Some(LbConfig::LedsClusterLocalityConfig(same)) = same else {
                return Err(TestCaseError::fail("two spellings"));
            };
            prop_assert_eq!(&same.leds_collection_name, &config.leds_collection_name);
            prop_assert_ne!(&same.leds_config, &config.leds_config);
            let prefix = config.leds_collection_name.trim_end_matches('*');
            prop_assert!(prefix.starts_with(&**assignment.waits_for.as_ref().expect("it waits")));
            let members = snapshot.lb_endpoints.with_prefix(prefix).count();
            prop_assert_ne!(members, 0, "{}", prefix);
            found += members;
        }
    }
    prop_assert_eq!(found, snapshot.lb_endpoints.len());
    Ok(())
}

/// Envoy would refuse the table.
fn no_domain_occurs_twice(snapshot: &Snapshot) -> Result<(), TestCaseError> {
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for table in snapshot.routes.iter() {
        let table: RouteConfiguration = decode(table);
        let domains = table.virtual_hosts.into_iter().flat_map(|host| host.domains);
        tables.entry(table.name).or_default().extend(domains);
    }
    for host in snapshot.virtual_hosts.iter() {
        let host: VirtualHost = decode(host);
        let (table, _) = host.name.split_once('/').expect("a table's name and a host's");
        prop_assert!(tables.contains_key(table), "{} is in no table", host.name);
        tables.entry(table.to_owned()).or_default().extend(host.domains);
    }
    for (table, domains) in tables {
        let lower: Vec<_> = domains.iter().map(|d| d.to_ascii_lowercase()).collect();
        let unique: std::collections::BTreeSet<_> = lower.iter().collect();
        prop_assert_eq!(unique.len(), domains.len(), "table {}: {:?}", table, domains);
    }
    Ok(())
}

fn decode<M: Message + Default>(encoded: &Encoded) -> M {
    let any = prost_types::Any::decode(encoded.any()).expect("our own bytes");
    M::decode(any.value.as_slice()).expect("our own bytes")
}

/// A service more: its cluster, its assignment and its virtual host, and nothing that is of others.
#[test]
fn a_new_service_is_built_alone() {
    let mut state = State::new(options());
    attach(&mut state, 1, 0);
    let put = |n: usize| {
        let mut service = service(0, 0, 0, 0);
        service.meta.name = format!("many-{n}").into();
        service.cluster_ips = vec![([10, 97, (n / 250) as u8, (n % 250) as u8]).into()];
        let key = key(0, Kind::Service, NAMESPACES[0], &service.meta.name);
        Change::Upsert(key, Object::Service(Arc::new(service)))
    };
    state.apply((0..300).map(put).collect(), Instant::now());
    let (before, built) = (snapshots(&state).remove(&StreamId(1)).expect("attached"), state.totals.resources);
    state.apply(vec![put(300)], Instant::now());
    let after = snapshots(&state).remove(&StreamId(1)).expect("attached");
    let changed = |kind| after.get(kind).diff(before.get(kind)).len();
    assert_eq!(
        ResourceType::ALL.map(changed),
        [1, 1, 0, 0, 0, 1],
        "clusters, assignments, endpoints, listeners, routes, hosts"
    );
    assert_eq!(state.totals.resources - built, 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 4_000, ..ProptestConfig::default() })]
    #[test]
    fn incremental_equals_rebuilt(history in steps(), mcs in mcs()) {
        play(history, mcs)?;
    }
}

#[test]
fn nothing_is_left_when_all_streams_are_gone() {
    let mut state = State::new(options());
    for variant in 0..6 {
        attach(&mut state, u64::from(variant), variant);
    }
    assert!(state.layers.iter().count() > 0);
    for id in 0..6 {
        state.command(Command::Detach(StreamId(id)));
    }
    assert_eq!((state.layers.iter().count(), state.classes.len()), (0, 0));
    assert!(state.totals.busy < Duration::from_secs(60).as_secs_f64());
}
