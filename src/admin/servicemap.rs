//! `/debug/servicemap`: the services of each cluster, and those that are in several.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::{
    AdminState,
    answer::{Answer, Asked, Refusal, json},
    registryz::protocol,
    topology::{rfc3339, status_of},
};
use crate::{
    index::ClusterObjects,
    model::{
        ClusterId,
        change::ClusterState,
        endpoint::{Health, Shard},
        kubernetes::{Service, ServiceType},
        port::Protocol,
    },
    pipeline,
};

/// The services of every cluster.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMap {
    /// Version of this shape.
    pub api_version: String,
    /// `ServiceMap`.
    pub kind: String,
    /// By id.
    pub clusters: Vec<ClusterServices>,
    /// Services that several clusters define, by namespace and name.
    pub overlaps: Vec<Overlap>,
}

/// A cluster.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterServices {
    /// Its id.
    pub cluster: String,
    /// `synced`, `syncing`, `stale`.
    pub state: String,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<String>,
    /// The network of its system namespace; empty if unknown.
    pub network: String,
    /// By namespace and name.
    pub services: Vec<ClusterService>,
}

/// A service as one cluster defines it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The host in the mesh.
    pub host: String,
    /// `ClusterIP`, `Headless`, `NodePort`, `LoadBalancer`, `ExternalName`.
    pub r#type: String,
    /// In the order of the object.
    pub ports: Vec<ServicePort>,
    /// Of this cluster.
    pub endpoints: Count,
}

/// A port.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServicePort {
    /// Its name, which may be empty.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// What is spoken.
    pub protocol: String,
}

/// Endpoints by address: a pod with several ports counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// May be called.
    pub ready: usize,
    /// All.
    pub total: usize,
}

/// A service of several clusters.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Overlap {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The host in the mesh.
    pub host: String,
    /// By cluster.
    pub clusters: BTreeMap<String, Count>,
    /// Where the clusters' definitions contradict each other, and which holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
}

/// The whole map; `?namespace=` narrows.
pub async fn servicemap(State(admin): State<AdminState>, params: Asked) -> Answer {
    let (raw, conflicts) = admin
        .inspector
        .ask(|state| (collect(state), conflicts(state)))
        .await
        .ok_or_else(Refusal::no_pipeline)?;
    let mut map = build(raw);
    for overlap in &mut map.overlaps {
        overlap.conflicts = conflicts.get(&overlap.host).cloned().unwrap_or_default();
    }
    if let Some(namespace) = &params.namespace {
        map.retain(|ns| ns == namespace);
    }
    json(&params, &map)
}

/// A definition, its host, and the cluster's endpoints.
type RawService = (Arc<Service>, String, Vec<Arc<Shard>>);

struct Raw {
    id: ClusterId,
    state: ClusterState,
    network: String,
    services: Vec<RawService>,
}

fn collect(state: &pipeline::State) -> Vec<Raw> {
    let index = &state.index;
    let root = &index.mesh().root_namespace;
    let of = |(id, objects): (&ClusterId, &ClusterObjects)| Raw {
        id: id.clone(),
        state: objects.state.clone(),
        network: objects.namespace_network(root).map(ToString::to_string).unwrap_or_default(),
        services: objects
            .services
            .iter()
            .map(|(name, service)| {
                let key = index.service_key(name);
                let shards = index.endpoints(&key).shards_of(id).map(|(_, shard)| shard.clone()).collect();
                (service.clone(), key.host.to_string(), shards)
            })
            .collect(),
    };
    index.inputs().clusters.iter().map(of).collect()
}

/// By host.
fn conflicts(state: &pipeline::State) -> BTreeMap<String, Vec<String>> {
    let services = state.index.services().filter(|service| !service.conflicts.is_empty());
    let words = |all: &[Arc<str>]| all.iter().map(ToString::to_string).collect();
    services.map(|service| (service.key.host.to_string(), words(&service.conflicts))).collect()
}

fn build(raw: Vec<Raw>) -> ServiceMap {
    let clusters: Vec<_> = raw
        .into_iter()
        .map(|cluster| ClusterServices {
            cluster: cluster.id.to_string(),
            state: status_of(&cluster.state).to_owned(),
            stale_since: match &cluster.state {
                ClusterState::Stale { since, .. } => Some(rfc3339(*since)),
                _ => None,
            },
            network: cluster.network,
            services: cluster
                .services
                .into_iter()
                .map(|(s, host, shards)| service(&s, host, &shards))
                .collect(),
        })
        .collect();
    ServiceMap {
        api_version: super::API_VERSION.to_owned(),
        kind: "ServiceMap".to_owned(),
        overlaps: overlaps(&clusters),
        clusters,
    }
}

fn service(service: &Service, host: String, shards: &[Arc<Shard>]) -> ClusterService {
    let kind = match &service.kind {
        ServiceType::ClusterIp if service.headless => "Headless",
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
        ServiceType::ExternalName(_) => "ExternalName",
    };
    let port = |p: &crate::model::kubernetes::ServicePort| ServicePort {
        name: p.name.to_string(),
        port: p.number,
        protocol: protocol(Protocol::select(p.transport, p.app_protocol.as_deref(), &p.name, p.number)),
    };
    let endpoints = || shards.iter().flat_map(|shard| shard.iter());
    let all: BTreeSet<_> = endpoints().map(|e| e.address()).collect();
    let unready: BTreeSet<_> =
        endpoints().filter(|e| e.health() != Health::Healthy).map(|e| e.address()).collect();
    ClusterService {
        namespace: service.meta.namespace.to_string(),
        name: service.meta.name.to_string(),
        host,
        r#type: kind.to_owned(),
        ports: service.ports.iter().map(port).collect(),
        endpoints: Count { ready: all.len() - unready.len(), total: all.len() },
    }
}

fn overlaps(clusters: &[ClusterServices]) -> Vec<Overlap> {
    let mut by_name: BTreeMap<(&str, &str), Overlap> = BTreeMap::new();
    for cluster in clusters {
        for service in &cluster.services {
            let overlap = by_name.entry((&service.namespace, &service.name)).or_insert_with(|| Overlap {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
                host: service.host.clone(),
                clusters: BTreeMap::new(),
                conflicts: Vec::new(),
            });
            overlap.clusters.insert(cluster.cluster.clone(), service.endpoints);
        }
    }
    by_name.into_values().filter(|o| o.clusters.len() > 1).collect()
}

impl ServiceMap {
    /// Keeps the services of these namespaces.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        for cluster in &mut self.clusters {
            cluster.services.retain(|s| keep(&s.namespace));
        }
        self.overlaps.retain(|o| keep(&o.namespace));
    }
}
