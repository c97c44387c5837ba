//! Admin HTTP: what landbridge knows and does, for people, dashboards and our own command line.
//!
//! ```text
//! GET /debug/… --> Inspector.ask(collect shared pointers, between two batches) --> JSON, made outside the pipeline
//! ```
//!
//! Paths, parameters and names are istiod's where the meaning is equal, so that dashboards, scripts and `istioctl`
//! keep working. Private keys cannot appear: secrets are not part of snapshots, and nothing here reaches the CA.

mod access;
mod answer;
mod metrics;
mod pages;
mod proxies;
mod ready;

mod config_dump;
pub mod endpoints;
mod endpointz;
mod gateway_metrics;
pub mod gatewayz;
mod lookup;
mod mcsz;
mod objects;
mod registryz;
pub mod servicemap;
mod sourcez;
pub mod syncz;
pub mod topology;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Instant};

use axum::{Router, middleware, routing::get};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::{
    gateways::{Gateways, resolve::Unresolved},
    pipeline::Inspector,
    registry::Sources,
    xds::status::Streams,
};

/// Version of the shapes that are ours, in `apiVersion`.
pub const API_VERSION: &str = "landbridge/v1";

/// What the pages read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// Where the pipeline is asked.
    pub inspector: Inspector,
    /// Whether proxies are answered.
    pub ready: watch::Receiver<bool>,
    /// What the modules count; figures of the pipeline's tables are added at each scrape.
    pub metrics: Arc<Registry>,
    /// When the process started.
    pub started: Instant,
    /// The connected streams.
    pub streams: Arc<Streams>,
    /// What the sources say of themselves. Each has to read its cluster once before proxies are answered.
    pub sources: Sources,
    /// Whether the gateways of networks are alive.
    pub gateways: Gateways,
    /// Which of their host names do not resolve.
    pub unresolved: Unresolved,
}

/// Everything but readiness, for the monitoring address. Serve it with
/// `into_make_service_with_connect_info::<SocketAddr>()`: access is judged by the peer's address.
pub fn router(state: AdminState) -> Router {
    let debug = pages::router().layer(middleware::from_fn(access::only_loopback));
    Router::new()
        .route("/metrics", get(metrics::scrape))
        .route("/version", get(pages::version))
        .route("/ready", get(ready::ready))
        .merge(debug)
        .with_state(state)
}

/// Readiness and, as at istiod, the debug pages, for the HTTP address.
pub fn ready_router(state: AdminState) -> Router {
    let debug = pages::router().layer(middleware::from_fn(access::only_loopback));
    Router::new().route("/ready", get(ready::ready)).merge(debug).with_state(state)
}
