//! What is done when gateways are dead: whatever the mesh looks like, nobody loses an endpoint, who is reached without a dead
//! gateway is as before and comes first, and the end of it is as if it had never been.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Instant};

use proptest::prelude::*;

use super::{
    super::State,
    attach, given,
    histories::{Step, Thing, mcs, steps},
    is_as_before, late_is_last, mesh, options, put, snapshots,
};
use crate::{index::Addresses, model::mcs::Mcs, resource::eds::Assignment, snapshot::StreamId};

/// A member of an assignment.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    target: SocketAddr,
    gateway: bool,
    late: bool,
    priority: u32,
    weight: u32,
}

fn seen(assignment: &Assignment<'_>) -> Vec<Seen> {
    let members = assignment.groups.iter().flat_map(|group| {
        group.members.iter().map(|member| Seen {
            target: member.target.into(),
            gateway: member.endpoint.is_none(),
            late: group.late,
            priority: group.priority,
            weight: member.weight,
        })
    });
    members.collect()
}

/// Some of the gateways that histories make.
pub(super) fn dead(some: u8) -> Arc<BTreeSet<SocketAddr>> {
    let all = [[172, 30, 0, 0], [172, 30, 0, 1], [172, 30, 1, 0], [172, 30, 1, 1]];
    let some = all.into_iter().enumerate().filter(|(i, _)| some & (1 << i) != 0);
    Arc::new(some.map(|(_, ip)| SocketAddr::from((ip, 15443))).collect())
}

/// What the names of gateways mean that histories make: nothing at all, or some of the addresses that others have, too.
pub(super) fn resolved(variant: u8) -> Arc<Addresses> {
    let name = |cluster: u8, addresses: &[u8]| {
        let host = format!("gateway.{}.example.com", ["east", "west"][usize::from(cluster)]);
        (host.into(), addresses.iter().map(|last| [172, 30, cluster, *last].into()).collect())
    };
    Arc::new(match variant {
        0 => Addresses::new(),
        1 => [name(1, &[1])].into(),
        2 => [name(0, &[0, 1]), name(1, &[0, 1])].into(),
        _ => [name(1, &[7, 8, 9])].into(),
    })
}

fn play(history: Vec<Step>, some: u8, mcs: Mcs) -> Result<(), TestCaseError> {
    let mut state = mesh(history, mcs);
    state.set_gateway_addresses(resolved(2), Instant::now());
    let dead = dead(some);
    let (before, published) = (given(&state, seen), snapshots(&state));
    state.set_dead_gateways(dead.clone(), Instant::now());
    let after = given(&state, seen);
    prop_assert!(before.keys().eq(after.keys()));
    for (place, before) in &before {
        let after = &after[place];
        let is_dead = |seen: &Seen| seen.gateway && dead.contains(&seen.target);
        if !before.iter().any(is_dead) {
            prop_assert_eq!(before, after, "{:?}", place);
            continue;
        }
        let targets = |seen: &[Seen]| seen.iter().map(|s| s.target).collect::<BTreeSet<_>>();
        prop_assert_eq!(targets(before), targets(after), "{:?}", place);
        prop_assert!(after.iter().all(|s| s.late == is_dead(s)), "{:?}: {:?}", place, after);
        prop_assert!(late_is_last(after.iter().map(|s| (s.late, s.priority))), "{:?}: {:?}", place, after);
        // Who is alive takes over the weight of the dead: east has one network, west may have another.
        let share = |seen: &[Seen], gateway: bool| -> u64 {
            let alive = seen.iter().filter(|s| s.gateway == gateway && !is_dead(s));
            alive.map(|s| u64::from(s.weight)).sum()
        };
        let (direct, through) =
            ((share(before, false), share(after, false)), (share(before, true), share(after, true)));
        // after.through / after.direct >= before.through / before.direct
        prop_assert!(through.1 * direct.0 >= through.0 * direct.1, "{:?}: {:?} {:?}", place, before, after);
    }
    state.set_dead_gateways(Arc::default(), Instant::now());
    is_as_before(&state, &published)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn who_is_alive_comes_first_and_nobody_is_left_out(history in steps(), some in 1..16u8, mcs in mcs()) {
        play(history, some, mcs)?;
    }
}

/// East calls services of which west has endpoints behind two gateways; one dies, then both, then they come back.
#[test]
fn a_gateway_that_dies_moves_what_lies_behind_it_and_nothing_else() {
    let mut state = State::new(options());
    for cluster in 0..2 {
        put(&mut state, cluster, Thing::Namespace, 0);
        for n in 0..3 {
            put(&mut state, cluster, Thing::Pod(0, n), 0);
        }
        // `a` in both, `b` in east only.
        put(&mut state, cluster, Thing::Service(0, 0), 0);
        put(&mut state, cluster, Thing::Slice(0, 0, 0), 3);
    }
    put(&mut state, 0, Thing::Service(0, 1), 0);
    put(&mut state, 0, Thing::Slice(0, 1, 0), 3);
    // West's network has two gateways.
    put(&mut state, 1, Thing::EastWest, 2);
    attach(&mut state, 1, 0);
    let of_a = |state: &State| {
        given(state, seen)[&(StreamId(1), "a.production.svc.cluster.local".to_owned(), 80)].clone()
    };
    let gateways = |state: &State| -> Vec<(bool, u32)> {
        of_a(state).iter().filter(|s| s.gateway).map(|s| (s.late, s.weight)).collect()
    };
    let alive = gateways(&state);
    assert_eq!((alive.len(), alive.iter().any(|(late, _)| *late)), (2, false), "{:?}", of_a(&state));
    let built = state.totals.resources;
    state.set_dead_gateways(dead(0b0100), Instant::now());
    let one = gateways(&state);
    assert_eq!(one.iter().filter(|(late, _)| *late).count(), 1, "{one:?}");
    assert!(state.totals.resources - built <= 2, "only what has endpoints there is built again");
    state.set_dead_gateways(dead(0b1100), Instant::now());
    assert!(gateways(&state).iter().all(|(late, _)| *late));
    assert!(of_a(&state).iter().filter(|s| !s.gateway).all(|s| !s.late && s.priority == 0));
    state.set_dead_gateways(dead(0b0011), Instant::now());
    assert_eq!(gateways(&state), alive, "those of another network");
}
