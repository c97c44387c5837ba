//! ServiceAccount.

use serde::Deserialize;

use super::meta::{WireMeta, meta};
use crate::model::{ObjectKey, kubernetes::ServiceAccount};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wire {
    metadata: WireMeta,
}

pub fn convert(key: &ObjectKey, wire: Wire) -> ServiceAccount {
    ServiceAccount { meta: meta(wire.metadata, key) }
}
