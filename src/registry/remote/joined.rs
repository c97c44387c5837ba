//! What there is to say about joined clusters.

use std::{collections::BTreeMap, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;

use super::{Desired, Events, desired::problem};
use crate::{
    model::{ClusterId, remote_secret::Kubeconfig},
    registry::{Problem, Severity, problem::log_difference},
};

/// What tells kubeconfigs apart without showing them: of SHA-256, the first 16 digits.
pub fn fingerprint(kubeconfig: &[u8]) -> String {
    digest(&SHA256, kubeconfig).as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A cluster that a secret names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `namespace/name` of the secret.
    pub secret: String,
    /// The fingerprint of the kubeconfig that is in use; none while there is none.
    pub used: Option<String>,
    /// Why what the secret says now is not in use.
    pub refused: Option<String>,
}

/// Shared by what joins clusters and all who show them.
#[derive(Clone, Debug, Default)]
pub struct Joined(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    members: BTreeMap<ClusterId, Member>,
    problems: Vec<Problem>,
    events: Events,
}

impl Joined {
    /// Replaces everything; `used` is what is in use, `refused` says why, of clusters whose newest credentials are not. Problems are logged when
    /// they appear and when they are gone.
    pub fn set(
        &self,
        own: &ClusterId,
        desired: &BTreeMap<ClusterId, Desired>,
        used: impl Fn(&ClusterId) -> Option<Kubeconfig>,
        refused: &BTreeMap<ClusterId, (String, String)>,
        mut problems: Vec<Problem>,
    ) {
        let members = desired.iter().map(|(cluster, desired)| {
            let refused = refused.get(cluster);
            if let Some((reason, remedy)) = refused {
                let words = (reason.clone(), remedy.clone());
                problems.push(problem(own, &desired.secret, cluster, Severity::Error, words.0, words.1));
            }
            let refused = refused.map(|(reason, remedy)| format!("{reason}; {remedy}"));
            let used = used(cluster).map(|kubeconfig| fingerprint(kubeconfig.expose()));
            (cluster.clone(), Member { secret: desired.secret.to_string(), used, refused })
        });
        let members = members.collect();
        problems.sort();
        let mut state = self.0.lock();
        log_difference(&state.problems, &problems);
        (state.members, state.problems) = (members, problems);
    }

    /// Notes what has happened to secrets.
    pub fn set_events(&self, events: Events) {
        self.0.lock().events = events;
    }

    /// What has happened to secrets.
    pub fn events(&self) -> Events {
        self.0.lock().events
    }

    /// The clusters that secrets name.
    pub fn members(&self) -> BTreeMap<ClusterId, Member> {
        self.0.lock().members.clone()
    }

    /// What is wrong with secrets.
    pub fn problems(&self) -> Vec<Problem> {
        self.0.lock().problems.clone()
    }
}
