//! Runs targets of `cargo bench` and reads what they found.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::SystemTime,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Median nanoseconds of one iteration, by `group/function/parameter`.
pub type Medians = BTreeMap<String, f64>;

/// Runs one of criterion's bench targets, and returns the medians that it has measured just now.
pub fn medians(target: &Path, bench: &str) -> Result<Medians> {
    let began = SystemTime::now();
    let status = command(bench, "--noplot").status().context("run cargo")?;
    ensure!(status.success(), "the bench `{bench}` failed, see above");
    let mut medians = Medians::new();
    collect(&target.join("criterion"), began, &mut medians)?;
    ensure!(!medians.is_empty(), "the bench `{bench}` left no estimates below {}", target.display());
    Ok(medians)
}

/// Runs a bench target of ours, and returns the JSON that it prints.
pub fn printed(bench: &str) -> Result<Value> {
    let output = command(bench, "--json").stderr(Stdio::inherit()).output().context("run cargo")?;
    ensure!(output.status.success(), "the bench `{bench}` failed, see above");
    serde_json::from_slice(&output.stdout).with_context(|| format!("the bench `{bench}` printed no JSON"))
}

fn command(bench: &str, flag: &str) -> Command {
    let mut command = Command::new(env!("CARGO"));
    // The packages of `make bench`: others would be other features, and all compiled again.
    let packages = ["-p", "landbridge", "-p", "xds-load", "-p", "bench-suite"];
    command.args(["bench", "--locked"]).args(packages).args(["--bench", bench, "--", flag]);
    command
}

fn collect(directory: &Path, since: SystemTime, medians: &mut Medians) -> Result<()> {
    let estimates = directory.join("new/estimates.json");
    if let Ok(meta) = estimates.metadata() {
        if meta.modified()? >= since {
            let id = read(&directory.join("new/benchmark.json"))?["full_id"].as_str().map(str::to_owned);
            let median = read(&estimates)?["median"]["point_estimate"].as_f64();
            medians.extend(id.zip(median));
        }
        return Ok(());
    }
    for entry in fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, since, medians)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("in {}", path.display()))
}
