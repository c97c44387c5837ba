//! Values of chart landbridge.

use anyhow::Result;
use serde_json::{Map, Value};

use super::{
    fit::{Fit, Left},
    reasons, take_map,
};

const SCHEMA: &str = include_str!("../../../deploy/charts/landbridge/values.schema.json");

/// Settings of Kubernetes that the chart has under another name.
const K8S: &[(&str, &[&str])] = &[
    ("affinity", &["pilot", "affinity"]),
    ("imagePullPolicy", &["global", "imagePullPolicy"]),
    ("nodeSelector", &["pilot", "nodeSelector"]),
    ("podAnnotations", &["pilot", "podAnnotations"]),
    ("priorityClassName", &["global", "priorityClassName"]),
    ("resources", &["pilot", "resources"]),
    ("serviceAnnotations", &["pilot", "serviceAnnotations"]),
    ("tolerations", &["pilot", "tolerations"]),
    ("volumes", &["pilot", "volumes"]),
    ("volumeMounts", &["pilot", "volumeMounts"]),
];

/// `spec` without its components, and the component `pilot`. What is said there is stronger than `spec.values`, as it is to Istio.
pub fn convert(
    mut spec: Map<String, Value>,
    mut pilot: Map<String, Value>,
    left: &mut Vec<Left>,
) -> Result<Value> {
    let mut fit = Fit::new(SCHEMA)?;
    for key in ["namespace", "revision"] {
        let says_nothing = |value: &Value| value == "istio-system" || value == "" || value == "default";
        spec.retain(|k, value| k != key || !says_nothing(value));
    }
    if let Some(mesh) = spec.remove("meshConfig") {
        fit.place("spec.meshConfig", mesh, &["meshConfig"], left);
    }
    if let Some(mut values) = take_map(&mut spec, "values", "spec", left) {
        forget_what_is_so_anyway(&mut values);
        fit.place("spec.values", Value::Object(values), &[], left);
    }
    reasons::leave("spec", spec, left);

    let at = "spec.components.pilot";
    if let Some(mut k8s) = take_map(&mut pilot, "k8s", at, left) {
        kubernetes(&mut fit, &mut k8s, left);
        reasons::leave("spec.components.pilot.k8s", k8s, left);
    }
    if let Some(enabled) = pilot.remove("enabled").filter(|enabled| *enabled != Value::Bool(true)) {
        let reason = format!(
            "is {enabled}: for a cluster without a control plane set istiodRemote.enabled and global.remotePilotAddress"
        );
        left.push(Left { path: format!("{at}.enabled"), reason });
    }
    reasons::leave(at, pilot, left);
    // Istio's profile `remote` and the address mean the same.
    let has_primary = fit.get(&["global", "remotePilotAddress"]).is_some_and(|address| address != "");
    if has_primary {
        fit.place("spec.values.istiodRemote.enabled", Value::Bool(true), &["istiodRemote", "enabled"], left);
    }
    Ok(fit.into_values())
}

/// Values that people have in their files and that say what is so here without them.
fn forget_what_is_so_anyway(values: &mut Map<String, Value>) {
    const SO: &[(&str, &str)] = &[
        ("/global/istioNamespace", "istio-system"),
        ("/global/pilotCertProvider", "istiod"),
        ("/revision", ""),
        ("/defaultRevision", ""),
        ("/defaultRevision", "default"),
    ];
    for (pointer, so) in SO {
        let Some((parent, key)) = pointer.rsplit_once('/') else { continue };
        let parent = match parent.strip_prefix('/') {
            None => Some(&mut *values),
            Some(name) => values.get_mut(name).and_then(Value::as_object_mut),
        };
        if let Some(parent) = parent
            && parent.get(key).is_some_and(|value| value == so)
        {
            parent.remove(key);
        }
    }
}

fn kubernetes(fit: &mut Fit, k8s: &mut Map<String, Value>, left: &mut Vec<Left>) {
    let path = |key: &str| format!("spec.components.pilot.k8s.{key}");
    for (key, to) in K8S {
        if let Some(value) = k8s.remove(*key) {
            fit.place(&path(key), value, to, left);
        }
    }
    let mut scaled = false;
    if let Some(hpa) = take_map(k8s, "hpaSpec", "spec.components.pilot.k8s", left) {
        scaled = true;
        autoscaling(fit, hpa, left);
    }
    if let Some(count) = k8s.remove("replicaCount") {
        fit.place(&path("replicaCount"), count, &["pilot", "replicaCount"], left);
        // A number that autoscaling would change at once is not what was meant.
        if !scaled && fit.get(&["pilot", "autoscaleEnabled"]).is_none() {
            fit.place(&path("replicaCount"), Value::Bool(false), &["pilot", "autoscaleEnabled"], left);
        }
    }
    if let Some(strategy) = take_map(k8s, "strategy", "spec.components.pilot.k8s", left) {
        rolling(fit, strategy, left);
    }
    match k8s.remove("env") {
        Some(Value::Array(items)) => {
            for (i, item) in items.into_iter().enumerate() {
                environment(fit, &path(&format!("env[{i}]")), item, left);
            }
        }
        Some(_) => left.push(Left { path: path("env"), reason: "is no list".into() }),
        None => {}
    }
}

fn rolling(fit: &mut Fit, mut strategy: Map<String, Value>, left: &mut Vec<Left>) {
    let at = "spec.components.pilot.k8s.strategy";
    if let Some(mut update) = take_map(&mut strategy, "rollingUpdate", at, left) {
        for (key, to) in [("maxSurge", "rollingMaxSurge"), ("maxUnavailable", "rollingMaxUnavailable")] {
            if let Some(value) = update.remove(key) {
                fit.place(&format!("{at}.rollingUpdate.{key}"), value, &["pilot", to], left);
            }
        }
        reasons::leave(&format!("{at}.rollingUpdate"), update, left);
    }
    reasons::leave(at, strategy, left);
}

/// The bounds and the use of CPU and memory; the rest of a HorizontalPodAutoscaler has no place.
fn autoscaling(fit: &mut Fit, mut hpa: Map<String, Value>, left: &mut Vec<Left>) {
    let at = "spec.components.pilot.k8s.hpaSpec";
    // What is scaled is known.
    hpa.remove("scaleTargetRef");
    for (key, to) in
        [("minReplicas", "autoscaleMin"), ("maxReplicas", "autoscaleMax"), ("behavior", "autoscaleBehavior")]
    {
        if let Some(value) = hpa.remove(key) {
            fit.place(&format!("{at}.{key}"), value, &["pilot", to], left);
        }
    }
    for (path, resource, percent) in metrics(at, hpa.remove("metrics"), left) {
        fit.place(&path, percent, &["pilot", &resource, "targetAverageUtilization"], left);
    }
    reasons::leave(at, hpa, left);
}

/// The resources by which a HorizontalPodAutoscaler scales, and the percentages, in the old form and the new one.
pub fn metrics(at: &str, metrics: Option<Value>, left: &mut Vec<Left>) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    let items = match metrics {
        Some(Value::Array(items)) => items,
        Some(_) => {
            left.push(Left { path: format!("{at}.metrics"), reason: "is no list".into() });
            return found;
        }
        None => return found,
    };
    for (i, metric) in items.iter().enumerate() {
        let path = format!("{at}.metrics[{i}]");
        let name = metric.pointer("/resource/name").and_then(Value::as_str);
        let percent = ["/resource/target/averageUtilization", "/resource/targetAverageUtilization"];
        let percent = percent.iter().find_map(|pointer| metric.pointer(pointer));
        match (name, percent) {
            (Some(name @ ("cpu" | "memory")), Some(percent)) => {
                found.push((path, name.into(), percent.clone()))
            }
            _ => {
                let reason = "the chart scales by average use of cpu and memory only".into();
                left.push(Left { path, reason });
            }
        }
    }
    found
}

/// `name` and `value`, or where the value comes from.
fn environment(fit: &mut Fit, path: &str, item: Value, left: &mut Vec<Left>) {
    let Some(name) = item.get("name").and_then(Value::as_str).map(str::to_owned) else {
        left.push(Left { path: path.to_owned(), reason: "has no name".into() });
        return;
    };
    let known = fit.takes(&["pilot", "env", &name]);
    let path = format!("{path} ({})", name.escape_debug());
    match (known, item.get("value"), item.get("valueFrom")) {
        (false, ..) => left.push(Left { path, reason: reasons::of("spec.components.pilot.k8s.env") }),
        (true, Some(value), None) => {
            fit.place(&path, value.clone(), &["pilot", "env", &name], left);
        }
        (true, None, Some(_)) => fit.append(item, &["pilot", "envVarFrom"]),
        (true, ..) => left.push(Left { path, reason: "needs either value or valueFrom".into() }),
    }
}
