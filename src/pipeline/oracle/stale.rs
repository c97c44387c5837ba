//! What is done to the endpoints of a cluster that is away: whatever the mesh looks like, nobody is left without a healthy
//! endpoint that he had, others come first, the cluster's own clients are left alone, and the end of it is as if it had never
//! been.

use std::{collections::BTreeSet, time::Instant};

use proptest::prelude::*;

use super::{
    super::State,
    attach, given,
    histories::{Step, Thing, mcs, steps},
    is_as_before, late_is_last, mesh, options, put, snapshots,
};
use crate::{
    model::{Change, ClusterId, endpoint::Health, mcs::Mcs, staleness::Treatment},
    resource::eds::{Assignment, Excluded, Origin},
};

const AWAY: &str = "west";

/// A member of an assignment.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    target: String,
    /// It stands only for endpoints of the cluster that is away.
    away: bool,
    healthy: bool,
    late: bool,
    priority: u32,
}

/// What a proxy gets of a service, and how many endpoints it does not get because their cluster is away.
fn seen(assignment: &Assignment<'_>) -> (Vec<Seen>, usize) {
    let mut seen = Vec::new();
    for group in &assignment.groups {
        for member in &group.members {
            let clusters: BTreeSet<_> = match &assignment.cohort(member).origin {
                Origin::Endpoint { workload, .. } => [workload.cluster.as_str()].into(),
                Origin::Gateway { behind, .. } => {
                    behind.iter().map(|e| e.workload().cluster.as_str()).collect()
                }
            };
            seen.push(Seen {
                target: format!("{:?}", member.target),
                away: clusters.iter().all(|cluster| *cluster == AWAY),
                healthy: member.health == Health::Healthy,
                late: group.late,
                priority: group.priority,
            });
        }
    }
    let withdrawn = |(_, why): &&(_, Excluded)| matches!(why, Excluded::ClusterAway { .. });
    (seen, assignment.excluded.iter().filter(withdrawn).count())
}

fn play(history: Vec<Step>, treatment: Treatment, mcs: Mcs) -> Result<(), TestCaseError> {
    let mut state = mesh(history, mcs);
    let own: BTreeSet<_> =
        state.classes.proxies().filter(|(_, p, ..)| p.cluster.as_str() == AWAY).map(|(id, ..)| id).collect();
    let treat = |state: &mut State, treatment| {
        state.treat(vec![(ClusterId::from(AWAY), treatment)], Instant::now());
    };
    let (before, published) = (given(&state, seen), snapshots(&state));
    treat(&mut state, treatment);
    let after = given(&state, seen);
    prop_assert!(before.keys().eq(after.keys()));
    for (place, (before, _)) in &before {
        let (after, withdrawn) = &after[place];
        if own.contains(&place.0) {
            prop_assert_eq!(before, after);
            continue;
        }
        let targets = |seen: &[Seen]| seen.iter().map(|s| s.target.clone()).collect::<BTreeSet<_>>();
        let healthy = |seen: &[Seen]| seen.iter().any(|s| s.healthy);
        let healthy_elsewhere = before.iter().any(|s| s.healthy && !s.away);
        prop_assert_eq!(healthy(before), healthy(after), "{:?}", place);
        if treatment == Treatment::Withdraw && healthy_elsewhere {
            prop_assert!(after.iter().all(|s| !s.away && !s.late), "{:?}: {:?}", place, after);
        }
        if *withdrawn == 0 {
            prop_assert_eq!(targets(before), targets(after), "{:?}", place);
            prop_assert!(after.iter().all(|s| s.late == s.away), "{:?}: {:?}", place, after);
            prop_assert!(
                late_is_last(after.iter().map(|s| (s.late, s.priority))),
                "{:?}: {:?}",
                place,
                after
            );
        } else {
            prop_assert!(treatment == Treatment::Withdraw && healthy(after));
        }
    }
    treat(&mut state, Treatment::Keep);
    is_as_before(&state, &published)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn others_come_first_and_nobody_is_left_alone(
        history in steps(),
        treatment in prop::sample::select(vec![Treatment::Deprioritise, Treatment::Withdraw]),
        mcs in mcs(),
    ) {
        play(history, treatment, mcs)?;
    }
}

/// Of many services those are built again that have endpoints in the cluster.
#[test]
fn only_what_has_endpoints_there_is_built_again() {
    let mut state = State::new(options());
    attach(&mut state, 1, 0);
    for n in 0..3 {
        for thing in [Thing::Service(0, n), Thing::Slice(0, n, 0)] {
            put(&mut state, 0, thing, 3);
            if n == 1 {
                put(&mut state, 1, thing, 3);
            }
        }
    }
    let delta = state.index.treat([(ClusterId::from(AWAY), Treatment::Deprioritise)]);
    assert_eq!(
        delta.endpoints.iter().map(|key| &*key.host).collect::<Vec<_>>(),
        ["b.production.svc.cluster.local"]
    );
    assert!(
        !delta.everything && delta.services.is_empty() && delta.ports.is_empty() && delta.names.is_empty()
    );
    assert!(state.index.treat([(ClusterId::from(AWAY), Treatment::Deprioritise)]).is_empty(), "once");
    assert!(!state.index.treat([(ClusterId::from(AWAY), Treatment::Keep)]).is_empty());
    // A cluster that is forgotten and comes back is nobody's old acquaintance.
    state.index.treat([(ClusterId::from(AWAY), Treatment::Withdraw)]);
    state.apply(vec![Change::Forget(AWAY.into())], Instant::now());
    assert_eq!(state.index.treatment(&AWAY.into()), Treatment::Keep);
}
