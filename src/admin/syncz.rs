//! `/debug/syncz`: each connected proxy, and for each type what was sent, accepted and refused.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::{
    AdminState,
    answer::{Answer, Asked, json},
    topology::rfc3339,
};
use crate::{
    model::node::ProxyKind,
    snapshot::ResourceType,
    xds::{
        Kind, Protocol,
        status::{KindStatus, StreamStatus},
    },
};

/// The types that every proxy has, by their short names and type URLs.
pub const TYPES: [(&str, &str); 6] = [
    ("CDS", ResourceType::Cluster.type_url()),
    ("EDS", ResourceType::Endpoint.type_url()),
    ("LEDS", ResourceType::LbEndpoint.type_url()),
    ("LDS", ResourceType::Listener.type_url()),
    ("RDS", ResourceType::Route.type_url()),
    ("VHDS", ResourceType::VirtualHost.type_url()),
];

/// How far a type is on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SyncState {
    /// The newest response was accepted.
    Synced,
    /// The newest response is not answered yet.
    Stale,
    /// The newest response was refused; the proxy keeps what it had.
    Nack,
    /// Nothing was sent: the proxy has not asked, or there is nothing.
    NotSent,
}

/// A proxy. The fields down to `resources` are istiod's; empty ones are left out, as there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncStatus {
    /// The proxy's cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_id: String,
    /// `pod.namespace`.
    pub proxy: String,
    /// `sidecar` or `router`.
    pub proxy_type: String,
    /// Istio's version, else Envoy's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub proxy_version: String,
    /// Istio's version, if the proxy is Istio's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub istio_version: String,
    /// `cluster_sent`, `cluster_acked`, `listener_…`, `route_…`, `endpoint_…`: nonces.
    #[serde(flatten)]
    pub nonces: BTreeMap<String, String>,
    /// The same by type URL, with times and errors.
    pub resources: BTreeMap<String, TypeStatus>,
    /// Unique in the process.
    pub connection: u64,
    /// Where it connected from.
    pub address: String,
    /// Who it has proved to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// `delta` or `sotw`.
    pub protocol: String,
    /// RFC 3339.
    pub connected: String,
    /// Bytes of all responses so far.
    pub bytes_sent: u64,
}

/// A type on a stream; `sent`, `acked`, `sentTime` and `lastError` are istiod's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeStatus {
    /// Nonce of the newest response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
    /// Nonce of the newest response that was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_time: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked_time: Option<String>,
    /// The newest refusal, in the proxy's words. It stays after the type is in step again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_time: Option<String>,
    /// How far it is.
    pub state: SyncState,
    /// How many names are asked for.
    pub names: usize,
    /// Whether everything is asked for.
    pub wildcard: bool,
}

/// Every connected proxy, by cluster, namespace and id; `?namespace=` and `?proxyID=` (a part of the id) narrow.
pub async fn syncz(State(admin): State<AdminState>, params: Asked) -> Answer {
    let mut streams = admin.streams.list();
    streams.retain(|s| params.namespace.as_ref().is_none_or(|wanted| **wanted == *s.proxy.namespace));
    streams.retain(|s| params.proxy_id.as_ref().is_none_or(|wanted| s.proxy.id.contains(wanted.as_str())));
    streams.sort_by(|a, b| {
        let key =
            |s: &StreamStatus| (s.proxy.cluster.clone(), s.proxy.namespace.clone(), s.proxy.id.clone(), s.id);
        key(a).cmp(&key(b))
    });
    json(&params, &streams.iter().map(|s| status(s)).collect::<Vec<_>>())
}

fn status(stream: &StreamStatus) -> SyncStatus {
    let proxy = &stream.proxy;
    let text = |value: &Option<std::sync::Arc<str>>| value.as_deref().unwrap_or_default().to_owned();
    let istio_version = text(&proxy.istio_version);
    let mut nonces = BTreeMap::new();
    let mut resources = BTreeMap::new();
    for kind in Kind::ALL {
        let known = stream.kind(kind);
        if let Some(name) = istiod_name(kind) {
            let marks = [("sent", &known.sent), ("acked", &known.acked)];
            nonces.extend(
                marks
                    .into_iter()
                    .filter_map(|(w, m)| Some((format!("{name}_{w}"), m.as_ref()?.nonce.to_string()))),
            );
        }
        if known.wildcard || known.names > 0 || known.sent.is_some() {
            resources.insert(kind.type_url().to_owned(), type_status(&known));
        }
    }
    SyncStatus {
        cluster_id: proxy.cluster.to_string(),
        proxy: proxy.id.to_string(),
        proxy_type: match proxy.kind {
            ProxyKind::Sidecar => "sidecar",
            ProxyKind::Router => "router",
        }
        .to_owned(),
        proxy_version: if istio_version.is_empty() { text(&proxy.user_agent) } else { istio_version.clone() },
        istio_version,
        nonces,
        resources,
        connection: stream.id,
        address: stream.peer.to_string(),
        identity: stream.identity.as_ref().map(ToString::to_string),
        protocol: match stream.protocol {
            Protocol::Delta => "delta",
            Protocol::Sotw => "sotw",
        }
        .to_owned(),
        connected: rfc3339(stream.connected),
        bytes_sent: stream.bytes(),
    }
}

fn istiod_name(kind: Kind) -> Option<&'static str> {
    match kind.short() {
        "cds" => Some("cluster"),
        "eds" => Some("endpoint"),
        "lds" => Some("listener"),
        "rds" => Some("route"),
        _ => None,
    }
}

fn type_status(known: &KindStatus) -> TypeStatus {
    let nonce = |mark: &Option<crate::xds::status::Mark>| mark.as_ref().map(|m| m.nonce.to_string());
    TypeStatus {
        sent: nonce(&known.sent),
        acked: nonce(&known.acked),
        sent_time: known.sent.as_ref().map(|m| rfc3339(m.at)),
        acked_time: known.acked.as_ref().map(|m| rfc3339(m.at)),
        last_error: known.refused.as_ref().map(|refused| refused.0.clone()),
        last_error_time: known.refused.as_ref().map(|refused| rfc3339(refused.1)),
        state: state_of(known),
        names: known.names,
        wildcard: known.wildcard,
    }
}

/// A refusal counts until something newer is sent or accepted.
fn state_of(known: &KindStatus) -> SyncState {
    let Some(sent) = &known.sent else {
        return if known.kept { SyncState::Synced } else { SyncState::NotSent };
    };
    if known.acked.as_ref().is_some_and(|acked| acked.nonce == sent.nonce) {
        SyncState::Synced
    } else if known.refused.as_ref().is_some_and(|refused| refused.1 >= sent.at) {
        SyncState::Nack
    } else {
        SyncState::Stale
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::xds::{Nonce, status::Mark};

    #[test]
    fn a_type_is_in_one_of_four_states() {
        let start = SystemTime::UNIX_EPOCH;
        let nonces = [Nonce::FIRST, Nonce::FIRST.next(), Nonce::FIRST.next().next()];
        let mark = |nth: usize, second: u64| {
            Some(Mark { nonce: nonces[nth - 1], epoch: 1, at: start + Duration::from_secs(second) })
        };
        let refused = |second: u64| Some(Box::new(("bad".to_owned(), start + Duration::from_secs(second))));
        for (sent, acked, refused, state) in [
            (None, None, None, SyncState::NotSent),
            (mark(1, 1), None, None, SyncState::Stale),
            (mark(1, 1), mark(1, 2), None, SyncState::Synced),
            (mark(2, 3), mark(1, 2), None, SyncState::Stale),
            (mark(2, 3), mark(1, 2), refused(4), SyncState::Nack),
            (mark(3, 5), mark(1, 2), refused(4), SyncState::Stale),
            (mark(3, 5), mark(3, 6), refused(4), SyncState::Synced),
        ] {
            let known = KindStatus { sent, acked, refused, ..KindStatus::default() };
            assert_eq!(state_of(&known), state, "{known:?}");
        }
    }
}
