//! The command line.

use clap::Parser;
use xds_load::{
    certificates::command::CertificatesCommand, floor::command::FloorCommand, mesh::command::MeshCommand,
};

/// Drives an Envoy-compatible control plane as thousands of proxies would.
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Makes meshes as YAML directories, and changes them.
    #[command(subcommand)]
    Mesh(MeshCommand),
    /// What the machine allows, to hold measurements against.
    #[command(subcommand)]
    Floor(FloorCommand),
    /// Certificates under load.
    #[command(subcommand)]
    Certificates(CertificatesCommand),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Mesh(command) => command.run().await,
        Command::Floor(command) => command.run().await,
        Command::Certificates(command) => command.run().await,
    }
}
