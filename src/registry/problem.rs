//! What is wrong with the input right now, for logs, `/debug` and metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use serde::Serialize;

use super::{
    notices::Notices,
    remote::{Joined, Member},
};
use crate::model::{ClusterId, change::ClusterState};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Not applied: the last good version, if there was one, stays in force.
    Error,
    /// Applied, but something in it is ignored or means something else than it seems.
    Warning,
}

/// One thing that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The cluster whose input it is.
    pub cluster: Arc<str>,
    /// The file, if the input is one.
    pub file: Option<Arc<str>>,
    /// Line in the file, from 1.
    pub line: Option<usize>,
    /// `namespace/Kind/name`, if it could be read.
    pub object: Option<Arc<str>>,
    /// The field's path in the object; empty for the whole.
    pub field: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    /// About an object of a cluster's API server, `namespace/Kind/name`; without one, about the cluster.
    pub fn of_object(
        cluster: &Arc<str>,
        object: Option<String>,
        field: String,
        severity: Severity,
        reason: String,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            cluster: cluster.clone(),
            file: None,
            line: None,
            object: object.map(Arc::from),
            field,
            severity,
            reason,
            remedy: remedy.into(),
        }
    }

    /// What makes it the same problem although lines have moved.
    fn identity(&self) -> Self {
        Self { line: None, ..self.clone() }
    }
}

/// Logs what is new and what is gone.
pub(super) fn log_difference(before: &[Problem], after: &[Problem]) {
    let identities = |problems: &[Problem]| problems.iter().map(Problem::identity).collect::<BTreeSet<_>>();
    let (old, new) = (identities(before), identities(after));
    for problem in after.iter().filter(|p| !old.contains(&p.identity())) {
        match problem.severity {
            Severity::Error => tracing::error!("{problem}"),
            Severity::Warning => tracing::warn!("{problem}"),
        }
    }
    for problem in before.iter().filter(|p| !new.contains(&p.identity())) {
        tracing::info!("solved: {problem}");
    }
}

impl fmt::Display for Problem {
    /// `east: rules.yaml:12: production/DestinationRule/payment: spec.host: is missing; add spec.host`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.cluster)?;
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file}:{line}: ")?,
            (Some(file), None) => write!(f, "{file}: ")?,
            _ => {}
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.reason, self.remedy)
    }
}

/// A source's state, as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceReport {
    /// The cluster.
    pub cluster: ClusterId,
    /// Whether it is read whole.
    pub state: ClusterState,
    /// When it was last read whole.
    pub last_read: Option<SystemTime>,
    /// What a slow look at everything found changed without having been told: missed events. Files, or objects of an
    /// API server.
    pub repairs: u64,
    /// How often it was not read whole in the time that others wait for it.
    pub timeouts: u64,
    /// When it was last compared with the API server as a whole.
    pub compared: Option<SystemTime>,
    /// Objects in force, by kind.
    pub objects: BTreeMap<String, usize>,
    /// Objects of kinds that are not read, by `apiVersion/kind`.
    pub not_read: BTreeMap<String, usize>,
    /// The address of the API server, if it is read from one.
    pub server: Option<Arc<str>>,
    /// When the durable snapshot of it was known to hold, if there is one.
    pub snapshot: Option<SystemTime>,
    /// How long each watch of an API server has been silent.
    pub ages: BTreeMap<String, Duration>,
    /// What is wrong, in the order of files and lines.
    pub problems: Vec<Problem>,
}

/// Shared by a source, which writes it, and all who show it.
#[derive(Clone, Debug)]
pub struct SourceStatus(Arc<Mutex<SourceReport>>);

impl SourceStatus {
    /// A source that has not read anything.
    pub fn new(cluster: ClusterId) -> Self {
        Self(Arc::new(Mutex::new(SourceReport {
            cluster,
            state: ClusterState::Syncing,
            last_read: None,
            repairs: 0,
            timeouts: 0,
            compared: None,
            objects: BTreeMap::new(),
            not_read: BTreeMap::new(),
            server: None,
            snapshot: None,
            ages: BTreeMap::new(),
            problems: Vec::new(),
        })))
    }

    /// A copy of all of it.
    pub fn report(&self) -> SourceReport {
        self.0.lock().clone()
    }

    /// Replaces the state. Logs a source that went or came back.
    pub fn set_state(&self, state: ClusterState) {
        let mut report = self.0.lock();
        if report.state == state {
            return;
        }
        let cluster = &report.cluster;
        match &state {
            ClusterState::Syncing => {}
            ClusterState::Synced => tracing::info!(%cluster, "source is read whole"),
            ClusterState::Stale { reason, .. } => {
                tracing::warn!(%cluster, %reason, "source is away; what was known stays in force");
            }
        }
        report.state = state;
    }

    /// Notes that everything was read.
    pub fn read_whole(&self, at: SystemTime) {
        self.0.lock().last_read = Some(at);
    }

    /// Notes what had changed without an event.
    pub fn repaired(&self, count: u64) {
        self.0.lock().repairs += count;
    }

    /// Notes that others wait no longer for it to be read whole.
    pub fn timed_out(&self) {
        self.0.lock().timeouts += 1;
    }

    /// Notes that everything was compared.
    pub fn compared(&self, at: SystemTime) {
        self.0.lock().compared = Some(at);
    }

    /// Replaces the counts.
    pub fn set_counts(&self, objects: BTreeMap<String, usize>, not_read: BTreeMap<String, usize>) {
        let mut report = self.0.lock();
        let new: Vec<_> = not_read.keys().filter(|kind| !report.not_read.contains_key(*kind)).collect();
        if !new.is_empty() {
            tracing::debug!(cluster = %report.cluster, kinds = ?new, "kinds that are not read are passed over");
        }
        report.objects = objects;
        report.not_read = not_read;
    }

    /// Replaces the API server's address.
    pub fn set_server(&self, server: Arc<str>) {
        self.0.lock().server = Some(server);
    }

    /// Notes when the durable snapshot was last known to hold.
    pub fn set_snapshot(&self, as_of: SystemTime) {
        self.0.lock().snapshot = Some(as_of);
    }

    /// Replaces the ages.
    pub fn set_ages(&self, ages: BTreeMap<String, Duration>) {
        self.0.lock().ages = ages;
    }

    /// Replaces the problems. Each is logged once when it appears and once when it is gone.
    pub fn set_problems(&self, problems: Vec<Problem>) {
        let mut report = self.0.lock();
        log_difference(&report.problems, &problems);
        report.problems = problems;
    }
}

/// The sources that there are, by cluster, and what registered them.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    sources: Arc<Mutex<BTreeMap<ClusterId, SourceStatus>>>,
    joined: Joined,
    notices: Notices,
}

impl Sources {
    /// A source begins.
    pub fn insert(&self, status: SourceStatus) {
        let cluster = status.0.lock().cluster.clone();
        self.sources.lock().insert(cluster, status);
    }

    /// A source ended.
    pub fn remove(&self, cluster: &ClusterId) {
        self.sources.lock().remove(cluster);
    }

    /// A copy of all, by cluster.
    pub fn reports(&self) -> Vec<SourceReport> {
        self.sources.lock().values().map(SourceStatus::report).collect()
    }

    /// Everything that is wrong with what there is in a cluster.
    pub fn problems(&self, cluster: &ClusterId) -> Vec<Problem> {
        let source = self.sources.lock().get(cluster).cloned();
        let mut all = source.map_or_else(Vec::new, |source| source.0.lock().problems.clone());
        let others = self.joined.problems().into_iter().chain(self.notices.all());
        all.extend(others.filter(|problem| *problem.cluster == *cluster.0));
        all
    }

    /// What is wrong with the clusters that remote secrets name, at these secrets of the own cluster: they are not read, because what
    /// the secret says leads nowhere or is not accepted there.
    pub fn problems_of_members(&self, own: &ClusterId) -> Vec<Problem> {
        let members = self.joined.members();
        let sources = self.sources.lock();
        let of_member = |(cluster, member): (&ClusterId, &Member)| {
            let report = sources.get(cluster)?.0.lock();
            if report.state == ClusterState::Synced {
                return None;
            }
            let bad = |problem: &&Problem| problem.object.is_none() && problem.severity == Severity::Error;
            // What an API server says tells more than that some connection broke, which is said first.
            let Problem { reason, remedy, .. } = report.problems.iter().rfind(bad)?;
            let (namespace, name) = member.secret.split_once('/')?;
            Some(Problem::of_object(
                &own.0,
                Some(format!("{namespace}/Secret/{name}")),
                format!("data.{cluster}"),
                Severity::Error,
                format!("the cluster is not read: {reason}"),
                remedy.as_str(),
            ))
        };
        members.iter().filter_map(of_member).collect()
    }

    /// The clusters that remote secrets name.
    pub fn joined(&self) -> &Joined {
        &self.joined
    }

    /// What is wrong with objects that are not read by a source.
    pub fn notices(&self) -> &Notices {
        &self.notices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_read_like_a_compilers() {
        let mut problem = Problem {
            cluster: "east".into(),
            file: Some("east/rules.yaml".into()),
            line: Some(12),
            object: Some("production/DestinationRule/payment".into()),
            field: "spec.host".into(),
            severity: Severity::Error,
            reason: "is missing".into(),
            remedy: "add spec.host".into(),
        };
        let place = "east: east/rules.yaml:12: production/DestinationRule/payment";
        assert_eq!(problem.to_string(), format!("{place}: spec.host: is missing; add spec.host"));
        // Moved by an edit above it, it is still the same and not logged again.
        let before = problem.identity();
        problem.line = Some(13);
        assert_eq!(problem.identity(), before);
        let status = SourceStatus::new("east".into());
        status.set_problems(vec![problem.clone()]);
        status.repaired(2);
        let report = status.report();
        assert_eq!(
            (report.problems, report.repairs, report.state),
            (vec![problem], 2, ClusterState::Syncing)
        );
    }
}
