//! `metadata`.

use std::collections::BTreeMap;

use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::wire::{Flag, Text, labels};
use crate::model::{ObjectKey, kubernetes::Meta};

/// `metadata` on the wire.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WireMeta {
    labels: BTreeMap<Text, Text>,
    annotations: BTreeMap<Text, Text>,
    creation_timestamp: Option<Text>,
    pub owner_references: Vec<Owner>,
}

/// One of `metadata.ownerReferences`.
#[derive(Debug, Deserialize)]
pub struct Owner {
    pub kind: Text,
    pub name: Text,
    #[serde(default)]
    pub controller: Flag,
}

/// Name and namespace come from the key, which defaulted and checked them.
pub fn meta(wire: WireMeta, key: &ObjectKey) -> Meta {
    let created = wire.creation_timestamp.and_then(|t| OffsetDateTime::parse(&t, &Rfc3339).ok());
    Meta {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        labels: labels(wire.labels),
        annotations: labels(wire.annotations),
        created: created.map_or(0, OffsetDateTime::unix_timestamp),
    }
}

impl WireMeta {
    /// A label's value.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| &***key == name).map(|(_, value)| &**value)
    }
}
