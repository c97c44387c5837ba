//! The map as one SVG: clusters are columns, a service that several clusters have is on one row in all of them, linked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::{ports, ready};
use crate::{
    admin::servicemap::{ClusterService, ServiceMap},
    cli::table::shorten,
};

const MARGIN: usize = 24;
const COLUMN: usize = 340;
const BETWEEN: usize = 96;
const HEAD: usize = 64;
const CARD: usize = 60;
const ROW: usize = 72;
const BAND: usize = 34;

/// Colours for light and dark surroundings; shapes name roles.
pub const STYLE: &str = "\
.map{--bg:#f6f7f9;--panel:#ffffff;--line:#d9dee5;--ink:#1c2430;--soft:#5d6876;--link:#3b6fd8;--ok:#1d8a4e;--some:#b87503;--none:#c43d3d;--idle:#8a94a1;\
font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}\
@media(prefers-color-scheme:dark){.map{--bg:#11161d;--panel:#1a212b;--line:#313b48;--ink:#e8edf3;--soft:#9aa7b5;--link:#7ba4f5;--ok:#4cc381;--some:#e2a63c;--none:#f07a7a;--idle:#7d8896}}\
.map .bg{fill:var(--bg)}.map .column{fill:var(--panel);stroke:var(--line)}\
.map .card{fill:var(--bg);stroke:var(--line)}.map .shared{stroke:var(--link)}\
.map .link{fill:none;stroke:var(--link);stroke-width:2}.map .knot{fill:var(--link)}\
.map text{fill:var(--ink);font-size:13px}.map .title{font-size:17px;font-weight:600}\
.map .name{font-weight:600}.map .soft{fill:var(--soft);font-size:12px}\
.map .ns{fill:var(--soft);font-size:11px;font-weight:600;letter-spacing:.06em}\
.map .count{font-size:13px;font-weight:600;text-anchor:end}\
.map .ok{fill:var(--ok)}.map .some{fill:var(--some)}.map .none{fill:var(--none)}.map .idle{fill:var(--idle)}";

/// A row of the picture.
enum Row<'a> {
    Namespace(&'a str),
    Service(&'a str, &'a str),
}

/// The picture.
pub fn draw(map: &ServiceMap) -> String {
    let rows = rows(map);
    let mut y = MARGIN + HEAD;
    let mut placed = Vec::new();
    for row in &rows {
        placed.push((y, row));
        y += match row {
            Row::Namespace(_) => BAND,
            Row::Service(..) => ROW,
        };
    }
    let columns = map.clusters.len().max(1);
    let width = 2 * MARGIN + columns * COLUMN + (columns - 1) * BETWEEN;
    let height = y + MARGIN + if rows.is_empty() { ROW } else { 0 };

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"map\" role=\"img\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\"><title>Services by cluster</title><style>{STYLE}</style>\
         <rect class=\"bg\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    for (i, cluster) in map.clusters.iter().enumerate() {
        let x = column(i);
        let bottom = height - MARGIN;
        let _ = writeln!(
            out,
            "<rect class=\"column\" x=\"{x}\" y=\"{MARGIN}\" width=\"{COLUMN}\" height=\"{}\" rx=\"12\"/>\
             <text class=\"title\" x=\"{}\" y=\"{}\">{}</text><text class=\"soft\" x=\"{}\" y=\"{}\">{}</text>",
            bottom - MARGIN,
            x + 16,
            MARGIN + 28,
            escape(&shorten(&cluster.cluster, 28)),
            x + 16,
            MARGIN + 47,
            escape(&shorten(&under_title(cluster), 44)),
        );
        if cluster.services.is_empty() {
            let _ = writeln!(
                out,
                "<text class=\"soft\" x=\"{}\" y=\"{}\">no services</text>",
                x + 16,
                MARGIN + HEAD + 24
            );
        }
    }
    let by_column: Vec<BTreeMap<(&str, &str), &ClusterService>> = map
        .clusters
        .iter()
        .map(|c| c.services.iter().map(|s| ((s.namespace.as_str(), s.name.as_str()), s)).collect())
        .collect();
    for (y, row) in placed {
        match row {
            Row::Namespace(namespace) => {
                for (i, services) in by_column.iter().enumerate() {
                    if services.keys().any(|(ns, _)| ns == namespace) {
                        let label = escape(&shorten(&namespace.to_uppercase(), 32));
                        let _ = writeln!(
                            out,
                            "<text class=\"ns\" x=\"{}\" y=\"{}\">{label}</text>",
                            column(i) + 16,
                            y + 22
                        );
                    }
                }
            }
            Row::Service(namespace, name) => {
                let here: Vec<_> = by_column
                    .iter()
                    .enumerate()
                    .filter_map(|(i, services)| Some((i, *services.get(&(*namespace, *name))?)))
                    .collect();
                for (i, service) in &here {
                    card(&mut out, column(*i) + 12, y, service, here.len() > 1);
                }
                links(&mut out, &here.iter().map(|(i, _)| *i).collect::<Vec<_>>(), y);
            }
        }
    }
    out.push_str("</svg>\n");
    out
}

fn rows(map: &ServiceMap) -> Vec<Row<'_>> {
    let names: BTreeSet<(&str, &str)> = map
        .clusters
        .iter()
        .flat_map(|c| &c.services)
        .map(|s| (s.namespace.as_str(), s.name.as_str()))
        .collect();
    let mut rows = Vec::new();
    let mut last = None;
    for (namespace, name) in names {
        if last != Some(namespace) {
            rows.push(Row::Namespace(namespace));
            last = Some(namespace);
        }
        rows.push(Row::Service(namespace, name));
    }
    rows
}

fn column(i: usize) -> usize {
    MARGIN + i * (COLUMN + BETWEEN)
}

fn under_title(cluster: &crate::admin::servicemap::ClusterServices) -> String {
    let network = if cluster.network.is_empty() { "network unknown" } else { &cluster.network };
    match &cluster.stale_since {
        Some(since) => format!("{network} · stale since {since}"),
        None => format!("{network} · {}", cluster.state),
    }
}

/// A line between neighbours that both have the service. One that passes a cluster without it bends below that
/// column's empty place, so that it is seen to pass.
fn links(out: &mut String, columns: &[usize], y: usize) {
    let middle = y + CARD / 2;
    for pair in columns.windows(2) {
        let (from, to) = (column(pair[0]) + COLUMN - 12, column(pair[1]) + 12);
        let bend = if pair[1] - pair[0] > 1 { middle + 18 } else { middle };
        let third = (to - from) / 3;
        let _ = writeln!(
            out,
            "<path class=\"link\" d=\"M{from} {middle} C{} {bend} {} {bend} {to} {middle}\"/>\
             <circle class=\"knot\" cx=\"{from}\" cy=\"{middle}\" r=\"4\"/><circle class=\"knot\" cx=\"{to}\" cy=\"{middle}\" r=\"4\"/>",
            from + third,
            to - third,
        );
    }
}

fn card(out: &mut String, x: usize, y: usize, service: &ClusterService, shared: bool) {
    let width = COLUMN - 24;
    let class = if shared { "card shared" } else { "card" };
    let (tone, count) = match (service.r#type.as_str(), service.endpoints.ready, service.endpoints.total) {
        ("ExternalName", _, _) => ("idle", "alias".to_owned()),
        (_, _, 0) => ("idle", "no endpoints".to_owned()),
        (_, 0, _) => ("none", format!("{} ready", ready(&service.endpoints))),
        (_, n, all) if n < all => ("some", format!("{} ready", ready(&service.endpoints))),
        _ => ("ok", format!("{} ready", ready(&service.endpoints))),
    };
    let ports = ports(service);
    let below =
        if ports.is_empty() { service.r#type.clone() } else { format!("{} · {ports}", service.r#type) };
    let hint = format!("{}, {below}, {count}", service.host);
    let _ = writeln!(
        out,
        "<g><title>{}</title><rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{CARD}\" rx=\"8\"/>\
         <circle class=\"{tone}\" cx=\"{}\" cy=\"{}\" r=\"5\"/>\
         <text class=\"name\" x=\"{}\" y=\"{}\">{}</text><text class=\"count {tone}\" x=\"{}\" y=\"{}\">{count}</text>\
         <text class=\"soft\" x=\"{}\" y=\"{}\">{}</text></g>",
        escape(&hint),
        x + 16,
        y + 21,
        x + 30,
        y + 26,
        escape(&shorten(&service.name, 24)),
        x + width - 14,
        y + 26,
        x + 30,
        y + 45,
        escape(&shorten(&below, 42)),
    );
}

/// Text as XML, without the control characters that XML forbids.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
