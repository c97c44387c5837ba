//! `make demo`: two clouds of stock Envoys and their control planes, failing over under a steady load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use tokio::time::timeout;
use xds_tests::app::{self, AppArgs};
use xds_tests::demo::page::page;
use xds_tests::demo::report::Report;
use xds_tests::demo::story::{RATE, Record, Stage};
use xds_tests::demo::view::View;
use xds_tests::leftover::{self, Leftover};
use xds_tests::load::Load;
use xds_tests::mesh::{LANDBRIDGE_POD, Mesh, Tools};
use xds_tests::netns::means;
use xds_tests::process::interrupted;

/// The story takes about 60 s; with the start before it, the demo ends within 90 s.
const LONGEST: Duration = Duration::from_secs(80);

/// Two clouds of stock Envoys in one mesh, failing over by themselves.
#[derive(Parser)]
enum Command {
    /// Play the demo; writes target/demo/report.json and report.html
    Run {
        /// Leave everything running at the end, and print how to look around
        #[arg(long)]
        keep: bool,
    },
    /// Take down what `run --keep` left running
    Down,
    /// The application that runs in the backends
    #[command(hide = true)]
    App(AppArgs),
    /// Kill what runs in these namespaces and delete them
    #[command(hide = true)]
    Remove { namespaces: Vec<String> },
}

fn main() -> ExitCode {
    dispatch(Command::parse()).unwrap_or_else(|error| {
        eprintln!("demo: {error:#}");
        ExitCode::FAILURE
    })
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::App(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(app::run(args)).map(|()| ExitCode::SUCCESS)
        }
        Command::Remove { namespaces } => leftover::remove(&namespaces).map(|()| ExitCode::SUCCESS),
        Command::Down => {
            let was_up = leftover::take_down(&folder()?)?;
            println!("{}", if was_up { "the demo's mesh is down" } else { "no demo is up" });
            Ok(ExitCode::SUCCESS)
        }
        Command::Run { keep } => {
            leftover::take_down(&folder()?)?;
            means::enter_or_explain()?;
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(async {
                tokio::select! {
                    code = run(keep) => code,
                    name = interrupted() => {
                        // Dropping the run ended all processes and deleted the namespaces.
                        leftover::forget(&folder()?);
                        bail!("{}; everything is taken down", name?);
                    }
                }
            })
        }
    }
}

async fn run(keep: bool) -> Result<ExitCode> {
    let began = Instant::now();
    let (folder, view) = (folder()?, View::new());
    let tools = Tools::find(std::env::current_exe().context("find this program's own file")?)?;
    let versions = versions(&tools).await?;
    view.say("making two clouds: namespaces, a root and two intermediate CAs, manifests");
    let mut mesh = Mesh::prepare(tools, &folder, &format!("lb{}", std::process::id()), Vec::new()).await?;
    Leftover::remember(&mesh, &folder)?;
    view.say("starting a control plane in each, then client, backends and gateways with stock Envoys");
    mesh.start_control_planes().await?;
    mesh.start_workloads().await?;
    Leftover::remember(&mesh, &folder)?;
    view.say(&format!("{} Envoys ready; {RATE} requests a second from east/client", mesh.envoys().count()));

    let client = mesh.topology.pod("east", "client")?;
    let load = Load::start(&client.ns, mesh.target(), RATE)?;
    let mut stage = Stage { mesh: &mut mesh, load: &load, view: &view, record: Record::default() };
    let played = tokio::select! {
        played = timeout(LONGEST, stage.play()) => played.context("the story took too long").flatten(),
        () = view.watch(&load) => unreachable!("watches until dropped"),
    };
    let (record, skipped) = (stage.record, load.skipped());
    let samples = load.finish();
    let broke_off = played.err().map(|error| format!("{error:#}"));
    let report = Report::new(record, &samples, skipped, versions, broke_off);
    write(&folder.join("report.json"), &serde_json::to_string_pretty(&report)?)?;
    write(&folder.join("report.html"), &page(&report, &samples))?;

    view.say(&format!("done after {:.1} s\n\n{}", began.elapsed().as_secs_f64(), report.summary()));
    println!("{}\n{}", folder.join("report.json").display(), folder.join("report.html").display());
    if keep {
        let leftover = Leftover::remember(&mesh, &folder)?;
        look_around(&mesh, &leftover);
        mesh.keep();
    } else {
        mesh.stop().await?;
        leftover::forget(&folder);
    }
    Ok(if report.kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints commands for somebody who wants to see for himself.
fn look_around(mesh: &Mesh, leftover: &Leftover) {
    let enter = |cloud: &str, pod: &str| leftover.enter(&format!("{}-{cloud}-{pod}", mesh.topology.prefix()));
    let (client, server) = (enter("east", "client"), enter("east", LANDBRIDGE_POD));
    let (binary, target, folder) = (mesh.tools().landbridge.display(), mesh.target(), mesh.folder.display());
    println!(
        "\nEverything is still up. Look around:\n  \
         {client} curl -s -H 'host: {host}' http://{to}/\n  \
         {client} curl -s 'http://127.0.0.1:15000/clusters'\n  \
         {server} {binary} proxy-status\n  \
         {server} {binary} endpoints {host} --from client.production\n  \
         {server} {binary} service-map\n  \
         edit {folder}/east/manifests/backend-endpoints.yaml and ask again; logs are in {folder}/logs\n\
         Take it down:\n  make demo-down",
        host = target.host,
        to = target.to,
    );
}

async fn versions(tools: &Tools) -> Result<BTreeMap<&'static str, String>> {
    let mut versions = BTreeMap::new();
    for (name, binary) in [("landbridge", &tools.landbridge), ("envoy", &tools.envoy)] {
        let output = tokio::process::Command::new(binary).arg("--version").output().await?;
        let text = String::from_utf8_lossy(&output.stdout);
        // "envoy  version: 9e55809.../1.40.0/Clean/RELEASE/BoringSSL", "landbridge 0.1.0"
        let word = text.split_whitespace().last().unwrap_or("unknown");
        versions.insert(name, word.split('/').nth(1).unwrap_or(word).to_owned());
    }
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    versions.insert("linux", kernel.trim().to_owned());
    Ok(versions)
}

fn folder() -> Result<PathBuf> {
    let repository =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this crate lies in the project")?;
    Ok(repository.join("target/demo"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
