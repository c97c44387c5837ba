//! Values of chart eastwest-gateway, for each ingress gateway that is one.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Map, Value};

use super::{
    control_plane::metrics,
    fit::{Fit, Left},
    reasons, take_map,
};

const SCHEMA: &str = include_str!("../../../deploy/charts/eastwest-gateway/values.schema.json");
const NETWORK: &str = "topology.istio.io/network";
const VIEW: &str = "ISTIO_META_REQUESTED_NETWORK_VIEW";

/// Settings of Kubernetes that the chart has under another name.
const K8S: &[(&str, &[&str])] = &[
    ("affinity", &["affinity"]),
    ("imagePullPolicy", &["imagePullPolicy"]),
    ("nodeSelector", &["nodeSelector"]),
    ("podAnnotations", &["podAnnotations"]),
    ("podDisruptionBudget", &["podDisruptionBudget"]),
    ("priorityClassName", &["priorityClassName"]),
    ("replicaCount", &["replicaCount"]),
    ("resources", &["resources"]),
    ("service", &["service"]),
    ("serviceAnnotations", &["service", "annotations"]),
    ("tolerations", &["tolerations"]),
];

/// `ingress`: the list `spec.components.ingressGateways`; `mesh`: the control plane's values, whose names gateways share.
pub fn convert(
    ingress: Option<Value>,
    mesh: &Value,
    left: &mut Vec<Left>,
) -> Result<BTreeMap<String, Value>> {
    let mut gateways = BTreeMap::new();
    let at = "spec.components.ingressGateways";
    let items = match ingress {
        None => return Ok(gateways),
        Some(Value::Array(items)) => items,
        Some(_) => {
            left.push(Left { path: at.into(), reason: "is no list".into() });
            return Ok(gateways);
        }
    };
    for (i, item) in items.into_iter().enumerate() {
        let path = format!("{at}[{i}]");
        let mut leave = |reason: &str| left.push(Left { path: path.clone(), reason: reason.into() });
        let Value::Object(mut gateway) = item else {
            leave("is no gateway");
            continue;
        };
        let Some(Value::String(name)) = gateway.remove("name") else {
            leave("has no name");
            continue;
        };
        if gateway.remove("enabled") == Some(Value::Bool(false)) {
            leave("is not enabled");
            continue;
        }
        if gateways.contains_key(&name) {
            leave("has the name of one before it");
            continue;
        }
        match one(&name, &path, gateway, mesh, left)? {
            Some(values) => drop(gateways.insert(name, values)),
            None => left.push(Left {
                path,
                reason: format!(
                    "is no east-west gateway: its env has no {VIEW} and its labels no {NETWORK}; there is no chart of others yet"
                ),
            }),
        }
    }
    Ok(gateways)
}

fn one(
    name: &str,
    path: &str,
    mut gateway: Map<String, Value>,
    mesh: &Value,
    left: &mut Vec<Left>,
) -> Result<Option<Value>> {
    let mut labels = take_map(&mut gateway, "label", path, left).unwrap_or_default();
    let mut k8s = take_map(&mut gateway, "k8s", path, left).unwrap_or_default();
    let labelled = labels.remove(NETWORK);
    let Some(network) = view(&k8s).or_else(|| labelled.clone()) else { return Ok(None) };

    let mut fit = Fit::new(SCHEMA)?;
    for to in [&["global", "meshID"][..], &["global", "multiCluster"], &["global", "proxy", "clusterDomain"]]
    {
        if let Some(value) = to.iter().try_fold(mesh, |at, key| at.get(key)) {
            fit.place("spec.values", value.clone(), to, left);
        }
    }
    fit.place(&format!("{path}.name"), name.into(), &["name"], left);
    if let Some(other) = labelled.filter(|label| *label != network) {
        let reason =
            format!("is {other}, and {VIEW} is {network}: the gateway leads into one network, the latter");
        left.push(Left { path: reasons::join(&format!("{path}.label"), NETWORK), reason });
    }
    fit.place(&format!("{path}.k8s.env"), network, &["networkGateway"], left);
    if !labels.is_empty() {
        fit.place(&format!("{path}.label"), Value::Object(labels), &["labels"], left);
    }
    let is_ours = |namespace: &Value| namespace == "istio-system";
    if let Some(namespace) = gateway.remove("namespace").filter(|namespace| !is_ours(namespace)) {
        let reason = format!("is {namespace}: say it to Helm with --namespace");
        left.push(Left { path: format!("{path}.namespace"), reason });
    }
    kubernetes(&mut fit, &format!("{path}.k8s"), &mut k8s, left);
    reasons::leave(&format!("{path}.k8s"), k8s, left);
    reasons::leave(path, gateway, left);
    Ok(Some(fit.into_values()))
}

/// The network whose endpoints the gateway asks for.
fn view(k8s: &Map<String, Value>) -> Option<Value> {
    let env = k8s.get("env")?.as_array()?;
    let asked = env.iter().find(|item| item.get("name").is_some_and(|name| name == VIEW))?;
    asked.get("value").filter(|value| value.is_string()).cloned()
}

fn kubernetes(fit: &mut Fit, at: &str, k8s: &mut Map<String, Value>, left: &mut Vec<Left>) {
    let path = |key: &str| format!("{at}.{key}");
    for (key, to) in K8S {
        if let Some(value) = k8s.remove(*key) {
            fit.place(&path(key), value, to, left);
        }
    }
    if let Some(mut hpa) = take_map(k8s, "hpaSpec", at, left) {
        // What is scaled is known.
        hpa.remove("scaleTargetRef");
        for key in ["minReplicas", "maxReplicas"] {
            if let Some(value) = hpa.remove(key) {
                fit.place(&path(&format!("hpaSpec.{key}")), value, &["autoscaling", key], left);
            }
        }
        for (from, resource, percent) in metrics(&path("hpaSpec"), hpa.remove("metrics"), left) {
            match &*resource {
                "cpu" => fit.place(&from, percent, &["autoscaling", "targetCPUUtilizationPercentage"], left),
                _ => left
                    .push(Left { path: from, reason: "the chart scales by average use of cpu only".into() }),
            }
        }
        reasons::leave(&path("hpaSpec"), hpa, left);
    } else if fit.get(&["replicaCount"]).is_some() {
        // A number that autoscaling would change at once is not what was meant.
        fit.place(&path("replicaCount"), Value::Bool(false), &["autoscaling", "enabled"], left);
    }
    let Some(Value::Array(env)) = k8s.remove("env") else { return };
    for (i, item) in env.iter().enumerate() {
        let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
        let reason = match name {
            VIEW if item.get("value").is_some_and(Value::is_string) => continue,
            VIEW => "is no text: give networkGateway yourself",
            "ISTIO_META_ROUTER_MODE" => "nothing: servers of mode AUTO_PASSTHROUGH alone decide",
            _ => "the chart's env takes what `landbridge bootstrap` reads",
        };
        left.push(Left { path: format!("{at}.env[{i}] ({})", name.escape_debug()), reason: reason.into() });
    }
}
