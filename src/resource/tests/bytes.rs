//! The bytes of load assignments are those that prost gives for the message.

use landbridge_proto::envoy::config::{
    core::v3::{HealthStatus, Locality as EnvoyLocality, Metadata},
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints,
        lb_endpoint::HostIdentifier, locality_lb_endpoints::LbConfig,
    },
};
use proptest::prelude::*;
use prost::Message;

use super::mesh::*;
use crate::{
    model::{endpoint::Health, kubernetes::SliceEndpoint, locality::Locality},
    resource::{
        Built,
        eds::{self, Assignment, Member, Origin},
        name,
        proto::{ip_address, metadata, object, string},
    },
    view::EndpointView,
};

/// The message, written down plainly.
fn message(name: &str, assignment: &Assignment, workloads: bool) -> ClusterLoadAssignment {
    let group = |group: &eds::Group| LocalityLbEndpoints {
        locality: Some(envoy_locality(group.locality)),
        lb_endpoints: group.members.iter().map(|m| member(assignment, m, workloads)).collect(),
        load_balancing_weight: Some(group.weight),
        priority: group.priority,
        ..Default::default()
    };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: assignment.groups.iter().map(group).collect(),
        ..Default::default()
    }
}

fn member(assignment: &Assignment, member: &Member, workloads: bool) -> LbEndpoint {
    let (ip, port) = member.target;
    let cohort = assignment.cohort(member);
    let health = match (&cohort.origin, member.health) {
        (Origin::Gateway { .. }, _) => HealthStatus::Unknown,
        (_, Health::Healthy) => HealthStatus::Healthy,
        (_, Health::Unhealthy) => HealthStatus::Unhealthy,
        (_, Health::Draining | Health::Terminating) => HealthStatus::Draining,
    };
    let workload = match &cohort.origin {
        Origin::Endpoint { workload, .. } => {
            let name = workload.name.as_ref().map_or_else(|| ip.to_string(), |name| name.to_string());
            workload.telemetry_text(&name)
        }
        Origin::Gateway { gateway, .. } => format!(";;;;{}", gateway.cluster),
    };
    LbEndpoint {
        health_status: health.into(),
        load_balancing_weight: Some(member.weight),
        metadata: member_metadata(cohort.mtls, workloads.then_some(&*workload)),
        host_identifier: Some(HostIdentifier::Endpoint(EnvoyEndpoint {
            address: Some(ip_address(ip, port)),
            ..Default::default()
        })),
    }
}

fn member_metadata(mtls: bool, workload: Option<&str>) -> Option<Metadata> {
    let istio = workload.map(|text| ("istio", object([("workload", string(text))])));
    let tls = mtls.then(|| ("envoy.transport_socket_match", object([("tlsMode", string("istio"))])));
    (mtls || workload.is_some()).then(|| metadata(tls.into_iter().chain(istio)))
}

fn envoy_locality(locality: &Locality) -> EnvoyLocality {
    EnvoyLocality {
        region: locality.region.to_string(),
        zone: locality.zone.to_string(),
        sub_zone: locality.subzone.to_string(),
    }
}

/// An endpoint of `backend`: address, health, cluster, node and which kind of pod; a mesh is some of these.
fn endpoint() -> impl Strategy<Value = (SliceEndpoint<'static>, bool, u8)> {
    let address = prop_oneof![
        any::<[u8; 4]>().prop_map(std::net::IpAddr::from),
        any::<[u8; 16]>().prop_map(std::net::IpAddr::from),
        (0..12u8).prop_map(|n| std::net::IpAddr::from([10, 0, n, 255 - n])),
    ];
    let health = prop::sample::select(vec![
        Health::Healthy,
        Health::Healthy,
        Health::Unhealthy,
        Health::Draining,
        Health::Terminating,
    ]);
    let node = prop::option::of(prop::sample::select(vec!["e-a", "e-b", "w-a", "w-b"]));
    (address, health, node, any::<bool>(), 0..5u8).prop_map(|(address, health, node, west, pod)| {
        let endpoint = SliceEndpoint {
            health,
            node: node.map(Into::into),
            pod: (pod > 0).then(|| format!("bytes-{pod}").into()),
            ..SliceEndpoint::at(address)
        };
        (endpoint, west, pod)
    })
}

proptest! {
    #[test]
    fn are_those_of_the_message(
        endpoints in proptest::collection::vec(endpoint(), 0..200),
        two_slices in any::<bool>(),
        other_side in any::<bool>(),
        sticky in any::<bool>(),
        workloads in any::<bool>(),
    ) {
        let mut index = mesh(true);
        for cluster in ["east", "west"] {
            for pod in 1..4u8 {
                let name = format!("bytes-{pod}");
                let version = format!("v{}", pod % 2);
                let labels = [("version", version.as_str())];
                let workload = Workload { labels: &labels, mtls: pod != 2, ..super::mesh::pod(cluster, "backend", &name, "10.9.9.9", "e-a") };
                index.update(workload.changes(&[]));
            }
            if sticky {
                let mut service = mk_service(NS, "backend", Some("10.96.1.10"), &[("http", 80, 8080)]);
                service.meta.labels = mk_labels(&[("istio.io/persistent-session", "x")]);
                index.update([put(cluster, crate::model::Object::Service(std::sync::Arc::new(service)))]);
            }
            let of_cluster = endpoints.iter().filter(|(_, west, _)| *west == (cluster == "west"));
            let (first, second): (Vec<_>, Vec<_>) = of_cluster.partition(|(_, _, pod)| !two_slices || pod % 2 == 0);
            for (name, part) in [("first", first), ("second", second)] {
                let rows = part.into_iter().map(|(endpoint, ..)| endpoint.clone());
                index.update([mk_slice(cluster, "backend", name, rows)]);
            }
        }
        let view = if other_side {
            EndpointView { cluster: "west".into(), network: "net2".into(), workloads, ..endpoint_view() }
        } else {
            EndpointView { sni_dnat: true, workloads, ..endpoint_view() }
        };
        let service = index.service(&service_key("backend")).unwrap();
        let built = eds::service(&index, &view, service);
        let port = &service.ports[0];
        for (i, built) in built.iter().enumerate() {
            let named = [name::outbound, name::sni_dnat][i](port.number, "", &service.key.host);
            prop_assert_eq!(&*built.name, &*named);
            let assignment = eds::assign(&index, &view, service, port, None, i == 1);
            prop_assert_eq!(&built.message, &message(&named, &assignment, workloads).encode_to_vec());
        }
        prop_assert_eq!(built.len(), if other_side { 1 } else { 2 });

        let apart = EndpointView { one_by_one_above: Some(1), ..view.clone() };
        for (whole, apart) in built.iter().zip(eds::service(&index, &apart, service)) {
            put_together(whole, &apart)?;
        }
    }
}

/// Pieces are the endpoints of the whole, group by group, but for how groups are weighed.
fn put_together(whole: &Built, apart: &Built) -> Result<(), TestCaseError> {
    let decoded = |bytes: &[u8]| ClusterLoadAssignment::decode(bytes).expect("our own bytes");
    let whole = decoded(&whole.message);
    let members: usize = whole.endpoints.iter().map(|group| group.lb_endpoints.len()).sum();
    let Some(pieces) = &apart.pieces else {
        prop_assert!(members <= 1);
        prop_assert_eq!(decoded(&apart.message), whole);
        return Ok(());
    };
    prop_assert!(members > 1);
    let mut names = std::collections::BTreeSet::new();
    for message in [&apart.message, &pieces.respelt] {
        let mut outline = decoded(message);
        for (group, collection) in outline.endpoints.iter_mut().zip(&pieces.collections) {
            let Some(LbConfig::LedsClusterLocalityConfig(config)) = group.lb_config.take() else {
                return Err(TestCaseError::fail("a group without a collection"));
            };
            prop_assert_eq!(config.leds_collection_name, format!("{}*", collection.prefix));
            prop_assert!(collection.prefix.starts_with(&*pieces.prefix));
            collection.for_each(|name, message| {
                assert!(
                    name.starts_with(&collection.prefix) && !name[collection.prefix.len()..].contains('/')
                );
                names.insert(name.to_owned());
                group.lb_endpoints.push(LbEndpoint::decode(message).expect("our own bytes"));
            });
        }
        let without_weights = |mut assignment: ClusterLoadAssignment| {
            for group in &mut assignment.endpoints {
                group.load_balancing_weight = None;
                // Several gateways of a network weigh in another way; see `collapse`.
                group.lb_endpoints.iter_mut().for_each(|endpoint| endpoint.load_balancing_weight = None);
                group.lb_endpoints.sort_by_key(Message::encode_to_vec);
            }
            assignment
        };
        prop_assert_eq!(without_weights(outline), without_weights(whole.clone()));
    }
    prop_assert_eq!(names.len(), members);
    Ok(())
}
