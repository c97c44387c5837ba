//! The authority of the mesh: where it comes from, and who is told of its roots.
//!
//! ```text
//! --ca-dir has files -> they
//! else, the own cluster has an API server -> Secret cacerts, else Secret istio-ca-secret, else the leader makes the latter
//! else -> state directory
//! ```

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::sync::watch;

use super::{Config, Tasks, ca_secret::Secrets};
use crate::ca::{
    Authority, cacerts,
    live::{Live, Source},
};

/// The authority of files, of a Secret, or of the state directory; the tasks that follow it are begun.
pub async fn open(
    config: &Config,
    trust_domain: &str,
    secrets: Secrets,
    tasks: &mut Tasks,
) -> Result<watch::Receiver<Arc<Authority>>> {
    let by_secret = config.ca_secrets && !config.ca_dir.as_deref().is_some_and(cacerts::is_present);
    if by_secret && let Some((live, authority, follow)) = secrets.open(trust_domain).await? {
        tasks.spawn("Secret of the certificate authority", follow);
        tasks.spawn("certificate authority", async move { live.run(|error| secrets.say(error)).await });
        return Ok(authority);
    }
    let source = Source::choose(config.ca_dir.as_deref(), &config.state_dir, trust_domain);
    let (live, authority) = Live::open(source).context("no certificate authority")?;
    tasks.spawn("certificate authority", live.run(|_| ()));
    Ok(authority)
}

/// Tells writers which roots are trusted.
pub async fn tell_roots(
    mut authority: watch::Receiver<Arc<Authority>>,
    roots: watch::Sender<Option<Arc<str>>>,
) {
    loop {
        let now = authority.borrow_and_update().roots_pem().into();
        roots.send_if_modified(|roots| roots.replace(now) != *roots);
        if authority.changed().await.is_err() {
            // The process ends.
            return std::future::pending().await;
        }
    }
}
