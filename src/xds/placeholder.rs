//! The answer for a name that does not exist.
//!
//! Envoy waits for every assignment and route configuration that it asked for: 15 seconds, or for ever where the
//! configuration says so. An empty one lets it go on. There is no such answer for secrets: an empty validation
//! context would mean that every peer is trusted.

use std::sync::Arc;

use landbridge_proto::envoy::config::{endpoint::v3::ClusterLoadAssignment, route::v3::RouteConfiguration};
use prost::Message;

use super::kind::Kind;
use crate::snapshot::{Encoded, ResourceType};

/// An empty resource of this kind and name, where an empty one is harmless.
pub fn placeholder(kind: Kind, name: &Arc<str>) -> Option<Arc<Encoded>> {
    let message = match kind {
        Kind::Snapshot(ResourceType::Endpoint) => {
            ClusterLoadAssignment { cluster_name: name.to_string(), ..Default::default() }.encode_to_vec()
        }
        Kind::Snapshot(ResourceType::Route) => {
            RouteConfiguration { name: name.to_string(), ..Default::default() }.encode_to_vec()
        }
        Kind::Snapshot(
            ResourceType::Cluster
            | ResourceType::LbEndpoint
            | ResourceType::Listener
            | ResourceType::VirtualHost,
        )
        | Kind::Secret => return None,
    };
    Some(Arc::new(Encoded::new(name.clone(), kind.type_url(), &message, None, Arc::new([]))))
}
