//! Istio's remote secrets: which further clusters there are, and how their API servers are reached.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::name::ClusterId;

/// Whoever makes a Secret with this label, `true`, in the root namespace registers clusters.
pub const LABEL: &str = "istio/multiCluster";

/// A Secret with kubeconfigs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSecret {
    /// `creationTimestamp` in seconds since 1970; 0 when the object has none (files), which makes it the oldest.
    pub created: i64,
    /// By cluster: a Secret may name several.
    pub kubeconfigs: BTreeMap<ClusterId, Kubeconfig>,
}

/// The bytes of a kubeconfig. They hold credentials: nothing shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct Kubeconfig(Arc<[u8]>);

impl Kubeconfig {
    /// Takes bytes as they are; whether they are a kubeconfig is seen when it is used.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// What only a client of the API server needs.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kubeconfig({} bytes)", self.0.len())
    }
}
