//! `/debug/configz` and `/debug/mesh`: Istio's objects as they were understood, which is not always as they were meant.

use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    AdminState,
    answer::{Answer, Asked, Refusal, json as answer_json},
};
use crate::model::{ClusterId, kubernetes::Meta};

/// One object, in the outline of a Kubernetes object; `spec` has the fields that are read, defaults filled in.
fn object(
    cluster: &ClusterId,
    in_force: bool,
    api: &str,
    kind: &str,
    meta: &Meta,
    spec: &impl Serialize,
) -> Value {
    let mut spec = tidy(serde_json::to_value(spec).unwrap_or_default()).unwrap_or_else(|| json!({}));
    if let Value::Object(fields) = &mut spec {
        fields.remove("meta");
    }
    json!({
        "apiVersion": api,
        "kind": kind,
        "metadata": { "name": meta.name, "namespace": meta.namespace, "labels": meta.labels },
        "spec": spec,
        "cluster": cluster,
        "inForce": in_force,
    })
}

/// Durations as Istio writes them; what is unset is left out.
fn tidy(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(tidy).collect())),
        Value::Object(fields) => {
            if let (2, Some(secs), Some(nanos)) = (fields.len(), fields.get("secs"), fields.get("nanos"))
                && let (Some(secs), Some(nanos)) = (secs.as_u64(), nanos.as_u64())
            {
                return Some(format!("{}s", secs as f64 + nanos as f64 / 1e9).into());
            }
            let kept: serde_json::Map<_, _> =
                fields.into_iter().filter_map(|(name, value)| Some((name, tidy(value)?))).collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        other => Some(other),
    }
}

/// The Istio objects of every cluster. `inForce` is false for those outside the config cluster: they are seen and
/// nothing is decided by them, which people expect otherwise.
pub async fn configz(State(admin): State<AdminState>, params: Asked) -> Answer {
    let clusters = admin.inspector.ask(|state| {
        let config = state.index.options().config_cluster.clone();
        let of = |(id, objects): (&ClusterId, &crate::index::ClusterObjects)| {
            (
                id.clone(),
                *id == config,
                objects.gateways.values().cloned().collect::<Vec<_>>(),
                objects.destination_rules.values().cloned().collect::<Vec<_>>(),
                objects.peer_authentications.values().cloned().collect::<Vec<_>>(),
            )
        };
        state.index.inputs().clusters.iter().map(of).collect::<Vec<_>>()
    });
    let mut objects = Vec::new();
    for (id, in_force, gateways, rules, peers) in clusters.await.ok_or_else(Refusal::no_pipeline)? {
        let networking = "networking.istio.io/v1";
        for o in &rules {
            objects.push(object(&id, in_force, networking, "DestinationRule", &o.meta, &**o));
        }
        for o in &gateways {
            objects.push(object(&id, in_force, networking, "Gateway", &o.meta, &**o));
        }
        for o in &peers {
            objects.push(object(&id, in_force, "security.istio.io/v1", "PeerAuthentication", &o.meta, &**o));
        }
    }
    answer_json(&params, &objects)
}

/// The mesh-wide settings in force, defaults filled in.
pub async fn mesh(State(admin): State<AdminState>, params: Asked) -> Answer {
    let mesh =
        admin.inspector.ask(|state| state.index.mesh().clone()).await.ok_or_else(Refusal::no_pipeline)?;
    let value = serde_json::to_value(mesh).ok().and_then(tidy).unwrap_or_default();
    answer_json(&params, &value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_are_written_as_people_write_them_and_unset_fields_not_at_all() {
        let value =
            json!({ "a": Duration::from_millis(1500), "b": null, "c": [], "d": { "e": null }, "f": [1] });
        assert_eq!(tidy(value), Some(json!({ "a": "1.5s", "f": [1] })));
    }
}
