//! Namespace.

use serde::Deserialize;

use super::meta::{WireMeta, meta};
use crate::model::{ObjectKey, kubernetes::Namespace};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wire {
    metadata: WireMeta,
}

pub fn convert(key: &ObjectKey, wire: Wire) -> Namespace {
    Namespace { meta: meta(wire.metadata, key) }
}
