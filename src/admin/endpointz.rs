//! `/debug/endpointz` (istiod's `endpointShardz`): every endpoint of every service, cluster by cluster.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use axum::extract::State;
use serde::Serialize;

use super::{
    AdminState,
    answer::{Answer, Asked, Refusal, json},
    endpoints::Ages,
};
use crate::model::{
    Labels,
    endpoint::{Endpoint, Health, ServiceEndpoints},
    service::ServiceKey,
};

/// `{host: {namespace: {"Shards": {"Kubernetes/<cluster>": […]}, "ServiceAccounts": […]}}}`, as at istiod.
type Table<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Shards<'a>>>;

#[derive(Serialize)]
struct Shards<'a> {
    #[serde(rename = "Shards")]
    shards: BTreeMap<String, Vec<Entry<'a>>>,
    #[serde(rename = "ServiceAccounts")]
    accounts: Vec<&'a Arc<str>>,
}

/// istiod's IstioEndpoint.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    addresses: [String; 1],
    endpoint_port: u16,
    service_port_name: &'a str,
    health_status: &'static str,
    /// For how long its cluster has been away, if it is; istiod cannot tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_seconds: Option<u64>,
    lb_weight: u32,
    network: &'a str,
    locality: Place<'a>,
    #[serde(rename = "TLSMode")]
    tls_mode: &'static str,
    service_account: Option<&'a str>,
    namespace: &'a str,
    /// The pod's name, which istiod leaves out.
    pod_name: Cow<'a, str>,
    workload_name: Cow<'a, str>,
    node_name: Option<&'a str>,
    labels: Labels,
}

#[derive(Serialize)]
struct Place<'a> {
    #[serde(rename = "Label")]
    label: String,
    #[serde(rename = "ClusterID")]
    cluster: &'a str,
}

/// Words for an endpoint's health.
pub fn health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "Healthy",
        Health::Unhealthy => "Unhealthy",
        Health::Draining => "Draining",
        Health::Terminating => "Terminating",
    }
}

fn entry<'a>(endpoint: Endpoint<'a>, ages: &Ages) -> Entry<'a> {
    let workload = endpoint.workload();
    Entry {
        addresses: [endpoint.address().to_string()],
        endpoint_port: endpoint.port(),
        service_port_name: endpoint.port_name(),
        health_status: health(endpoint.health()),
        stale_seconds: ages.get(&workload.cluster),
        lb_weight: workload.weight,
        network: workload.network.as_str(),
        locality: Place { label: workload.locality.to_string(), cluster: workload.cluster.as_str() },
        tls_mode: if workload.accepts_mtls { "istio" } else { "disabled" },
        service_account: workload.identity.as_deref(),
        namespace: &workload.namespace,
        pod_name: endpoint.name().into(),
        workload_name: workload.name.as_deref().map_or_else(|| endpoint.name().into(), Cow::Borrowed),
        node_name: endpoint.node().map(|node| &**node),
        labels: endpoint.labels(),
    }
}

/// All endpoints; `?namespace=` and `?service=` (a part of the host) narrow.
pub async fn endpointz(State(admin): State<AdminState>, params: Asked) -> Answer {
    let (all, ages): (Vec<(ServiceKey, Arc<ServiceEndpoints>)>, _) = admin
        .inspector
        .ask(|state| {
            let all = state.index.all_endpoints().map(|(k, e)| (k.clone(), e.clone()));
            (all.collect(), Ages::of(state))
        })
        .await
        .ok_or_else(Refusal::no_pipeline)?;
    let mut table = Table::new();
    for (key, endpoints) in &all {
        if params.namespace.as_ref().is_some_and(|wanted| **wanted != *key.namespace)
            || params.service.as_ref().is_some_and(|wanted| !key.host.contains(wanted.as_str()))
        {
            continue;
        }
        let mut shards: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (cluster, shard) in endpoints.shards() {
            shards
                .entry(format!("Kubernetes/{cluster}"))
                .or_default()
                .extend(shard.iter().map(|e| entry(e, &ages)));
        }
        let entry = Shards { shards, accounts: endpoints.identities().collect() };
        table.entry(&key.host).or_default().insert(&key.namespace, entry);
    }
    json(&params, &table)
}
