//! Random histories of a small mesh, and the objects and proxies in them.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use crate::{
    model::{
        Kind, Labels, NetworkId, Object, ObjectKey,
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
    snapshot::ResourceType,
};

pub const CLUSTERS: [&str; 2] = ["east", "west"];
pub const NAMESPACES: [&str; 2] = ["production", "shop"];
pub const NAMES: [&str; 3] = ["a", "b", "c"];
pub const ROOT: &str = "istio-system";

/// One step of a history. The small numbers choose among a few variants of each thing.
#[derive(Clone, Debug)]
pub enum Step {
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
pub enum Thing {
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

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
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
pub fn mcs() -> impl Strategy<Value = Mcs> {
    prop_oneof![
        2 => Just(Mcs::Off),
        1 => Just(Mcs::Exports),
        1 => Just(Mcs::Hosts),
        1 => Just(Mcs::ClusterLocal),
    ]
}

// === objects ===

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

pub fn meta(namespace: &str, name: &str, pairs: &[(&str, &str)]) -> Meta {
    Meta { namespace: namespace.into(), name: name.into(), labels: labels(pairs), ..Meta::default() }
}

pub fn key(cluster: usize, kind: Kind, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { cluster: CLUSTERS[cluster].into(), kind, namespace: namespace.into(), name: name.into() }
}

pub fn port(name: &str, number: u16, target: u16) -> ServicePort {
    ServicePort {
        name: name.into(),
        number,
        transport: Transport::Tcp,
        app_protocol: None,
        target: TargetPort::Number(target),
        node_port: 0,
    }
}

pub fn identify(cluster: usize, thing: Thing) -> ObjectKey {
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

pub fn object(cluster: usize, thing: Thing, variant: u8) -> Object {
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
            access_log_format: (variant == 4).then(|| "%UPSTREAM_METADATA(istio:workload)%".into()),
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
pub fn cluster_local(variant: u8) -> Vec<(Arc<str>, bool)> {
    let settings: &[_] = match variant {
        3 => &[("*.shop.svc.cluster.local", true), ("b.shop.svc.cluster.local", false)],
        4 => &[("*.clusterset.local", true), ("a.shop.svc.clusterset.local", false)],
        _ => &[],
    };
    settings.iter().map(|(host, local)| ((*host).into(), *local)).collect()
}

pub fn service(cluster: usize, ns: usize, n: usize, variant: u8) -> Service {
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

pub fn rule(ns: usize, n: usize, variant: u8) -> DestinationRule {
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

pub fn proxy(variant: u8) -> Proxy {
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
        extensions: Extensions { stats: variant == 1, ..Extensions::default() },
        secrets: SecretSource::Ads,
        virtual_hosts: if variant == 2 { VirtualHosts::Together } else { VirtualHosts::OneByOne },
        one_by_one_above: [None, Some(0), Some(1), Some(2), Some(1), None][usize::from(variant)],
        dns_domain: format!("{namespace}.svc.cluster.local").into(),
        istio_version: None,
        user_agent: None,
    }
}
