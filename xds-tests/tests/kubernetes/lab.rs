//! Two clouds with an API server each: what the lab gives to control planes, and to a person.

use anyhow::{Context as _, Result, ensure};
use xds_tests::envoy;
use xds_tests::kubernetes::{Binaries, binaries, cluster_lab_test};
use xds_tests::mesh::{LANDBRIDGE_POD, Mesh, Tools, Workload};
use xds_tests::netns::means;

/// Runs `body` with API servers in both clouds that hold the example's objects, and nothing else started.
pub fn api_servers_test(name: &str, body: impl AsyncFnOnce(&mut Mesh, &Binaries) -> Result<()>) {
    api_servers_test_with(name, Vec::new(), body);
}

/// The same, with further pods.
pub fn api_servers_test_with(
    name: &str,
    extra: Vec<Workload>,
    body: impl AsyncFnOnce(&mut Mesh, &Binaries) -> Result<()>,
) {
    if let Err(error) = envoy::find(&binaries::repository()) {
        return means::skip(name, &format!("{error:#}"));
    }
    cluster_lab_test(name, async |binaries, folder| {
        let tools = Tools::find(env!("CARGO_BIN_EXE_demo").into())?;
        let prefix = format!("lk{}", std::process::id());
        let mut mesh = Mesh::prepare(tools, &folder, &prefix, extra).await?;
        mesh.start_api_servers(binaries, false).await?;
        let outcome = body(&mut mesh, binaries).await;
        mesh.stop().await?;
        outcome
    });
}

#[test]
fn each_cloud_reads_both_servers_and_writes_to_none() {
    api_servers_test("lab::each_cloud_reads_both_servers_and_writes_to_none", async |mesh, binaries| {
        let kubectl = binaries.kubectl.to_str().context("a path in UTF-8")?;
        for from in ["east", "west"] {
            let pod = mesh.topology.pod(from, LANDBRIDGE_POD)?;
            for to in ["east", "west"] {
                let file = mesh.folder.join(from).join(format!("{to}.kubeconfig"));
                let login = ["--kubeconfig", file.to_str().context("a path in UTF-8")?];
                let slice = ["-n", "production", "endpointslice", "backend-1"];
                let read = pod.ns.run(kubectl, &[&login[..], &["get"], &slice, &["-o", "name"]].concat())?;
                ensure!(read.trim() == "endpointslice.discovery.k8s.io/backend-1", "{from} to {to}: {read}");
                let refused = pod.ns.run(kubectl, &[&login[..], &["delete"], &slice].concat());
                let refused = refused.err().with_context(|| format!("{from} may delete in {to}"))?;
                ensure!(format!("{refused:#}").contains("forbidden"), "{from} to {to}: {refused:#}");
            }
        }
        Ok(())
    });
}
