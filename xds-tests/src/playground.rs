//! The playground: two clusters that stay up, for a person to type at.
//!
//! ```text
//! target/playground/  kubeconfig (contexts east and west)   kubectl (takes it)   east/ west/ (keys, data, logs)
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::kubernetes::{Binaries, Cluster, Settings, crds, kubeconfig, secret_file};
use crate::topology::CLOUDS;

/// The processes of a playground, in the file `processes.json` of its folder.
#[derive(Serialize, Deserialize)]
struct Left {
    pids: Vec<i32>,
}

/// Starts both clusters with Istio's kinds and the objects of `deploy/examples/two-clouds`, and leaves them running.
/// Returns the kubectl that reaches them.
pub async fn up(repository: &Path, binaries: &Binaries, folder: &Path) -> Result<PathBuf> {
    down(folder).await?;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let start = |name: &str| {
        Cluster::start(binaries, Settings { lives_on: true, ..Settings::new(name, folder.join(name)) })
    };
    let (east, west) = tokio::try_join!(start(CLOUDS[0]), start(CLOUDS[1]))?;
    let clusters = [east, west];
    for cluster in &clusters {
        cluster.define(crds::ISTIO).await?;
        cluster.apply_folder(&repository.join("deploy/examples/two-clouds").join(cluster.name())).await?;
    }
    let contexts =
        clusters.iter().map(|cluster| cluster.context(cluster.admin())).collect::<Result<Vec<_>>>()?;
    let kubeconfig_file = folder.join("kubeconfig");
    secret_file(&kubeconfig_file, &kubeconfig::kubeconfig(&contexts)?)?;
    let kubectl = folder.join("kubectl");
    let script = format!(
        "#!/bin/sh\nKUBECONFIG='{}' exec '{}' \"$@\"\n",
        kubeconfig_file.display(),
        binaries.kubectl.display()
    );
    fs::write(&kubectl, script)
        .and_then(|()| fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("write {}", kubectl.display()))?;

    let pids = clusters.iter().filter_map(|cluster| Some(cluster.process().pid()?.cast_signed())).collect();
    fs::write(list(folder), serde_json::to_string(&Left { pids })?)
        .with_context(|| format!("write {}", list(folder).display()))?;
    clusters.into_iter().for_each(Cluster::leave_running);
    Ok(kubectl)
}

/// Ends what an earlier [`up`] left running. True if there was something.
pub async fn down(folder: &Path) -> Result<bool> {
    let list = list(folder);
    let Ok(text) = fs::read_to_string(&list) else { return Ok(false) };
    let left: Left = serde_json::from_str(&text).with_context(|| format!("read {}", list.display()))?;
    let ours = left.pids.into_iter().filter(|pid| names(*pid, folder)).filter_map(Pid::from_raw);
    let mut running = Vec::from_iter(ours);
    for pid in &running {
        kill_process(*pid, Signal::KILL).with_context(|| format!("end process {}", pid.as_raw_nonzero()))?;
    }
    let any = !running.is_empty();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !running.is_empty() {
        running.retain(|pid| test_kill_process(*pid).is_ok());
        if Instant::now() > deadline {
            bail!("processes {running:?} do not end");
        }
        sleep(Duration::from_millis(20)).await;
    }
    for cloud in CLOUDS {
        let _ = fs::remove_dir_all(folder.join(cloud).join("etcd")); // the next `up` would empty it, too
    }
    fs::remove_file(&list).with_context(|| format!("remove {}", list.display()))?;
    Ok(any)
}

/// Whether the process was started on files in `folder`: it is ours, and not one that got the same number later.
fn names(pid: i32, folder: &Path) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&arguments).contains(&*folder.to_string_lossy())
}

fn list(folder: &Path) -> PathBuf {
    folder.join("processes.json")
}
