//! The landbridge binary as a black box: its one-shot commands, and the server inside a namespace.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::http;
use crate::process::Process;
use crate::topology::Pod;

/// Ports that the server listens on by default.
pub const SECURE_GRPC_PORT: u16 = 15012;
pub const READY_PORT: u16 = 8080;
pub const MONITORING_PORT: u16 = 15014;

/// The binary that lies beside the running program (`target/debug`) or beside its folder (a test in `deps`).
pub fn find() -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this program's own file")?;
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("landbridge"));
    beside.into_iter().find(|path| path.is_file()).with_context(|| {
        format!("no landbridge binary beside {}: run `cargo build --bin landbridge`", own.display())
    })
}

/// Runs a one-shot command (`ca`, `token`, `bootstrap`, `endpoints` ...); returns what it prints.
pub async fn command(binary: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
    let mut command = Command::new(binary);
    command.args(args);
    let output = command.output().await.context("start landbridge")?;
    if !output.status.success() {
        let line = command.as_std().get_args().map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
        bail!("`landbridge {line}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("landbridge printed something that is not UTF-8")
}

/// How a server is started; kept, so that it can be started again.
#[derive(Clone)]
pub struct Settings {
    pub binary: PathBuf,
    pub cluster: String,
    /// (cluster, directory) of each registered cluster that is read from files.
    pub files: Vec<(String, PathBuf)>,
    /// (cluster, kubeconfig) of each registered cluster that is read from its API server.
    pub kubernetes: Vec<(String, PathBuf)>,
    pub state_dir: PathBuf,
    pub ca_dir: PathBuf,
    /// Further arguments of `serve`.
    pub more: Vec<String>,
    pub log: PathBuf,
}

/// A running control plane. Dropping it kills it.
pub struct Server {
    pod: Pod,
    pub process: Process,
}

impl Server {
    /// Starts `landbridge serve` in the pod, without waiting for it.
    pub fn start(settings: &Settings, pod: &Pod) -> Result<Self> {
        let mut command = Command::new(&settings.binary);
        command.args(["serve", "--cluster-id", &settings.cluster, "--dev-token-issuer"]);
        for (cluster, directory) in &settings.files {
            command.arg("--files").arg(format!("{cluster}={}", directory.display()));
        }
        for (cluster, kubeconfig) in &settings.kubernetes {
            command.arg("--kube").arg(format!("{cluster}={}", kubeconfig.display()));
        }
        command.arg("--state-dir").arg(&settings.state_dir).arg("--ca-dir").arg(&settings.ca_dir);
        command.args(&settings.more);
        let process = Process::start(&pod.ns, &pod.id(), command, &settings.log)?;
        Ok(Self { pod: pod.clone(), process })
    }

    /// Waits until it says that it serves.
    pub async fn await_ready(&mut self, within: Duration) -> Result<()> {
        let (ns, at) = (self.pod.ns.clone(), SocketAddr::from((self.pod.ip, READY_PORT)));
        self.process.await_ready(within, async || http::page(&ns, at, "/ready").await.is_ok()).await
    }

    /// A page of its monitoring port: `/metrics`, `/debug/syncz`. Asked from within its pod: debug pages answer nobody else.
    pub async fn monitoring(&self, path: &str) -> Result<String> {
        http::page(&self.pod.ns, (Ipv4Addr::LOCALHOST, MONITORING_PORT).into(), path).await
    }

    /// Sum of a metric over all label sets that contain `label` (all, if empty).
    pub async fn metric(&self, name: &str, label: &str) -> Result<f64> {
        Ok(sum_metric(&self.monitoring("/metrics").await?, name, label))
    }
}

fn sum_metric(text: &str, name: &str, label: &str) -> f64 {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let labels = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once('}')?.0,
            None if rest.starts_with(' ') => "",
            None => return None,
        };
        labels.contains(label).then(|| line.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
    };
    text.lines().filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::sum_metric;

    #[test]
    fn a_metric_is_summed_over_its_label_sets_and_not_over_longer_names() {
        let text = "# TYPE pilot_xds_pushes counter\n\
                    pilot_xds_pushes{type=\"cds\"} 3\n\
                    pilot_xds_pushes{type=\"eds\"} 4\n\
                    pilot_xds_pushes_total 9\n\
                    pilot_xds 2\n";
        assert_eq!(sum_metric(text, "pilot_xds_pushes", ""), 7.0);
        assert_eq!(sum_metric(text, "pilot_xds_pushes", "type=\"eds\""), 4.0);
        assert_eq!(sum_metric(text, "pilot_xds", ""), 2.0);
    }
}
