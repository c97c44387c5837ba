//! `/debug/gatewayz`: the gateways of networks, and whether they are alive as seen from here.

use std::{collections::BTreeMap, time::Instant};

use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::{
    AdminState,
    answer::{Answer, Asked, Refusal, json},
};
use crate::gateways::{
    health::{Health, Liveness},
    routes::Tables,
};

/// An address at which a network is entered.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Gateway {
    /// The network behind it.
    pub network: String,
    /// Whose gateway it is; empty for those of `meshNetworks`.
    pub cluster: String,
    /// An IP address, or a host name that is not resolved.
    pub address: String,
    /// The host name that stands for it, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port that routes by SNI.
    pub port: u16,
    /// `alive`, `dead`, or `unknown`: not probed, or unreachable like all others.
    pub state: String,
    /// For how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_seconds: Option<u64>,
    /// Whether a handshake with a workload behind it was ever completed; else it is only known to take connections.
    pub handshake: bool,
    /// Of the last probe that was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// A moving average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smoothed_latency_ms: Option<f64>,
    /// Services with endpoints that are reached through it.
    pub services: usize,
    /// Probes that were answered.
    pub probes_answered: u64,
    /// Probes that were not.
    pub probes_failed: u64,
    /// Why it is not known to be well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Every gateway, by network, cluster and address.
pub async fn gatewayz(State(admin): State<AdminState>, params: Asked) -> Answer {
    let tables = admin.inspector.ask(|state| Tables::of(&state.index)).await;
    let routes = tables.ok_or_else(Refusal::no_pipeline)?.routes();
    let probed = admin.gateways.read();
    let known = probed.clone().unwrap_or_default();
    let isolated = is_isolated(&known);
    let gateways: Vec<_> = routes
        .into_iter()
        .map(|(gateway, routes)| {
            let at = gateway.socket();
            let shown = Gateway {
                network: gateway.network.to_string(),
                cluster: gateway.cluster.to_string(),
                address: gateway.address.to_string(),
                host: gateway.host.as_ref().map(ToString::to_string),
                port: gateway.port,
                services: routes.services,
                state: Liveness::Unknown.word().to_owned(),
                ..Gateway::default()
            };
            let why = gateway.host.as_ref().and_then(|host| admin.unresolved.why(host));
            match (at, at.and_then(|at| known.get(&at))) {
                (Some(_), Some(health)) => {
                    let shown = with_health(shown, health, isolated);
                    let of_host = why.map(|why| format!("the host name does not resolve any more: {why}"));
                    Gateway { problem: shown.problem.clone().or(of_host), ..shown }
                }
                (Some(_), None) if probed.is_none() => {
                    Gateway { problem: Some("not probed: --probe-gateways is off".to_owned()), ..shown }
                }
                (Some(_), None) => Gateway { problem: Some("not probed yet".to_owned()), ..shown },
                (None, _) => {
                    let why = why.unwrap_or_else(|| "it was not asked for yet".to_owned());
                    Gateway { problem: Some(format!("the host name does not resolve: {why}")), ..shown }
                }
            }
        })
        .collect();
    json(&params, &gateways)
}

/// Whether nobody answers, so that nothing is known of anybody.
fn is_isolated(known: &BTreeMap<std::net::SocketAddr, Health>) -> bool {
    !known.is_empty() && !known.values().any(|health| health.liveness == Liveness::Alive)
}

fn with_health(shown: Gateway, health: &Health, isolated: bool) -> Gateway {
    let milliseconds = |took: std::time::Duration| (took.as_secs_f64() * 1e6).round() / 1e3;
    let ours = "; no gateway answers, so this is more probably our own network, and nothing is changed";
    let problem = health.trouble.as_ref().map(|why| {
        let unknown = isolated && health.liveness == Liveness::Unknown;
        format!("{why}{}", if unknown { ours } else { "" })
    });
    Gateway {
        state: health.liveness.word().to_owned(),
        since_seconds: Some(Instant::now().saturating_duration_since(health.since).as_secs()),
        handshake: health.proven,
        latency_ms: health.latency.map(milliseconds),
        smoothed_latency_ms: health.smoothed.map(milliseconds),
        probes_answered: health.probes.0,
        probes_failed: health.probes.1,
        problem,
        ..shown
    }
}
