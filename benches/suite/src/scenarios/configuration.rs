//! What it costs to configure proxies from nothing.

use anyhow::Result;
use serde_json::json;

use super::Setting;
use crate::{
    bed::{Bed, MIB, merged},
    floor::{self, Floor},
    report::{Figure, Target},
};

/// Each of 20 namespaces has services that nobody else sees.
pub fn scoped(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let proxies = setting.proxies(2_000);
    let spec = json!({ "services": 1_000, "endpoints": 10, "namespaces": 20, "scopes": 20, "private": 1.0, "clients": proxies });
    let bed = Bed::new(setting, spec)?;
    let server = bed.server(&[])?;
    let before = server.process.usage()?;
    let phases = json!({ "phases": [{ "connect": {} }, { "hold": 2.0 }] });
    let measured = bed.load(merged(bed.plaintext(&server, proxies), phases))?;
    let bytes = measured.get("total.bytes")?;
    let cpu = before.cpu().as_secs_f64() + measured.get("phase.connect.server.cpu")?;
    // Proxies with the same shape were found to have the same bytes.
    let distinct = measured.get("verify.shapes")?;
    Ok(vec![
        Figure::new(scenario, "server CPU, from its start", cpu, "s").target(Target::AtMost(2.0)),
        Figure::new(scenario, "peak RSS", measured.get("server.peak")? / MIB, "MiB")
            .target(Target::AtMost(150.0)),
        Figure::new(scenario, "bytes to each proxy", bytes / proxies as f64, "B"),
        Figure::new(scenario, "bytes shared", (1.0 - distinct / proxies as f64) * 100.0, "%")
            .target(Target::AtLeast(95.0)),
        Figure::new(scenario, "all configured", measured.get("phase.connect.seconds")?, "s"),
    ])
}

/// Everybody sees everything; then one endpoint changes, then the raw server writes as much.
pub fn unscoped(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let proxies = setting.proxies(1_000);
    let bed = Bed::new(setting, json!({ "services": 1_000, "endpoints": 10, "clients": proxies }))?;
    let server = bed.server(&[])?;
    let flips = json!({ "churn": { "rate": { "perSecond": 1.0, "seconds": 20.0, "replace": 0.0 } } });
    let phases = json!({ "phases": [{ "connect": {} }, { "hold": 2.0 }, flips] });
    let measured = bed.load(merged(bed.plaintext(&server, proxies), phases))?;
    drop(server);
    let bytes = measured.get("phase.connect.received")? / proxies as f64;
    let made = measured.get("changes.made")?;
    let push = measured.get("phase.churn.received")? / made / proxies as f64;
    let floor = floor::run(&bed, Floor { tls: false, proxies, full: bytes as usize, push: push as usize })?;
    Ok(vec![
        Figure::new(
            scenario,
            "server CPU per proxy",
            measured.get("phase.connect.server.cpu.proxy")? * 1e3,
            "ms",
        )
        .beside(floor.connect * 1e3)
        .target(Target::Floors(1.5)),
        Figure::new(
            scenario,
            "the same, beside istiod's (A5)",
            measured.get("phase.connect.server.cpu.proxy")? * 1e3,
            "ms",
        )
        .beside(46.0)
        .target(Target::Floors(0.1)),
        Figure::new(scenario, "bytes to each proxy", bytes, "B"),
        Figure::new(scenario, "all configured", measured.get("phase.connect.seconds")?, "s")
            .target(Target::AtMost(6.0)),
        Figure::new(scenario, "peak RSS", measured.get("server.peak")? / MIB, "MiB")
            .target(Target::AtMost(250.0)),
        Figure::new(
            scenario,
            "an endpoint changes: server CPU (istiod 288)",
            measured.get("phase.churn.server.cpu")? / made * 1e3,
            "ms",
        )
        .beside(floor.push * 1e3)
        .target(Target::AtMost(30.0)),
        Figure::new(
            scenario,
            "an endpoint changes: last proxy, p99 (istiod 272 at p50)",
            measured.get("change.eds.last.p99")? * 1e3,
            "ms",
        )
        .beside(floor.last * 1e3)
        .target(Target::AtMost(15.0)),
    ])
}
