//! Split horizon: endpoints of other networks are reached through those networks' gateways.
//!
//! All endpoints behind a gateway become one member *before* anything is grouped by locality: Envoy keeps only the first
//! copy of an address that appears in several localities, and with it only that locality's weight (`users.md` P17). So:
//! - a gateway is in one locality, that of most of the ready weight behind it (ties go to the first by name). Its
//!   priority follows from that locality. Taking the best locality instead would draw the whole gateway near for the
//!   sake of a single near endpoint, and send most of that traffic far away; the failover is the same either way, as
//!   the gateway stays in the list;
//! - its weight is the ready weight behind it. Several gateways of a network share that weight exactly: all weights of the
//!   assignment are multiplied by the smallest number that makes every share whole;
//! - a gateway with nothing ready behind it is left out, as Envoy accepts no weight 0;
//! - a gateway that is dead stays in the list, after all others; who is alive shares the weight as if it were not there;
//! - nobody ever gets a pod address of a network that is not its own.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
    sync::LazyLock,
};

use super::{
    choose::Excluded,
    member::{Cohort, Exclusions, Member, Members, Origin, Target},
};
use crate::model::{
    ClusterId, NetworkId,
    endpoint::{Endpoint, Health, NetworkGateway},
    locality::Locality,
    staleness::Treatment,
    workload::Workload,
};

/// How the endpoints of a cohort are reached.
enum Way<'a> {
    Direct,
    Through(Sharing<'a>),
    Not(Excluded),
}

/// What lies behind one set of gateways, or comes together at one of them.
#[derive(Default)]
struct Behind<'a> {
    endpoints: Vec<Endpoint<'a>>,
    /// What is done to the one to which least is done.
    treatment: Option<Treatment>,
    weight: u64,
    localities: BTreeMap<&'a Locality, u64>,
}

/// Gateways that share what lies behind them.
type Sharing<'a> = Vec<(Target, &'a NetworkGateway)>;

/// Sets of gateways, those that are alive and those that are dead, with what lies behind each.
type Sets<'a> = BTreeMap<Vec<Target>, ([Sharing<'a>; 2], Behind<'a>)>;

/// What comes together at each gateway.
type Shares<'a> = BTreeMap<Target, (&'a NetworkGateway, Behind<'a>)>;

/// Envoy adds weights up in 32 bits.
const LIMIT: u128 = u32::MAX as u128;

static NOWHERE: LazyLock<Locality> = LazyLock::new(Locality::default);

impl Behind<'_> {
    fn treat(&mut self, treatment: Treatment) {
        self.treatment = Some(self.treatment.map_or(treatment, |least| least.min(treatment)));
    }
}

/// Turns endpoints into members as seen from `network`: those that are reached directly, ordered by address and port, then
/// the gateways. The order of what comes in does not matter. With more than `steady_above` of the former the number that all
/// weights are multiplied by depends on nothing but how many gateways there are: another would change every endpoint.
pub fn collapse<'a>(
    candidates: Members<'a>,
    network: &NetworkId,
    gateways_of: impl Fn(&NetworkId, &ClusterId) -> &'a [NetworkGateway],
    is_dead: impl Fn(&Target) -> bool,
    steady_above: usize,
    excluded: &mut Exclusions<'a>,
) -> Members<'a> {
    let Members { mut cohorts, list: mut direct } = candidates;
    let ways: Vec<_> = cohorts.iter().map(|cohort| way(cohort, network, &gateways_of)).collect();
    let mut remote = Vec::new();
    if !ways.iter().all(|way| matches!(way, Way::Direct)) {
        direct.retain(|member| match &ways[member.cohort] {
            Way::Direct => true,
            Way::Through(_) => {
                remote.push(member.clone());
                false
            }
            Way::Not(reason) => {
                member.endpoint.into_iter().for_each(|endpoint| excluded.add(endpoint, || reason.clone()));
                false
            }
        });
    }
    drop_copies(&mut direct, &cohorts, excluded);

    let sets = gather(remote, ways, &direct, &cohorts, &is_dead, excluded);
    let steady = direct.len() > steady_above;
    let multiplier = multiplier(sets.values().flat_map(|(sharing, behind)| {
        let weight = if steady { 1 } else { behind.weight };
        sharing.iter().filter(|gateways| !gateways.is_empty()).map(move |g| (weight, g.len() as u64))
    }));
    weigh(&mut cohorts, &mut direct, share(sets, multiplier), multiplier, is_dead);
    Members { cohorts, list: direct }
}

/// Orders by address and port. Of several copies of an address the healthiest is kept, then the first by cluster and so on,
/// so that the answer is the same for any order of input.
fn drop_copies<'a>(direct: &mut Vec<Member<'a>>, cohorts: &[Cohort<'a>], excluded: &mut Exclusions<'a>) {
    // As slices mostly are.
    if direct.is_sorted_by(|a, b| by_target(a, b).is_lt()) {
        return;
    }
    let tie = |m: &Member<'a>| {
        let cohort = &cohorts[m.cohort];
        let rest = workload_of(cohort).map(|w| (&w.cluster, &w.locality, &w.network, m.weight));
        let pod = m.endpoint.map(|e| (e.name(), e.labels()));
        (cohort.treatment, rest, pod, !cohort.mtls)
    };
    direct.sort_by(|a, b| {
        by_target(a, b).then_with(|| a.health.cmp(&b.health)).then_with(|| tie(a).cmp(&tie(b)))
    });
    direct.dedup_by(|copy, kept| {
        let same = copy.target == kept.target;
        if let (true, Some(endpoint)) = (same, copy.endpoint) {
            let kept = workload_of(&cohorts[kept.cohort]).map(|w| w.cluster.0.clone());
            excluded.add(endpoint, || Excluded::DuplicateAddress { kept: kept.unwrap_or_default() });
        }
        same
    });
}

/// As targets are ordered. Of IPv4, which most are, without a look at the octets one by one.
fn by_target(a: &Member, b: &Member) -> Ordering {
    match (a.target, b.target) {
        ((IpAddr::V4(a), port), (IpAddr::V4(b), other)) => (a.to_bits(), port).cmp(&(b.to_bits(), other)),
        (a, b) => a.cmp(&b),
    }
}

fn workload_of<'a>(cohort: &Cohort<'a>) -> Option<&'a Workload> {
    match cohort.origin {
        Origin::Endpoint { workload, .. } => Some(workload),
        Origin::Gateway { .. } => None,
    }
}

/// Networks are the same if they are equal, or if either is unknown. Of a client whose own network is unknown, an endpoint
/// with a network is only directly reachable when that network has no gateway (Istio's rule).
fn way<'a>(
    cohort: &Cohort<'a>,
    own: &NetworkId,
    gateways_of: &impl Fn(&NetworkId, &ClusterId) -> &'a [NetworkGateway],
) -> Way<'a> {
    let Some(workload) = workload_of(cohort) else { return Way::Direct };
    let network = &workload.network;
    if network.as_str().is_empty() || network == own {
        return Way::Direct;
    }
    let gateways = gateways_of(network, &workload.cluster);
    if gateways.is_empty() && own.as_str().is_empty() {
        return Way::Direct;
    }
    if gateways.is_empty() {
        return Way::Not(Excluded::NoGateway { network: network.0.clone() });
    }
    let resolved: BTreeMap<Target, &NetworkGateway> = gateways
        .iter()
        .filter(|g| g.port != 0)
        .filter_map(|g| Some(((g.address.parse().ok()?, g.port), g)))
        .collect();
    if resolved.is_empty() {
        let gateways = gateways.iter().map(|g| g.address.clone()).collect();
        return Way::Not(Excluded::GatewayNotResolved { network: network.0.clone(), gateways });
    }
    if !cohort.mtls {
        return Way::Not(Excluded::NoMtls { network: network.0.clone() });
    }
    Way::Through(resolved.into_iter().collect())
}

/// Puts endpoints of other networks together by the gateways that lead to them.
fn gather<'a>(
    remote: Vec<Member<'a>>,
    ways: Vec<Way<'a>>,
    direct: &[Member<'a>],
    cohorts: &[Cohort<'a>],
    is_dead: &impl Fn(&Target) -> bool,
    excluded: &mut Exclusions<'a>,
) -> Sets<'a> {
    let is_direct = |target: &Target| direct.binary_search_by(|m| m.target.cmp(target)).is_ok();
    let gateways: Vec<Vec<_>> = ways
        .into_iter()
        .map(|way| match way {
            Way::Through(gateways) => gateways.into_iter().filter(|(t, _)| !is_direct(t)).collect(),
            Way::Direct | Way::Not(_) => Vec::new(),
        })
        .collect();
    let mut sets = Sets::new();
    for member in remote {
        let (Some(endpoint), Some(workload)) = (member.endpoint, workload_of(&cohorts[member.cohort])) else {
            continue;
        };
        let gateways = &gateways[member.cohort];
        let refused = match member.health {
            _ if gateways.is_empty() => Some(Excluded::NoGateway { network: workload.network.0.clone() }),
            Health::Healthy => None,
            Health::Unhealthy => Some(Excluded::NotReady),
            Health::Draining | Health::Terminating => Some(Excluded::Terminating),
        };
        if let Some(reason) = refused {
            excluded.add(endpoint, || reason);
            continue;
        }
        let set = gateways.iter().map(|(target, _)| *target).collect();
        let (_, behind) = sets.entry(set).or_insert_with(|| {
            let (dead, alive) = gateways.iter().partition(|(target, _)| is_dead(target));
            ([alive, dead], Behind::default())
        });
        let weight = u64::from(member.weight);
        behind.endpoints.push(endpoint);
        behind.treat(cohorts[member.cohort].treatment);
        behind.weight += weight;
        *behind.localities.entry(&workload.locality).or_default() += weight;
    }
    sets
}

/// The smallest number that makes each weight divisible by its number of gateways.
fn multiplier(shared: impl Iterator<Item = (u64, u64)>) -> u64 {
    shared.fold(1, |multiplier, (weight, gateways)| {
        let needed = gateways / gcd(gateways, weight);
        multiplier / gcd(multiplier, needed) * needed
    })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn share<'a>(sets: Sets<'a>, multiplier: u64) -> Shares<'a> {
    let mut shares = Shares::new();
    for (sharing, behind) in sets.into_values() {
        let counted = sharing.into_iter().flat_map(|gateways| {
            let count = gateways.len() as u64;
            gateways.into_iter().map(move |gateway| (gateway, count))
        });
        for ((target, gateway), count) in counted {
            let (known, share) = match shares.entry(target) {
                Entry::Vacant(entry) => entry.insert((gateway, Behind::default())),
                Entry::Occupied(entry) => entry.into_mut(),
            };
            // The same address may be known by several names; which one is shown must not depend on the input.
            *known = gateway.min(known);
            share.endpoints.extend(&behind.endpoints);
            behind.treatment.into_iter().for_each(|treatment| share.treat(treatment));
            share.weight += behind.weight * multiplier / count;
            for (locality, weight) in &behind.localities {
                *share.localities.entry(locality).or_default() += weight * multiplier / count;
            }
        }
    }
    shares
}

/// Adds the gateways, and gives every member its weight.
fn weigh<'a>(
    cohorts: &mut Vec<Cohort<'a>>,
    members: &mut Vec<Member<'a>>,
    shares: Shares<'a>,
    multiplier: u64,
    is_dead: impl Fn(&Target) -> bool,
) {
    let own = |m: &Member| u64::from(m.weight) * multiplier;
    let direct: u64 = members.iter().map(|m| u64::from(m.weight)).sum();
    let total = u128::from(direct) * u128::from(multiplier)
        + shares.values().map(|(_, share)| u128::from(share.weight)).sum::<u128>();
    let count = (members.len() + shares.len()) as u128;
    let fit = |weight: u64| fit(weight, total, count);
    if multiplier > 1 || total > LIMIT {
        for member in members.iter_mut() {
            member.weight = fit(own(member));
        }
    }
    for (target, (gateway, share)) in shares {
        let heaviest = share.localities.values().max();
        let locality = share.localities.iter().find(|(_, weight)| Some(*weight) == heaviest);
        let least = if is_dead(&target) { Treatment::Deprioritise } else { Treatment::Keep };
        cohorts.push(Cohort {
            locality: locality.map_or(&NOWHERE, |(locality, _)| locality),
            mtls: true,
            treatment: share.treatment.unwrap_or_default().max(least),
            origin: Origin::Gateway { gateway, behind: share.endpoints },
        });
        members.push(Member {
            target,
            weight: fit(share.weight),
            health: Health::Healthy,
            cohort: cohorts.len() - 1,
            endpoint: None,
        });
    }
}

/// Only absurd weights come near [`LIMIT`]; they keep their proportions.
fn fit(weight: u64, total: u128, members: u128) -> u32 {
    if total <= LIMIT {
        return u32::try_from(weight).unwrap_or(u32::MAX).max(1);
    }
    let fitted = u128::from(weight) * (LIMIT - members.min(LIMIT)) / total;
    u32::try_from(fitted).unwrap_or(u32::MAX).max(1)
}
