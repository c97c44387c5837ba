//! Envoy resources from the registry: pure functions of the index and a view, never of a proxy.
//!
//! ```text
//! (Index, ClusterView)  -> cds     (Index, EndpointView) -> eds
//! (Index, ListenerView) -> lds     (Index, RouteView)    -> rds
//! ```
//!
//! Names, chains and defaults are istiod's. Where a resource differs on purpose, the place that makes it different says
//! why; together these differences are:
//! - Istio's own filters appear only for proxies that list them, as does what only these read: which workload an endpoint
//!   belongs to (unless access logs show it); and certificates come over the same ADS stream for proxies without an agent;
//! - a remote gateway is one endpoint, in one locality, and counts ready endpoints only ([`eds::horizon`]);
//! - in the mode "failover by default", what makes a failover work ([`policy`], [`cds::outlier`], [`rds::retry`]);
//! - SANs are matched as URIs (`match_typed_subject_alt_names`), because the untyped field is deprecated;
//! - no trace sampling settings while there is no tracer.

pub mod access_log;
pub mod cds;
pub mod eds;
pub mod lds;
pub mod name;
pub mod policy;
pub mod proto;
pub mod rds;
mod template;
pub mod tls;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use prost::Message;

use crate::model::ObjectKey;

/// A resource as it comes from a builder, still without version and envelope.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// The resource's name.
    pub name: Arc<str>,
    /// The encoded Envoy message, the same bytes for the same input.
    pub message: Vec<u8>,
    /// For an EDS cluster: the load assignment that it waits for. For a route configuration without its hosts, or an
    /// assignment without its endpoints: what their names begin with.
    pub waits_for: Option<Arc<str>>,
    /// What a load assignment leaves out.
    pub pieces: Option<Box<eds::Pieces>>,
    /// The objects that it was built from.
    pub sources: Vec<ObjectKey>,
}

impl Built {
    /// Encodes a message.
    pub fn new(name: impl Into<Arc<str>>, message: &impl Message, sources: Vec<ObjectKey>) -> Self {
        Self::of_bytes(name, message.encode_to_vec(), sources)
    }

    /// As [`Self::new`], of a message that is encoded.
    pub fn of_bytes(name: impl Into<Arc<str>>, message: Vec<u8>, sources: Vec<ObjectKey>) -> Self {
        Self { name: name.into(), message, waits_for: None, pieces: None, sources }
    }
}
