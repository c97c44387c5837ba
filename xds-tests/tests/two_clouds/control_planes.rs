//! Control planes die, come back, and change their signing certificates: the data plane hardly notices.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use xds_tests::load::Load;

use crate::lab::{PATIENCE, RATE, answered_from, mesh_test, none_failed, within};

#[test]
fn control_planes_that_come_back_send_nothing_again() {
    mesh_test("control_planes::control_planes_that_come_back_send_nothing_again", vec![], async |mesh| {
        let client = mesh.topology.pod("east", "client")?;
        let load = Load::start(&client.ns, mesh.target(), RATE)?;
        ensure!(
            load.settled(50, PATIENCE, |sample| answered_from(sample, "east")).await,
            "home does not answer"
        );
        let before = mesh.taken().await?;
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
        // A change made now arrives behind whatever would have been sent again: one pod less behind west's gateway.
        let is_change = |name: &str| name.contains("backend.production");
        mesh.withdraw_one_backend("west")?;
        within(PATIENCE, "every proxy but east's gateway has the change", async || {
            let now = mesh.taken().await?;
            let changed =
                |id: &str| now.iter().any(|(name, n)| name.starts_with(id) && before.get(name) != Some(n));
            Ok(mesh
                .envoys()
                .filter(|(id, _)| *id != "east/gateway")
                .all(|(id, _)| changed(&format!("{id} cluster."))))
        })
        .await?;
        let after = mesh.taken().await?;
        let again: Vec<String> = after
            .iter()
            .filter(|(name, times)| before.get(*name) != Some(times) && !is_change(name))
            .map(|(name, times)| format!("{name}: {times}, was {:?}", before.get(name)))
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
