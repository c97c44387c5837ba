//! The load assignment of a cluster: chosen, reached, grouped. One decision with two outputs: bytes, and an explanation.

use std::sync::Arc;

use super::{
    choose::{Excluded, Query, choose},
    horizon::collapse,
    locality::{Arranged, Caller, Group, arrange},
    member::{Cohort, Exclusion, Exclusions, Member, Members, Origin, Target},
    pieces::take_apart,
    write::write,
};
use crate::{
    index::Index,
    model::{
        destination_rule::Subset,
        endpoint::Health,
        service::{Port, Service},
        staleness::Treatment,
    },
    resource::{
        Built,
        cds::{Discovery, discovery, ports_and_subsets},
        name,
        policy::{self, Policy},
    },
    view::EndpointView,
};

/// What a client gets for one port of a service, and what it does not get.
#[derive(Clone, Debug)]
pub struct Assignment<'a> {
    /// What members refer to.
    pub cohorts: Vec<Cohort<'a>>,
    /// By priority, then locality.
    pub groups: Vec<Group<'a>>,
    /// With the reason, by cluster and address.
    pub excluded: Vec<Exclusion<'a>>,
}

impl<'a> Assignment<'a> {
    /// What a member has in common with others.
    pub fn cohort(&self, member: &Member) -> &Cohort<'a> {
        &self.cohorts[member.cohort]
    }
}

/// The load assignments of a service: one for each of its EDS clusters, under the same name.
pub fn service(index: &Index, view: &EndpointView, service: &Service) -> Vec<Built> {
    let mut built = Vec::new();
    for (port, subset) in ports_and_subsets(index, &view.scope, service) {
        let (policy, rule) = policy::effective(index, &view.scope, service, port, subset);
        let subset_name = subset.map(|s| &*s.name).unwrap_or_default();
        let mut build = |name: Arc<str>, sni_dnat: bool| {
            let query = Query { index, view, service, port, subset, sni_dnat };
            let Arranged { cohorts, groups, .. } = decide(&query, &policy, &mut Exclusions::unwanted());
            let members: usize = groups.iter().map(|group| group.members.len()).sum();
            let (message, pieces) = if view.one_by_one_above.is_some_and(|limit| members > limit) {
                let (outline, pieces) = take_apart(&name, &cohorts, &groups, view.workloads);
                (outline, Some(Box::new(pieces)))
            } else {
                (write(&name, &cohorts, &groups, view.workloads), None)
            };
            let waits_for = pieces.as_ref().map(|pieces| pieces.prefix.clone());
            built.push(Built { message, name, waits_for, pieces, sources: policy::sources(service, rule) });
        };
        if discovery(view.kind, service, &policy) == Discovery::Eds {
            build(name::outbound(port.number, subset_name, &service.key.host).into(), false);
        }
        if view.sni_dnat {
            build(name::sni_dnat(port.number, subset_name, &service.key.host).into(), true);
        }
    }
    built
}

/// What clients of a view get for a port of a service, and why they do not get the rest. `sni_dnat`: as a gateway that
/// forwards by SNI.
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
    let mut excluded = Exclusions::wanted();
    let Arranged { cohorts, groups, left } = decide(&query, &policy, &mut excluded);
    for member in left {
        let cohort = &cohorts[member.cohort];
        let behind = match &cohort.origin {
            Origin::Endpoint { .. } => &[],
            Origin::Gateway { behind, .. } => behind.as_slice(),
        };
        for endpoint in member.endpoint.iter().chain(behind) {
            let locality = || cohort.locality.to_string().into();
            excluded.add(*endpoint, || Excluded::NotDistributed { locality: locality() });
        }
    }
    Assignment { cohorts, groups, excluded: excluded.sorted() }
}

fn decide<'a>(query: &Query<'a>, policy: &Policy, excluded: &mut Exclusions<'a>) -> Arranged<'a> {
    let candidates = choose(query, policy, excluded);
    match without_withdrawn(query, policy, &candidates, excluded) {
        Some(arranged) => arranged,
        None => reach(query, policy, candidates, excluded),
    }
}

/// What is left to the client when endpoints of clusters are withdrawn, if there are some and this leaves it a healthy one.
fn without_withdrawn<'a>(
    query: &Query<'a>,
    policy: &Policy,
    candidates: &Members<'a>,
    excluded: &mut Exclusions<'a>,
) -> Option<Arranged<'a>> {
    let Members { cohorts, list } = candidates;
    let is_withdrawn = |member: &Member| cohorts[member.cohort].treatment == Treatment::Withdraw;
    if !list.iter().any(is_withdrawn) {
        return None;
    }
    let (withdrawn, list): (Vec<Member>, _) = list.iter().cloned().partition(is_withdrawn);
    let mut reasons = excluded.beside();
    let arranged = reach(query, policy, Members { cohorts: cohorts.clone(), list }, &mut reasons);
    let mut left = arranged.groups.iter().flat_map(|group| &group.members);
    // A gateway has no health of its own; a dead one leaves the client nothing.
    let is_dead = |m: &Member| m.endpoint.is_none() && query.index.is_dead_gateway(&m.target.into());
    left.any(|member| member.health == Health::Healthy && !is_dead(member)).then(|| {
        excluded.extend(reasons);
        for endpoint in withdrawn.iter().filter_map(|member| member.endpoint) {
            excluded
                .add(endpoint, || Excluded::ClusterAway { cluster: endpoint.workload().cluster.0.clone() });
        }
        arranged
    })
}

fn reach<'a>(
    query: &Query<'a>,
    policy: &Policy,
    candidates: Members<'a>,
    excluded: &mut Exclusions<'a>,
) -> Arranged<'a> {
    let Query { index, view, .. } = *query;
    let gateways = |network: &_, cluster: &_| index.networks().gateways(network, cluster);
    let is_dead = |target: &Target| index.is_dead_gateway(&(*target).into());
    let steady_above = view.one_by_one_above.unwrap_or(usize::MAX);
    let members = collapse(candidates, &view.network, gateways, is_dead, steady_above, excluded);
    let caller = Caller { locality: &view.locality, labels: &view.labels };
    arrange(members, caller, policy.locality.as_ref(), policy.fails_over())
}
