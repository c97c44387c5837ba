//! `/debug/endpoints`: which endpoints of a service a proxy gets, why it does not get the others, and what stands for what
//! lies behind a gateway. The answer comes from the function that makes the bytes, so it cannot differ from them.

use std::collections::BTreeMap;

use axum::{extract::State as Extracted, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    AdminState,
    answer::{Answer, Asked, Refusal, json},
    endpointz::health,
    lookup::resolve,
    proxies::{self, Found},
    registryz::protocol,
    topology::seconds_since,
};
use crate::{
    index::Index,
    model::{
        ClusterId,
        change::ClusterState,
        endpoint::Endpoint,
        service::{Port, Resolution, Service},
    },
    pipeline::State,
    resource::{
        eds::{Assignment, Cohort, Excluded, Group, Member, Origin, assign},
        name,
    },
};

/// What a proxy gets of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// Version of this shape.
    pub api_version: String,
    /// `Endpoints`.
    pub kind: String,
    /// The service's host.
    pub service: String,
    /// `pod.namespace`.
    pub proxy: String,
    /// Where it runs.
    pub proxy_cluster: String,
    /// Empty if unknown.
    pub proxy_network: String,
    /// Empty if unknown.
    pub proxy_locality: String,
    /// What is special about the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// By number.
    pub ports: Vec<PortEndpoints>,
}

/// One port.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortEndpoints {
    /// The service's port.
    pub port: u16,
    /// Its name.
    pub name: String,
    /// What is spoken.
    pub protocol: String,
    /// The Envoy cluster.
    pub envoy_cluster: String,
    /// By priority, then locality.
    pub endpoints: Vec<Chosen>,
    /// By cluster and address.
    pub excluded: Vec<NotChosen>,
}

/// What the proxy is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chosen {
    /// `ip:port` that Envoy connects to.
    pub address: String,
    /// Where it is.
    pub cluster: String,
    /// Empty if unknown.
    pub network: String,
    /// Empty if unknown.
    pub locality: String,
    /// 0 is used first.
    pub priority: u32,
    /// Its share within the priority.
    pub weight: u32,
    /// In words.
    pub health: String,
    /// Whether mutual TLS is spoken to it.
    pub mtls: bool,
    /// For how long its cluster has been away, if it is: it is as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_seconds: Option<u64>,
    /// The pod, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// For a gateway: the ready endpoints behind it, `ip:port`. Gateways of one network share them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stands_for: Option<Vec<String>>,
    /// It is a gateway that does not answer although others do: it comes after all others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dead: bool,
}

/// What the proxy does not get.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotChosen {
    /// `ip:port`.
    pub address: String,
    /// Where it is.
    pub cluster: String,
    /// Empty if unknown.
    pub network: String,
    /// Empty if unknown.
    pub locality: String,
    /// In words.
    pub health: String,
    /// For how long its cluster has been away, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_seconds: Option<u64>,
    /// The pod.
    pub pod: String,
    /// For scripts: `no-gateway`, `no-mtls`, `not-ready`, …
    pub reason: String,
    /// What the reason is about, such as the network.
    pub details: Value,
    /// For people, with what to do.
    pub message: String,
}

/// `?service=` and `?proxyID=`.
pub async fn endpoints(Extracted(admin): Extracted<AdminState>, params: Asked) -> Answer {
    let missing = || {
        Refusal::bad(
            "You must name a service: /debug/endpoints?service=backend.production&proxyID=POD.NAMESPACE\n",
        )
    };
    let service = params.service.clone().filter(|s| !s.is_empty()).ok_or_else(missing)?;
    let proxy = params.proxy_id.clone().filter(|p| !p.is_empty());
    let proxy = proxy.ok_or_else(|| Refusal::bad(proxies::NO_PROXY_ID))?;
    let found = admin.inspector.ask(move |state| look(state, &service, &proxy)).await;
    json(&params, &found.ok_or_else(Refusal::no_pipeline)??)
}

fn look(state: &State, wanted: &str, proxy: &str) -> Result<Endpoints, Refusal> {
    let found = proxies::find_in(state, proxy).ok_or_else(|| no_proxy(state, proxy))?;
    let (service, port) = resolve(&state.index, &found.view.scope, &found.proxy.namespace, wanted)?;
    let facts = state.index.workload_facts(&found.proxy);
    let ports = service.ports.iter().filter(|p| port.is_none_or(|wanted| wanted == p.number));
    Ok(Endpoints {
        api_version: super::API_VERSION.to_owned(),
        kind: "Endpoints".to_owned(),
        service: service.key.host.to_string(),
        proxy: found.proxy.id.to_string(),
        proxy_cluster: found.proxy.cluster.to_string(),
        proxy_network: found.view.network.to_string(),
        proxy_locality: facts.locality.to_string(),
        note: note(&service),
        ports: ports.map(|port| of_port(state, &found, &service, port)).collect(),
    })
}

fn note(service: &Service) -> Option<String> {
    match &service.resolution {
        Resolution::ClientSide => None,
        Resolution::Passthrough => {
            Some("headless: a sidecar calls the address that the application picked among these".to_owned())
        }
        Resolution::Alias(target) => Some(format!(
            "an alias (ExternalName) of {target}, without endpoints of its own: ask for that host"
        )),
    }
}

fn of_port(state: &State, found: &Found, service: &Service, port: &Port) -> PortEndpoints {
    // A gateway's own clusters are those that forward by SNI.
    let sni_dnat = found.view.sni_dnat;
    let assignment = assign(&state.index, &found.view, service, port, None, sni_dnat);
    let named = if sni_dnat { name::sni_dnat } else { name::outbound };
    let Assignment { groups, excluded, .. } = &assignment;
    let ages = Ages::of(state);
    let chosen = |group, member: &_| Chosen {
        dead: is_dead(&state.index, member),
        ..chosen(group, member, assignment.cohort(member), &ages)
    };
    PortEndpoints {
        port: port.number,
        name: port.name.to_string(),
        protocol: protocol(port.protocol),
        envoy_cluster: named(port.number, "", &service.key.host).to_string(),
        endpoints: groups.iter().flat_map(|g| g.members.iter().map(move |m| chosen(g, m))).collect(),
        excluded: excluded.iter().map(|(endpoint, reason)| not_chosen(*endpoint, reason, &ages)).collect(),
    }
}

fn address(endpoint: Endpoint) -> String {
    std::net::SocketAddr::new(endpoint.address(), endpoint.port()).to_string()
}

/// For how long clusters have been away; those that are.
pub struct Ages(BTreeMap<ClusterId, u64>);

impl Ages {
    /// As of now.
    pub fn of(state: &State) -> Self {
        let age = |(id, state): (&ClusterId, &ClusterState)| match state {
            ClusterState::Stale { since, .. } => Some((id.clone(), seconds_since(*since))),
            ClusterState::Synced | ClusterState::Syncing => None,
        };
        Self(state.index.clusters().filter_map(age).collect())
    }

    /// In seconds.
    pub fn get(&self, cluster: &ClusterId) -> Option<u64> {
        self.0.get(cluster).copied()
    }
}

fn chosen(group: &Group, member: &Member, cohort: &Cohort, ages: &Ages) -> Chosen {
    let (cluster, stale_seconds, network, pod, stands_for) = match &cohort.origin {
        Origin::Endpoint { workload, .. } => {
            let pod = member.endpoint.map(|endpoint| endpoint.name());
            let age = ages.get(&workload.cluster);
            (workload.cluster.to_string(), age, workload.network.to_string(), pod, None)
        }
        Origin::Gateway { gateway, behind } => {
            // Of several clusters behind one gateway, the one that was seen last.
            let ages = behind.iter().map(|e| ages.get(&e.workload().cluster)).min().flatten();
            let mut behind: Vec<_> = behind.iter().map(|e| address(*e)).collect();
            behind.sort();
            behind.dedup();
            (gateway.cluster.to_string(), ages, gateway.network.to_string(), None, Some(behind))
        }
    };
    Chosen {
        address: std::net::SocketAddr::from(member.target).to_string(),
        cluster,
        network,
        locality: group.locality.to_string(),
        priority: group.priority,
        weight: member.weight,
        health: health(member.health).to_owned(),
        mtls: cohort.mtls,
        stale_seconds,
        pod,
        stands_for,
        dead: false,
    }
}

fn is_dead(index: &Index, member: &Member) -> bool {
    member.endpoint.is_none() && index.is_dead_gateway(&member.target.into())
}

fn not_chosen(endpoint: Endpoint, why: &Excluded, ages: &Ages) -> NotChosen {
    let workload = endpoint.workload();
    let mut details = serde_json::to_value(why).unwrap_or_default();
    let reason = details.as_object_mut().and_then(|fields| fields.remove("reason"));
    NotChosen {
        address: address(endpoint),
        cluster: workload.cluster.to_string(),
        network: workload.network.to_string(),
        locality: workload.locality.to_string(),
        health: health(endpoint.health()).to_owned(),
        stale_seconds: ages.get(&workload.cluster),
        pod: endpoint.name(),
        reason: reason.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned(),
        details,
        message: why.to_string(),
    }
}

fn no_proxy(state: &State, wanted: &str) -> Refusal {
    const SHOWN: usize = 10;
    let mut ids: Vec<_> = state.classes.proxies().map(|(_, proxy, ..)| proxy.id.to_string()).collect();
    ids.sort();
    ids.dedup();
    let connected = match ids.len() {
        0 => "none is connected".to_owned(),
        n if n > SHOWN => format!("{n} are connected, among them {}", ids[..SHOWN].join(", ")),
        _ => format!("connected are {}", ids.join(", ")),
    };
    Refusal(
        StatusCode::NOT_FOUND,
        format!(
            "No proxy `{wanted}` is connected to this control plane: {connected}. `landbridge proxy-status` lists them; a proxy may be connected to another replica.\n"
        ),
    )
}
