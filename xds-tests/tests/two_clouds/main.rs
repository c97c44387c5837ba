//! The failures, the security and the size of a mesh of two clouds, with landbridge's binary and stock Envoys.
//!
//! Needs network namespaces and Envoy; where there are none the tests are skipped with a loud line, except in CI.

mod clusterset;
mod configuration;
mod control_planes;
mod failures;
mod gateways;
mod lab;
mod security;
mod single_endpoints;
mod virtual_hosts;
