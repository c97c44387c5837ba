//! Istio's PeerAuthentication.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    check,
    finding::{Finding, Invalid, Result, Warnings},
    meta::{WireMeta, meta},
    wire::{Int, Text, labels},
};
use crate::model::{
    ObjectKey,
    name::Labels,
    peer_authentication::{MtlsMode, PeerAuthentication},
};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wire {
    metadata: WireMeta,
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    selector: Option<Selector>,
    mtls: Option<Mtls>,
    port_level_mtls: BTreeMap<Text, Mtls>,
}

/// Istio's WorkloadSelector.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Selector {
    match_labels: BTreeMap<Text, Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mtls {
    mode: Option<Text>,
}

const MODES: &[(&str, Option<MtlsMode>)] = &[
    ("UNSET", None),
    ("DISABLE", Some(MtlsMode::Disable)),
    ("PERMISSIVE", Some(MtlsMode::Permissive)),
    ("STRICT", Some(MtlsMode::Strict)),
];

impl Selector {
    /// None when it selects everything.
    pub fn labels(self) -> Option<Labels> {
        Some(labels(self.match_labels)).filter(|l| !l.is_empty())
    }
}

pub fn convert(key: &ObjectKey, wire: Wire, warnings: &mut Warnings) -> Result<PeerAuthentication> {
    let spec = wire.spec;
    let selector = spec.selector.and_then(Selector::labels);
    let mut ports = BTreeMap::new();
    for (port, mtls) in spec.port_level_mtls {
        let field = format!("spec.portLevelMtls.{}", &*port);
        let number = port.parse().map_err(|_| {
            Invalid::new(
                &field,
                format!("{:?} is no port number", &*port),
                "write the workload's port number",
            )
        })?;
        ports.insert(check::port(&field, Int(number))?, mode(&format!("{field}.mode"), Some(mtls))?);
    }
    if selector.is_none() && !ports.is_empty() {
        ports.clear();
        warnings.push(Finding::new(
            "spec.portLevelMtls",
            "is ignored: exceptions for ports need a workload selector, and Istio refuses the object without one",
            "add spec.selector.matchLabels, or move the exception into an object of its own that selects the workload",
        ));
    }
    Ok(PeerAuthentication {
        meta: meta(wire.metadata, key),
        selector,
        mode: mode("spec.mtls.mode", spec.mtls)?,
        ports,
    })
}

fn mode(field: &str, mtls: Option<Mtls>) -> Result<Option<MtlsMode>> {
    match mtls.and_then(|m| m.mode) {
        Some(text) => check::choice(field, &text, MODES),
        None => Ok(None),
    }
}
