//! Which clusters were joined, and what is to be done so that they are the desired ones. Pure: time is an argument.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::Desired;
use crate::model::{ClusterId, remote_secret::Kubeconfig};

/// A cluster that no secret names is taken away after this long: tools that delete an object and make it again do so within
/// seconds.
pub const LINGER: Duration = Duration::from_secs(10);
/// Until a kubeconfig that was refused is tried again: its API server may have been away.
const RETRY: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Begin to read it, and say [`Members::done`].
    Add(ClusterId, Kubeconfig),
    /// Exchange its credentials once the new ones have proved to work, and say [`Members::done`].
    Replace(ClusterId, Kubeconfig),
    /// Take it away.
    Remove(ClusterId),
}

/// The joined clusters.
#[derive(Debug, Default)]
pub struct Members(BTreeMap<ClusterId, Member>);

#[derive(Debug, Default)]
struct Member {
    /// With which it is read; none: it is not.
    used: Option<Kubeconfig>,
    /// Which is being tried.
    trying: Option<Kubeconfig>,
    /// Which was refused, and when it may be tried again.
    refused: Option<(Kubeconfig, Instant)>,
    /// Since when no secret names it.
    unnamed: Option<Instant>,
}

impl Members {
    /// What is to be done now.
    pub fn steps(&mut self, desired: &BTreeMap<ClusterId, Desired>, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        for (cluster, Desired { kubeconfig, .. }) in desired {
            let member = self.0.entry(cluster.clone()).or_default();
            member.unnamed = None;
            // What was refused matters only until it is tried again, or is not wanted any more.
            member.refused.take_if(|(config, until)| config != kubeconfig || now >= *until);
            if member.trying.is_some() || member.used.as_ref() == Some(kubeconfig) || member.refused.is_some()
            {
                continue;
            }
            member.trying = Some(kubeconfig.clone());
            let step = if member.used.is_some() { Step::Replace } else { Step::Add };
            steps.push(step(cluster.clone(), kubeconfig.clone()));
        }
        self.0.retain(|cluster, member| {
            if desired.contains_key(cluster) {
                return true;
            }
            let since = *member.unnamed.get_or_insert(now);
            member.refused = None;
            if member.used.is_none() {
                return member.trying.is_some();
            }
            let stays = now < since + LINGER;
            if !stays {
                steps.push(Step::Remove(cluster.clone()));
            }
            stays
        });
        steps
    }

    /// How a step ended; false if it means nothing any more, because the cluster was taken away meanwhile.
    pub fn done(&mut self, cluster: &ClusterId, well: bool, now: Instant) -> bool {
        let Some(member) = self.0.get_mut(cluster) else { return false };
        let Some(tried) = member.trying.take() else { return false };
        if well {
            (member.used, member.refused) = (Some(tried), None);
        } else {
            member.refused = Some((tried, now + RETRY));
        }
        true
    }

    /// With which a cluster is read; none: it is not.
    pub fn used(&self, cluster: &ClusterId) -> Option<&Kubeconfig> {
        self.0.get(cluster)?.used.as_ref()
    }

    /// Whether what a secret says now is refused, or being tried: what was said of it last still holds.
    pub fn is_in_doubt(&self, cluster: &ClusterId) -> bool {
        self.0.get(cluster).is_some_and(|m| m.trying.is_some() || m.refused.is_some())
    }

    /// When there may be something to do although no secret changes.
    pub fn next(&self) -> Option<Instant> {
        let lingering =
            self.0.values().filter(|m| m.used.is_some()).filter_map(|m| m.unnamed.map(|s| s + LINGER));
        let refused = self.0.values().filter_map(|m| m.refused.as_ref().map(|(_, until)| *until));
        lingering.chain(refused).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::remote::SecretName;

    const SECOND: Duration = Duration::from_secs(1);

    struct World {
        members: Members,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            Self { members: Members::default(), now: Instant::now() }
        }

        /// The steps after a while, when these clusters are desired; each is said to have ended well, or not.
        fn after(&mut self, wait: Duration, desired: &[(&str, &str)], well: bool) -> Vec<String> {
            let steps = self.begun(wait, desired);
            for cluster in ["west", "north"] {
                self.members.done(&cluster.into(), well, self.now);
            }
            steps
        }

        fn begun(&mut self, wait: Duration, desired: &[(&str, &str)]) -> Vec<String> {
            self.now += wait;
            let secret = |text: &str| Desired {
                secret: SecretName { namespace: "istio-system".into(), name: text.into() },
                kubeconfig: Kubeconfig::new(text.as_bytes()),
            };
            let desired = desired.iter().map(|(id, text)| (ClusterId::from(*id), secret(text))).collect();
            let word = |step: &Step| match step {
                Step::Add(id, config) => format!("add {id} {}", String::from_utf8_lossy(config.expose())),
                Step::Replace(id, config) => {
                    format!("replace {id} {}", String::from_utf8_lossy(config.expose()))
                }
                Step::Remove(id) => format!("remove {id}"),
            };
            self.members.steps(&desired, self.now).iter().map(word).collect()
        }
    }

    #[test]
    fn clusters_come_change_their_credentials_and_go() {
        let mut world = World::new();
        assert_eq!(
            world.after(SECOND, &[("west", "1"), ("north", "1")], true),
            ["add north 1", "add west 1"]
        );
        // Rewritten, or named by another secret with the same content.
        assert!(world.after(SECOND, &[("west", "1"), ("north", "1")], true).is_empty());
        assert_eq!(world.after(SECOND, &[("west", "2"), ("north", "1")], true), ["replace west 2"]);
        assert!(world.after(SECOND, &[("west", "2")], true).is_empty());
        assert_eq!(world.members.next(), Some(world.now + LINGER));
        assert_eq!(world.after(LINGER, &[("west", "2")], true), ["remove north"]);
        assert_eq!(world.members.next(), None);
        assert_eq!(world.after(SECOND, &[("west", "2"), ("north", "1")], true), ["add north 1"]);
    }

    #[test]
    fn gone_and_back_within_a_moment_is_nothing_or_other_credentials() {
        let mut world = World::new();
        world.after(SECOND, &[("west", "1"), ("north", "1")], true);
        assert!(world.after(SECOND, &[], true).is_empty());
        assert!(world.after(LINGER - SECOND, &[], true).is_empty());
        assert_eq!(world.after(SECOND / 2, &[("west", "1"), ("north", "2")], true), ["replace north 2"]);
        assert!(world.after(LINGER * 3, &[("west", "1"), ("north", "2")], true).is_empty());
    }

    #[test]
    fn refused_credentials_leave_the_old_ones_and_are_tried_again() {
        let mut world = World::new();
        world.after(SECOND, &[("west", "1")], true);
        assert_eq!(world.after(SECOND, &[("west", "bad")], false), ["replace west bad"]);
        assert!(world.after(SECOND, &[("west", "bad")], false).is_empty());
        assert_eq!(world.after(RETRY, &[("west", "bad")], false), ["replace west bad"]);
        assert!(world.members.is_in_doubt(&"west".into()));
        // Put back: the ones in use.
        assert!(world.after(SECOND, &[("west", "1")], true).is_empty());
        assert!(!world.members.is_in_doubt(&"west".into()));
        assert_eq!(world.after(SECOND, &[("west", "3")], true), ["replace west 3"]);
        assert_eq!(world.members.next(), None);
        // Never usable, and gone: there is nothing to take away.
        assert_eq!(world.after(SECOND, &[("west", "3"), ("north", "bad")], false), ["add north bad"]);
        assert!(world.after(LINGER, &[("west", "3")], false).is_empty());
        assert!(world.after(LINGER, &[("west", "3")], false).is_empty());
        assert_eq!(world.members.next(), None);
    }

    #[test]
    fn one_proof_at_a_time_and_the_newest_wins() {
        let mut world = World::new();
        world.after(SECOND, &[("west", "1")], true);
        assert_eq!(world.begun(SECOND, &[("west", "2")]), ["replace west 2"]);
        assert!(world.begun(SECOND, &[("west", "3")]).is_empty());
        world.members.done(&"west".into(), true, world.now);
        assert_eq!(world.begun(SECOND, &[("west", "3")]), ["replace west 3"]);
        // Taken away while a proof is under way: its end means nothing any more.
        assert!(world.begun(SECOND, &[]).is_empty());
        assert_eq!(world.begun(LINGER, &[]), ["remove west"]);
        assert!(!world.members.done(&"west".into(), true, world.now));
        assert!(world.begun(LINGER, &[]).is_empty());
    }
}
