//! The playground: the mesh of two clouds on real API servers, left running for a person to type at.
//!
//! ```text
//! target/playground/  kubeconfig (contexts east and west)   kubectl, landbridge-east, landbridge-west, client (commands)
//!                     east/ west/ (keys, data, kubeconfigs)   logs/   lab.json (what runs)
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::kubernetes::{Binaries, secret_file};
use crate::leftover::Leftover;
use crate::mesh::{LANDBRIDGE_POD, Mesh, Tools};
use crate::topology::CLOUDS;

/// Starts API servers with the objects of `deploy/examples/two-clouds`, the control planes that read them, and the pods.
/// What it returns has to be kept ([`Mesh::keep`]) to stay; [`crate::leftover::take_down`] ends it then.
pub async fn up(tools: Tools, binaries: &Binaries, folder: &Path) -> Result<Mesh> {
    let mut mesh = Mesh::prepare(tools, folder, &format!("pg{}", std::process::id()), Vec::new()).await?;
    Leftover::remember(&mesh, folder)?;
    mesh.start_api_servers(binaries, true).await?;
    secret_file(&folder.join("kubeconfig"), &mesh.admin_kubeconfig()?)?;
    mesh.start_control_planes().await?;
    mesh.start_workloads().await?;
    let leftover = Leftover::remember(&mesh, folder)?;
    write_commands(&mesh, &leftover, binaries)?;
    Ok(mesh)
}

/// Writes programs that do in the right place what they are called: a person need not know where that is.
fn write_commands(mesh: &Mesh, leftover: &Leftover, binaries: &Binaries) -> Result<()> {
    let inside = |cloud: &str, pod: &str| {
        format!("exec {}", leftover.enter(&format!("{}-{cloud}-{pod}", mesh.topology.prefix())))
    };
    let [home, other] = CLOUDS;
    let landbridge =
        |cloud| format!("{} '{}'", inside(cloud, LANDBRIDGE_POD), mesh.tools().landbridge.display());
    let kubectl = format!(
        "KUBECONFIG='{}' {} '{}'",
        mesh.folder.join("kubeconfig").display(),
        inside(home, LANDBRIDGE_POD),
        binaries.kubectl.display()
    );
    for (name, command) in [
        ("kubectl", kubectl),
        ("landbridge-east", landbridge(home)),
        ("landbridge-west", landbridge(other)),
        ("client", inside(home, "client")),
    ] {
        let path = mesh.folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{command} \"$@\"\n"))
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
