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
//! - nobody ever gets a pod address of a network that is not its own.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::choose::{Candidate, Excluded, Exclusion};
use crate::model::{
    ClusterId, Labels, NetworkId,
    endpoint::{Endpoint, Health, NetworkGateway},
    locality::Locality,
};

/// Address and port.
pub type Target = (IpAddr, u16);

/// One member of a load assignment.
#[derive(Clone, Debug, PartialEq)]
pub struct Member<'a> {
    /// Where Envoy connects to.
    pub target: Target,
    /// At least 1.
    pub weight: u32,
    /// What Envoy is told; a gateway has none of its own and counts as healthy.
    pub health: Health,
    /// Mutual TLS is spoken to it.
    pub mtls: bool,
    /// The one that it is grouped by.
    pub locality: Locality,
    /// What a `failoverPriority` compares.
    pub labels: Cow<'a, Labels>,
    /// What it stands for.
    pub origin: Origin<'a>,
}

/// What a member stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin<'a> {
    /// An endpoint that is reached directly.
    Endpoint(&'a Endpoint),
    /// All endpoints behind a gateway.
    Gateway {
        /// The gateway.
        gateway: &'a NetworkGateway,
        /// The ready endpoints behind it (shared with the network's other gateways).
        behind: Vec<&'a Endpoint>,
    },
}

/// How one endpoint is reached.
enum Way<'a> {
    Direct,
    Through(Vec<(Target, &'a NetworkGateway)>),
}

/// What lies behind one set of gateways.
struct Behind<'a> {
    gateways: Vec<(Target, &'a NetworkGateway)>,
    endpoints: Vec<&'a Endpoint>,
    weight: u64,
    localities: BTreeMap<&'a Locality, u64>,
}

/// What comes together at one gateway.
struct Share<'a> {
    gateway: &'a NetworkGateway,
    endpoints: Vec<&'a Endpoint>,
    weight: u64,
    localities: BTreeMap<&'a Locality, u64>,
}

/// Turns endpoints into members as seen from `network`. The order of `candidates` does not matter.
pub fn collapse<'a>(
    mut candidates: Vec<Candidate<'a>>,
    network: &NetworkId,
    gateways_of: impl Fn(&NetworkId, &ClusterId) -> &'a [NetworkGateway],
) -> (Vec<Member<'a>>, Vec<Exclusion<'a>>) {
    candidates.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
    let mut direct: BTreeMap<Target, Candidate<'a>> = BTreeMap::new();
    let mut remote = Vec::new();
    let mut excluded = Vec::new();
    for candidate in candidates {
        let endpoint = candidate.endpoint;
        match way(&candidate, network, &gateways_of) {
            Err(reason) => excluded.push((endpoint, reason)),
            Ok(Way::Through(gateways)) => remote.push((candidate, gateways)),
            Ok(Way::Direct) => match direct.get(&(endpoint.address, endpoint.port)) {
                Some(first) => {
                    let kept = first.endpoint.workload.cluster.0.clone();
                    excluded.push((endpoint, Excluded::DuplicateAddress { kept }));
                }
                None => drop(direct.insert((endpoint.address, endpoint.port), candidate)),
            },
        }
    }

    let mut sets: BTreeMap<BTreeSet<Target>, Behind<'a>> = BTreeMap::new();
    for (candidate, mut gateways) in remote {
        let endpoint = candidate.endpoint;
        let workload = &endpoint.workload;
        gateways.retain(|(target, _)| !direct.contains_key(target));
        let refused = match candidate.health {
            _ if gateways.is_empty() => Some(Excluded::NoGateway { network: workload.network.0.clone() }),
            Health::Healthy => None,
            Health::Unhealthy => Some(Excluded::NotReady),
            Health::Draining | Health::Terminating => Some(Excluded::Terminating),
        };
        if let Some(reason) = refused {
            excluded.push((endpoint, reason));
            continue;
        }
        let set = gateways.iter().map(|(target, _)| *target).collect();
        let behind = sets.entry(set).or_insert_with(|| Behind {
            gateways,
            endpoints: Vec::new(),
            weight: 0,
            localities: BTreeMap::new(),
        });
        let weight = u64::from(endpoint.weight.max(1));
        behind.endpoints.push(endpoint);
        behind.weight += weight;
        *behind.localities.entry(&workload.locality).or_default() += weight;
    }

    let multiplier = multiplier(sets.values().map(|b| (b.weight, b.gateways.len() as u64)));
    let members = weigh(direct, share(sets, multiplier), multiplier);
    excluded.sort_by(|a, b| endpoint_key(a.0).cmp(&endpoint_key(b.0)).then_with(|| a.1.cmp(&b.1)));
    (members, excluded)
}

/// A total order, so that the answer is the same for any order of input; of two copies of an address the healthier
/// comes first.
fn sort_key<'a>(c: &Candidate<'a>) -> impl Ord + use<'a> {
    (c.health, endpoint_key(c.endpoint), !c.mtls)
}

fn endpoint_key(e: &Endpoint) -> impl Ord + use<'_> {
    let w = &e.workload;
    (&w.cluster, e.address, e.port, &w.locality, &w.network, e.health, e.weight, &w.name, &w.labels)
}

/// Networks are the same if they are equal, or if either is unknown. Of a client whose own network is unknown, an endpoint
/// with a network is only directly reachable when that network has no gateway (Istio's rule).
fn way<'a>(
    candidate: &Candidate<'a>,
    own: &NetworkId,
    gateways_of: &impl Fn(&NetworkId, &ClusterId) -> &'a [NetworkGateway],
) -> Result<Way<'a>, Excluded> {
    let workload = &candidate.endpoint.workload;
    let network = &workload.network;
    if network.as_str().is_empty() || network == own {
        return Ok(Way::Direct);
    }
    let gateways = gateways_of(network, &workload.cluster);
    if gateways.is_empty() && own.as_str().is_empty() {
        return Ok(Way::Direct);
    }
    if gateways.is_empty() {
        return Err(Excluded::NoGateway { network: network.0.clone() });
    }
    let resolved: BTreeMap<Target, &NetworkGateway> = gateways
        .iter()
        .filter(|g| g.port != 0)
        .filter_map(|g| Some(((g.address.parse().ok()?, g.port), g)))
        .collect();
    if resolved.is_empty() {
        let gateways = gateways.iter().map(|g| g.address.clone()).collect();
        return Err(Excluded::GatewayNotResolved { network: network.0.clone(), gateways });
    }
    if !candidate.mtls {
        return Err(Excluded::NoMtls { network: network.0.clone() });
    }
    Ok(Way::Through(resolved.into_iter().collect()))
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

fn share<'a>(sets: BTreeMap<BTreeSet<Target>, Behind<'a>>, multiplier: u64) -> BTreeMap<Target, Share<'a>> {
    let mut shares: BTreeMap<Target, Share<'a>> = BTreeMap::new();
    for behind in sets.into_values() {
        let count = behind.gateways.len() as u64;
        for (target, gateway) in behind.gateways {
            let share = shares.entry(target).or_insert_with(|| Share {
                gateway,
                endpoints: Vec::new(),
                weight: 0,
                localities: BTreeMap::new(),
            });
            // The same address may be known by several names; which one is shown must not depend on the input.
            share.gateway = share.gateway.min(gateway);
            share.endpoints.extend(&behind.endpoints);
            share.weight += behind.weight * multiplier / count;
            for (locality, weight) in &behind.localities {
                *share.localities.entry(locality).or_default() += weight * multiplier / count;
            }
        }
    }
    shares
}

fn weigh<'a>(
    direct: BTreeMap<Target, Candidate<'a>>,
    shares: BTreeMap<Target, Share<'a>>,
    multiplier: u64,
) -> Vec<Member<'a>> {
    let own = |c: &Candidate| u64::from(c.endpoint.weight.max(1)) * multiplier;
    let total: u128 = direct.values().map(|c| u128::from(own(c))).sum::<u128>()
        + shares.values().map(|s| u128::from(s.weight)).sum::<u128>();
    let fit = |weight: u64| fit(weight, total, (direct.len() + shares.len()) as u128);

    let endpoints = direct.iter().map(|(target, c)| Member {
        target: *target,
        weight: fit(own(c)),
        health: c.health,
        mtls: c.mtls,
        locality: c.endpoint.workload.locality.clone(),
        labels: Cow::Borrowed(&c.endpoint.workload.labels),
        origin: Origin::Endpoint(c.endpoint),
    });
    let gateways = shares.iter().map(|(target, share)| {
        let heaviest = share.localities.values().max();
        let locality = share.localities.iter().find(|(_, weight)| Some(*weight) == heaviest);
        let locality = locality.map(|(l, _)| (*l).clone()).unwrap_or_default();
        Member {
            target: *target,
            weight: fit(share.weight),
            health: Health::Healthy,
            mtls: true,
            labels: Cow::Owned(gateway_labels(share.gateway, &locality)),
            locality,
            origin: Origin::Gateway { gateway: share.gateway, behind: share.endpoints.clone() },
        }
    });
    endpoints.chain(gateways).collect()
}

/// Envoy adds weights up in 32 bits. Only absurd weights come near; they keep their proportions.
fn fit(weight: u64, total: u128, members: u128) -> u32 {
    let limit = u128::from(u32::MAX);
    let weight = u128::from(weight);
    let fitted = if total <= limit { weight } else { weight * (limit - members.min(limit)) / total };
    u32::try_from(fitted).unwrap_or(u32::MAX).max(1)
}

/// Istio gives a gateway cluster and network only, so that a `failoverPriority` by region takes every gateway for far
/// away; ours is somewhere.
fn gateway_labels(gateway: &NetworkGateway, locality: &Locality) -> Labels {
    let all = [
        ("topology.istio.io/cluster", &gateway.cluster.0),
        ("topology.istio.io/network", &gateway.network.0),
        ("topology.kubernetes.io/region", &locality.region),
        ("topology.kubernetes.io/zone", &locality.zone),
        ("topology.istio.io/subzone", &locality.subzone),
    ];
    all.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.into(), v.clone())).collect()
}
