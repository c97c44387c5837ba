//! Control planes die, come back, and change their signing certificates: the data plane hardly notices.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use xds_tests::load::Load;
use xds_tests::mesh::Mesh;

use crate::lab::{PATIENCE, RATE, answered_from, backend_members, mesh_test, none_failed, within};

/// What the proxies have taken from the control planes so far, per proxy and kind of update.
async fn taken(mesh: &Mesh) -> Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    for (id, envoy) in mesh.envoys() {
        for (name, value) in envoy.stats("update_success$").await? {
            all.insert(format!("{id} {name}"), value);
        }
    }
    Ok(all)
}

#[test]
fn control_planes_that_come_back_send_nothing_again() {
    mesh_test("control_planes::control_planes_that_come_back_send_nothing_again", vec![], async |mesh| {
        let client = mesh.topology.pod("east", "client")?;
        let load = Load::start(&client.ns, mesh.target(), RATE)?;
        ensure!(
            load.settled(50, PATIENCE, |sample| answered_from(sample, "east")).await,
            "home does not answer"
        );
        let before = taken(mesh).await?;
        mesh.kill_control_planes().await?;
        tokio::time::sleep(Duration::from_secs(2)).await; // an outage, not a blink
        mesh.start_control_planes().await?;
        within(PATIENCE * 2, "every proxy is connected again", async || {
            for (_, envoy) in mesh.envoys() {
                if !envoy.connected().await {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await?;
        // A change made now arrives behind whatever would have been sent again.
        mesh.withdraw_backends("west")?;
        within(PATIENCE, "west is withdrawn", async || Ok(backend_members(mesh).await? == 2)).await?;
        let after = taken(mesh).await?;
        let again: Vec<String> = after
            .iter()
            .filter(|(name, value)| before.get(*name) != Some(value))
            // The change itself: endpoints of the backend, in clusters of sidecars and gateways.
            .filter(|(name, _)| !name.contains("backend.production"))
            .map(|(name, value)| format!("{name}: {value}, was {:?}", before.get(name)))
            .collect();
        ensure!(again.is_empty(), "sent again: {again:#?}");
        none_failed(&load.finish())
    });
}

/// The new certificates are used by new connections between clouds and inside one.
#[test]
fn intermediates_rotate_under_load() {
    mesh_test("control_planes::intermediates_rotate_under_load", vec![], async |mesh| {
        let client = mesh.topology.pod("east", "client")?;
        let load = Load::start(&client.ns, mesh.target(), RATE)?;
        ensure!(
            load.settled(50, PATIENCE, |sample| answered_from(sample, "east")).await,
            "home does not answer"
        );
        let mut before = BTreeMap::new();
        for (id, envoy) in mesh.envoys() {
            before.insert(id.to_owned(), envoy.certificate_serials().await?);
        }
        for cloud in ["east", "west"] {
            mesh.rotate_intermediate(cloud).await?;
        }
        within(PATIENCE, "every proxy has a certificate of the new intermediate", async || {
            for (id, envoy) in mesh.envoys().filter(|(id, _)| !before[*id].is_empty()) {
                if envoy.certificate_serials().await? == before[id] {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await?;
        // New pods, so new connections: first to the other cloud, then back home.
        mesh.kill_backends("east").await?;
        ensure!(
            load.settled(100, PATIENCE, |sample| answered_from(sample, "west")).await,
            "west does not answer"
        );
        mesh.start_backends("east").await?;
        ensure!(
            load.settled(50, PATIENCE, |sample| answered_from(sample, "east")).await,
            "traffic did not come home"
        );
        none_failed(&load.finish())
    });
}
