//! `landbridge proxy-status`: the connected proxies, and how far each type is.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use super::{
    admin::{AdminArgs, Output},
    table::{Table, shorten},
};
use crate::admin::{
    API_VERSION,
    syncz::{SyncState, SyncStatus, TYPES, TypeStatus},
};

/// In the list, a refusal is shown by its beginning.
const SHORT_NACK: usize = 80;

/// The connected proxies, and what each has accepted or refused.
#[derive(Args, Debug)]
pub struct ProxyStatusArgs {
    /// Only this proxy, in detail: POD.NAMESPACE or a part of it
    proxy: Option<String>,
    /// table or json
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    admin: AdminArgs,
}

impl ProxyStatusArgs {
    /// Asks and prints; an unknown proxy is an error.
    pub fn run(self) -> Result<()> {
        let all: Vec<SyncStatus> = self.admin.get("/debug/syncz", &[])?;
        let shown = match &self.proxy {
            None => all,
            Some(wanted) => select(all, wanted)?,
        };
        match (self.output, &self.proxy) {
            (Output::Json, _) => {
                let list = json!({ "apiVersion": API_VERSION, "kind": "ProxyStatusList", "items": shown });
                println!("{}", serde_json::to_string_pretty(&list)?);
            }
            (Output::Table, None) if shown.is_empty() => eprintln!("No proxy is connected."),
            (Output::Table, None) => print!("{}", list(&shown)),
            (Output::Table, Some(_)) => print!("{}", shown.iter().map(detail).collect::<Vec<_>>().join("\n")),
        }
        Ok(())
    }
}

/// The proxies with exactly this id, else those whose id holds it.
fn select(all: Vec<SyncStatus>, wanted: &str) -> Result<Vec<SyncStatus>> {
    let known: Vec<String> = all.iter().map(|p| p.proxy.clone()).collect();
    let exact = known.iter().any(|id| id == wanted);
    let found: Vec<_> = all
        .into_iter()
        .filter(|p| if exact { p.proxy == wanted } else { p.proxy.contains(wanted) })
        .collect();
    if found.is_empty() {
        let connected = if known.is_empty() { "none".to_owned() } else { shorten(&known.join(", "), 400) };
        bail!("no proxy `{wanted}` is connected to this control plane; connected: {connected}");
    }
    Ok(found)
}

fn list(proxies: &[SyncStatus]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "CLUSTER",
        "KIND",
        "VERSION",
        "CDS",
        "EDS",
        "LEDS",
        "LDS",
        "RDS",
        "VHDS",
        "LAST-NACK",
    ]);
    for proxy in proxies {
        let states = TYPES.map(|(_, url)| word(proxy.resources.get(url)).to_owned());
        let head =
            [&proxy.proxy, &proxy.cluster_id, &proxy.proxy_type, &proxy.proxy_version].map(Clone::clone);
        table.row(head.into_iter().chain(states).chain([last_nack(proxy)]));
    }
    table
}

fn word(status: Option<&TypeStatus>) -> &'static str {
    // A gateway without HTTP servers never asks for routes: nothing is missing there.
    let Some(status) = status.filter(|s| s.wildcard || s.names > 0 || s.state != SyncState::NotSent) else {
        return "-";
    };
    match status.state {
        SyncState::Synced => "SYNCED",
        SyncState::Stale => "STALE",
        SyncState::Nack => "NACK",
        SyncState::NotSent => "NOT SENT",
    }
}

/// The newest refusal over all types; it stays after the proxy is in step again.
fn last_nack(proxy: &SyncStatus) -> String {
    let refused =
        proxy.resources.iter().filter_map(|(url, s)| Some((s.last_error_time.as_ref()?, short(url), s)));
    let newest = refused.max_by_key(|(at, ..)| (*at).clone());
    newest.map_or_else(String::new, |(at, kind, status)| {
        let words = status.last_error.as_deref().unwrap_or_default();
        format!("{kind} {at}: {}", shorten(words, SHORT_NACK))
    })
}

/// `CDS` … `SDS`, else the message's name.
fn short(url: &str) -> &str {
    match TYPES.iter().find(|(_, u)| *u == url) {
        Some((name, _)) => name,
        None if url.ends_with(".Secret") => "SDS",
        None => url.rsplit('.').next().unwrap_or(url),
    }
}

fn detail(proxy: &SyncStatus) -> String {
    let identity = proxy.identity.as_deref().unwrap_or("none: the connection is not authenticated");
    let mut table = Table::new(&["TYPE", "STATE", "ASKED FOR", "SENT", "ACKED", "LAST-NACK"]);
    for (url, status) in &proxy.resources {
        let asked = if status.wildcard { "all".to_owned() } else { format!("{} names", status.names) };
        let nack = match (&status.last_error_time, &status.last_error) {
            (Some(at), Some(words)) => format!("{at}: {words}"),
            _ => String::new(),
        };
        table.row([
            short(url).to_owned(),
            word(Some(status)).to_owned(),
            asked,
            status.sent_time.clone().unwrap_or_default(),
            status.acked_time.clone().unwrap_or_default(),
            nack,
        ]);
    }
    format!(
        "{} ({} in cluster {}, {})\nconnected  {} from {}, {}\nidentity   {identity}\nsent       {} bytes\n\n{table}",
        proxy.proxy,
        proxy.proxy_type,
        if proxy.cluster_id.is_empty() { "unknown" } else { &proxy.cluster_id },
        if proxy.proxy_version.is_empty() { "version unknown" } else { &proxy.proxy_version },
        proxy.connected,
        proxy.address,
        proxy.protocol,
        proxy.bytes_sent,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(id: &str) -> SyncStatus {
        let json = json!({
            "cluster_id": "east", "proxy": id, "proxy_type": "sidecar", "proxy_version": "envoy/1.40.0",
            "cluster_sent": "c1", "cluster_acked": "c1",
            "resources": {
                TYPES[0].1: { "sent": "c1", "acked": "c1", "state": "SYNCED", "names": 0, "wildcard": true },
                TYPES[1].1: { "state": "NOT_SENT", "names": 3, "wildcard": false },
                TYPES[3].1: { "sent": "l2", "state": "NACK", "names": 0, "wildcard": true,
                    "lastError": "Error adding listener", "lastErrorTime": "2026-01-02T03:04:05.678Z" },
            },
            "connection": 1, "address": "10.0.0.1:4000", "protocol": "delta",
            "connected": "2026-01-02T03:04:00.000Z", "bytes_sent": 1234,
        });
        serde_json::from_value(json).expect("the shape of /debug/syncz")
    }

    #[test]
    fn each_type_has_its_state_and_the_last_refusal_its_words() {
        let text = list(&[proxy("web-1.production")]).to_string();
        let words: Vec<_> = text
            .lines()
            .map(|l| l.split("   ").filter(|w| !w.is_empty()).map(str::trim).collect::<Vec<_>>())
            .collect();
        assert_eq!(
            words[0],
            ["NAME", "CLUSTER", "KIND", "VERSION", "CDS", "EDS", "LEDS", "LDS", "RDS", "VHDS", "LAST-NACK"]
        );
        assert_eq!(
            words[1],
            [
                "web-1.production",
                "east",
                "sidecar",
                "envoy/1.40.0",
                "SYNCED",
                "NOT SENT",
                "-",
                "NACK",
                "-",
                "-",
                "LDS 2026-01-02T03:04:05.678Z: Error adding listener"
            ]
        );
        assert!(detail(&proxy("web-1.production")).contains("not authenticated"));
    }

    #[test]
    fn a_proxy_is_selected_by_its_id_or_a_part_and_an_unknown_one_is_an_error() {
        let all = || vec![proxy("web.production"), proxy("web.production-2")];
        assert_eq!(select(all(), "web.production").map(|p| p.len()).ok(), Some(1));
        assert_eq!(select(all(), "web").map(|p| p.len()).ok(), Some(2));
        let error = select(all(), "db").expect_err("unknown").to_string();
        assert!(error.contains("`db`") && error.contains("web.production-2"), "{error}");
    }
}
