//! Stock Envoy as a pod's proxy: found, started as uid 1337, asked through its admin interface.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::capture::PROXY_ID;
use crate::http;
use crate::netns::Ns;
use crate::process::Process;

/// Where the bootstrap puts Envoy's admin interface.
pub const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// The Envoy of the environment variable `ENVOY`, or the one that `make setup` installed.
pub fn find(repository: &Path) -> Result<PathBuf> {
    let path = match std::env::var_os("ENVOY") {
        Some(path) => PathBuf::from(path),
        None => repository.join(".deps/envoy-1.40.0/envoy/_bin/envoy"),
    };
    if !path.is_file() {
        bail!("no Envoy at {}: run `make setup`, or name one with ENVOY=/path/to/envoy", path.display());
    }
    Ok(path)
}

/// A running Envoy. Dropping it kills it.
pub struct Envoy {
    ns: Ns,
    pub process: Process,
}

impl Envoy {
    /// Starts Envoy with a bootstrap file inside `ns`, without waiting for it.
    pub fn start(binary: &Path, ns: &Ns, name: &str, bootstrap: &Path, log: &Path) -> Result<Self> {
        Self::start_by(Command::new("env"), binary, ns, name, bootstrap, log)
    }

    /// As [`Envoy::start`], by a program that becomes what its last arguments say.
    pub fn start_by(
        mut command: Command,
        binary: &Path,
        ns: &Ns,
        name: &str,
        bootstrap: &Path,
        log: &Path,
    ) -> Result<Self> {
        command
            .arg("setpriv")
            .args([format!("--reuid={PROXY_ID}"), format!("--regid={PROXY_ID}")])
            // As in a pod, but able to read below a home directory of mode 0700, where the project may lie.
            .args(["--clear-groups", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"])
            .arg(binary)
            .arg("--config-path")
            .arg(bootstrap)
            // One worker is enough here, and several Envoys in one host must not share memory regions.
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "info"])
            .args([
                "--file-flush-interval-msec",
                "200",
                "--drain-time-s",
                "1",
                "--drain-strategy",
                "immediate",
            ]);
        Ok(Self { ns: ns.clone(), process: Process::start(ns, name, command, log)? })
    }

    /// Waits until it has its first configuration and its listeners are up.
    pub async fn await_ready(&mut self, within: Duration) -> Result<()> {
        let ns = self.ns.clone();
        let ready = async || http::page(&ns, ADMIN, "/ready").await.is_ok_and(|text| text.trim() == "LIVE");
        self.process.await_ready(within, ready).await
    }

    /// Ends it with SIGTERM.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop(Duration::from_secs(2)).await
    }

    /// A page of the admin interface.
    pub async fn admin(&self, path: &str) -> Result<String> {
        http::page(&self.ns, ADMIN, path).await
    }

    /// Counters and gauges whose names match the regular expression.
    pub async fn stats(&self, filter: &str) -> Result<BTreeMap<String, u64>> {
        let escaped = filter.replace('|', "%7C").replace('\\', "%5C").replace('^', "%5E");
        Ok(parse_stats(&self.admin(&format!("/stats?filter={escaped}")).await?))
    }

    /// One value, 0 if Envoy does not have it (yet).
    pub async fn stat(&self, name: &str) -> Result<u64> {
        let pattern = format!("^{}$", name.replace('.', "\\.").replace('|', "\\|"));
        Ok(self.stats(&pattern).await?.remove(name).unwrap_or(0))
    }

    /// How many endpoints it knows of a cluster; 0 if it does not know the cluster (yet).
    pub async fn members(&self, cluster: &str) -> Result<u64> {
        let name = cluster.replace('.', "\\.").replace('|', "\\|");
        // Statistics carry Istio's name for the cluster, which ends in a semicolon.
        let found = self.stats(&format!("^cluster\\.{name};?\\.membership_total$")).await?;
        Ok(found.into_values().next().unwrap_or(0))
    }

    /// The configuration in use, endpoints included.
    pub async fn config_dump(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.admin("/config_dump?include_eds").await?).context("config_dump is JSON")
    }

    /// Whether its stream to the control plane is up.
    pub async fn connected(&self) -> bool {
        self.stat("control_plane.connected_state").await.unwrap_or(0) == 1
    }

    /// Serial numbers of the certificates it holds, leaf and issuers, as Envoy's `/certs` names them.
    pub async fn certificate_serials(&self) -> Result<Vec<String>> {
        let page: serde_json::Value = serde_json::from_str(&self.admin("/certs").await?)?;
        let mut serials: Vec<String> = page["certificates"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|entry| entry["cert_chain"].as_array().cloned().unwrap_or_default())
            .filter_map(|cert| cert["serial_number"].as_str().map(str::to_owned))
            .collect();
        serials.sort();
        serials.dedup();
        Ok(serials)
    }
}

fn parse_stats(text: &str) -> BTreeMap<String, u64> {
    let value = |line: &str| {
        let (name, value) = line.rsplit_once(": ")?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::parse_stats;

    #[test]
    fn stats_keep_numbers_and_drop_text_and_histograms() {
        let stats = parse_stats(
            "cluster.outbound|80||a.b.svc.cluster.local.update_success: 3\n\
             control_plane.identifier: \"x\"\n\
             cluster.x.ms: P0(nan,1.0) P25(nan,1.1)\n\
             server.live: 1\n",
        );
        let expected = [("cluster.outbound|80||a.b.svc.cluster.local.update_success", 3), ("server.live", 1)];
        assert_eq!(stats, expected.map(|(name, value)| (name.to_owned(), value)).into());
    }
}
