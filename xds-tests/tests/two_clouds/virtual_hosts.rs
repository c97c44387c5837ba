//! Virtual hosts one by one (VHDS), with thousands of them in a stock Envoy.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::time::Instant;
use xds_tests::envoy::Envoy;
use xds_tests::mesh::{Mesh, SERVICE, Workload};
use xds_tests::{http, load::Load};

use crate::lab::{PATIENCE, RATE, answered_from, many_services, none_failed, prepared_test, within};

const MANY: usize = 1_500;

/// One HTTP service more, in namespace `crowd`, on the ports of the others.
fn one_service(name: &str, ip: &str, ports: &[u16]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: crowd}}\nspec:\n  clusterIP: {ip}\n  ports:\n"
    );
    for port in ports {
        let _ = writeln!(text, "  - {{name: http-{port}, port: {port}, targetPort: 8080}}");
    }
    text
}

/// The virtual hosts of a port's table in the proxy's own dump, by name.
async fn hosts(envoy: &Envoy, table: &str) -> Result<BTreeMap<String, Value>> {
    let dump = envoy.config_dump().await?;
    let mut tables = dump["configs"].as_array().into_iter().flatten().flat_map(|section| {
        section["dynamic_route_configs"].as_array().into_iter().flatten().map(|entry| &entry["route_config"])
    });
    let Some(found) = tables.find(|config| config["name"] == table) else { return Ok(BTreeMap::new()) };
    let all = found["virtual_hosts"].as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().map(|host| (host["name"].as_str().unwrap_or_default().to_owned(), host)).collect())
}

fn name(table: &str, service: &str) -> String {
    format!("{table}/{service}.crowd.svc.cluster.local:{table}")
}

/// How often each type was taken, and what was refused.
async fn updates(envoy: &Envoy) -> Result<BTreeMap<String, u64>> {
    envoy.stats("update_(success|rejected)$").await
}

async fn none_refused(envoy: &Envoy) -> Result<()> {
    let refused: Vec<_> =
        updates(envoy).await?.into_iter().filter(|(name, n)| name.ends_with("rejected") && *n > 0).collect();
    ensure!(refused.is_empty(), "refused: {refused:?}");
    Ok(())
}

/// The status of a request to a host of `crowd`: 503 means that its cluster (which has nobody behind it) was found.
async fn status(mesh: &Mesh, pod: &str, host: &str, port: u16) -> Result<u16> {
    let client = mesh.topology.pod("east", pod)?;
    let to = std::net::SocketAddr::from(([10, 96, 0, 10], port));
    Ok(http::fetch(&client.ns, to, host, "/", Duration::from_secs(3)).await?.status().as_u16())
}

#[test]
fn one_of_thousands_comes_changes_and_goes() {
    let together = Workload { enable_vhds: Some(false), ..Workload::client("client-rds", 20) };
    let sotw = Workload { protocol: "sotw", ..Workload::client("client-sotw", 21) };
    let all = ["client", "client-rds", "client-sotw"];
    prepared_test(
        "virtual_hosts::one_of_thousands_comes_changes_and_goes",
        vec![together, sotw],
        async |mesh| {
            mesh.apply("east", "many.yaml", &many_services(MANY, 1))?;
            mesh.start_control_planes().await?;
            for pod in all {
                let start = Instant::now();
                mesh.start_pods(&[format!("east/{pod}")]).await?;
                println!("{pod}: {MANY} services, ready after {:?}", start.elapsed());
                let envoy = mesh.envoy("east", pod)?;
                let known = hosts(envoy, "80").await?;
                let one = if pod == "client" {
                    name("80", "many-7")
                } else {
                    "many-7.crowd.svc.cluster.local:80".to_owned()
                };
                ensure!(known.len() > MANY && known.contains_key(&one), "{pod} has {} hosts", known.len());
                none_refused(envoy).await?;
            }
            let envoy = mesh.envoy("east", "client")?;
            let shown = mesh
                .server("east")?
                .monitoring("/debug/config_dump?proxyID=client.production&types=routes")
                .await?;
            let shown: Value = serde_json::from_str(&shown)?;
            let ours: usize = shown["configs"][0]["dynamic_route_configs"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|entry| entry["route_config"]["name"] == "80")
                .map(|entry| entry["route_config"]["virtual_hosts"].as_array().map_or(0, Vec::len))
                .sum();
            ensure!(ours == hosts(envoy, "80").await?.len(), "the control plane's dump shows {ours} hosts");

            // It comes: the cluster, its endpoints and the host, and nothing else is taken.
            let before = updates(envoy).await?;
            let start = Instant::now();
            mesh.apply("east", "late.yaml", &one_service("late", "10.99.0.1", &[80]))?;
            for pod in all {
                let table = if pod == "client" {
                    name("80", "late")
                } else {
                    "late.crowd.svc.cluster.local:80".to_owned()
                };
                let envoy = mesh.envoy("east", pod)?;
                within(PATIENCE, "the late host", async || {
                    Ok(hosts(envoy, "80").await?.contains_key(&table))
                })
                .await?;
                println!("{pod}: a new service is there after {:?}", start.elapsed());
            }
            let after = updates(envoy).await?;
            let mut taken: Vec<_> = after
                .iter()
                .filter(|(name, n)| before.get(*name) != Some(n))
                .map(|(name, _)| name.as_str())
                .collect();
            taken.retain(|name| !name.contains("late.crowd"));
            ensure!(
                taken
                    == [
                        "cluster_manager.cds.update_success",
                        "http.outbound_0.0.0.0_80;.vhds.80.update_success"
                    ]
                    || taken.iter().all(|name| name.contains("cds.update") || name.contains("vhds.80")),
                "taken: {taken:?}"
            );
            ensure!(
                status(mesh, "client", "late.crowd", 80).await? == 503,
                "the late host leads to its cluster"
            );

            // It changes: an alias, and with it further names, and a rule.
            mesh.apply(
                "east",
                "alias.yaml",
                "apiVersion: v1\nkind: Service\nmetadata: {name: other-name, namespace: crowd}\n\
            spec: {type: ExternalName, externalName: late.crowd.svc.cluster.local}\n",
            )?;
            let names = async || {
                let late =
                    hosts(envoy, "80").await?.remove(&name("80", "late")).context("the late host is gone")?;
                Ok(late["domains"].to_string().contains("other-name.crowd"))
            };
            within(PATIENCE, "the alias", names).await?;

            // It goes, and what answers then is the catch-all.
            mesh.apply("east", "alias.yaml", "")?;
            mesh.apply("east", "late.yaml", "")?;
            for pod in all {
                let envoy = mesh.envoy("east", pod)?;
                let gone =
                    async || Ok(!hosts(envoy, "80").await?.keys().any(|host| host.contains("late.crowd")));
                within(PATIENCE, "the late host is gone", gone).await?;
                none_refused(envoy).await?;
            }
            // A port that nobody had, twice: its listener, its table and its host, in an order that Envoy takes.
            for round in 1..=2 {
                mesh.apply("east", "late.yaml", &one_service("late", "10.99.0.1", &[80, 9191]))?;
                for pod in all {
                    let envoy = mesh.envoy("east", pod)?;
                    let there = async || {
                        Ok(hosts(envoy, "9191").await?.keys().any(|host| host.contains("late.crowd")))
                    };
                    within(PATIENCE, "the host on its own port", there).await?;
                    let serves =
                        async || Ok(status(mesh, pod, "late.crowd:9191", 9191).await.ok() == Some(503));
                    within(PATIENCE, "the port's listener serves", serves)
                        .await
                        .with_context(|| format!("round {round}, {pod}"))?;
                }
                mesh.apply("east", "late.yaml", "")?;
                for pod in all {
                    let envoy = mesh.envoy("east", pod)?;
                    let gone = async || Ok(!envoy.config_dump().await?.to_string().contains("late.crowd"));
                    within(PATIENCE, "all of the late service is gone", gone).await?;
                    none_refused(envoy).await?;
                }
            }
            Ok(())
        },
    );
}

/// What was removed while the stream was down is removed, and nothing else is sent again.
#[test]
fn what_goes_during_an_outage_is_gone_after_it() {
    prepared_test("virtual_hosts::what_goes_during_an_outage_is_gone_after_it", vec![], async |mesh| {
        mesh.apply("east", "many.yaml", &many_services(MANY, 1))?;
        mesh.apply("east", "late.yaml", &one_service("late", "10.99.0.1", &[80, 9191]))?;
        mesh.start_control_planes().await?;
        mesh.start_workloads().await?;
        let client = mesh.topology.pod("east", "client")?;
        let load = Load::start(&client.ns, mesh.target(), RATE)?;
        ensure!(
            load.settled(50, PATIENCE, |sample| answered_from(sample, "east")).await,
            "home does not answer"
        );
        let before = hosts(mesh.envoy("east", "client")?, "80").await?;
        mesh.kill_control_planes().await?;
        mesh.apply("east", "many.yaml", &many_services(MANY - 3, 1))?;
        mesh.apply("east", "late.yaml", "")?;
        mesh.apply("east", "newer.yaml", &one_service("newer", "10.99.0.2", &[80]))?;
        mesh.start_control_planes().await?;

        let envoy = mesh.envoy("east", "client")?;
        let settled = async || {
            let now = hosts(envoy, "80").await?;
            let expected = before.len() - 4 + 1;
            Ok(now.len() == expected
                && now.contains_key(&name("80", "newer"))
                && !now.contains_key(&name("80", "late")))
        };
        within(PATIENCE * 3, "hosts are those of now", settled).await?;
        let now = hosts(envoy, "80").await?;
        ensure!(
            before.iter().all(|(name, host)| now.get(name).is_none_or(|now| now == host)),
            "hosts differ"
        );
        ensure!(status(mesh, "client", SERVICE, 80).await? == 200, "the backend answers");
        none_refused(envoy).await?;

        // The other way, and back again, in a proxy that goes on running.
        for enabled in ["false", "true"] {
            mesh.kill_control_planes().await?;
            let flag = format!("--enable-vhds={enabled}");
            mesh.serve_with(&[&flag]);
            mesh.start_control_planes().await?;
            let envoy = mesh.envoy("east", "client")?;
            let one = if enabled == "true" {
                name("80", "newer")
            } else {
                "newer.crowd.svc.cluster.local:80".to_owned()
            };
            let switched =
                async || Ok(envoy.connected().await && hosts(envoy, "80").await?.contains_key(&one));
            within(PATIENCE * 3, "hosts have the names of the other way", switched).await.context(flag)?;
            let count = hosts(envoy, "80").await?.len();
            ensure!(count == now.len(), "{count} hosts with --enable-vhds={enabled}, {} before", now.len());
            none_refused(envoy).await?;
        }
        none_failed(&load.finish())
    });
}

/// A host that this Envoy refuses stays as it was, for this proxy and for those that come later; its neighbours, that were
/// sent with it, change.
#[test]
fn a_refused_host_holds_up_no_other() {
    let late = Workload::client("late", 22);
    prepared_test("virtual_hosts::a_refused_host_holds_up_no_other", vec![late], async |mesh| {
        mesh.apply("east", "many.yaml", &many_services(50, 1))?;
        mesh.start_control_planes().await?;
        mesh.start_pods(&["east/client".to_owned()]).await?;
        let envoy = mesh.envoy("east", "client")?;
        let good = hosts(envoy, "80").await?;
        mesh.apply("east", "rules.yaml", &RULES.map(|(host, header)| rule(host, header)).join("---\n"))?;
        let header = async |envoy: &Envoy, service: &str| {
            let host = hosts(envoy, "80").await?.remove(&name("80", service)).context("a host is gone")?;
            anyhow::Ok(host.to_string().contains("x-user"))
        };
        within(PATIENCE, "the neighbours change", async || {
            Ok(header(envoy, "many-1").await? && header(envoy, "many-3").await?)
        })
        .await?;
        let bad = name("80", "many-2");
        within(PATIENCE, "the refusal is shown with its rule", async || {
            let shown = mesh.server("east")?.monitoring("/debug/nackz").await?;
            Ok(shown.contains(&bad) && shown.contains("DestinationRule/rule-many-2"))
        })
        .await?;
        let shown: Value = serde_json::from_str(&mesh.server("east")?.monitoring("/debug/nackz").await?)?;
        ensure!(!shown.to_string().contains(&name("80", "many-1")), "the neighbour is blamed: {shown}");
        ensure!(hosts(envoy, "80").await?[&bad] == good[&bad], "the refused host has changed");

        mesh.start_pods(&["east/late".to_owned()]).await?;
        let newcomer = mesh.envoy("east", "late")?;
        ensure!(hosts(newcomer, "80").await?[&bad] == good[&bad], "the newcomer has other bytes");
        ensure!(header(newcomer, "many-1").await?, "the newcomer lacks a change");
        none_refused(newcomer).await?;

        mesh.apply("east", "rules.yaml", &rule("many-2", "x-user"))?;
        within(PATIENCE, "mended", async || header(mesh.envoy("east", "client")?, "many-2").await).await
    });
}

/// A name with a line break is no header to Envoy.
const RULES: [(&str, &str); 3] = [("many-1", "x-user"), ("many-2", "x-\\nuser"), ("many-3", "x-user")];

fn rule(host: &str, header: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: rule-{host}, namespace: crowd}}\n\
         spec:\n  host: {host}.crowd.svc.cluster.local\n  trafficPolicy:\n    loadBalancer: {{consistentHash: {{httpHeaderName: \"{header}\"}}}}\n"
    )
}
