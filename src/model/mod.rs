//! Domain types: what landbridge knows about clusters, services, workloads and policies, free of any transport,
//! Kubernetes client or runtime. Everything else is derived from these.

pub mod change;
pub mod destination_rule;
pub mod endpoint;
pub mod gateway;
pub mod identity;
pub mod kubernetes;
pub mod locality;
pub mod mcs;
pub mod mesh;
pub mod name;
pub mod node;
pub mod peer_authentication;
pub mod port;
pub mod remote_secret;
pub mod selector;
pub mod service;
pub mod slice;
mod small_map;
pub mod staleness;
pub mod workload;

pub use change::{Batch, Change, Kind, Object, ObjectKey};
pub use name::{ClusterId, Labels, NetworkId};
