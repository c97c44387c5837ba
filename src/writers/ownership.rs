//! Which clusters are ours to write to: our own, and those that say so, as with istiod.

use std::{collections::BTreeMap, convert::Infallible};

use serde::Deserialize;
use tokio::sync::watch;

use crate::{
    model::ClusterId,
    registry::kubernetes::{self, Access, Seen},
};

/// On the system namespace of a cluster without a control plane of its own: which control planes are in charge of it.
const ANNOTATION: &str = "topology.istio.io/controlPlaneClusters";

#[derive(Deserialize)]
struct Namespace {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// Says whether a cluster is ours, now and whenever that changes. While it cannot be known, what was known last holds.
pub(super) async fn follow(
    access: &Access,
    namespace: &str,
    own: &ClusterId,
    ours: &watch::Sender<bool>,
) -> Infallible {
    let path = format!("/api/v1/namespaces?fieldSelector=metadata.name%3D{namespace}&");
    kubernetes::follow::<Namespace>(access, &path, |seen| {
        let now = match seen {
            Seen::All(all) => all.first().is_some_and(|namespace| is_ours(namespace, own)),
            Seen::Now(namespace) => is_ours(&namespace, own),
            Seen::Gone(_) => false,
            Seen::Away(_) => return,
        };
        ours.send_if_modified(|ours| std::mem::replace(ours, now) != now);
    })
    .await
}

/// `*` or a list of cluster ids.
fn is_ours(namespace: &Namespace, own: &ClusterId) -> bool {
    let said = namespace.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION));
    said.is_some_and(|said| said.split(',').map(str::trim).any(|id| id == "*" || id == own.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cluster_says_whose_it_is() {
        let ours = |annotations: serde_json::Value| {
            let namespace = json!({ "metadata": { "name": "istio-system", "annotations": annotations } });
            is_ours(&serde_json::from_value(namespace).expect("a Namespace"), &"east".into())
        };
        let said = |text: &str| ours(json!({ ANNOTATION: text }));
        assert!(said("east") && said("west, east") && said("*"));
        assert!(!said("west") && !said("") && !said("east-1") && !said("*east"));
        assert!(!ours(json!({ "other": "east" })) && !ours(json!(null)));
    }
}
