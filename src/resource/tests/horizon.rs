//! Properties of the split horizon, for any endpoints, networks and gateways.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use proptest::prelude::*;

use super::mesh::{mk_labels, network};
use crate::{
    model::{
        ClusterId, NetworkId,
        destination_rule::LocalityLb,
        endpoint::{Endpoint, Health, NetworkGateway, Workload},
        locality::Locality,
    },
    resource::eds::{
        choose::{Candidate, Excluded},
        horizon::{Member, Origin, collapse},
        locality::{Caller, arrange},
    },
};

const OWN: &str = "net0";

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (0..3u8, 0..4u8, 0..40u8, 0..3u8, 0..3u8, 1..4u32, any::<bool>()).prop_map(
        |(cluster, net, host, region, zone, weight, ready)| Endpoint {
            address: IpAddr::V4(Ipv4Addr::new(10, net, 0, host)),
            port: 8080,
            port_name: "http".into(),
            health: if ready { Health::Healthy } else { Health::Unhealthy },
            weight,
            workload: Arc::new(Workload {
                cluster: format!("c{cluster}").as_str().into(),
                network: network(&format!("net{net}")),
                namespace: "ns".into(),
                locality: Locality::new(&format!("r{region}"), &format!("z{zone}"), ""),
                labels: mk_labels(&[]),
                identity: None,
                accepts_mtls: true,
                node: None,
                name: "p".into(),
                workload: "w".into(),
            }),
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
                    port: 15443,
                };
                (key.clone(), hosts.into_iter().map(gateway).collect())
            };
            all.into_iter().map(one).collect()
        })
}

fn candidates(endpoints: &[Endpoint]) -> Vec<Candidate<'_>> {
    endpoints.iter().map(|endpoint| Candidate { endpoint, mtls: true, health: endpoint.health }).collect()
}

type Gateways = BTreeMap<(NetworkId, ClusterId), Vec<NetworkGateway>>;

fn run<'a>(
    endpoints: &'a [Endpoint],
    gateways: &'a Gateways,
) -> (Vec<Member<'a>>, Vec<(&'a Endpoint, Excluded)>) {
    collapse(candidates(endpoints), &network(OWN), |network, cluster| {
        let all = gateways.get(&(network.clone(), cluster.clone()));
        all.map(Vec::as_slice).unwrap_or_default()
    })
}

/// One pod is one endpoint: as the registry has them, unique by cluster and address.
fn unique(endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    let keyed = endpoints.into_iter().map(|e| ((e.workload.cluster.clone(), e.address), e));
    keyed.collect::<BTreeMap<_, _>>().into_values().collect()
}

proptest! {
    #[test]
    fn weights_add_up_to_what_is_ready(endpoints in proptest::collection::vec(endpoint(), 0..40), gateways in gateways()) {
        let endpoints = unique(endpoints);
        let (members, excluded) = run(&endpoints, &gateways);

        prop_assert!(members.iter().all(|m| m.weight > 0), "no weight 0");
        let addresses: BTreeSet<_> = members.iter().map(|m| m.target).collect();
        prop_assert_eq!(addresses.len(), members.len(), "no address twice, so in no two localities");

        // No pod of another network is ever sent.
        for member in &members {
            if let Origin::Endpoint(endpoint) = member.origin {
                prop_assert_eq!(endpoint.workload.network.as_str(), OWN);
            }
        }
        // Every endpoint is a member, behind a gateway, or excluded: exactly one of them.
        let direct = members.iter().filter(|m| matches!(m.origin, Origin::Endpoint(_))).count();
        let behind: BTreeSet<_> = members.iter().flat_map(|m| match &m.origin {
            Origin::Gateway { behind, .. } => behind.iter().map(|e| std::ptr::from_ref(*e)).collect(),
            Origin::Endpoint(_) => Vec::new(),
        }).collect();
        prop_assert_eq!(direct + behind.len() + excluded.len(), endpoints.len());

        // Shares are exact: one multiplier turns every endpoint's weight into what is sent.
        let ready: u64 = endpoints.iter()
            .filter(|e| behind.contains(&std::ptr::from_ref(*e)))
            .map(|e| u64::from(e.weight))
            .sum();
        let sent = |gateway: bool| -> u64 {
            members.iter()
                .filter(|m| matches!(m.origin, Origin::Gateway { .. }) == gateway)
                .map(|m| u64::from(m.weight))
                .sum()
        };
        let own: u64 = members.iter().map(|m| match m.origin {
            Origin::Endpoint(e) => u64::from(e.weight),
            Origin::Gateway { .. } => 0,
        }).sum();
        if own > 0 && ready > 0 {
            prop_assert_eq!(sent(true) * own, sent(false) * ready, "remote and local in proportion");
        }
        if ready > 0 {
            prop_assert_eq!(sent(true) % ready, 0);
        }
        // Gateways of the same set share alike.
        let mut by_set: BTreeMap<Vec<*const Endpoint>, BTreeSet<u32>> = BTreeMap::new();
        for m in &members {
            if let Origin::Gateway { behind, .. } = &m.origin {
                let set = behind.iter().map(|e| std::ptr::from_ref(*e)).collect();
                by_set.entry(set).or_default().insert(m.weight);
            }
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
        let show = |endpoints: &[Endpoint]| {
            let (members, mut excluded) = run(endpoints, &gateways);
            excluded.sort_by(|a, b| (a.0.address, &a.1).cmp(&(b.0.address, &b.1)));
            let excluded: Vec<_> = excluded.iter().map(|(e, why)| format!("{} {why}", e.address)).collect();
            let caller = Locality::new("r0", "z0", "");
            let labels = mk_labels(&[]);
            let caller = Caller { locality: &caller, labels: &labels };
            let (groups, _) = arrange(members, caller, Some(&LocalityLb::default()), true);
            (format!("{groups:?}"), excluded)
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
        let count = members.len();
        let own = Locality::new("r0", "z0", "");
        let labels = mk_labels(&[("topology.istio.io/network", OWN), ("topology.kubernetes.io/region", "r0")]);
        let priority = ["topology.istio.io/network", "topology.kubernetes.io/region"].map(Arc::<str>::from);
        let setting = LocalityLb {
            failover_priority: if by_network { priority.to_vec() } else { Vec::new() },
            failover: if failover { vec![("r0".into(), "r2".into())] } else { Vec::new() },
            ..LocalityLb::default()
        };
        let caller = Caller { locality: &own, labels: &labels };
        let (groups, left) = arrange(members, caller, Some(&setting), true);
        prop_assert!(left.is_empty());
        prop_assert_eq!(groups.iter().map(|g| g.members.len()).sum::<usize>(), count);
        let used: BTreeSet<_> = groups.iter().map(|g| g.priority).collect();
        prop_assert_eq!(used.into_iter().collect::<Vec<_>>(), (0..groups.iter().map(|g| g.priority + 1).max().unwrap_or(0)).collect::<Vec<_>>());
        for group in &groups {
            prop_assert!(!group.members.is_empty());
            prop_assert_eq!(group.weight, group.members.iter().map(|m| m.weight).sum::<u32>());
            prop_assert!(group.members.iter().all(|m| m.locality == group.locality));
        }
    }

    #[test]
    fn absurd_weights_still_fit(weights in proptest::collection::vec(1..=u32::MAX, 1..20)) {
        let all: Vec<_> = weights.iter().zip(0..).map(|(weight, host)| {
            let base = Workload {
                cluster: "c0".into(),
                network: network(OWN),
                namespace: "ns".into(),
                locality: Locality::default(),
                labels: mk_labels(&[]),
                identity: None,
                accepts_mtls: true,
                node: None,
                name: "p".into(),
                workload: "w".into(),
            };
            Endpoint {
                address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)),
                port: 1,
                port_name: "http".into(),
                health: Health::Healthy,
                weight: *weight,
                workload: Arc::new(base),
            }
        }).collect();
        let gateways = Gateways::new();
        let (members, _) = run(&all, &gateways);
        let total: u64 = members.iter().map(|m| u64::from(m.weight)).sum();
        prop_assert!(total <= u64::from(u32::MAX));
        prop_assert!(members.iter().all(|m| m.weight > 0));
    }
}
