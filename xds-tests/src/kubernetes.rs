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
pub mod cluster;
pub mod crds;
pub mod keys;
pub mod kubeconfig;
pub mod objects;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};

pub use binaries::Binaries;
pub use cluster::{Cluster, Settings, secret_file};
pub use kubeconfig::Login;

use crate::netns::means;

/// Runs the body of test `name`, given the binaries and an empty folder of its own for the clusters that it starts.
/// Where the binaries are missing, says so loudly and skips it, except in CI, where that is a failure.
pub fn cluster_test(name: &str, body: impl AsyncFnOnce(&Binaries, PathBuf) -> Result<()>) {
    // One at a time: an API server takes 300 MB and, at its start, both cores. A test that failed holds up no other.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let repository = binaries::repository();
    let binaries = match Binaries::find(&repository) {
        Ok(binaries) => binaries,
        Err(error) => return means::skip(name, &format!("{error:#}")),
    };
    let folder = repository.join("target/kubernetes").join(name.replace("::", "-"));
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(body(&binaries, folder.clone()))
    };
    let outcome = run().with_context(|| format!("logs are in {}", folder.display()));
    outcome.unwrap_or_else(|error| panic!("{name}: {error:#}"));
}
