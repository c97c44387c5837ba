//! The Envoy and Istio messages that landbridge speaks, generated at build time from Envoy's own definitions.
//!
//! Maps are `BTreeMap`s, so that encoding a message is deterministic: resource versions are hashes of these bytes.
#![allow(clippy::all, clippy::pedantic, rustdoc::all, missing_docs)]

pub mod wire;

include!(concat!(env!("OUT_DIR"), "/messages.rs"));

/// gRPC clients and servers. Responses carry encoded resources as shared bytes (`landbridge::envelope`).
pub mod service {
    /// `envoy.service.discovery.v3.AggregatedDiscoveryService`.
    pub mod ads {
        include!(concat!(env!("OUT_DIR"), "/envoy.service.discovery.v3.AggregatedDiscoveryService.rs"));
    }
    /// `envoy.service.secret.v3.SecretDiscoveryService`.
    pub mod sds {
        include!(concat!(env!("OUT_DIR"), "/envoy.service.secret.v3.SecretDiscoveryService.rs"));
    }
    /// `istio.v1.auth.IstioCertificateService`.
    pub mod ca {
        include!(concat!(env!("OUT_DIR"), "/istio.v1.auth.IstioCertificateService.rs"));
    }
}

/// The encoded `FileDescriptorSet` of every message here, for JSON dumps and gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
