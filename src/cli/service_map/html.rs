//! A page that opens anywhere: the picture, and the services of several clusters as a table. Nothing is loaded.

use std::{collections::BTreeSet, fmt::Write};

use super::{
    ready,
    svg::{draw, escape},
};
use crate::admin::servicemap::ServiceMap;

const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#f6f7f9;--ink:#1c2430;--soft:#5d6876;--line:#d9dee5}\
@media(prefers-color-scheme:dark){:root{--bg:#11161d;--ink:#e8edf3;--soft:#9aa7b5;--line:#313b48}}\
body{margin:0;padding:2rem 1.5rem;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}\
main{max-width:max-content;margin:0 auto}h1{font-size:1.5rem;margin:0 0 .25rem 1.5rem}h2{font-size:1.1rem;margin:1.5rem 0 .5rem 1.5rem}\
p{color:var(--soft);margin:0 0 1rem 1.5rem}.scroll{overflow-x:auto}\
table{border-collapse:collapse;margin-left:1.5rem}th,td{text-align:left;padding:.4rem 1.5rem .4rem 0;border-bottom:1px solid var(--line)}\
th{color:var(--soft);font-weight:600;font-size:.85rem}td{font-variant-numeric:tabular-nums}";

/// The page; `now` is shown as the time of the picture.
pub fn page(map: &ServiceMap, now: &str) -> String {
    let services: BTreeSet<_> =
        map.clusters.iter().flat_map(|c| &c.services).map(|s| (&s.namespace, &s.name)).collect();
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><meta name=\"viewport\" content=\"width=device-width\"/>\
         <title>Service map</title><style>{STYLE}</style></head><body><main>\n<h1>Service map</h1>\
         <p>{} services in {} clusters, {} of them in several · {}</p>\n<div class=\"scroll\">",
        services.len(),
        map.clusters.len(),
        map.overlaps.len(),
        escape(now),
    );
    out.push_str(&draw(map));
    out.push_str("</div>\n");
    if !map.overlaps.is_empty() {
        table(&mut out, map);
    }
    out.push_str("</main></body></html>\n");
    out
}

fn table(out: &mut String, map: &ServiceMap) {
    out.push_str("<h2>In several clusters</h2><p>Ready and all endpoints of each cluster.</p><table><tr><th>Namespace</th><th>Service</th>");
    for cluster in &map.clusters {
        let _ = write!(out, "<th>{}</th>", escape(&cluster.cluster));
    }
    out.push_str("</tr>\n");
    for overlap in &map.overlaps {
        let _ = write!(out, "<tr><td>{}</td><td>{}</td>", escape(&overlap.namespace), escape(&overlap.name));
        for cluster in &map.clusters {
            let count = overlap.clusters.get(&cluster.cluster).map_or_else(|| "–".to_owned(), ready);
            let _ = write!(out, "<td>{count}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n");
}
