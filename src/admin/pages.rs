//! The list of pages: routes, `/debug`, `/debug/list`, `/version`.

use axum::{
    Router,
    response::{Html, IntoResponse, Response},
    routing::{MethodRouter, get},
};

use super::{
    AdminState,
    answer::{Answer, Asked, json},
    config_dump, endpoints, endpointz, gatewayz, mcsz, objects, registryz, servicemap, sourcez, syncz,
    topology,
};

/// A page under `/debug/`.
struct Page {
    /// Its path's last segment, with parameters that make it an example.
    name: &'static str,
    /// What it shows, for people.
    what: &'static str,
    handler: fn() -> MethodRouter<AdminState>,
}

macro_rules! page {
    ($name:literal, $handler:path, $what:literal) => {
        Page { name: $name, what: $what, handler: || get($handler) }
    };
}

/// Every page, by name.
const PAGES: &[Page] = &[
    page!(
        "clusterz",
        topology::clusterz,
        "Registered clusters: synced, syncing, or stale since when and why"
    ),
    page!(
        "config_dump?proxyID=",
        config_dump::config_dump,
        "What is published for a proxy, as Envoy's own config_dump (without secrets)"
    ),
    page!("configz", objects::configz, "The Istio objects in force, as they were understood"),
    page!("edsz?proxyID=", config_dump::edsz, "The load assignments of a proxy"),
    page!("endpointShardz", endpointz::endpointz, "Every endpoint of every service, per cluster"),
    page!(
        "endpoints?service=&proxyID=",
        endpoints::endpoints,
        "Which endpoints of a service a proxy gets, and why not the others"
    ),
    page!("endpointz", endpointz::endpointz, "The same, under istiod's shorter name"),
    page!(
        "gatewayz",
        gatewayz::gatewayz,
        "The gateways of every network: alive or dead since when, latency, services behind them"
    ),
    page!(
        "mcsz",
        mcsz::mcsz,
        "What each cluster exports and imports as a multi-cluster service, and who gets its endpoints"
    ),
    page!("mesh", objects::mesh, "The mesh-wide settings in force"),
    page!("nackz", topology::nackz, "What proxies refused, with the objects it was built from"),
    page!("networkz", topology::networkz, "The gateways of every network"),
    page!("registryz", registryz::registryz, "The services, merged from all clusters"),
    page!(
        "servicemap",
        servicemap::servicemap,
        "The services of each cluster, and those that are in several"
    ),
    page!(
        "sourcez",
        sourcez::sourcez,
        "Where objects come from, and what is wrong with them: file, line, reason, remedy"
    ),
    page!("syncz", syncz::syncz, "Connected proxies: sent, acknowledged and refused, per type"),
];

/// All pages and the index.
pub fn router() -> Router<AdminState> {
    let mut router = Router::new().route("/debug", get(index)).route("/debug/list", get(list));
    for page in PAGES {
        router = router.route(&format!("/debug/{}", path(page)), (page.handler)());
    }
    router
}

fn path(page: &Page) -> &'static str {
    page.name.split('?').next().unwrap_or(page.name)
}

/// `/debug`: an index for browsers.
async fn index() -> Html<String> {
    let rows: String = PAGES
        .iter()
        .map(|page| {
            let (name, what) = (page.name, page.what);
            let link = if name.contains('?') { name.to_owned() } else { format!("{name}?pretty") };
            format!("<tr><td><a href=\"/debug/{link}\">{name}</a></td><td>{what}</td></tr>\n")
        })
        .collect();
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>landbridge: debug pages</title>\
         <style>:root{{color-scheme:light dark}}body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}}\
         td{{padding:.25rem 1.5rem .25rem 0;vertical-align:top}}td:first-child{{font-family:ui-monospace,monospace;white-space:nowrap}}</style>\
         <h1>landbridge {}</h1><p>Pages for people and scripts; <code>?pretty</code> indents. \
         See also <a href=\"/metrics\">/metrics</a>, <a href=\"/ready\">/ready</a> and <a href=\"/version\">/version</a>.</p>\
         <table>{rows}</table></html>",
        env!("CARGO_PKG_VERSION")
    ))
}

/// `/debug/list`: the same for scripts, as a sorted array.
async fn list(params: Asked) -> Answer {
    let mut names: Vec<_> = PAGES.iter().map(path).collect();
    names.sort_unstable();
    json(&params, &names)
}

/// `/version`: `VERSION-REVISION-STATUS` without a line end, which `istioctl version` takes apart at the dashes.
pub async fn version() -> Response {
    let revision = option_env!("LANDBRIDGE_GIT_REVISION").unwrap_or("unknown");
    format!("{}-{revision}-Clean", env!("CARGO_PKG_VERSION")).into_response()
}
