//! What a mesh leaves behind: on purpose (`make demo KEEP=1`, `make playground`), or because it was killed. A file
//! remembers it, so that the next run or `make demo-down` can take it down.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::mesh::Mesh;
use crate::netns::means::in_user_namespace;
use crate::netns::run;

#[derive(Serialize, Deserialize)]
pub struct Leftover {
    namespaces: Vec<String>,
    pids: Vec<u32>,
    in_user_namespace: bool,
}

impl Leftover {
    /// Remembers what the mesh consists of now.
    pub fn remember(mesh: &Mesh, folder: &Path) -> Result<Self> {
        let leftover = Self {
            namespaces: mesh.topology.namespaces(),
            pids: mesh.pids(),
            in_user_namespace: in_user_namespace(),
        };
        std::fs::write(file(folder), serde_json::to_string_pretty(&leftover)?)
            .with_context(|| format!("write {}", file(folder).display()))?;
        Ok(leftover)
    }

    /// The beginning of a shell command that runs inside a pod of the lab, from outside.
    pub fn enter(&self, namespace: &str) -> String {
        let outer = match self.pids.first() {
            Some(pid) if self.in_user_namespace => format!("nsenter --preserve-credentials -U -m -t {pid} "),
            _ => String::new(),
        };
        format!("{outer}ip netns exec {namespace}")
    }
}

/// Nothing is left of the lab.
pub fn forget(folder: &Path) {
    let _ = std::fs::remove_file(file(folder)); // if it stays, the next run finds that nothing is left
}

/// Ends the processes and deletes the namespaces of an earlier run, if there are any. True if there were.
pub fn take_down(folder: &Path) -> Result<bool> {
    let Ok(text) = std::fs::read_to_string(file(folder)) else { return Ok(false) };
    let leftover: Leftover =
        serde_json::from_str(&text).with_context(|| format!("read {}", file(folder).display()))?;
    if !leftover.in_user_namespace || in_user_namespace() {
        remove(&leftover.namespaces)?;
    } else if let Some(pid) = leftover.pids.iter().find(|pid| lives_in_other_user_namespace(**pid)) {
        // Only from inside its user namespace can its processes be ended; with the last one it vanishes.
        let own = std::env::current_exe().context("find this program's own file")?;
        let status = Command::new("nsenter")
            .args(["--preserve-credentials", "-U", "-m", "-t", &pid.to_string()])
            .arg(own)
            .arg("remove")
            .args(&leftover.namespaces)
            .status()
            .context("start nsenter")?;
        if !status.success() {
            bail!("could not take down the lab of the earlier run ({status})");
        }
    }
    forget(folder);
    Ok(true)
}

/// Kills everything inside the namespaces, then deletes them. Names that do not exist are skipped.
pub fn remove(namespaces: &[String]) -> Result<()> {
    let existing: Vec<&String> =
        namespaces.iter().filter(|name| Path::new("/run/netns").join(name).exists()).collect();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let mut alive = 0;
        for name in &existing {
            for pid in run("ip", &["netns", "pids", name], None)?.split_whitespace() {
                alive += 1;
                if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL); // it may have ended a moment ago
                }
            }
        }
        if alive == 0 || Instant::now() > deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for name in existing {
        run("ip", &["netns", "del", name], None)?;
    }
    Ok(())
}

/// A process of an earlier run, and not one that got the same number later.
fn lives_in_other_user_namespace(pid: u32) -> bool {
    let user_namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
    let other = user_namespace(&pid.to_string());
    other.is_some() && other != user_namespace("self")
}

fn file(folder: &Path) -> PathBuf {
    folder.join("lab.json")
}
