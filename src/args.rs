//! The command line: the only reader of argv and the environment.

use clap::{Parser, Subcommand};

use crate::cli;

/// A control plane for Envoy sidecars and gateways, made for meshes of many clusters.
#[derive(Debug, Parser)]
#[command(name = "landbridge", version, about)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve xDS and certificates to Envoys.
    Serve(Box<cli::serve::ServeArgs>),
    /// Make and look at the certificates of a mesh: a shared root, an intermediate for each cluster.
    Ca(cli::ca::CaArgs),
    /// Mint a service-account token from the local development issuer.
    Token(cli::token::TokenArgs),
    /// Print the bootstrap of a stock Envoy that connects to landbridge.
    Bootstrap(Box<cli::bootstrap::BootstrapArgs>),
    /// Show the connected proxies, and what each has accepted or refused.
    #[command(visible_alias = "ps")]
    ProxyStatus(cli::proxy_status::ProxyStatusArgs),
    /// Print a Secret that registers a cluster with the control plane of another, for `kubectl apply -f -` there.
    CreateRemoteSecret(Box<cli::remote_secret::RemoteSecretArgs>),
    /// Show the registered clusters: synced or stale, from which secret, and what was wrong last.
    RemoteClusters(cli::remote_clusters::RemoteClustersArgs),
    /// Show the gateways of networks: alive or dead, how far away, how many services lie behind each.
    Gateways(cli::gateways::GatewaysArgs),
    /// Turn an IstioOperator file into values of landbridge's Helm charts.
    ConvertOperator(cli::operator::OperatorArgs),
    /// Look after a cluster that is read by a remote secret: give it new credentials.
    Cluster(cli::cluster::ClusterArgs),
    /// Show which endpoints of a service a proxy gets, and why not the others.
    Endpoints(cli::endpoints::EndpointsArgs),
    /// Show the services of every cluster, and those that several have: as a table, JSON or a picture.
    ServiceMap(cli::service_map::ServiceMapArgs),
}

// === impl Args ===

impl Args {
    /// Runs the chosen command to its end.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(args) => args.run(),
            Command::Ca(args) => args.run(),
            Command::Token(args) => args.run(),
            Command::Bootstrap(args) => args.run(),
            Command::ProxyStatus(args) => args.run(),
            Command::CreateRemoteSecret(args) => args.run(),
            Command::RemoteClusters(args) => args.run(),
            Command::Gateways(args) => args.run(),
            Command::ConvertOperator(args) => args.run(),
            Command::Cluster(args) => args.run(),
            Command::Endpoints(args) => args.run(),
            Command::ServiceMap(args) => args.run(),
        }
    }
}

/// A stock Envoy for tests: the one that `ENVOY` names, or the one that `make setup` installed.
#[cfg(test)]
pub(crate) fn envoy_for_tests() -> Option<std::path::PathBuf> {
    #[allow(clippy::disallowed_methods, reason = "this file is the reader of the environment")]
    let named = std::env::var("ENVOY").ok().map(std::path::PathBuf::from);
    let installed =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".deps/envoy-1.40.0/envoy/_bin/envoy");
    named.or(Some(installed)).filter(|path| path.is_file())
}
