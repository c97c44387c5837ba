//! How long a change takes to reach the proxies that see it, and what it costs.

use anyhow::Result;
use serde_json::{Value, json};

use super::Setting;
use crate::{
    bed::{Bed, MIB, merged},
    floor::{self, Floor},
    report::{Figure, Target},
};

const CONNECT: &str = "connect";

/// The load assignment of a generated mesh's first service.
const FIRST: &str = "eds:outbound|80||service-0.namespace-0.svc.cluster.local";

/// Proxies that follow load assignments only, of which each draws so many.
fn followers(subscribe: &str, draw: usize) -> Value {
    json!({ "ask": { "types": [], "subscribe": [subscribe], "draw": draw } })
}

/// `seconds` of flips, so many in a second.
fn flips(per_second: f64, seconds: f64) -> Value {
    json!({ "churn": { "rate": { "perSecond": per_second, "seconds": seconds, "replace": 0.0 } } })
}

/// Time to the bytes in a client, beside 40 proxies that each wait for the kernel once.
pub fn flip(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let proxies = setting.proxies(2_000);
    let bed = Bed::new(setting, json!({ "services": 1_000, "endpoints": 10, "clients": proxies }))?;
    let server = bed.server(&[])?;
    let what = merged(bed.plaintext(&server, proxies), followers(&bed.assignments(1_000, 10)?, 20));
    let phases = json!({ "phases": [{ CONNECT: {} }, flips(5.0, 30.0)] });
    let measured = bed.load(merged(what, phases))?;
    Ok(vec![
        Figure::new(
            scenario,
            "file written to client's bytes, p50",
            measured.get("change.eds.p50")? * 1e3,
            "ms",
        )
        .target(Target::AtMost(1.0)),
        Figure::new(scenario, "p99", measured.get("change.eds.p99")? * 1e3, "ms").target(Target::AtMost(5.0)),
        Figure::new(scenario, "last of its proxies, p50", measured.get("change.eds.last.p50")? * 1e3, "ms"),
    ])
}

/// The same 2 KiB to everybody, beside a server that only writes them.
pub fn fanout(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let proxies = setting.proxies(10_000);
    let mut figures = Vec::new();
    for (over, last) in [("plaintext", 300.0), ("TLS", 450.0)] {
        let tls = over == "TLS";
        let bed = Bed::new(
            setting,
            json!({ "services": 10, "endpoints": 14, "namespaces": 1, "clients": proxies }),
        )?;
        let server = bed.server(&[])?;
        let mut what = merged(bed.plaintext(&server, proxies), followers(FIRST, 0));
        if tls {
            what = merged(what, bed.over_tls(&server, "namespace-0")?);
        }
        // One pod a second: each change has reached all before the next one is made.
        let only_first = json!({ "churn": { "restart": { "services": 1, "seconds": 1.0 } } });
        let phases = json!({ "phases": [{ CONNECT: {} }, only_first], "verify": { "truth": false } });
        let measured = bed.load(merged(what, phases))?;
        drop(server);
        let made = measured.get("changes.made")?;
        let cost = measured.get("phase.churn.server.cpu")? / made / proxies as f64 * 1e6;
        let floor = floor::run(&bed, Floor { tls, proxies, full: 4_096, push: 2_048 })?;
        figures.push(
            Figure::new(scenario, &format!("{over}: server CPU per stream"), cost, "us")
                .beside(floor.push / proxies as f64 * 1e6)
                .target(Target::Floors(1.3)),
        );
        let reached = measured.get("change.eds.last.p50")? * 1e3;
        figures.push(
            Figure::new(scenario, &format!("{over}: last client, median"), reached, "ms")
                .beside(floor.last_median * 1e3)
                .target(Target::AtMost(last)),
        );
    }
    Ok(figures)
}

/// Cluster, endpoints, listener and virtual host of a new service. A client that must not name what it does not have gets them
/// one after another, so the floor makes three pushes of it: the cluster with the listener, the endpoints, the virtual host.
pub fn new_service(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let proxies = setting.proxies(1_000);
    let bed = Bed::new(setting, json!({ "services": 1_000, "endpoints": 10, "clients": proxies }))?;
    let server = bed.server(&[])?;
    let create = json!({ "churn": { "create": { "services": 10, "seconds": 2.0 } } });
    let phases = json!({ "phases": [{ CONNECT: {} }, { "hold": 2.0 }, create] });
    let measured = bed.load(merged(bed.plaintext(&server, proxies), phases))?;
    let made = measured.get("changes.made")?;
    let each = measured.get("phase.churn.received")? / made / proxies as f64;
    drop(server);
    let third = floor::run(&bed, Floor { tls: false, proxies, full: 4_096, push: each as usize / 3 })?;
    Ok(vec![
        Figure::new(scenario, "bytes per proxy (istiod 548,000)", each, "B").target(Target::AtMost(4_096.0)),
        Figure::new(
            scenario,
            "last proxy, p99 (istiod 7.6 s)",
            measured.get("change.any.last.p99")? * 1e3,
            "ms",
        )
        .beside(3.0 * third.last * 1e3)
        .target(Target::AtMost(30.0)),
        Figure::new(
            scenario,
            "server CPU (istiod 12,600)",
            measured.get("phase.churn.server.cpu")? / made * 1e3,
            "ms",
        )
        .beside(3.0 * third.push * 1e3)
        .target(Target::AtMost(100.0)),
    ])
}

/// One pod of a large service.
pub fn large_service(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let proxies = setting.proxies(2_000);
    // One service only: pods that change are chosen by service, and those of others would be most of them.
    let spec = json!({ "services": 1, "namespaces": 1, "clients": proxies, "large": { "services": 1, "endpoints": 5_000 } });
    let bed = Bed::new(setting, spec)?;
    let server = bed.server(&[])?;
    let phases = json!({ "phases": [{ CONNECT: {} }, { "hold": 2.0 }, flips(1.0, 10.0)] });
    let measured = bed.load(merged(bed.plaintext(&server, proxies), phases))?;
    let made = measured.get("changes.made")?;
    let each = measured.get("phase.churn.received")? / made / proxies as f64;
    drop(server);
    let floor = floor::run(&bed, Floor { tls: false, proxies, full: 4_096, push: each as usize })?;
    Ok(vec![
        Figure::new(scenario, "bytes per proxy", each, "B").target(Target::AtMost(300.0)),
        Figure::new(scenario, "server CPU", measured.get("phase.churn.server.cpu")? / made * 1e3, "ms")
            .beside(floor.push * 1e3)
            .target(Target::AtMost(60.0)),
        Figure::new(scenario, "last proxy, p50", measured.get("change.any.last.p50")? * 1e3, "ms")
            .beside(floor.last_median * 1e3),
    ])
}

/// What a change of one cluster sends to a Delta proxy that has 3,186 of them.
pub fn clusters(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let proxies = setting.proxies(100);
    let bytes = |protocol: &str| -> Result<f64> {
        let spec = json!({ "services": 3_184, "endpoints": 2, "rules": 1.0, "clients": proxies });
        let bed = Bed::new(setting, spec)?;
        let server = bed.server(&[])?;
        let configure = json!({ "churn": { "configure": { "changes": 5, "seconds": 1.0 } } });
        let run = json!({ "protocol": protocol, "phases": [{ CONNECT: {} }, { "hold": 1.0 }, configure] });
        let measured = bed.load(merged(bed.plaintext(&server, proxies), run))?;
        Ok(measured.get("phase.churn.received")? / measured.get("changes.made")? / proxies as f64)
    };
    Ok(vec![
        Figure::new(scenario, "bytes per Delta proxy", bytes("delta")?, "B").target(Target::AtMost(4_096.0)),
        Figure::new(scenario, "bytes per state-of-the-world proxy", bytes("sotw")?, "B"),
    ])
}

/// Ten minutes of pods that come and go (one, unless the run is long).
pub fn churn(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let seconds = if setting.long { 600.0 } else { 60.0 };
    let proxies = setting.proxies(10_000);
    let bed = Bed::new(setting, json!({ "services": 1_000, "endpoints": 10, "clients": proxies }))?;
    let server = bed.server(&[])?;
    let what = merged(bed.plaintext(&server, proxies), followers(&bed.assignments(1_000, 10)?, 20));
    let rate = json!({ "churn": { "rate": { "perSecond": 100.0, "seconds": seconds, "replace": 0.5 } } });
    let measured = bed.load(merged(what, json!({ "phases": [{ CONNECT: {} }, { "hold": 5.0 }, rate] })))?;
    let minutes = format!("{:.0} min", seconds / 60.0);
    let (before, after) = (measured.get("phase.hold.server.rss")?, measured.get("phase.churn.server.rss")?);
    Ok(vec![
        Figure::new(
            scenario,
            &format!("{minutes}: propagation, p50"),
            measured.get("change.eds.p50")? * 1e3,
            "ms",
        ),
        Figure::new(
            scenario,
            &format!("{minutes}: propagation, p99"),
            measured.get("change.eds.p99")? * 1e3,
            "ms",
        )
        .target(Target::AtMost(50.0)),
        Figure::new(scenario, "RSS at the end, beside that before", after / MIB, "MiB")
            .beside(before / MIB)
            .target(Target::Floors(1.1)),
        Figure::new(
            scenario,
            "server cores",
            measured.get("phase.churn.server.cpu")? / measured.get("phase.churn.seconds")?,
            "cores",
        ),
        Figure::new(
            scenario,
            "stale or different in the end",
            measured.get("verify.stale")? + measured.get("verify.different")?,
            "",
        )
        .target(Target::AtMost(0.0)),
    ])
}
