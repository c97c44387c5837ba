//! What the builders say about a mesh of two clusters.

mod assignments;
mod bytes;
mod clusters;
mod envoy;
mod horizon;
mod json;
mod listeners;
mod mesh;
mod routes;
