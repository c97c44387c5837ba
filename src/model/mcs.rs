//! Services that clusters offer to each other: the Multi-Cluster Services API (KEP-1645) as istiod reads it.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::kubernetes::Meta;

/// The suffix of hosts that belong to the set of clusters; the API fixes it.
pub const CLUSTER_SET: &str = "clusterset.local";
/// The group that the API's own definitions have.
pub const GROUP: &str = "multicluster.x-k8s.io";
/// The version that istiod reads unless it is told another.
pub const VERSION: &str = "v1alpha1";

/// How much of the API is in force. Each step has those before it, because istiod's variables need each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mcs {
    /// Nothing, as in istiod without a word.
    #[default]
    Off,
    /// `ENABLE_MCS_SERVICE_DISCOVERY`: endpoints are known to other clusters only where their cluster exports the service.
    Exports,
    /// `ENABLE_MCS_HOST`: services that are imported somewhere have a second host, in `clusterset.local`.
    Hosts,
    /// `ENABLE_MCS_CLUSTER_LOCAL`: the endpoints of hosts in the cluster's own domain are never known to other clusters.
    ClusterLocal,
}

/// Where the API's kinds are. As in istiod, their shape is taken to be the same in whatever group and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// `MCS_API_GROUP`
    pub group: Arc<str>,
    /// `MCS_API_VERSION`
    pub version: Arc<str>,
}

impl Default for Api {
    fn default() -> Self {
        Self { group: GROUP.into(), version: VERSION.into() }
    }
}

/// A ServiceExport: its cluster offers the Service of the same name and namespace to the others. Its existence is all that
/// is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceExport {
    /// Name and namespace.
    pub meta: Meta,
}

/// A ServiceImport: its cluster calls the service of the same name and namespace, wherever it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceImport {
    /// Name and namespace.
    pub meta: Meta,
    /// `spec.ips`, ordered: the addresses under which it is called there. None: a headless one.
    pub ips: Vec<IpAddr>,
}
