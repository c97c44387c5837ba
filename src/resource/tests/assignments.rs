//! Load assignments: who gets what, in which order, and why not.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    json::{ASSIGNMENT, named},
    mesh::*,
};
use crate::{
    index::{Index, Options},
    model::{
        Change, Kind,
        destination_rule::{
            ClientTls, ClientTlsMode, Distribute, LocalityLb, OutlierDetection, PolicySettings,
        },
        mcs::{CLUSTER_SET, Mcs},
        mesh::MeshConfig,
        peer_authentication::MtlsMode,
        service::ServiceKey,
        staleness::Treatment,
    },
    resource::eds::{self, Excluded, Origin},
    view::EndpointView,
};

/// One line per member: priority, locality with its weight, address, weight, health.
fn members(index: &Index, view: &EndpointView, service: &str, port: u16) -> Vec<String> {
    let service = index.service(&service_key(service)).unwrap();
    let assignment = eds::assign(index, view, service, service.port(port).unwrap(), None, false);
    let mut lines = Vec::new();
    for group in &assignment.groups {
        for m in &group.members {
            let behind = match &assignment.cohort(m).origin {
                Origin::Endpoint { .. } => format!("{:?}", m.health),
                Origin::Gateway { behind, .. } => format!("{} behind", behind.len()),
            };
            lines.push(format!(
                "{} {}*{} {}:{}*{} {behind}",
                group.priority, group.locality, group.weight, m.target.0, m.target.1, m.weight
            ));
        }
    }
    lines
}

fn excluded(
    index: &Index,
    view: &EndpointView,
    key: &crate::model::service::ServiceKey,
    sni_dnat: bool,
) -> Vec<(String, Excluded)> {
    let service = index.service(key).unwrap();
    let assignment = eds::assign(index, view, service, &service.ports[0], None, sni_dnat);
    assignment.excluded.into_iter().map(|(e, why)| (e.address().to_string(), why)).collect()
}

fn text(s: &str) -> Arc<str> {
    s.into()
}

#[test]
fn near_first_and_the_other_cluster_once() {
    let index = mesh(true);
    assert_eq!(
        members(&index, &endpoint_view(), "backend", 80),
        [
            "0 us-east-1/us-east-1a*2 10.1.0.10:8080*1 Healthy",
            "0 us-east-1/us-east-1a*2 10.1.0.12:8080*1 Unhealthy",
            "1 us-east-1/us-east-1b*1 10.1.0.11:8080*1 Healthy",
            "2 us-central1/us-central1-a*3 172.30.0.2:15443*3 3 behind",
        ]
    );
}

#[test]
fn istios_defaults_order_nothing_without_outlier_detection() {
    let index = mesh(false);
    let priorities: Vec<_> =
        members(&index, &endpoint_view(), "backend", 80).iter().map(|l| l[..1].to_owned()).collect();
    assert_eq!(priorities, ["0"; 4]);
}

#[test]
fn seen_from_the_other_side() {
    let index = mesh(true);
    let west = EndpointView {
        cluster: "west".into(),
        network: "net2".into(),
        locality: "us-central1/us-central1-b".parse().unwrap(),
        ..endpoint_view()
    };
    // The unready one behind the gateway does not count.
    assert_eq!(
        members(&index, &west, "backend", 80),
        [
            "0 us-central1/us-central1-b*1 10.2.0.12:8080*1 Healthy",
            "1 us-central1/us-central1-a*2 10.2.0.10:8080*1 Healthy",
            "1 us-central1/us-central1-a*2 10.2.0.11:8080*1 Healthy",
            "2 us-east-1/us-east-1a*2 172.30.0.1:15443*2 2 behind",
        ]
    );
    let why = excluded(&index, &west, &service_key("backend"), false);
    assert_eq!(why, [("10.1.0.12".to_owned(), Excluded::NotReady)]);
}

#[test]
fn the_walkthroughs_rule_applies_failover_and_failover_priority_together() {
    let mut index = mesh(true);
    let locality = LocalityLb {
        failover: vec![(text("us-east-1"), text("us-central1")), (text("us-central1"), text("us-east-1"))],
        failover_priority: vec![text("topology.kubernetes.io/region"), text("topology.kubernetes.io/zone")],
        ..LocalityLb::default()
    };
    index.update([mk_rule("backend", with_locality(locality))]);
    assert_eq!(
        members(&index, &endpoint_view(), "backend", 80),
        [
            "0 us-east-1/us-east-1a*2 10.1.0.10:8080*1 Healthy",
            "0 us-east-1/us-east-1a*2 10.1.0.12:8080*1 Unhealthy",
            "1 us-east-1/us-east-1b*1 10.1.0.11:8080*1 Healthy",
            "2 us-central1/us-central1-a*3 172.30.0.2:15443*3 3 behind",
        ]
    );
}

#[test]
fn failover_priority_by_network_goes_on_comparing() {
    let mut index = mesh(true);
    let priority =
        ["topology.istio.io/network", "topology.kubernetes.io/region", "topology.kubernetes.io/zone"];
    let locality = LocalityLb { failover_priority: priority.map(text).to_vec(), ..LocalityLb::default() };
    index.update([mk_rule("backend", with_locality(locality))]);
    let lines = members(&index, &endpoint_view(), "backend", 80);
    let order: Vec<_> = lines.iter().map(|l| l.split(' ').next().unwrap()).collect();
    assert_eq!(order, ["0", "0", "1", "2"], "{lines:?}");
}

#[test]
fn distribute_gives_localities_their_shares_and_says_who_gets_nothing() {
    let mut index = mesh(true);
    let to = BTreeMap::from([(text("us-east-1/us-east-1a"), 80), (text("us-central1/*"), 20)]);
    let locality = LocalityLb {
        distribute: vec![Distribute { from: text("us-east-1/*"), to }],
        ..LocalityLb::default()
    };
    index.update([mk_rule("backend", with_locality(locality))]);
    assert_eq!(
        members(&index, &endpoint_view(), "backend", 80),
        [
            "0 us-central1/us-central1-a*20 172.30.0.2:15443*3 3 behind",
            "0 us-east-1/us-east-1a*80 10.1.0.10:8080*1 Healthy",
            "0 us-east-1/us-east-1a*80 10.1.0.12:8080*1 Unhealthy",
        ]
    );
    let why = excluded(&index, &endpoint_view(), &service_key("backend"), false);
    let locality = text("us-east-1/us-east-1b");
    assert_eq!(why, [("10.1.0.11".to_owned(), Excluded::NotDistributed { locality })]);
}

#[test]
fn every_exclusion_has_its_reason() {
    let mut index = mesh(true);
    let backend = service_key("backend");
    let old = crate::model::service::ServiceKey {
        host: "old.legacy.svc.cluster.local".into(),
        namespace: "legacy".into(),
    };
    let net2 = || text("net2");
    assert_eq!(
        excluded(&index, &endpoint_view(), &old, false),
        [("10.2.0.22".to_owned(), Excluded::NoMtls { network: net2() })]
    );
    // As an east-west gateway: what it cannot forward.
    assert_eq!(
        excluded(&index, &endpoint_view(), &old, true),
        [
            ("10.1.0.22".to_owned(), Excluded::NotForwardable),
            ("10.2.0.22".to_owned(), Excluded::NoTransit { network: net2() })
        ]
    );
    let view = EndpointView { requested_networks: Some([network("net1")].into()), ..endpoint_view() };
    let not_asked = Excluded::NotInNetworkView { network: net2() };
    assert_eq!(
        excluded(&index, &view, &backend, true),
        ["10.2.0.10", "10.2.0.11", "10.2.0.12"].map(|ip| (ip.to_owned(), not_asked.clone()))
    );

    // The west's gateway loses its address: no pod of the west may be sent.
    let mut gateway = mk_service("istio-system", "eastwest", Some("10.96.9.9"), &[("tls", 15443, 15443)]);
    gateway.meta.labels = mk_labels(&[("topology.istio.io/network", "net2")]);
    index.update([put("west", crate::model::Object::Service(Arc::new(gateway.clone())))]);
    let none = Excluded::NoGateway { network: net2() };
    assert_eq!(
        excluded(&index, &endpoint_view(), &backend, false),
        ["10.2.0.10", "10.2.0.11", "10.2.0.12"].map(|ip| (ip.to_owned(), none.clone()))
    );
    gateway.external_addresses = vec!["gw.west.example.com".into()];
    index.update([put("west", crate::model::Object::Service(Arc::new(gateway)))]);
    let why = excluded(&index, &endpoint_view(), &backend, false);
    assert!(
        why.iter().all(|(_, w)| matches!(w, Excluded::GatewayNotResolved { .. })) && why.len() == 3,
        "{why:?}"
    );
    let json = serde_json::to_value(&why[0].1).unwrap();
    assert_eq!(json["reason"], "gateway-not-resolved");
    assert!(why[0].1.to_string().contains("gw.west.example.com"));
}

#[test]
fn plaintext_by_policy_cannot_cross_networks() {
    let mut index = mesh(true);
    index.update([mk_peer("backend", &[("app", "backend")], MtlsMode::Disable)]);
    let why = excluded(&index, &endpoint_view(), &service_key("backend"), false);
    assert_eq!(why.len(), 3, "{why:?}");
    assert!(why.iter().all(|(_, w)| matches!(w, Excluded::NoMtls { .. })));

    // A rule that turns TLS off does the same without any policy.
    let mut index = mesh(true);
    let tls = ClientTls {
        mode: ClientTlsMode::Disable,
        sni: None,
        subject_alt_names: Vec::new(),
        insecure_skip_verify: false,
        files: None,
    };
    index.update([mk_rule("backend", PolicySettings { tls: Some(tls), ..Default::default() })]);
    let why = excluded(&index, &endpoint_view(), &service_key("backend"), false);
    assert!(why.len() == 3 && why.iter().all(|(_, w)| matches!(w, Excluded::NoMtls { .. })), "{why:?}");
    set_mesh(&mut index, MeshConfig { auto_mtls: false, ..MeshConfig::default() });
    assert_eq!(excluded(&index, &endpoint_view(), &service_key("backend"), false).len(), 3);
}

#[test]
fn unready_endpoints_are_kept_back_when_panic_would_use_them() {
    let mut index = mesh(true);
    let od = OutlierDetection { min_health_percent: Some(50), ..Default::default() };
    index.update([mk_rule("backend", PolicySettings { outlier_detection: Some(od), ..Default::default() })]);
    let why = excluded(&index, &endpoint_view(), &service_key("backend"), false);
    assert_eq!(why, [("10.1.0.12".to_owned(), Excluded::NotReady)]);
}

#[test]
fn a_remote_cluster_with_nothing_ready_is_not_there() {
    let mut index = mesh(true);
    for name in ["backend-0", "backend-1", "backend-2"] {
        index.update([removed("west", Kind::EndpointSlice, name)]);
    }
    let lines = members(&index, &endpoint_view(), "backend", 80);
    assert!(lines.iter().all(|l| !l.contains("172.30")), "{lines:?}");
}

#[test]
fn assignments_have_the_names_of_their_clusters() {
    let index = mesh(true);
    let view = EndpointView { sni_dnat: true, ..endpoint_view() };
    let mixed = index.service(&service_key("mixed")).unwrap();
    let built = eds::service(&index, &view, mixed);
    assert_eq!(built.len(), 5 * 2 * 2);
    let one = named(ASSIGNMENT, &built, "outbound_.80_.east_.mixed.production.svc.cluster.local");
    let endpoint = &one["endpoints"][0]["lb_endpoints"][0];
    assert_eq!(endpoint["endpoint"]["address"]["socket_address"]["address"], "10.1.0.16");
    assert_eq!(endpoint["metadata"]["filter_metadata"]["istio"]["workload"], "mixed;production;mixed;;east");
    // A headless service's callers choose the address themselves.
    let stateful = index.service(&service_key("stateful")).unwrap();
    assert!(eds::service(&index, &endpoint_view(), stateful).is_empty());
}

/// What staleness does, in the mesh's words.
#[test]
fn a_cluster_that_is_away_comes_last_or_goes_where_others_are_healthy() {
    let gateway = "us-central1/us-central1-a*3 172.30.0.2:15443*3 3 behind";
    // Also where nothing is ordered by locality.
    let mut index = mesh(false);
    index.treat([("west".into(), Treatment::Deprioritise)]);
    let lines = members(&index, &endpoint_view(), "backend", 80);
    assert_eq!((lines.len(), lines.last()), (4, Some(&format!("1 {gateway}"))));
    assert!(lines[..3].iter().all(|line| line.starts_with("0 us-east-1/")), "{lines:?}");
    // Its own clients are near, and prove that it lives.
    let west = EndpointView { cluster: "west".into(), network: "net2".into(), ..endpoint_view() };
    let own = members(&index, &west, "backend", 80);
    assert!(own.iter().all(|line| line.starts_with("0 ")), "{own:?}");

    index.treat([("west".into(), Treatment::Withdraw)]);
    assert_eq!(members(&index, &endpoint_view(), "backend", 80), lines[..3]);
    let why = excluded(&index, &endpoint_view(), &service_key("backend"), false);
    let away = |why: &Excluded| matches!(why, Excluded::ClusterAway { cluster } if **cluster == *"west");
    assert_eq!(why.iter().filter(|(_, why)| away(why)).count(), 3, "{why:?}");

    // When nothing else is left, they are what there is.
    index.update([Change::Forget("east".into())]);
    assert_eq!(members(&index, &endpoint_view(), "backend", 80), [format!("0 {gateway}")]);
}

/// Of a cluster that does not export a service, others get nothing under a name that crosses; its own clients get all.
#[test]
fn only_what_is_exported_crosses() {
    let mut index = Index::new(Options { mcs: Mcs::ClusterLocal, ..empty(true).options().clone() });
    index.update(ground().into_iter().chain(backend()));
    let in_set = ServiceKey { host: format!("backend.{NS}.svc.{CLUSTER_SET}").into(), namespace: NS.into() };
    index.update([import("east", "10.96.200.1"), export("west")]);
    let east = endpoint_view();
    let west = EndpointView { cluster: "west".into(), network: "net2".into(), ..endpoint_view() };
    let not_exported = |view: &EndpointView, key: &ServiceKey| {
        let excluded = excluded(&index, view, key, false).into_iter();
        let not = excluded.filter(|(_, why)| matches!(why, Excluded::NotExported { .. }));
        not.map(|(address, _)| address).collect::<Vec<_>>()
    };
    let (of_east, of_west) =
        (["10.1.0.10", "10.1.0.11", "10.1.0.12"], ["10.2.0.10", "10.2.0.11", "10.2.0.12"]);
    assert_eq!(not_exported(&east, &in_set), [""; 0], "west exports it");
    assert_eq!(not_exported(&west, &in_set), of_east);
    // The clusters' own names stay at home.
    assert_eq!(not_exported(&east, &service_key("backend")), of_west);
    assert_eq!(not_exported(&west, &service_key("backend")), of_east);
}
