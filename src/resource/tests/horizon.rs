//! Properties of the split horizon, for any endpoints, networks and gateways.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use proptest::prelude::*;

use super::mesh::{mk_labels, network};
use crate::{
    model::{
        ClusterId, NetworkId,
        destination_rule::LocalityLb,
        endpoint::{Endpoint, Health, NetworkGateway, Shard},
        kubernetes::{EndpointSlice, SliceEndpoint, SlicePort},
        locality::Locality,
        staleness::Treatment,
        workload::Workload,
    },
    resource::eds::{
        horizon::collapse,
        locality::{Arranged, Caller, arrange},
        member::{Cohort, Exclusion, Exclusions, Member, Members, Origin},
    },
};

const OWN: &str = "net0";

/// One endpoint, alone in its shard.
fn shard(address: Ipv4Addr, ready: bool, workload: Workload) -> Shard {
    let health = if ready { Health::Healthy } else { Health::Unhealthy };
    let slice = EndpointSlice {
        ports: [SlicePort { name: "http".into(), number: 8080 }].into(),
        endpoints: [SliceEndpoint { health, ..SliceEndpoint::at(address) }].into_iter().collect(),
        ..EndpointSlice::default()
    };
    Shard::new(Arc::new(slice), [Arc::new(workload)].into_iter())
}

fn workload(cluster: &str, net: &str, locality: Locality, weight: u32) -> Workload {
    Workload {
        cluster: cluster.into(),
        network: network(net),
        namespace: "ns".into(),
        locality,
        labels: mk_labels(&[]),
        identity: None,
        accepts_mtls: true,
        weight,
        name: Some("w".into()),
        telemetry: None,
    }
}

fn one(shard: &Shard) -> Endpoint<'_> {
    shard.iter().next().expect("one endpoint")
}

fn endpoint() -> impl Strategy<Value = Shard> {
    (0..3u8, 0..4u8, 0..40u8, 0..3u8, 0..3u8, 1..4u32, any::<bool>()).prop_map(
        |(cluster, net, host, region, zone, weight, ready)| {
            let locality = Locality::new(&format!("r{region}"), &format!("z{zone}"), "");
            let workload = workload(&format!("c{cluster}"), &format!("net{net}"), locality, weight);
            shard(Ipv4Addr::new(10, net, 0, host), ready, workload)
        },
    )
}

/// Up to five gateways for each of the networks 1 and 2 (per cluster), none for network 3.
fn gateways() -> impl Strategy<Value = BTreeMap<(NetworkId, ClusterId), Vec<NetworkGateway>>> {
    proptest::collection::btree_map((1..3u8, 0..3u8), proptest::collection::btree_set(0..6u8, 1..5), 0..6)
        .prop_map(|all| {
            let one = |((net, cluster), hosts): ((u8, u8), BTreeSet<u8>)| {
                let key = (network(&format!("net{net}")), ClusterId::from(format!("c{cluster}").as_str()));
                let gateway = |host: u8| NetworkGateway {
                    network: key.0.clone(),
                    cluster: key.1.clone(),
                    address: format!("172.30.{net}.{host}").into(),
                    host: None,
                    port: 15443,
                };
                (key.clone(), hosts.into_iter().map(gateway).collect())
            };
            all.into_iter().map(one).collect()
        })
}

fn candidates(endpoints: &[Shard]) -> Members<'_> {
    let mut members = Members::default();
    for endpoint in endpoints.iter().map(one) {
        let workload = endpoint.workload();
        let origin = Origin::Endpoint { workload, node: None };
        members.list.push(Member {
            target: (endpoint.address(), endpoint.port()),
            weight: workload.weight,
            health: endpoint.health(),
            cohort: members.cohorts.len(),
            endpoint: Some(endpoint),
        });
        members.cohorts.push(Cohort {
            locality: &workload.locality,
            mtls: true,
            treatment: Treatment::Keep,
            origin,
        });
    }
    members
}

type Gateways = BTreeMap<(NetworkId, ClusterId), Vec<NetworkGateway>>;

fn run<'a>(endpoints: &'a [Shard], gateways: &'a Gateways) -> (Members<'a>, Vec<Exclusion<'a>>) {
    let gateways_of = |network: &NetworkId, cluster: &ClusterId| {
        let all = gateways.get(&(network.clone(), cluster.clone()));
        all.map(Vec::as_slice).unwrap_or_default()
    };
    let mut excluded = Exclusions::wanted();
    let members =
        collapse(candidates(endpoints), &network(OWN), gateways_of, |_| false, usize::MAX, &mut excluded);
    (members, excluded.sorted())
}

/// One pod is one endpoint: as the registry has them, unique by cluster and address.
fn unique(endpoints: Vec<Shard>) -> Vec<Shard> {
    let keyed = endpoints.into_iter().map(|e| ((one(&e).workload().cluster.clone(), one(&e).address()), e));
    keyed.collect::<BTreeMap<_, _>>().into_values().collect()
}

fn sorted(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<_> = texts.collect();
    texts.sort();
    texts
}

proptest! {
    #[test]
    fn weights_add_up_to_what_is_ready(endpoints in proptest::collection::vec(endpoint(), 0..40), gateways in gateways()) {
        let endpoints = unique(endpoints);
        let (members, excluded) = run(&endpoints, &gateways);

        let Members { cohorts, list: members } = members;
        let behind_of = |m: &Member| match &cohorts[m.cohort].origin {
            Origin::Gateway { behind, .. } => behind.iter().map(|e| format!("{e:?}")).collect(),
            Origin::Endpoint { .. } => BTreeSet::new(),
        };
        prop_assert!(members.iter().all(|m| m.weight > 0), "no weight 0");
        let addresses: BTreeSet<_> = members.iter().map(|m| m.target).collect();
        prop_assert_eq!(addresses.len(), members.len(), "no address twice, so in no two localities");

        // No pod of another network is ever sent.
        for endpoint in members.iter().filter_map(|m| m.endpoint) {
            prop_assert_eq!(endpoint.workload().network.as_str(), OWN);
        }
        // Every endpoint is a member, behind a gateway, or excluded: exactly one of them.
        let direct = members.iter().filter(|m| m.endpoint.is_some()).count();
        let behind: BTreeSet<_> = members.iter().flat_map(behind_of).collect();
        prop_assert_eq!(direct + behind.len() + excluded.len(), endpoints.len());

        // Shares are exact: one multiplier turns every endpoint's weight into what is sent.
        let weight = |e: Endpoint| u64::from(e.workload().weight);
        let ready: u64 =
            endpoints.iter().map(one).filter(|e| behind.contains(&format!("{e:?}"))).map(weight).sum();
        let sent = |gateway: bool| -> u64 {
            members.iter().filter(|m| m.endpoint.is_none() == gateway).map(|m| u64::from(m.weight)).sum()
        };
        let own: u64 = members.iter().filter_map(|m| m.endpoint).map(weight).sum();
        if own > 0 && ready > 0 {
            prop_assert_eq!(sent(true) * own, sent(false) * ready, "remote and local in proportion");
        }
        if ready > 0 {
            prop_assert_eq!(sent(true) % ready, 0);
        }
        // Gateways of the same set share alike.
        let mut by_set: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
        for m in members.iter().filter(|m| m.endpoint.is_none()) {
            by_set.entry(behind_of(m)).or_default().insert(m.weight);
        }
        prop_assert!(by_set.values().all(|weights| weights.len() == 1), "{:?}", by_set);
    }

    #[test]
    fn the_order_of_input_does_not_matter(
        (endpoints, shuffled) in proptest::collection::vec(endpoint(), 0..30)
            .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        gateways in gateways(),
    ) {
        // Also with copies of an address, which only a broken registry has.
        let show = |endpoints: &[Shard]| {
            let (members, excluded) = run(endpoints, &gateways);
            let excluded: Vec<_> = excluded.iter().map(|(e, why)| format!("{} {why}", e.address())).collect();
            let caller = Locality::new("r0", "z0", "");
            let labels = mk_labels(&[]);
            let caller = Caller { locality: &caller, labels: &labels };
            let arranged = arrange(members, caller, Some(&LocalityLb::default()), true);
            let member = |m: &Member| {
                let cohort = &arranged.cohorts[m.cohort];
                let behind: Vec<_> = match &cohort.origin {
                    Origin::Endpoint { .. } => Vec::new(),
                    Origin::Gateway { behind, .. } => sorted(behind.iter().map(|e| format!("{e:?}"))),
                };
                format!("{:?} {} {:?} {:?} {behind:?}", m.target, m.weight, m.health, cohort.locality)
            };
            let groups = arranged.groups.iter();
            let groups: Vec<_> = groups
                .map(|g| (g.priority, g.locality.clone(), g.weight, g.members.iter().map(member).collect::<Vec<_>>()))
                .collect();
            (groups, excluded)
        };
        prop_assert_eq!(show(&endpoints), show(&shuffled));
    }

    #[test]
    fn priorities_have_no_gaps_and_groups_are_not_empty(
        endpoints in proptest::collection::vec(endpoint(), 1..40),
        gateways in gateways(),
        by_network in any::<bool>(),
        failover in any::<bool>(),
    ) {
        let endpoints = unique(endpoints);
        let (members, _) = run(&endpoints, &gateways);
        let count = members.list.len();
        let own = Locality::new("r0", "z0", "");
        let labels = mk_labels(&[("topology.istio.io/network", OWN), ("topology.kubernetes.io/region", "r0")]);
        let priority = ["topology.istio.io/network", "topology.kubernetes.io/region"].map(Arc::<str>::from);
        let setting = LocalityLb {
            failover_priority: if by_network { priority.to_vec() } else { Vec::new() },
            failover: if failover { vec![("r0".into(), "r2".into())] } else { Vec::new() },
            ..LocalityLb::default()
        };
        let caller = Caller { locality: &own, labels: &labels };
        let Arranged { cohorts, groups, left } = arrange(members, caller, Some(&setting), true);
        prop_assert!(left.is_empty());
        prop_assert_eq!(groups.iter().map(|g| g.members.len()).sum::<usize>(), count);
        let used: BTreeSet<_> = groups.iter().map(|g| g.priority).collect();
        prop_assert_eq!(used.into_iter().collect::<Vec<_>>(), (0..groups.iter().map(|g| g.priority + 1).max().unwrap_or(0)).collect::<Vec<_>>());
        for group in &groups {
            prop_assert!(!group.members.is_empty());
            prop_assert_eq!(group.weight, group.members.iter().map(|m| m.weight).sum::<u32>());
            prop_assert!(group.members.iter().all(|m| cohorts[m.cohort].locality == group.locality));
        }
    }

    #[test]
    fn absurd_weights_still_fit(weights in proptest::collection::vec(1..=u32::MAX, 1..20)) {
        let all: Vec<_> = weights.iter().zip(0..).map(|(weight, host)| {
            let workload = workload("c0", OWN, Locality::default(), *weight);
            shard(Ipv4Addr::new(10, 0, 0, host), true, workload)
        }).collect();
        let gateways = Gateways::new();
        let (members, _) = run(&all, &gateways);
        let members = members.list;
        let total: u64 = members.iter().map(|m| u64::from(m.weight)).sum();
        prop_assert!(total <= u64::from(u32::MAX));
        prop_assert!(members.iter().all(|m| m.weight > 0));
    }
}
