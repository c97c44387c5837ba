//! The load assignment of a cluster: chosen, reached, grouped, encoded.

use landbridge_proto::envoy::config::{
    core::v3::{HealthStatus, Locality as EnvoyLocality, Metadata},
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints,
        lb_endpoint::HostIdentifier,
    },
};

use super::{
    choose::{Excluded, Exclusion, Query, choose},
    horizon::{Member, Origin, collapse},
    locality::{Caller, Group, arrange},
};
use crate::{
    index::Index,
    model::{
        destination_rule::Subset,
        endpoint::{Endpoint, Health},
        locality::Locality,
        service::{Port, Service},
    },
    resource::{
        Built,
        cds::{Discovery, discovery, ports_and_subsets},
        name, policy,
        proto::{ip_address, metadata, object, string},
    },
    view::EndpointView,
};

/// What a client gets for one port of a service, and what it does not get.
#[derive(Clone, Debug)]
pub struct Assignment<'a> {
    /// By priority, then locality.
    pub groups: Vec<Group<'a>>,
    /// With the reason, by cluster and address.
    pub excluded: Vec<Exclusion<'a>>,
}

/// The load assignments of a service: one for each of its EDS clusters, under the same name.
pub fn service(index: &Index, view: &EndpointView, service: &Service) -> Vec<Built> {
    let mut built = Vec::new();
    for (port, subset) in ports_and_subsets(index, &view.scope, service) {
        let (policy, rule) = policy::effective(index, &view.scope, service, port, subset);
        let subset_name = subset.map(|s| &*s.name).unwrap_or_default();
        let sources = || policy::sources(service, rule);
        if discovery(view.kind, service, &policy) == Discovery::Eds {
            let name = name::outbound(port.number, subset_name, &service.key.host);
            let assignment = assign(index, view, service, port, subset, false);
            built.push(Built::new(name.clone(), &encode(&name, &assignment.groups), sources()));
        }
        if view.sni_dnat {
            let name = name::sni_dnat(port.number, subset_name, &service.key.host);
            let assignment = assign(index, view, service, port, subset, true);
            built.push(Built::new(name.clone(), &encode(&name, &assignment.groups), sources()));
        }
    }
    built
}

/// What clients of a view get for a port of a service. `sni_dnat`: as a gateway that forwards by SNI.
pub fn assign<'a>(
    index: &'a Index,
    view: &'a EndpointView,
    service: &'a Service,
    port: &'a Port,
    subset: Option<&'a Subset>,
    sni_dnat: bool,
) -> Assignment<'a> {
    let (policy, _) = policy::effective(index, &view.scope, service, port, subset);
    let query = Query { index, view, service, port, subset, sni_dnat };
    let (candidates, mut excluded) = choose(&query, &policy);
    let (members, unreachable) =
        collapse(candidates, &view.network, |network, cluster| index.networks().gateways(network, cluster));
    excluded.extend(unreachable);
    let caller = Caller { locality: &view.locality, labels: &view.labels };
    let (groups, left) = arrange(members, caller, policy.locality.as_ref(), policy.fails_over());
    for member in left {
        let reason = Excluded::NotDistributed { locality: member.locality.to_string().into() };
        match member.origin {
            Origin::Endpoint(endpoint) => excluded.push((endpoint, reason)),
            Origin::Gateway { behind, .. } => {
                excluded.extend(behind.into_iter().map(|endpoint| (endpoint, reason.clone())));
            }
        }
    }
    excluded.sort_by(|a, b| place(a.0).cmp(&place(b.0)).then_with(|| a.1.cmp(&b.1)));
    // Behind several gateways an endpoint was met several times.
    excluded.dedup_by(|a, b| std::ptr::eq(a.0, b.0) && a.1 == b.1);
    Assignment { groups, excluded }
}

fn place(e: &Endpoint) -> impl Ord + use<'_> {
    (&e.workload.cluster, e.address, e.port)
}

fn encode(name: &str, groups: &[Group]) -> ClusterLoadAssignment {
    let encode_group = |group: &Group| LocalityLbEndpoints {
        locality: Some(envoy_locality(&group.locality)),
        lb_endpoints: group.members.iter().map(encode_member).collect(),
        load_balancing_weight: Some(group.weight),
        priority: group.priority,
        ..Default::default()
    };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: groups.iter().map(encode_group).collect(),
        ..Default::default()
    }
}

fn encode_member(member: &Member) -> LbEndpoint {
    let (ip, port) = member.target;
    let health = match (&member.origin, member.health) {
        (Origin::Gateway { .. }, _) => HealthStatus::Unknown,
        (_, Health::Healthy) => HealthStatus::Healthy,
        (_, Health::Unhealthy) => HealthStatus::Unhealthy,
        (_, Health::Draining | Health::Terminating) => HealthStatus::Draining,
    };
    let endpoint = EnvoyEndpoint { address: Some(ip_address(ip, port)), ..Default::default() };
    LbEndpoint {
        health_status: health.into(),
        load_balancing_weight: Some(member.weight),
        metadata: Some(member_metadata(member)),
        host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
    }
}

/// `tlsMode` chooses the transport socket of the cluster; `workload` is for Istio's telemetry.
fn member_metadata(member: &Member) -> Metadata {
    let workload = match &member.origin {
        Origin::Endpoint(endpoint) => workload_text(endpoint),
        Origin::Gateway { gateway, .. } => format!(";;;;{}", gateway.cluster),
    };
    let istio = ("istio", object([("workload", string(&workload))]));
    let tls = ("envoy.transport_socket_match", object([("tlsMode", string("istio"))]));
    if member.mtls { metadata([tls, istio]) } else { metadata([istio]) }
}

/// Istio's `workload;namespace;canonical name;canonical revision;cluster`, where revision `latest` is left out.
fn workload_text(endpoint: &Endpoint) -> String {
    let workload = &endpoint.workload;
    let label = |names: [&str; 3]| names.into_iter().find_map(|n| workload.labels.get(n)).map(|v| &**v);
    let name = label(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision = label(["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    format!(
        "{};{};{};{};{}",
        workload.workload,
        workload.namespace,
        name.unwrap_or(&workload.workload),
        revision.filter(|r| *r != "latest").unwrap_or_default(),
        workload.cluster,
    )
}

fn envoy_locality(locality: &Locality) -> EnvoyLocality {
    EnvoyLocality {
        region: locality.region.to_string(),
        zone: locality.zone.to_string(),
        sub_zone: locality.subzone.to_string(),
    }
}
