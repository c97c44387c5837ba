//! `make playground`: two clouds on real API servers, with landbridge and stock Envoys, left running.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use xds_tests::app::{self, AppArgs};
use xds_tests::kubernetes::{Binaries, binaries};
use xds_tests::leftover;
use xds_tests::mesh::{Mesh, Tools};
use xds_tests::netns::means;
use xds_tests::playground;
use xds_tests::process::interrupted;

/// Two clusters, east and west, for typing at.
#[derive(Parser)]
enum Command {
    /// Start them (anew, if they are up) and leave them running
    Up,
    /// End them
    Down,
    /// The application that runs in the backends
    #[command(hide = true)]
    App(AppArgs),
    /// Kill what runs in these namespaces and delete them
    #[command(hide = true)]
    Remove { namespaces: Vec<String> },
}

fn main() -> ExitCode {
    match dispatch(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("playground: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::App(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(app::run(args))
        }
        Command::Remove { namespaces } => leftover::remove(&namespaces),
        Command::Down => {
            let was_up = leftover::take_down(&folder())?;
            println!("{}", if was_up { "the playground is down" } else { "no playground is up" });
            Ok(())
        }
        Command::Up => {
            leftover::take_down(&folder())?;
            means::enter_or_explain()?;
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(async {
                tokio::select! {
                    outcome = up() => outcome,
                    name = interrupted() => {
                        // Dropping the run ended all processes and deleted the namespaces.
                        leftover::forget(&folder());
                        bail!("{}; everything is taken down", name?);
                    }
                }
            })
        }
    }
}

async fn up() -> Result<()> {
    let binaries = Binaries::find(&binaries::repository())?;
    let tools = Tools::find(std::env::current_exe().context("find this program's own file")?)?;
    println!("starting two API servers, two control planes and seven Envoys: about 15 s");
    let mesh = playground::up(tools, &binaries, &folder()).await?;
    look_around(&mesh)?;
    mesh.keep();
    Ok(())
}

/// Prints commands to begin with.
fn look_around(mesh: &Mesh) -> Result<()> {
    let pid = mesh.cluster("west")?.process().pid().context("west's API server has ended")?;
    println!(
        "\nTwo clouds are up: real API servers (no controllers, no kubelets), landbridge, stock Envoys. Look around:\n  \
         cd {folder}\n  \
         ./kubectl config get-contexts\n  \
         ./kubectl --context east get services,endpointslices,pods -A\n  \
         ./landbridge-east proxy-status\n  \
         ./landbridge-east endpoints {host} --from client.production\n  \
         ./client curl -s -H 'host: {host}' http://{to}/\n\
         Move the traffic to west, and back:\n  \
         ./kubectl --context east patch endpointslice -n production backend-1 --type merge -p '{{\"endpoints\":[]}}'\n  \
         ./kubectl --context east apply --server-side --force-conflicts -f east/manifests/backend-endpoints.yaml\n\
         Let west's API server hang, and go on; kill -9 loses it:\n  \
         kill -STOP {pid}\n  \
         kill -CONT {pid}\n\
         Logs are in logs, east/apiserver and west/apiserver. Take it down:\n  make playground-down",
        folder = mesh.folder.display(),
        host = mesh.target().host,
        to = mesh.target().to,
    );
    Ok(())
}

fn folder() -> PathBuf {
    binaries::repository().join("target/playground")
}
