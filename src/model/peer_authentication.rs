//! Istio's PeerAuthentication: whether a workload demands mutual TLS.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{kubernetes::Meta, name::Labels};

/// What an inbound port accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MtlsMode {
    /// Plaintext only.
    Disable,
    /// Both; the default.
    #[default]
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// A PeerAuthentication.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthentication {
    /// Name, namespace, age.
    pub meta: Meta,
    /// Workloads of the namespace; none: all of it (or of the mesh, in the root namespace).
    pub selector: Option<Labels>,
    /// None (UNSET) inherits.
    pub mode: Option<MtlsMode>,
    /// By the workload's port (not the service's); only read with a selector.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
}
