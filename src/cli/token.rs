//! `landbridge token`: a service-account token from the development issuer.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use time::OffsetDateTime;

use super::duration;
use crate::authn::dev_issuer::{DevIssuer, Subject};
use crate::model::identity::Spiffe;

/// Arguments of `landbridge token`.
#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    /// The state directory of the server; it must run with --dev-token-issuer to accept the token.
    #[arg(long, env = "LANDBRIDGE_STATE_DIR")]
    state_dir: PathBuf,
    /// Namespace of the workload.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// Service account of the workload.
    #[arg(long, env = "SERVICE_ACCOUNT")]
    service_account: String,
    /// Audiences, separated by commas.
    #[arg(long, env = "TOKEN_AUDIENCES", default_value = "istio-ca", value_delimiter = ',')]
    audience: Vec<String>,
    /// How long the token is good for.
    #[arg(long, env = "LANDBRIDGE_TOKEN_TTL", default_value = "24h", value_parser = duration::parse_positive)]
    ttl: Duration,
    /// Let the token be used only by proxies of this cluster.
    #[arg(long, env = "CLUSTER_ID")]
    cluster_id: Option<String>,
}

// === impl TokenArgs ===

impl TokenArgs {
    /// Prints the token, and nothing else, on stdout.
    pub fn run(self) -> anyhow::Result<()> {
        let Self { state_dir, namespace, service_account, audience, ttl, cluster_id } = self;
        // The trust domain is the server's; here it only completes a name to be checked.
        Spiffe::new("cluster.local", &namespace, &service_account)?;
        let issuer =
            DevIssuer::load_or_create(&state_dir).context("the development issuer cannot be used")?;
        let subject = Subject {
            namespace: &namespace,
            service_account: &service_account,
            cluster_id: cluster_id.as_deref().filter(|id| !id.is_empty()),
        };
        println!("{}", issuer.mint(&subject, &audience, ttl, OffsetDateTime::now_utc())?);
        Ok(())
    }
}
