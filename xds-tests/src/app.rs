//! The application of the lab: an HTTP server that says who it is, and fails when told.
//!
//! What it does is read for every request from its mode file: `ok` (also when there is none), `500`, `hang`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::serve::ListenerExt as _;
use tokio::process::Command;

use crate::netns::Ns;
use crate::process::Process;

/// The header that names who answered.
pub const ANSWERED_BY: &str = "x-answered-by";

#[derive(Clone, clap::Args)]
pub struct AppArgs {
    /// Who it says it is
    #[arg(long)]
    pub name: String,
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// File that says what to do: ok, 500, hang
    #[arg(long)]
    pub mode_file: PathBuf,
}

/// Serves until the process ends.
pub async fn run(args: AppArgs) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("listen on {}", args.listen))?
        .tap_io(|stream| {
            let _ = stream.set_nodelay(true); // an answer is one write already; this only spares the odd delay
        });
    let router = Router::new().fallback(answer).with_state(args);
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await.context("serve")
}

/// One line: who, seen from where, and what the proxy in front says about the caller's certificate.
async fn answer(
    State(args): State<AppArgs>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> impl IntoResponse {
    let mode = std::fs::read_to_string(&args.mode_file).unwrap_or_default();
    let status = match mode.trim() {
        "500" => StatusCode::INTERNAL_SERVER_ERROR,
        "hang" => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            StatusCode::OK
        }
        _ => StatusCode::OK,
    };
    let caller = headers.get("x-forwarded-client-cert").and_then(|value| value.to_str().ok()).unwrap_or("-");
    let line = format!("{} src={} xfcc={caller}\n", args.name, from.ip());
    (status, [(ANSWERED_BY, args.name)], line)
}

/// Starts the application inside `ns`, from a program that has it as the subcommand `app`.
pub fn start(program: &Path, ns: &Ns, name: &str, mode_file: &Path, log: &Path) -> Result<Process> {
    let mut command = Command::new(program);
    command.args(["app", "--name", name]).arg("--mode-file").arg(mode_file);
    Process::start(ns, name, command, log)
}
