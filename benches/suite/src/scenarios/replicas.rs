//! Replicas share nothing: when one is killed, its proxies go to the others with what they have.

use anyhow::Result;
use serde_json::json;

use super::Setting;
use crate::{
    bed::Bed,
    process::Ports,
    report::{Figure, Target},
};

/// Three replicas over one registry, of which one is killed.
pub fn killed(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let proxies = setting.proxies(9_000);
    let bed = Bed::new(
        setting,
        json!({ "services": 1_000, "endpoints": 10, "namespaces": 20, "scopes": 20, "private": 1.0, "clients": proxies }),
    )?;
    let replicas = ["a", "b", "c"].map(|name| bed.server_at(name, Ports::free()?, &[]));
    let [a, b, c] = replicas;
    let (a, b, c) = (a?, b?, c?);
    let servers = [&a, &b, &c].map(|server| server.plaintext.to_string()).join(",");
    let measured = bed.load(json!({
        "server": servers,
        "mesh": bed.mesh(),
        "proxies": proxies,
        "phases": [
            { "connect": {} },
            { "hold": 3.0 },
            { "command": ["kill", "-9", c.process.pid().to_string()] },
            { "hold": 3.0 },
        ],
    }))?;
    Ok(vec![
        Figure::new(scenario, "killed to all configured", measured.get("phase.command.seconds")?, "s"),
        Figure::new(scenario, "streams lost", measured.get("phase.command.lost")?, ""),
        Figure::new(
            scenario,
            "resources sent again to proxies that have them",
            measured.get("phase.command.resources")?,
            "",
        )
        .target(Target::AtMost(0.0)),
        Figure::new(
            scenario,
            "bytes to each proxy that moved",
            measured.get("phase.command.received")? / measured.get("phase.command.lost")?.max(1.0),
            "B",
        ),
    ])
}
