//! The command line.

use clap::Parser;
use xds_load::mesh::command::MeshCommand;

/// Drives an Envoy-compatible control plane as thousands of proxies would.
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Makes meshes as YAML directories, and changes them.
    #[command(subcommand)]
    Mesh(MeshCommand),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Mesh(command) => command.run().await,
    }
}
