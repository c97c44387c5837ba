//! Drives an Envoy-compatible control plane as thousands of proxies would, and says whether it was right and how fast.
//!
//! ```text
//! mesh (generate, churn) ── writes YAML ──► control plane ── xDS ──► clients ──► measurements ──► report
//!          └────────────── expectations: what each change must bring to the clients ──────────────┘
//! ```

pub mod certificates;
pub mod client;
pub mod expect;
pub mod floor;
pub mod h2;
pub mod mesh;
pub mod report;
pub mod run;
pub mod wire;
