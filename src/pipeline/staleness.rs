//! When the staleness of clusters is to do something to their endpoints. Pure: time is an argument.
//!
//! How long a cluster has been away is counted from when it was last known to be whole; for one that is served from a
//! durable snapshot that may be long before the start. Deprioritising goes by that. Withdrawing takes something away, and
//! counts only the time in which this process has looked for the cluster: a restart alone never withdraws.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use crate::model::{
    Change, ClusterId,
    change::ClusterState,
    staleness::{StalePolicies, StalePolicy, Treatment},
};

/// Clusters that are away, and what is done to each.
#[derive(Debug)]
pub struct Staleness {
    policies: StalePolicies,
    started: Instant,
    clusters: BTreeMap<ClusterId, Away>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Away {
    deprioritise: Option<Instant>,
    withdraw: Option<Instant>,
    treatment: Treatment,
}

impl Staleness {
    /// Nothing is away.
    pub fn new(policies: StalePolicies, started: Instant) -> Self {
        Self { policies, started, clusters: BTreeMap::new() }
    }

    /// Takes in what changes say of clusters; what is to be done to whose endpoints now.
    pub fn note(
        &mut self,
        changes: &[Change],
        now: Instant,
        wall: SystemTime,
    ) -> Vec<(ClusterId, Treatment)> {
        let mut treated = Vec::new();
        for change in changes {
            match change {
                Change::Cluster(id, ClusterState::Stale { since, .. }) => {
                    let age = wall.duration_since(*since).unwrap_or_default();
                    self.is_away(id, age, now);
                }
                Change::Cluster(id, ClusterState::Synced) => {
                    let before = self.clusters.remove(id).unwrap_or_default();
                    if before.treatment != Treatment::Keep {
                        treated.push((id.clone(), Treatment::Keep));
                    }
                }
                // Its endpoints went with it.
                Change::Forget(id) => drop(self.clusters.remove(id)),
                // A cluster that is read anew is as it was until that says how it is.
                Change::Cluster(_, ClusterState::Syncing) | Change::Upsert(..) | Change::Remove(_) => {}
            }
        }
        treated.extend(self.due(now));
        treated
    }

    fn is_away(&mut self, id: &ClusterId, age: Duration, now: Instant) {
        let StalePolicy { deprioritise, withdraw } = self.policies.of(id);
        let after = |limit: Duration| now.checked_add(limit.saturating_sub(age));
        let looked_for = |limit: Duration| Some(after(limit)?.max(self.started.checked_add(limit)?));
        let times = (deprioritise.and_then(after), withdraw.and_then(looked_for));
        let away = self.clusters.entry(id.clone()).or_default();
        (away.deprioritise, away.withdraw) = times;
    }

    /// What is to be done to whose endpoints now and was not a moment ago.
    pub fn due(&mut self, now: Instant) -> Vec<(ClusterId, Treatment)> {
        let mut treated = Vec::new();
        for (id, away) in &mut self.clusters {
            let treatment = away.at(now);
            if std::mem::replace(&mut away.treatment, treatment) != treatment {
                treated.push((id.clone(), treatment));
            }
        }
        treated
    }

    /// When something is due next.
    pub fn next(&self) -> Option<Instant> {
        self.clusters.values().filter_map(Away::next).min()
    }
}

impl Away {
    fn at(&self, now: Instant) -> Treatment {
        let is_past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match (is_past(self.withdraw), is_past(self.deprioritise)) {
            (true, _) => Treatment::Withdraw,
            (false, true) => Treatment::Deprioritise,
            (false, false) => Treatment::Keep,
        }
    }

    fn next(&self) -> Option<Instant> {
        let deprioritise = self.deprioritise.filter(|_| self.treatment < Treatment::Deprioritise);
        let withdraw = self.withdraw.filter(|_| self.treatment < Treatment::Withdraw);
        [deprioritise, withdraw].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct World {
        staleness: Staleness,
        now: Instant,
        wall: SystemTime,
    }

    impl World {
        /// West is deprioritised after 30 s and withdrawn after 100 s, others are deprioritised after 5 s, north is kept.
        fn new() -> Self {
            let policy = |deprioritise, withdraw| StalePolicy {
                deprioritise: Some(deprioritise * SECOND),
                withdraw: Option::<u32>::map(withdraw, |s| s * SECOND),
            };
            let policies = StalePolicies {
                others: policy(5, None),
                by_cluster: [
                    ("west".into(), policy(30, Some(100))),
                    ("north".into(), StalePolicy::default()),
                ]
                .into(),
            };
            let now = Instant::now();
            Self { staleness: Staleness::new(policies, now), now, wall: SystemTime::now() }
        }

        fn pass(&mut self, seconds: u32) -> Vec<(String, Treatment)> {
            self.now += seconds * SECOND;
            self.wall += seconds * SECOND;
            said(self.staleness.due(self.now))
        }

        fn note(&mut self, change: Change) -> Vec<(String, Treatment)> {
            said(self.staleness.note(&[change], self.now, self.wall))
        }

        fn stale(&mut self, cluster: &str, age: u32) -> Vec<(String, Treatment)> {
            let state = ClusterState::Stale { since: self.wall - age * SECOND, reason: "gone".into() };
            self.note(Change::Cluster(cluster.into(), state))
        }

        fn next(&self) -> Option<u64> {
            self.staleness.next().map(|at| at.duration_since(self.now).as_secs())
        }
    }

    fn said(treated: Vec<(ClusterId, Treatment)>) -> Vec<(String, Treatment)> {
        treated.into_iter().map(|(id, treatment)| (id.to_string(), treatment)).collect()
    }

    fn of(cluster: &str, treatment: Treatment) -> Vec<(String, Treatment)> {
        vec![(cluster.to_owned(), treatment)]
    }

    #[test]
    fn a_cluster_is_treated_as_its_policy_says_and_restored_at_once() {
        let mut w = World::new();
        assert!(w.stale("west", 10).is_empty() && w.stale("north", 10_000).is_empty());
        assert_eq!((w.next(), w.pass(19).len(), w.next()), (Some(20), 0, Some(1)));
        assert_eq!(w.pass(1), of("west", Treatment::Deprioritise));
        // It was last seen before the start; withdrawing counts from there.
        assert_eq!(w.next(), Some(80));
        assert!(w.stale("west", 30).is_empty(), "another reason");
        assert_eq!(w.pass(79), []);
        assert_eq!(w.pass(1), of("west", Treatment::Withdraw));
        assert_eq!((w.next(), w.pass(9_999).len()), (None, 0));
        assert!(w.note(Change::Cluster("west".into(), ClusterState::Syncing)).is_empty());
        assert_eq!(w.note(Change::Cluster("west".into(), ClusterState::Synced)), of("west", Treatment::Keep));
        assert_eq!(w.stale("west", 10), [], "a new outage begins anew");
        assert_eq!(w.next(), Some(20));
        assert!(w.note(Change::Cluster("west".into(), ClusterState::Synced)).is_empty());
        assert_eq!((w.stale("south", 7), w.next()), (of("south", Treatment::Deprioritise), None));
        assert!(w.note(Change::Forget("south".into())).is_empty());
        assert_eq!(w.stale("south", 0), []);
        assert_eq!(w.next(), Some(5));
    }

    #[test]
    fn a_restart_does_not_withdraw_and_clocks_may_jump() {
        let mut w = World::new();
        // Served from a snapshot of yesterday.
        assert_eq!(w.stale("west", 86_400), of("west", Treatment::Deprioritise));
        assert_eq!((w.next(), w.pass(99)), (Some(100), vec![]));
        assert_eq!(w.pass(1), of("west", Treatment::Withdraw));
        // A time in the future is none.
        w.wall -= 3_600 * SECOND;
        let since = w.wall + 7_200 * SECOND;
        let state = ClusterState::Stale { since, reason: "gone".into() };
        assert_eq!(w.note(Change::Cluster("south".into(), state)), []);
        assert_eq!(w.next(), Some(5));
        let mut kept = Staleness::new(StalePolicies::default(), w.now);
        let state = ClusterState::Stale { since: SystemTime::UNIX_EPOCH, reason: "gone".into() };
        assert!(kept.note(&[Change::Cluster("west".into(), state)], w.now, w.wall).is_empty());
        assert_eq!(kept.next(), None);
    }
}
