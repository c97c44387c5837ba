//! The raw server, which only writes finished bytes and reads their acknowledgements: what a control plane cannot be faster than.

use anyhow::Result;
use serde_json::json;

use crate::bed::{Bed, merged};

/// How often it pushes.
const PUSHES: usize = 20;

/// What it is to do.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// Over TLS.
    pub tls: bool,
    /// How many clients.
    pub proxies: usize,
    /// Bytes for each of them when it connects.
    pub full: usize,
    /// Bytes for each of them in a push.
    pub push: usize,
}

/// What it took, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// CPU time for one client that connects.
    pub connect: f64,
    /// CPU time for one push to all clients.
    pub push: f64,
    /// Until the last client had a push: in the middle.
    pub last_median: f64,
    /// The same, p99.
    pub last: f64,
}

/// Has all clients connect, and pushes.
pub fn run(bed: &Bed, Floor { tls, proxies, full, push }: Floor) -> Result<Took> {
    let root = bed.path("floor.pem");
    let (root, full, push) = (root.to_string_lossy(), full.to_string(), push.to_string());
    let mut flags = vec!["--push", &push, "--full", &full];
    if tls {
        flags.extend(["--tls-root", &root]);
    }
    let (floor, address) = bed.floor(&flags)?;
    let reach = if tls { json!({ "server": address, "tls": {} }) } else { json!({ "server": address }) };
    let measured = bed.load(merged(
        reach,
        json!({
            "serverPid": floor.pid(),
            "proxies": proxies,
            "ask": { "types": ["cds", "eds"], "subscribe": [] },
            "phases": [{ "connect": {} }, { "push": { "times": PUSHES, "seconds": 0.5 } }],
            "verify": { "shapes": false, "witnesses": 0, "truth": false, "quiet": 0.0 },
        }),
    ))?;
    Ok(Took {
        connect: measured.get("phase.connect.server.cpu")? / proxies as f64,
        push: measured.get("phase.push.server.cpu")? / PUSHES as f64,
        last_median: measured.get("change.eds.last.p50")?,
        last: measured.get("change.eds.last.p99")?,
    })
}
