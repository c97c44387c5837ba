//! Readiness: whether proxies are answered, and if not, what is awaited.

use axum::{extract::State, http::StatusCode};

use super::AdminState;
use crate::{
    model::change::ClusterState,
    registry::{Severity, SourceReport},
};

/// 200 with an empty body once the registry is complete (istiod's answer, too), else 503 and what is missing.
pub async fn ready(State(admin): State<AdminState>) -> (StatusCode, String) {
    if *admin.ready.borrow() {
        return (StatusCode::OK, String::new());
    }
    let states = admin
        .inspector
        .ask(|state| state.index.clusters().map(|(id, s)| (id.clone(), s.clone())).collect::<Vec<_>>())
        .await;
    let Some(states) = states else {
        return (StatusCode::SERVICE_UNAVAILABLE, super::answer::NO_PIPELINE.to_owned());
    };
    let mut body = String::from("Not ready: proxies are not answered before every cluster was read once.\n");
    for SourceReport { cluster, problems, .. } in admin.sources.reports() {
        let line = match states.iter().find(|(id, _)| *id == cluster).map(|(_, state)| state) {
            None => format!("waiting for cluster {cluster}: nothing was heard from its source yet\n"),
            Some(ClusterState::Syncing) => {
                format!("waiting for cluster {cluster}: its first full read is under way\n")
            }
            Some(ClusterState::Synced | ClusterState::Stale { .. }) => continue,
        };
        body.push_str(&line);
        for problem in problems.iter().filter(|p| p.severity == Severity::Error) {
            body.push_str(&format!("  {problem}\n"));
        }
    }
    (StatusCode::SERVICE_UNAVAILABLE, body)
}
