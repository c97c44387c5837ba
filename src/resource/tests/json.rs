//! Resources as JSON, by Envoy's own field names: what the tests read, and what the real Envoy is given.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;

use crate::resource::Built;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(landbridge_proto::DESCRIPTORS).unwrap());

pub const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
pub const ASSIGNMENT: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";
pub const LISTENER: &str = "envoy.config.listener.v3.Listener";
pub const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
pub const HOST: &str = "envoy.config.route.v3.VirtualHost";

/// A resource as JSON with the field names of the .proto files.
pub fn json(kind: &str, built: &Built) -> Value {
    let descriptor = POOL.get_message_by_name(kind).unwrap();
    let message = DynamicMessage::decode(descriptor, built.message.as_slice()).unwrap();
    let options = SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}

/// The resource of that name.
pub fn named(kind: &str, all: &[Built], name: &str) -> Value {
    let found = all.iter().find(|b| &*b.name == name);
    let names: Vec<_> = all.iter().map(|b| &*b.name).collect();
    json(kind, found.unwrap_or_else(|| panic!("no {name} among {names:?}")))
}
