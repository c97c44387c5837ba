//! Services that clusters offer to each other: the Multi-Cluster Services API (KEP-1645) as istiod reads it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::kubernetes::Meta;

/// The suffix of hosts that belong to the set of clusters; the API fixes it.
pub const CLUSTER_SET: &str = "clusterset.local";

/// What of the API is in force. All of it is off by default, as in istiod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mcs {
    /// `ENABLE_MCS_HOST`: services that are imported somewhere have a second host, in `clusterset.local`.
    pub hosts: bool,
    /// `ENABLE_MCS_SERVICE_DISCOVERY`: endpoints are known to other clusters only where their cluster exports the service.
    pub discovery: bool,
    /// `ENABLE_MCS_CLUSTER_LOCAL`: with it, those of hosts in the cluster's own domain are never known to other clusters.
    pub cluster_local: bool,
}

impl Mcs {
    /// Whether exports and imports mean anything.
    pub fn is_read(self) -> bool {
        self.hosts || self.discovery
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
