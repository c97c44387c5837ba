//! Seeded meshes: Kubernetes and Istio objects as YAML directories, what proxies must be told of them, and changes.
//!
//! ```text
//! Spec ──generate──► Mesh ──files──► DIR/cluster-0/… (one directory per cluster, a control plane reads it)
//!                     ▲  └──truth──► the addresses and names that proxies must end with
//!            Change ──┘apply──► Writes (files) and Shows (what clients will see) ──churn──► Expectations
//! ```
//!
//! Everything follows from the spec: the same spec gives the same bytes, and the same script the same changes, on any
//! machine. A mesh is plain data without a clock or a file; [`directory`] and [`churn`] have those.
//!
//! The files are ordinary manifests: `kubectl apply -R -f DIR/cluster-0` takes them. What an API server keeps in `status` (pod
//! addresses, load balancer addresses) needs a second pass with `--server-side --subresource=status`. [`api`] does both.

mod address;
pub mod api;
mod change;
pub mod churn;
pub mod command;
pub mod directory;
mod generate;
mod manifest;
mod seed;
mod show;
mod spec;
#[cfg(test)]
mod tests;
mod truth;
mod world;

pub use self::{
    change::{Change, Effects, Refused, Write},
    show::Show,
    spec::{Large, Port, Spec, SpecError},
    truth::Assignment,
    world::{Backing, Mesh, Pod, Proxy, Rule, Service, ServiceId, Slot},
};
