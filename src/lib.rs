//! landbridge: an Envoy control plane for service meshes of many clusters.
//!
//! ```text
//! files, Kubernetes --Change--> pipeline (the only writer): inputs -> index -> views -> resources -> snapshots
//!                                                                     snapshots --feed--> xDS streams --> Envoys
//! ```

pub mod admin;
pub mod app;
pub mod args;
pub mod authn;
pub mod ca;
pub mod cli;
pub mod files;
pub mod gateways;
pub mod grpc;
pub mod index;
pub mod model;
pub mod pem;
pub mod pipeline;
pub mod registry;
pub mod resource;
pub mod snapshot;
pub mod text;
pub mod view;
pub mod webhook;
pub mod workers;
pub mod writers;
pub mod xds;
