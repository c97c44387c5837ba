//! Why something of Istio's is not carried over.

use serde_json::{Map, Value};

use super::fit::Left;

/// Reasons by the beginning of the path, the longest first where several fit.
const REASONS: &[(&str, &str)] = &[
    ("metadata.namespace", "everything is in istio-system: install with --namespace istio-system"),
    ("metadata", "says nothing about the mesh"),
    ("spec.profile", "profiles are Istio's; the charts' own defaults are in force"),
    ("spec.hub", IMAGE),
    ("spec.tag", IMAGE),
    ("spec.values.global.hub", IMAGE),
    ("spec.values.global.tag", IMAGE),
    ("spec.values.global.variant", IMAGE),
    ("spec.values.pilot.hub", IMAGE),
    ("spec.values.pilot.tag", IMAGE),
    ("spec.values.pilot.image", IMAGE),
    ("spec.values.pilot.variant", IMAGE),
    ("spec.components.pilot.hub", IMAGE),
    ("spec.components.pilot.tag", IMAGE),
    ("spec.revision", "there are no revisions: a cluster has one control plane"),
    ("spec.values.revision", "there are no revisions: a cluster has one control plane"),
    ("spec.values.defaultRevision", "there are no revisions: a cluster has one control plane"),
    ("spec.namespace", "everything is in istio-system: install with --namespace istio-system"),
    (
        "spec.values.global.istioNamespace",
        "everything is in istio-system: install with --namespace istio-system",
    ),
    (
        "spec.components.base",
        "chart landbridge brings the definitions that it reads, where a cluster has none",
    ),
    ("spec.components.cni", "nothing of Istio's CNI plugin is installed or needed by landbridge itself"),
    ("spec.components.ztunnel", "there is no ambient mode"),
    ("spec.values.ztunnel", "there is no ambient mode"),
    ("spec.values.cni", "nothing of Istio's CNI plugin is installed or needed by landbridge itself"),
    ("spec.values.istio_cni", "nothing of Istio's CNI plugin is installed or needed by landbridge itself"),
    ("spec.components.egressGateways", "there is no chart of egress gateways"),
    (
        "spec.components.istiodRemote",
        "set istiodRemote.enabled and global.remotePilotAddress in values of the remote cluster",
    ),
    (
        "spec.components.pilot.k8s.overlays",
        "changes manifests that are Istio's; see what the chart's values can do",
    ),
    ("spec.components.pilot.k8s.hpaSpec", "the chart scales by use of CPU and memory only"),
    ("spec.components.pilot.k8s.env", ENV),
    ("spec.values.pilot.env", ENV),
    ("spec.values.pilot.extraContainerArgs", "names flags of istiod; see `landbridge serve --help` for ours"),
    ("spec.values.pilot", "landbridge has no such setting"),
    ("spec.values.sidecarInjectorWebhook", INJECTION),
    ("spec.values.global.proxy", INJECTION),
    ("spec.values.global.proxy_init", INJECTION),
    ("spec.values.global.caAddress", "landbridge is the certificate authority"),
    ("spec.values.global.multiCluster.enabled", "nothing has to be switched on for several clusters"),
    (
        "spec.values.global.logging.level",
        "has scopes of Istio's; write default:info, or pilot.extraContainerArgs with --log-level",
    ),
    (
        "spec.values.gateways",
        "gateways have a chart of their own: values of spec.components.ingressGateways are converted with --gateway",
    ),
    ("spec.values.telemetry", "landbridge makes no telemetry filters yet"),
    ("spec.values.base", "is of Istio's own charts"),
    ("spec.values.experimental", "is of Istio's own charts"),
    ("spec.unvalidatedValues", "is of Istio's own charts; what is needed of it goes into spec.values"),
    ("spec.addonComponents", "is of Istio's own charts"),
    ("spec.installPackagePath", "is of Istio's own charts"),
];

const IMAGE: &str = "names an image of Istio's; global.hub, global.tag and pilot.image name landbridge's";
const ENV: &str = "landbridge does not read it; `landbridge serve --help` lists what it reads";
const INJECTION: &str = "configures injected sidecars, and landbridge injects none yet";

/// Paths that the chart has, too, but that name an image: it is Istio's in the file, and must not become ours.
pub const IMAGES: &[&str] = &[
    "spec.values.global.hub",
    "spec.values.global.tag",
    "spec.values.pilot.image",
    "spec.values.pilot.extraContainerArgs",
];

/// Why the value at `path` has no place in a chart.
pub fn of(path: &str) -> String {
    let found = longest(path).map(|(_, reason)| reason);
    found.unwrap_or("the chart has no such value").to_owned()
}

fn longest(path: &str) -> Option<(&'static str, &'static str)> {
    let below =
        |prefix: &str| path.strip_prefix(prefix).is_some_and(|r| r.is_empty() || r.starts_with(['.', '[']));
    REASONS.iter().copied().filter(|(prefix, _)| below(prefix)).max_by_key(|(prefix, _)| prefix.len())
}

/// Leaves out all of a map.
pub fn leave(path: &str, map: Map<String, Value>, left: &mut Vec<Left>) {
    for (key, value) in map {
        leave_value(&join(path, &key), &value, left);
    }
}

/// Leaves out a value: as a whole where its place has a reason of its own, else by what is in it.
pub fn leave_value(path: &str, value: &Value, left: &mut Vec<Left>) {
    match value {
        Value::Object(map) if !map.is_empty() && longest(path).is_none() => {
            for (key, value) in map {
                leave_value(&join(path, key), value, left);
            }
        }
        _ => left.push(Left { path: path.to_owned(), reason: of(path) }),
    }
}

/// A field's path; keys that have dots are quoted. Control characters cannot reach a terminal.
pub fn join(path: &str, key: &str) -> String {
    let is_plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    match (path.is_empty(), is_plain) {
        (true, true) => key.to_owned(),
        (false, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[\"{}\"]", key.escape_debug()),
    }
}
