//! Where an API server is and who we are to it: kubeconfig files, and the service account that a pod has.

use std::path::{Path, PathBuf};

use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use thiserror::Error;

use super::failure::with_causes;

/// A kubeconfig that cannot be used.
#[derive(Debug, Error)]
pub enum KubeconfigError {
    /// The file is not there or is no kubeconfig.
    #[error("kubeconfig {}: {reason}; give the path of a file that `kubectl --kubeconfig` accepts", path.display())]
    File {
        /// As it was given.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Not in a pod, or its service account is not mounted.
    #[error(
        "there is no service account of a pod here: {0}; outside of a cluster, give --kubeconfig PATH or --files NAME=DIR"
    )]
    NotInCluster(String),
    /// It asks for what is not done.
    #[error("{what}: {why}")]
    Unsupported {
        /// The field.
        what: &'static str,
        /// Why, and what to do.
        why: &'static str,
    },
    /// A certificate, key or token in it cannot be used.
    #[error("the credentials cannot be used: {0}; make the kubeconfig again")]
    Credentials(String),
}

/// Reads a kubeconfig file's current context.
pub async fn from_file(path: &Path) -> Result<Config, KubeconfigError> {
    let wrong = |reason: String| KubeconfigError::File { path: path.to_owned(), reason };
    let kubeconfig = Kubeconfig::read_from(path).map_err(|e| wrong(with_causes(&e)))?;
    if kubeconfig.clusters.is_empty() {
        return Err(wrong("names no cluster (the file has no `clusters`)".into()));
    }
    let options = KubeConfigOptions::default();
    let config =
        Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| wrong(with_causes(&e)))?;
    check(config)
}

/// The service account of the pod that this runs in.
pub fn in_cluster() -> Result<Config, KubeconfigError> {
    let config = Config::incluster().map_err(|e| KubeconfigError::NotInCluster(with_causes(&e)))?;
    check(config)
}

fn check(config: Config) -> Result<Config, KubeconfigError> {
    if config.proxy_url.is_some() {
        let why = "API servers are not reached through proxies; remove the field, and route to the server's address";
        return Err(KubeconfigError::Unsupported { what: "proxy-url", why });
    }
    Ok(config)
}
