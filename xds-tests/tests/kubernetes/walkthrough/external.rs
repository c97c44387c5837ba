//! A control plane outside of the cluster that it serves.

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use xds_tests::process::Process;
use xds_tests::topology::{CLOUDS, DESK, api_server_address};

use super::{BACKEND, Walk, none_failed, settled, walk_test};

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
        walk.application_rolled_out("cluster1", &["backend", "frontend"]).await?;
        let proxies = walk.desk.types("landbridge proxy-status -o json").await?;
        for pod in ["backend-", "frontend-"] {
            ensure!(proxies.contains(pod), "{proxies}");
        }

        let load = walk.load().await?;
        settled(&load, "cluster1").await?;
        plane.kill().await?;
        settled(&load, "cluster1").await?;
        let plane = serve(walk)?;
        // It serves again: what is written in the cluster arrives.
        let frontend = walk.proxy(CLOUDS[0], "frontend")?;
        walk.scaled_and_known("cluster1", &frontend, &format!("outbound|80||{BACKEND}")).await?;
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
