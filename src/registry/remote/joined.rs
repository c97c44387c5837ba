//! What there is to say about joined clusters.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use super::{Desired, desired::problem};
use crate::{
    model::ClusterId,
    registry::{Problem, Severity},
};

/// A cluster that a secret names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `namespace/name` of the secret.
    pub secret: String,
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
}

impl Joined {
    /// Replaces everything; `refused` says why, of clusters whose newest credentials are not in use. Problems are logged when
    /// they appear and when they are gone.
    pub fn set(
        &self,
        own: &ClusterId,
        desired: &BTreeMap<ClusterId, Desired>,
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
            (cluster.clone(), Member { secret: desired.secret.to_string(), refused })
        });
        let members = members.collect();
        problems.sort();
        let mut state = self.0.lock();
        for problem in problems.iter().filter(|p| !state.problems.contains(p)) {
            match problem.severity {
                Severity::Error => tracing::error!("{problem}"),
                Severity::Warning => tracing::warn!("{problem}"),
            }
        }
        for problem in state.problems.iter().filter(|p| !problems.contains(p)) {
            tracing::info!("solved: {problem}");
        }
        *state = State { members, problems };
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
