//! What crosses the borders of clusters, and under which names: `exportTo`, cluster-local settings, exports and imports.

use super::*;
use crate::model::mcs::{CLUSTER_SET, Mcs, ServiceExport, ServiceImport};

/// Which namespaces see a service by what its annotation and the mesh say.
#[test]
fn export_to_decides_who_sees_a_service() {
    // The mesh's default (an object of the root namespace), the annotation, and who of three namespaces sees it.
    let cases: &[(&[&str], Option<&str>, [bool; 3])] = &[
        (&[], None, [true, true, true]),
        (&[], Some(""), [true, true, true]),
        (&[], Some("*"), [true, true, true]),
        (&[], Some("."), [true, false, false]),
        (&[], Some("~"), [false, false, false]),
        (&[], Some("shop"), [false, true, false]),
        (&[], Some(" ., shop "), [true, true, false]),
        (&[], Some("shop,*"), [true, true, true]),
        (&["."], None, [false, false, true]),
        (&["production"], None, [true, false, false]),
        (&["~"], None, [false, false, false]),
        (&["~"], Some("*"), [true, true, true]),
        (&["*"], Some("~"), [false, false, false]),
    ];
    for (default, annotation, expected) in cases {
        let mut index = index();
        let mesh = MeshConfig {
            default_service_export_to: ExportTo::parse(
                default.iter().copied(),
                &"istio-system".into(),
                &ExportTo::Public,
            ),
            ..MeshConfig::default()
        };
        let mut service = mk_service("backend", 0, [10, 2, 0, 1], vec![http(80)]);
        if let Some(text) = annotation {
            service.meta.annotations = mk_labels(&[("networking.istio.io/exportTo", text)]);
        }
        // The mesh's word counts for what is there already.
        index.update([put("east", Object::Service(Arc::new(service)))]);
        index.update([put("east", Object::MeshConfig(Arc::new(mesh)))]);
        let sees = ["production", "shop", "istio-system"]
            .map(|namespace| index.visible(&index.scope(&namespace.into())).len() == 1);
        assert_eq!(sees, *expected, "{default:?} {annotation:?}");
    }
}

/// Whether a service stays within each cluster, by the mesh's settings.
#[test]
fn cluster_local_settings_are_decided_by_the_most_specific_host() {
    type Settings = &'static [(&'static str, bool)];
    let cases: &[(Settings, &str, &str, bool)] = &[
        // Istio's defaults.
        (&[], "production", "backend", false),
        (&[], "kube-system", "dns", true),
        (&[], "default", "kubernetes", true),
        (&[], "default", "kubernetes-dashboard", false),
        (&[], "istio-system", "istiod", true),
        (&[], "istio-system", "eastwest", false),
        // They can be taken back, one by one or together.
        (&[("*.kube-system.svc.cluster.local", false)], "kube-system", "dns", false),
        (&[("dns.kube-system.svc.cluster.local", false)], "kube-system", "dns", false),
        (&[("dns.kube-system.svc.cluster.local", false)], "kube-system", "metrics", true),
        (&[("*", false)], "default", "kubernetes", false),
        // The longest pattern wins, wherever it stands.
        (&[("*.production.svc.cluster.local", true)], "production", "backend", true),
        (&[("*.production.svc.cluster.local", true)], "shop", "backend", false),
        (
            &[("*.cluster.local", true), ("backend.production.svc.cluster.local", false)],
            "production",
            "backend",
            false,
        ),
        (
            &[("backend.production.svc.cluster.local", false), ("*.cluster.local", true)],
            "production",
            "frontend",
            true,
        ),
        // A pattern is no suffix of a label.
        (&[("*.svc.cluster.local", true)], "production", "backend", true),
        (&[("*.uction.svc.cluster.local", true)], "production", "backend", false),
        // The other host is another host.
        (&[("*.clusterset.local", true)], "production", "backend", false),
    ];
    for (settings, namespace, name, expected) in cases {
        let mut index = index();
        let cluster_local = settings.iter().map(|(host, local)| ((*host).into(), *local)).collect();
        let mesh = MeshConfig { cluster_local, ..MeshConfig::default() };
        let mut service = mk_service(name, 0, [10, 2, 0, 1], vec![http(80)]);
        service.meta.namespace = (*namespace).into();
        index.update([put("east", Object::Service(Arc::new(service)))]);
        index.update([put("east", Object::MeshConfig(Arc::new(mesh)))]);
        let key = index.service_key(&((*namespace).into(), (*name).into()));
        let local = index.service(&key).expect("is there").cluster_local;
        assert_eq!(local, *expected, "{settings:?} {namespace}/{name}");
    }
}

/// What a cluster has of `production/backend`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Has {
    Service,
    Headless,
    Alias,
    Export,
    /// With an address that ends so; 0: a headless one.
    Import(u8),
}
use Has::{Alias, Export, Headless, Import, Service as Plain};

fn object(cluster: &str, has: Has) -> Change {
    let meta = mk_meta("production", "backend", 0);
    put(
        cluster,
        match has {
            Has::Export => Object::ServiceExport(Arc::new(ServiceExport { meta })),
            Has::Import(ip) => {
                let ips = (ip > 0).then(|| [10, 9, 0, ip].into()).into_iter().collect();
                Object::ServiceImport(Arc::new(ServiceImport { meta, ips }))
            }
            Has::Service | Has::Headless | Has::Alias => {
                let mut service = mk_service("backend", 0, [10, 2, 0, 1], vec![http(80)]);
                service.headless = has == Headless;
                if has == Alias {
                    service.kind = ServiceType::ExternalName("x.example".into());
                }
                if has != Plain {
                    service.cluster_ips.clear();
                }
                Object::Service(Arc::new(service))
            }
        },
    )
}

fn in_set() -> ServiceKey {
    let host = format!("backend.production.svc.{CLUSTER_SET}").into();
    ServiceKey { host, namespace: "production".into() }
}

/// `east west` for services that only these offer to others; `all`.
fn exported_by(service: &Service) -> String {
    let names = |by: &std::collections::BTreeSet<ClusterId>| {
        by.iter().map(ClusterId::as_str).collect::<Vec<_>>().join(" ")
    };
    service.exported_by.as_ref().map_or_else(|| "all".to_owned(), names)
}

/// The hosts of a service, who exports each, and the addresses of the one in the set.
#[test]
fn exports_and_imports_make_hosts_and_decide_who_has_whose_endpoints() {
    type Case = (Mcs, &'static [Has], &'static [Has], Option<&'static str>, Option<&'static str>);
    let cases: &[Case] = &[
        // Off, they mean nothing.
        (Mcs::Off, &[Plain, Export, Import(1)], &[Plain], Some("all"), None),
        // Only what is exported crosses, under the one name that there is.
        (Mcs::Exports, &[Plain], &[Plain], Some(""), None),
        (Mcs::Exports, &[Plain, Export], &[Plain], Some("east"), None),
        (Mcs::Exports, &[Plain, Export], &[Plain, Export, Import(2)], Some("east west"), None),
        // An export of what is not there.
        (Mcs::Exports, &[Export], &[Plain], Some(""), None),
        // Under both names, where somebody imports it.
        (Mcs::Hosts, &[Plain], &[Plain], Some(""), None),
        (Mcs::Hosts, &[Plain, Import(1)], &[Plain], Some(""), Some(" east=10.9.0.1")),
        (Mcs::Hosts, &[Plain, Import(1)], &[Import(2)], Some(""), Some(" east=10.9.0.1 west=10.9.0.2")),
        (Mcs::Hosts, &[Plain, Export], &[Plain, Import(2)], Some("east"), Some("east west=10.9.0.2")),
        // Who imports need not have the service.
        (Mcs::Hosts, &[Plain, Export], &[Import(2)], Some("east"), Some("east west=10.9.0.2")),
        (Mcs::Hosts, &[Import(1)], &[Import(2)], None, None),
        // A headless service has no address in the set, and an alias is nobody's to export.
        (Mcs::Hosts, &[Plain, Import(0)], &[], Some(""), None),
        (Mcs::Hosts, &[Headless, Import(1)], &[], Some(""), None),
        (Mcs::Hosts, &[Alias, Import(1)], &[], Some(""), None),
        // The cluster's own name stays at home.
        (Mcs::ClusterLocal, &[Plain, Export], &[Plain, Import(2)], Some(""), Some("east west=10.9.0.2")),
        (
            Mcs::ClusterLocal,
            &[Plain, Export, Import(1)],
            &[Plain, Export],
            Some(""),
            Some("east west east=10.9.0.1"),
        ),
    ];
    for case @ (mcs, east, west, own, set) in cases {
        let options = Options { mcs: *mcs, ..index().options().clone() };
        let changes = || {
            let east = east.iter().map(|has| object("east", *has));
            east.chain(west.iter().map(|has| object("west", *has))).collect::<Vec<_>>()
        };
        // In either order, and at once.
        let histories = [
            changes().into_iter().map(|change| vec![change]).collect(),
            changes().into_iter().rev().map(|change| vec![change]).collect(),
            vec![changes()],
        ];
        for history in histories {
            let mut index = Index::new(options.clone());
            history.into_iter().for_each(|changes| drop(index.update(changes)));
            let own_key = index.service_key(&("production".into(), "backend".into()));
            let said = index.service(&own_key).map(|service| exported_by(service));
            assert_eq!(said.as_deref(), *own, "{case:?}");
            let said = index.service(&in_set()).map(|service| {
                let vip = |(id, ips): (&ClusterId, &Vec<std::net::IpAddr>)| format!(" {id}={}", ips[0]);
                exported_by(service) + &service.vips.iter().map(vip).collect::<String>()
            });
            assert_eq!(said.as_deref(), *set, "{case:?}");
            // And nothing is left of it.
            index.update([Change::Forget("east".into()), Change::Forget("west".into())]);
            assert_eq!((index.services().count(), index.ports().count()), (0, 0), "{case:?}");
        }
    }
}

/// Endpoints are kept once, and what changes in them concerns both hosts.
#[test]
fn both_hosts_have_the_same_endpoints() {
    let mut index = Index::new(Options { mcs: Mcs::Hosts, ..index().options().clone() });
    index.update([object("east", Plain), object("west", Import(2))]);
    let slice =
        |ready| put("east", Object::EndpointSlice(Arc::new(mk_slice("s", None, ready, false, false))));
    index.update([slice(true)]);
    let own = index.service_key(&("production".into(), "backend".into()));
    assert_eq!((index.endpoints(&own), index.all_endpoints().count()), (index.endpoints(&in_set()), 1));
    assert!(!index.endpoints(&own).is_empty());
    let delta = index.update([slice(false)]);
    assert_eq!(Vec::from_iter(delta.endpoints), [own.clone(), in_set()]);
    let treated = index.treat([("east".into(), Treatment::Deprioritise)]);
    assert_eq!(Vec::from_iter(treated.endpoints), [own, in_set()]);
    // An export changes who gets them.
    let delta = index.update([object("east", Export)]);
    assert!(delta.services.contains(&in_set()), "{delta:?}");
    assert_eq!(exported_by(index.service(&in_set()).expect("is there")), "east");
    index.update([Change::Remove(mk_key("west", Kind::ServiceImport, "production", "backend"))]);
    assert!(index.service(&in_set()).is_none() && index.endpoints(&in_set()).is_empty());
}
