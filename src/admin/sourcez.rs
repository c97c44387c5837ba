//! `/debug/sourcez`: where the objects come from, and what is wrong with them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::extract::State;
use serde::Serialize;

use super::{
    AdminState,
    answer::{Answer, Asked, json},
    topology::{rfc3339, seconds_since, status_of},
};
use crate::{
    model::{ClusterId, change::ClusterState},
    registry::problem::{Problem, SourceReport},
};

/// A cluster's source.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    cluster: ClusterId,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_read: Option<String>,
    /// The API server's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_seconds: Option<u64>,
    /// Files or objects found changed without an event.
    repairs: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_compared: Option<String>,
    /// Since each watch of an API server last said something.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    watch_age_seconds: BTreeMap<String, f64>,
    /// In force, by kind.
    objects: BTreeMap<String, usize>,
    /// Of kinds that are not read.
    not_read: BTreeMap<String, usize>,
    /// With file, line, object, reason and remedy.
    problems: Vec<Problem>,
}

fn source(report: SourceReport) -> Source {
    let (since, reason) = match &report.state {
        ClusterState::Stale { since, reason } => (Some(*since), Some(reason.to_string())),
        _ => (None, None),
    };
    Source {
        state: status_of(&report.state),
        cluster: report.cluster,
        stale_since: since.map(rfc3339),
        stale_seconds: since.map(seconds_since),
        reason,
        last_read: report.last_read.map(rfc3339),
        server: report.server,
        snapshot_of: report.snapshot.map(rfc3339),
        snapshot_seconds: report.snapshot.map(seconds_since),
        repairs: report.repairs,
        last_compared: report.compared.map(rfc3339),
        watch_age_seconds: report.ages.into_iter().map(|(kind, age)| (kind, tenths(age))).collect(),
        objects: report.objects,
        not_read: report.not_read,
        problems: report.problems,
    }
}

fn tenths(age: Duration) -> f64 {
    (age.as_secs_f64() * 10.0).round() / 10.0
}

/// Every source.
pub async fn sourcez(State(admin): State<AdminState>, params: Asked) -> Answer {
    let mut sources: Vec<_> = admin.sources.reports().into_iter().map(source).collect();
    // Found in secrets, after the source had read them, and where nothing is read.
    for problem in admin.sources.joined().problems().into_iter().chain(admin.sources.notices().all()) {
        if let Some(source) = sources.iter_mut().find(|source| source.cluster.0 == problem.cluster) {
            source.problems.push(problem);
        }
    }
    json(&params, &sources)
}
