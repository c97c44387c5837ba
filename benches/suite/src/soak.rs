//! A soak with faults: pods come and go while servers die, clusters fail or cannot be read, and proxies come back all at once. In the end every proxy has what the mesh says, or the run fails.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{
    bed::{Bed, MIB},
    process::Ports,
    scenarios::Setting,
};

/// About how long a round takes.
const ROUND_SECONDS: usize = 60;

/// How large it is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// How long, in minutes.
    pub minutes: usize,
    /// Simulated proxies.
    pub proxies: usize,
    /// Services in two clusters.
    pub services: usize,
}

/// Runs it.
pub fn run(setting: &Setting, size: Size) -> Result<()> {
    let spec =
        json!({ "clusters": 2, "networks": 2, "regions": 2, "services": size.services, "endpoints": 6 });
    let bed = Bed::new(setting, spec)?;
    let server = bed.supervised(Ports::free()?, &[])?;
    let pid = bed.path("state/pid");
    let rounds = (size.minutes * 60).div_ceil(ROUND_SECONDS).max(1);
    println!("soak: {} proxies, {} services, {rounds} rounds of about a minute", size.proxies, size.services);
    let mut phases = vec![json!({ "connect": {} })];
    phases.extend((0..rounds).flat_map(|_| round(&pid.to_string_lossy())));
    let measured = bed.load(json!({
        "server": server.plaintext.to_string(),
        "mesh": bed.mesh(),
        "proxies": size.proxies,
        "phases": phases,
    }))?;
    let usage = server.current_usage()?;
    let changes = measured.get("changes.made")?;
    ensure!(changes > 0.0, "nothing was changed: the soak shows nothing");
    println!(
        "soak: {changes} changes, {} streams lost and come back, {} comparisons of proxies and mesh without a difference; \
         p99 of a change {:.1} ms; server {:.0} MiB",
        measured.get("lost")?,
        measured.get("verify.compared")?,
        measured.get("change.any.p99")? * 1e3,
        usage.rss as f64 / MIB,
    );
    Ok(())
}

fn round(pid_file: &str) -> Vec<Value> {
    let churn = |script: Value| json!({ "churn": script });
    vec![
        churn(json!({ "rate": { "perSecond": 20.0, "seconds": 20.0, "replace": 0.5 } })),
        json!({ "command": ["sh", "-c", format!("kill -9 $(cat {pid_file})")] }),
        churn(json!({ "outage": { "cluster": 1, "seconds": 5.0 } })),
        churn(json!({ "unknown": { "cluster": 1, "seconds": 5.0 } })),
        churn(json!({ "burst": { "pods": 50, "times": 2, "seconds": 3.0 } })),
        churn(json!({ "create": { "services": 2, "seconds": 1.0 } })),
        churn(json!({ "remove": { "services": 2, "seconds": 1.0 } })),
        json!({ "reconnect": { "inFlight": 0 } }),
        json!({ "hold": 2.0 }),
    ]
}
