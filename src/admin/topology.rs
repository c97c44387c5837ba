//! `/debug/clusterz`, `/debug/networkz`, `/debug/nackz`, `/debug/mesh`.

use std::{borrow::Cow, collections::BTreeMap, time::SystemTime};

use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::{
    AdminState,
    answer::{Answer, Asked, Refusal, json},
};
use crate::{model::change::ClusterState, registry::remote::Member};

/// A cluster; the first three fields are istiod's.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cluster {
    pub id: String,
    /// The remote secret that names it; empty for clusters that flags name.
    pub secret_name: String,
    /// Which of its kubeconfigs is in use: the beginning of its SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
    /// `synced`, `syncing`, `stale`; `refused`: what its secret says cannot be used.
    pub sync_status: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The API server's address; none for clusters that are read from files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// When its durable snapshot was last known to hold: what a restart would begin with if the cluster were away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_seconds: Option<u64>,
    /// What is wrong at worst, with what to do: with its secret, else with its source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    pub config_cluster: bool,
    pub services: usize,
    pub pods: usize,
    pub nodes: usize,
}

/// `synced`, `syncing` (istiod's words) or `stale`, which istiod cannot tell.
pub fn status_of(state: &ClusterState) -> &'static str {
    match state {
        ClusterState::Syncing => "syncing",
        ClusterState::Synced => "synced",
        ClusterState::Stale { .. } => "stale",
    }
}

/// Seconds since then; a clock that went back gives 0.
pub fn seconds_since(then: SystemTime) -> u64 {
    SystemTime::now().duration_since(then).map_or(0, |age| age.as_secs())
}

/// RFC 3339 in UTC, to milliseconds.
pub fn rfc3339(at: SystemTime) -> String {
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    time::OffsetDateTime::from(at).format(&format).unwrap_or_default()
}

/// Every cluster, the config cluster first.
pub async fn clusterz(State(admin): State<AdminState>, params: Asked) -> Answer {
    let mut clusters = admin
        .inspector
        .ask(|state| {
            let config = &state.index.options().config_cluster;
            let mut found: Vec<_> = state
                .index
                .inputs()
                .clusters
                .iter()
                .map(|(id, objects)| {
                    let (since, reason) = match &objects.state {
                        ClusterState::Stale { since, reason } => (Some(*since), Some(reason.to_string())),
                        _ => (None, None),
                    };
                    Cluster {
                        id: id.to_string(),
                        sync_status: status_of(&objects.state).into(),
                        stale_since: since.map(rfc3339),
                        stale_seconds: since.map(seconds_since),
                        reason,
                        config_cluster: id == config,
                        services: objects.services.len(),
                        pods: objects.pods.values().map(|pods| pods.len()).sum(),
                        nodes: objects.nodes.len(),
                        ..Cluster::default()
                    }
                })
                .collect();
            found.sort_by_key(|c| !c.config_cluster);
            found
        })
        .await
        .ok_or_else(Refusal::no_pipeline)?;
    let mut reports: BTreeMap<_, _> =
        admin.sources.reports().into_iter().map(|report| (report.cluster.to_string(), report)).collect();
    let mut members: BTreeMap<_, _> =
        admin.sources.joined().members().into_iter().map(|(id, member)| (id.to_string(), member)).collect();
    let notices = admin.sources.notices().all();
    for cluster in &mut clusters {
        if let Some(report) = reports.remove(&cluster.id) {
            cluster.server = report.server.map(|server| server.to_string());
            cluster.snapshot_of = report.snapshot.map(rfc3339);
            cluster.snapshot_seconds = report.snapshot.map(seconds_since);
            let noticed = notices.iter().filter(|problem| *problem.cluster == *cluster.id);
            let worst = report.problems.iter().chain(noticed).min_by_key(|p| p.severity);
            cluster.problem = worst.map(ToString::to_string);
        }
        if let Some(Member { secret, used, refused }) = members.remove(&cluster.id) {
            (cluster.secret_name, cluster.credentials) = (secret, used);
            cluster.problem = refused.or(cluster.problem.take());
        }
    }
    // Of the others nothing is read: with what their secrets say they cannot be.
    clusters.extend(members.into_iter().map(|(id, Member { secret, refused, .. })| {
        let sync_status = if refused.is_some() { "refused" } else { "syncing" }.into();
        Cluster { id, secret_name: secret, sync_status, problem: refused, ..Cluster::default() }
    }));
    json(&params, &clusters)
}

/// A network's gateway, with istiod's field names.
#[derive(Serialize)]
struct Gateway {
    #[serde(rename = "Network")]
    network: String,
    #[serde(rename = "Cluster")]
    cluster: String,
    #[serde(rename = "Addr")]
    address: String,
    #[serde(rename = "Port")]
    port: u16,
    #[serde(rename = "HBONEPort")]
    hbone_port: u16,
    #[serde(rename = "ServiceAccount")]
    service_account: &'static str,
}

/// The gateways of every network.
pub async fn networkz(State(admin): State<AdminState>, params: Asked) -> Answer {
    let gateways =
        admin.inspector.ask(|state| state.index.networks().iter().cloned().collect::<Vec<_>>()).await;
    let gateways: Vec<_> = gateways
        .ok_or_else(Refusal::no_pipeline)?
        .into_iter()
        .map(|g| Gateway {
            network: g.network.to_string(),
            cluster: g.cluster.to_string(),
            address: g.address.to_string(),
            port: g.port,
            hbone_port: 0,
            service_account: "",
        })
        .collect();
    json(&params, &gateways)
}

/// A resource that a proxy refused.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused {
    r#type: &'static str,
    name: String,
    version: String,
    reason: String,
    at: String,
    /// The objects that it was built from: what to look at.
    sources: Vec<String>,
    remedy: &'static str,
}

/// What proxies refused, newest first.
pub async fn nackz(State(admin): State<AdminState>, params: Asked) -> Answer {
    let rejections = admin.inspector.ask(|state| state.layers.rejections().to_vec()).await;
    let refused: Vec<_> = rejections
        .ok_or_else(Refusal::no_pipeline)?
        .into_iter()
        .rev()
        .map(|r| Refused {
            r#type: r.nack.kind.short(),
            name: r.nack.name.to_string(),
            version: r.nack.version.to_string(),
            reason: r.nack.reason.to_string(),
            at: rfc3339(r.at),
            sources: r.sources.iter().map(ToString::to_string).collect(),
            remedy: "proxies keep the last good version; change the objects in `sources` so that Envoy's reason no longer holds",
        })
        .collect();
    json(&params, &refused)
}
