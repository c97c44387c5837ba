//! Secret with label `istio/multiCluster`. Errors never quote a value.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::Value;

use super::{
    finding::{Finding, Invalid, Result, Warnings},
    meta::{WireMeta, meta},
};
use crate::model::{
    ClusterId, ObjectKey,
    remote_secret::{Kubeconfig, LABEL, RemoteSecret},
};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Wire {
    metadata: WireMeta,
    /// Trees: the words of a failed conversion would quote what is in them.
    data: Value,
    /// What people write into files; API servers never send it.
    string_data: Value,
}

/// Whether a Secret registers clusters.
pub fn is_remote_secret(value: &Value) -> bool {
    value.pointer("/metadata/labels").and_then(|l| l.get(LABEL)).and_then(Value::as_str) == Some("true")
}

/// None for one in a namespace that is not the root.
pub fn convert(
    key: &ObjectKey,
    wire: Wire,
    root_namespace: &str,
    warnings: &mut Warnings,
) -> Result<Option<RemoteSecret>> {
    if &*key.namespace != root_namespace {
        let reason = format!("registers no clusters: remote secrets are read in {root_namespace} only");
        warnings.push(Finding::new("metadata.namespace", reason, format!("make it in {root_namespace}")));
        return Ok(None);
    }
    let mut secret =
        RemoteSecret { created: meta(wire.metadata, key).created, kubeconfigs: Default::default() };
    for (field, values, encoded) in [("data", wire.data, true), ("stringData", wire.string_data, false)] {
        let values = match values {
            Value::Null => continue,
            Value::Object(values) => values,
            _ => {
                return Err(Invalid::new(field, "is no map", "write a kubeconfig under each cluster's name"));
            }
        };
        for (cluster, value) in values {
            let field = format!("{field}.{cluster}");
            let Value::String(text) = value else {
                return Err(Invalid::new(field, "is no text", "write a kubeconfig"));
            };
            let bytes = match encoded {
                // The error's own words would say which letter is wrong.
                true => STANDARD.decode(text.trim()).map_err(|_| {
                    Invalid::new(
                        field,
                        "is not base64",
                        "write it under stringData, or encode it with `base64 -w0`",
                    )
                })?,
                false => text.into_bytes(),
            };
            secret.kubeconfigs.insert(ClusterId::from(cluster.as_str()), Kubeconfig::new(bytes));
        }
    }
    Ok(Some(secret))
}
