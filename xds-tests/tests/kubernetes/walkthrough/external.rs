//! A control plane outside of the cluster that it serves.

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use tokio::time::{Duration, Instant, sleep};
use xds_tests::process::Process;
use xds_tests::topology::{CLOUDS, DESK, api_server_address};

use super::{BACKEND, PATIENCE, Walk, answered_from, none_failed, walk_test};

#[test]
fn a_control_plane_outside_of_its_cluster() {
    let name = "walkthrough::external::a_control_plane_outside_of_its_cluster";
    walk_test(name, "external", async |walk| {
        let server = api_server_address(CLOUDS[0]).to_string();
        let known = [("API-SERVER-1", &*server)];
        walk.desk.follows("1. ", &known).await?;
        walk.desk.types(&format!("sed -i 's/192.0.2.20/{DESK}/' cluster1/values.yaml")).await?;
        for section in ["2. ", "3. "] {
            walk.desk.follows(section, &known).await?;
        }
        let mut plane = serve(walk)?;
        walk.desk.follows("4. ", &known).await?;
        for deployment in ["backend", "frontend"] {
            walk.rolled_out("cluster1", "production", deployment).await?;
        }
        let proxies = walk.desk.types("landbridge proxy-status -o json").await?;
        for pod in ["backend-", "frontend-"] {
            ensure!(proxies.contains(pod), "{proxies}");
        }

        let load = walk.load().await?;
        ensure!(
            load.settled(50, PATIENCE, |sample| answered_from(sample, "cluster1")).await,
            "nobody answers"
        );
        plane.kill().await?;
        ensure!(
            load.settled(50, PATIENCE, |sample| answered_from(sample, "cluster1")).await,
            "nobody answers"
        );
        let plane = serve(walk)?;
        // It serves again: what is written in the cluster arrives.
        let frontend = walk.proxy(CLOUDS[0], "frontend")?;
        for replicas in [1, 2] {
            let scale = format!(
                "kubectl --context cluster1 -n production scale deployment/backend --replicas {replicas}"
            );
            walk.desk.types(&scale).await?;
            let deadline = Instant::now() + PATIENCE;
            while frontend.members(&format!("outbound|80||{BACKEND}")).await? != replicas {
                ensure!(Instant::now() < deadline, "the frontend does not know {replicas} backends");
                sleep(Duration::from_millis(50)).await;
            }
        }
        none_failed(&load.finish())?;
        let said = std::fs::read_to_string(plane.log())?;
        let refused = said.lines().find(|line| line.to_lowercase().contains("forbidden"));
        ensure!(refused.is_none(), "{}", refused.context("a line")?);
        Ok(())
    });
}

/// As the README says it, on the machine that the cluster's Service leads to.
fn serve(walk: &Walk) -> Result<Process> {
    let mut command = Command::new(&walk.tools.landbridge);
    command.args([
        "serve",
        "--cluster-id",
        "cluster1",
        "--kubeconfig",
        "cluster1.kubeconfig",
        "--state-dir",
        "state",
    ]);
    command.current_dir(&walk.desk.example);
    Process::start(walk.desk.ns(), "the control plane", command, &walk.folder.join("landbridge.log"))
}
