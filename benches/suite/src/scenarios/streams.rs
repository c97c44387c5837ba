//! What streams cost while they do nothing, when they come all at once, and when they do not read.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::Setting;
use crate::{
    bed::{Bed, MIB, merged},
    process::{Ports, Process},
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
        "ask": { "types": [], "subscribe": [bed.assignments(1_000, 1)?], "draw": 100 },
        "phases": [{ "connect": {} }, { "hold": 5.0 }, "disconnect"],
    });
    let reach = merged(bed.over_tls(&server, NAMESPACE)?, json!({ "serverPid": server.process.pid() }));
    let idle = resident(&server.process)?;
    let measured = bed.load(merged(what.clone(), reach))?;
    let connected = measured.get("phase.hold.server.rss")? / MIB;
    let after = settled(&server.process)?;
    drop(server);

    let root = bed.path("floor.pem");
    let (floor, address) = bed.floor(&["--tls-root", &root.to_string_lossy()])?;
    let floor_idle = resident(&floor)?;
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
    let each = |connected: f64, idle: f64| (connected - idle) * 1_024.0 / proxies as f64;
    let floor = each(over_floor.get("phase.hold.server.rss")? / MIB, floor_idle);
    let each = each(connected, idle);
    Ok(vec![
        Figure::new(scenario, "RSS per stream", each, "KiB").beside(floor).target(Target::AtMost(40.0)),
        Figure::new(scenario, "RSS 5 s after all left, beside that before they came", after, "MiB")
            .beside(idle)
            .target(Target::Floors(1.1)),
    ])
}

/// Resident memory when what was on its way has arrived, in MiB.
fn settled(process: &Process) -> Result<f64> {
    std::thread::sleep(Duration::from_secs(5));
    resident(process)
}

/// Resident memory, in MiB.
fn resident(process: &Process) -> Result<f64> {
    Ok(process.usage()?.rss as f64 / MIB)
}

/// Everybody comes back at once, with what they have.
pub fn restart(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let proxies = setting.proxies(10_000);
    let bed = Bed::new(setting, json!({ "services": 1_000, "endpoints": 10, "namespaces": 1 }))?;
    let server = bed.supervised(Ports::free()?, &[])?;
    let what = json!({
        "proxies": proxies,
        "ask": { "types": [], "subscribe": [bed.assignments(1_000, 1)?], "draw": 100 },
        "phases": [
            { "connect": {} },
            { "hold": 5.0 },
            { "command": ["kill", "-9", server.current_pid()?.to_string()] },
            { "hold": 5.0 },
        ],
    });
    let measured = bed.load(merged(bed.over_tls(&server, NAMESPACE)?, what))?;
    let after = server.current_usage()?;
    Ok(vec![
        Figure::new(scenario, "killed to all configured", measured.get("phase.command.seconds")?, "s")
            .target(Target::AtMost(7.0)),
        Figure::new(scenario, "peak RSS, beside that when settled", after.peak as f64 / MIB, "MiB")
            .beside(after.rss as f64 / MIB)
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
        let rate = json!({ "churn": { "rate": { "perSecond": 10.0, "seconds": 30.0, "replace": 0.5 } } });
        let run = json!({ "stopReading": stopped, "phases": [{ "connect": {} }, { "hold": 2.0 }, rate] });
        let measured = bed.load(merged(bed.plaintext(&server, proxies), run))?;
        let (before, after) =
            (measured.get("phase.hold.server.rss")?, measured.get("phase.churn.server.rss")?);
        Ok((measured.get("change.eds.p99")? * 1e3, before / MIB, after / MIB))
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
