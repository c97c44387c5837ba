//! Real Kubernetes API servers, without a cluster: each a kube-apiserver with its own etcd, on an address of its own.
//!
//! ```text
//! binaries (what `make setup` built) + keys (authority, service accounts) -> cluster (the process, its clients)
//!                                         kubeconfig <- cluster -> objects (YAML in, also status), crds
//! ```
//!
//! There are no controllers, no scheduler and no kubelets. Tests write EndpointSlices, nodes, the status of pods and the
//! ServiceAccounts themselves, and a namespace's deletion does not finish. So a test decides every event.

pub mod binaries;
pub mod charts;
pub mod client;
pub mod cluster;
pub mod crds;
pub mod keys;
pub mod kubeconfig;
pub mod objects;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

pub use binaries::Binaries;
pub use cluster::{Cluster, Place, Settings, secret_file};
pub use kubeconfig::Login;

use crate::netns::means;

/// Runs the body of test `name`, given the binaries and a folder of its own for the clusters that it starts.
/// Where the binaries are missing, says so loudly and skips it, except in CI, where that is a failure.
pub fn cluster_test(name: &str, body: impl AsyncFnOnce(&Binaries, PathBuf) -> Result<()>) {
    let Some(binaries) = binaries_or_skip(name) else { return };
    let _one = means::one_at_a_time();
    run(name, &binaries, body).unwrap_or_else(|error| panic!("{name}: {error:#}"));
}

/// As [`cluster_test`], where namespaces can be made: for [`Place::Namespace`].
pub fn cluster_lab_test(name: &str, body: impl AsyncFnOnce(&Binaries, PathBuf) -> Result<()>) {
    let Some(binaries) = binaries_or_skip(name) else { return };
    means::lab_test(name, || run(name, &binaries, body));
}

/// As [`cluster_test`], with Helm; without it, the test is skipped as loudly.
pub fn chart_test(name: &str, body: impl AsyncFnOnce(&Binaries, &charts::Helm, PathBuf) -> Result<()>) {
    let home = binaries::repository().join("target/helm").join(name.replace("::", "-"));
    match charts::Helm::find(&home) {
        Ok(helm) => cluster_test(name, async |binaries, folder| body(binaries, &helm, folder).await),
        Err(error) => means::skip(name, &format!("{error:#}")),
    }
}

fn binaries_or_skip(name: &str) -> Option<Binaries> {
    Binaries::find(&binaries::repository()).map_err(|error| means::skip(name, &format!("{error:#}"))).ok()
}

fn run(
    name: &str,
    binaries: &Binaries,
    body: impl AsyncFnOnce(&Binaries, PathBuf) -> Result<()>,
) -> Result<()> {
    let folder = binaries::repository().join("target/kubernetes").join(name.replace("::", "-"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(body(binaries, folder.clone()));
    outcome.with_context(|| format!("logs are in {}", folder.display()))
}
