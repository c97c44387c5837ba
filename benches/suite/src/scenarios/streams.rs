//! What streams cost while they do nothing, when they come all at once, and when they do not read.

use anyhow::Result;
use serde_json::json;

use super::{Setting, changes::settle};
use crate::{
    bed::{Bed, merged},
    process::Ports,
    report::{Figure, Target},
};

const NAMESPACE: &str = "namespace-0";

/// Memory of streams that only wait.
pub fn memory(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let proxies = setting.proxies(10_000);
    let bed = Bed::new(setting, json!({ "services": 1_000, "endpoints": 10, "namespaces": 1 }))?;
    let server = bed.server(&[])?;
    let what = json!({
        "proxies": proxies,
        "ask": { "types": [], "subscribe": [format!("eds:@{}", names(&bed, 1_000)?)], "draw": 100 },
        "phases": [{ "connect": {} }, { "hold": 5.0 }, "disconnect"],
    });
    let reach = merged(bed.over_tls(&server, NAMESPACE)?, json!({ "serverPid": server.process.pid() }));
    let idle = server.process.usage()?.rss;
    let measured = bed.load(merged(what.clone(), reach))?;
    let connected = measured.get("phase.hold.server.rss")? / 1_024.0;
    let after = settle(&server.process)?;
    drop(server);

    let root = bed.path("floor.pem");
    let (floor, address) = bed.floor(&["--tls-root", &root.to_string_lossy()])?;
    let floor_idle = floor.usage()?.rss;
    let over_floor = bed.load(merged(
        what,
        json!({
            "server": address,
            "tls": {},
            "serverPid": floor.pid(),
            "ask": { "types": ["cds", "eds"], "subscribe": [], "draw": 0 },
            "verify": { "shapes": false, "witnesses": 0, "truth": false },
        }),
    ))?;
    let floor = (over_floor.get("phase.hold.server.rss")? / 1_024.0 - floor_idle) / proxies as f64;
    let each = (connected - idle) / proxies as f64;
    Ok(vec![
        Figure::new(scenario, "RSS per stream", each, "KiB").beside(floor).target(Target::AtMost(40.0)),
        Figure::new(scenario, "RSS 5 s after all left, beside that before they came", after / 1_024.0, "MiB")
            .beside(idle / 1_024.0)
            .target(Target::Floors(1.1)),
    ])
}

fn names(bed: &Bed, services: usize) -> Result<String> {
    let path = bed.path("names");
    let name = |i: usize| format!("outbound|80||service-{i}.{NAMESPACE}.svc.cluster.local\n");
    std::fs::write(&path, (0..services).map(name).collect::<String>())?;
    Ok(path.display().to_string())
}

/// Everybody comes back at once, with what they have.
pub fn restart(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let proxies = setting.proxies(10_000);
    let bed = Bed::new(setting, json!({ "services": 1_000, "endpoints": 10, "namespaces": 1 }))?;
    let server = bed.supervised(Ports::free()?, &[])?;
    let what = json!({
        "proxies": proxies,
        "ask": { "types": [], "subscribe": [format!("eds:@{}", names(&bed, 1_000)?)], "draw": 100 },
        "phases": [
            { "connect": {} },
            { "hold": 5.0 },
            { "command": ["kill", "-9", server.current_pid()?.to_string()] },
            { "hold": 5.0 },
        ],
    });
    let steady = std::cell::Cell::new(0.0);
    let measured = bed.load(merged(bed.over_tls(&server, NAMESPACE)?, what))?;
    let after = server.current_usage()?;
    steady.set(after.rss);
    Ok(vec![
        Figure::new(scenario, "killed to all configured", measured.get("phase.command.seconds")?, "s")
            .target(Target::AtMost(7.0)),
        Figure::new(scenario, "peak RSS, beside that when settled", after.peak_rss / 1_024.0, "MiB")
            .beside(steady.get() / 1_024.0)
            .target(Target::Floors(1.5)),
        Figure::new(
            scenario,
            "resources sent again to proxies that have them",
            measured.get("phase.command.resources")?,
            "",
        )
        .target(Target::AtMost(0.0)),
    ])
}

/// Half of the proxies stop reading; the others must not notice.
pub fn slow_readers(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let proxies = setting.proxies(2_000);
    let bed = Bed::new(setting, json!({ "services": 100, "endpoints": 10, "clients": proxies }))?;
    let run = |stopped: usize| -> Result<(f64, f64, f64)> {
        let server = bed.server(&[])?;
        let measured = bed.load(json!({
            "server": server.plaintext.to_string(),
            "serverPid": server.process.pid(),
            "mesh": bed.mesh(),
            "proxies": proxies,
            "stopReading": stopped,
            "phases": [
                { "connect": {} },
                { "hold": 2.0 },
                { "churn": { "rate": { "perSecond": 10.0, "seconds": 30.0, "replace": 0.5 } } },
            ],
        }))?;
        let (before, after) =
            (measured.get("phase.hold.server.rss")?, measured.get("phase.churn.server.rss")?);
        Ok((measured.get("change.eds.p99")? * 1e3, before / 1_048_576.0, after / 1_048_576.0))
    };
    // As many that read, without the others: a server with twice as many readers is slower for that reason alone.
    let (alone, ..) = run(0)?;
    let (p99, before, after) = run(proxies / 2)?;
    Ok(vec![
        Figure::new(scenario, "p99 of those that read, beside that when all read", p99, "ms")
            .beside(alone)
            .target(Target::Floors(1.3)),
        Figure::new(scenario, "RSS after 30 s, beside that before", after, "MiB").beside(before),
    ])
}
