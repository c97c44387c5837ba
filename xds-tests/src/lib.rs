//! Black-box tests of landbridge, and what they stand on: a lab of network namespaces with stock Envoys.
//!
//! ```text
//! netns (namespaces) <- topology (two clouds) <- mesh (CAs, control planes, proxies, apps) <- demo, tests
//!        ^ process, http, app, envoy, landbridge: one thing each, all started inside a namespace
//!        ^ kubernetes: real API servers, on loopback or in a pod                ^ playground; leftover (taking down)
//! ```

pub mod app;
pub mod capture;
pub mod client;
pub mod demo;
pub mod envoy;
pub mod fuzz;
pub mod http;
pub mod kubernetes;
pub mod landbridge;
pub mod leftover;
pub mod load;
pub mod mesh;
pub mod netns;
pub mod playground;
pub mod process;
pub mod scripted;
pub mod topology;
