//! The API servers of Kubernetes as sources of changes, one for each cluster.
//!
//! ```text
//!  API server --lines, pages--> Watcher, one per collection --> View: decode, compare --Batch--> pipeline
//!      ^ HTTP/2: Client, exchangeable      | ages, failures        (pure)
//!      '---- back-off, resume, relist -----+--> Freshness (pure) --> Synced, Stale --> pipeline, SourceStatus
//! ```
//!
//! What is believed, and when:
//! - An object that a list or a watch has is sent at once. It is gone when a watch says so, or when a list that was read
//!   to its end does not have it. Nothing else removes anything: no error, no silence, no list that broke off.
//! - An object that cannot be used any more keeps its last good version.
//! - A watch that ends is resumed at its version; one whose version is forgotten (410) is listed again, and the difference is
//!   sent, never an empty state in between.
//! - A custom resource that is not installed has no objects; that known ones are gone is believed once the API server says
//!   that their definition is.
//! - The cluster is synced once every collection was read whole, and stale when one cannot be watched.
//!
//! All of a cluster runs in one task, beside those of its connections: dropping the source's future frees everything.

mod backoff;
mod client;
mod drift;
mod failure;
mod follow;
mod freshness;
mod keep;
mod kinds;
mod kubeconfig;
mod lines;
mod named;
mod probe;
mod secret;
mod selection;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod view;
mod watch;

pub use self::{
    client::Client,
    failure::{Failure, Refusal},
    follow::{Seen, follow},
    kubeconfig::{Allowed, KubeconfigError, Unusable, from_context, from_file, from_secret, in_cluster},
    named::{Named, Reference},
    secret::{SecretData, follow_secret},
    selection::{Discovery, Selectors},
    source::{Access, Deaf, KubeSource, Timing},
};

/// All kinds that are read of a config cluster.
#[cfg(test)]
pub(super) fn kinds_for_tests() -> Vec<crate::model::Kind> {
    kinds::resources(true, Some(&crate::model::mcs::Api::default())).map(|resource| resource.kind).collect()
}
