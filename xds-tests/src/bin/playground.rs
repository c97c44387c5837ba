//! `make playground`: two real API servers with the example's objects, left running.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use xds_tests::kubernetes::{Binaries, binaries};
use xds_tests::playground;

/// Two clusters, east and west, for typing at.
#[derive(Parser)]
enum Command {
    /// Start them (anew, if they are up) and leave them running
    Up,
    /// End them
    Down,
}

fn main() -> ExitCode {
    let run = async || -> Result<()> {
        let repository = binaries::repository();
        let folder = repository.join("target/playground");
        match Command::parse() {
            Command::Up => {
                println!("starting two API servers and applying deploy/examples/two-clouds: about 10 s");
                let binaries = Binaries::find(&repository)?;
                let kubectl = playground::up(&repository, &binaries, &folder).await?;
                look_around(&kubectl.display().to_string(), &folder.display().to_string());
            }
            Command::Down => {
                let was_up = playground::down(&folder).await?;
                println!("{}", if was_up { "the playground is down" } else { "no playground is up" });
            }
        }
        Ok(())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("playground: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints commands to begin with.
fn look_around(kubectl: &str, folder: &str) {
    println!(
        "\nBoth clusters are up: API servers only, no controllers and no nodes that run pods. Look around:\n  \
         alias kubectl={kubectl}\n  \
         kubectl config get-contexts\n  \
         kubectl --context east get services,endpointslices,pods -A\n  \
         kubectl --context west get gateways.networking.istio.io,destinationrules -A\n  \
         kubectl --context east edit endpointslice -n production backend-1\n  \
         logs are in {folder}/east and {folder}/west; for other tools: KUBECONFIG={folder}/kubeconfig\n\
         Take it down:\n  make playground-down"
    );
}
