//! `metadata`.

use std::collections::BTreeMap;

use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::wire::{Text, labels};
use crate::model::{ObjectKey, kubernetes::Meta};

/// `metadata` on the wire.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WireMeta {
    labels: BTreeMap<Text, Text>,
    annotations: BTreeMap<Text, Text>,
    creation_timestamp: Option<Text>,
}

/// Name and namespace come from the key, which defaulted and checked them.
pub fn meta(wire: WireMeta, key: &ObjectKey) -> Meta {
    Meta {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        labels: labels(wire.labels),
        annotations: labels(wire.annotations),
        created: seconds(wire.creation_timestamp.as_deref()),
    }
}

/// A timestamp in seconds since 1970; 0 if there is none.
pub fn seconds(timestamp: Option<&str>) -> i64 {
    let parsed = timestamp.and_then(|t| OffsetDateTime::parse(t, &Rfc3339).ok());
    parsed.map_or(0, OffsetDateTime::unix_timestamp)
}
