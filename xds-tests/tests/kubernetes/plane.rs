//! Control planes of a cluster as processes of their own, to be killed.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use xds_tests::landbridge;
use xds_tests::process::Process;

use super::serving::{is_ready, own_address};
use super::world::PATIENCE;

/// One replica.
pub struct Plane {
    pub name: String,
    pub process: Process,
    pub address: Ipv4Addr,
}

impl Plane {
    /// Starts one of cluster `east`, without waiting for it. `number` tells replicas of a test apart.
    pub fn start(number: u8, kubeconfig: &Path, folder: &Path, more: &[&str]) -> Result<Self> {
        let [_, a, b, c] = own_address()?.octets();
        let mut addresses =
            (0..20).map(|i| Ipv4Addr::new(127, a, b, c.wrapping_add(20 * number + i).clamp(1, 254)));
        let free = |address: &Ipv4Addr| TcpListener::bind((*address, 15010)).is_ok();
        let address = addresses.find(free).context("no loopback address is free")?;
        let name = format!("replica-{number}");
        let mut command = Command::new(landbridge::find()?);
        command.args(["serve", "--cluster-id", "east", "--pod-name", &name]);
        command.arg("--kubeconfig").arg(kubeconfig).arg("--state-dir").arg(folder.join(&name));
        let ports = [
            ("grpc", 15010),
            ("secure-grpc", 15012),
            ("http", 8080),
            ("monitoring", 15014),
            ("https", 15017),
        ];
        for (port, number) in ports {
            command.arg(format!("--{port}-addr")).arg(format!("{address}:{number}"));
        }
        // By which an API server asks its webhooks.
        command.arg("--custom-host").arg(address.to_string());
        command.args(more);
        let log = folder.join(format!("{name}.log"));
        Ok(Self { process: Process::start_at(None, &name, command, &log)?, name, address })
    }

    pub async fn ready(&mut self) -> Result<()> {
        let address = self.address;
        self.process.await_ready(PATIENCE, async || is_ready(address).await).await
    }

    /// A page of its monitoring port.
    pub async fn page(&self, path: &str) -> Result<String> {
        let url = format!("http://{}:15014{path}", self.address);
        Ok(reqwest::get(url).await?.error_for_status()?.text().await?)
    }

    /// A metric with these labels; 0 if it is not there.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.page("/metrics").await?;
        let value = |line: &str| line.strip_prefix(name)?.trim().parse::<f64>().ok();
        Ok(text.lines().find_map(value).unwrap_or(0.0))
    }

    /// Whether it says that it writes to a cluster.
    pub async fn leads(&self, cluster: &str) -> Result<bool> {
        Ok(self.metric(&format!("landbridge_is_leader{{cluster=\"{cluster}\"}}")).await? == 1.0)
    }
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<Duration> {
    let began = Instant::now();
    while !holds().await.with_context(|| what.to_owned())? {
        if began.elapsed() > PATIENCE {
            bail!("not within {PATIENCE:?}: {what}");
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(began.elapsed())
}
