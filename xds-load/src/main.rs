//! The command line.

use std::process::ExitCode;

use clap::Parser;
use xds_load::{
    certificates::command::CertificatesCommand,
    floor::command::FloorCommand,
    mesh::command::MeshCommand,
    run::command::{RunArgs, Verdict},
};

/// Drives an Envoy-compatible control plane as thousands of proxies would.
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Drives a control plane with simulated proxies. Flags win against the scenario.
    Run(Box<RunArgs>),
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
async fn main() -> ExitCode {
    let good = |()| Verdict::Good;
    let done = match Command::parse() {
        Command::Run(args) => args.run().await,
        Command::Mesh(command) => command.run().await.map(good),
        Command::Floor(command) => command.run().await.map(good),
        Command::Certificates(command) => command.run().await.map(good),
    };
    match done {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Broken) => ExitCode::from(1),
        Err(error) => {
            eprintln!("xds-load: {error:#}");
            ExitCode::from(2)
        }
    }
}
