//! A stock Envoy takes all of it: `envoy --mode validate` with the resources as static ones (what comes over the wire it
//! would not look at). Skipped, loudly, where there is no Envoy; `make setup` brings one.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use super::{
    json::{ASSIGNMENT, CLUSTER, LISTENER, ROUTES, json, named},
    mesh::*,
};
use crate::{
    index::Index,
    model::{
        mesh::MeshConfig,
        node::{Interception, ProxyKind},
        peer_authentication::MtlsMode,
    },
    resource::{Built, cds, eds, lds, rds},
    view::ClusterView,
};

/// From the environment variable ENVOY, else below `.deps`, where `make setup` puts it.
fn stock_envoy() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ENVOY").map(PathBuf::from).filter(|p| p.exists()) {
        return Some(path);
    }
    let mut folders: Vec<_> = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(".deps")
        .read_dir()
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("envoy/_bin/envoy")))
        .filter(|path| path.exists())
        .collect();
    folders.sort();
    folders.pop()
}

fn validate(name: &str, clusters: Vec<Value>, listeners: Vec<Value>) {
    let Some(envoy) = stock_envoy() else {
        eprintln!("SKIPPED {name}: no Envoy here; `make setup` brings one");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let nothing = folder.path().join("nothing.json");
    std::fs::write(&nothing, r#"{"resources": []}"#).unwrap();
    let mut bootstrap = json!({
        "node": {"id": "validate", "cluster": "validate"},
        "static_resources": {"clusters": clusters, "listeners": listeners},
    });
    without_stream(&mut bootstrap, &json!({"path": nothing}));
    let file = folder.path().join("bootstrap.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&bootstrap).unwrap()).unwrap();
    let output =
        Command::new(envoy).args(["--mode", "validate", "-l", "warn", "-c"]).arg(&file).output().unwrap();
    assert!(
        output.status.success(),
        "{name}: {}\n{}",
        String::from_utf8_lossy(&output.stderr),
        serde_json::to_string(&bootstrap).unwrap().chars().take(4000).collect::<String>(),
    );
}

/// In validate mode Envoy has no xDS stream, and ends with a segmentation fault where one is named.
fn without_stream(value: &mut Value, file: &Value) {
    match value {
        Value::Object(object) => {
            if object.remove("ads").is_some() {
                object.insert("path_config_source".into(), file.clone());
            }
            object.values_mut().for_each(|v| without_stream(v, file));
        }
        Value::Array(list) => list.iter_mut().for_each(|v| without_stream(v, file)),
        _ => {}
    }
}

/// Clusters with their assignments inside.
fn clusters(index: &Index, view: &ClusterView, sni_dnat: bool) -> Vec<Value> {
    let endpoints = crate::view::EndpointView { kind: view.kind, sni_dnat, ..endpoint_view() };
    let mut all = cds::fixed(index, view);
    let mut assignments = Vec::new();
    for service in index.services() {
        all.extend(cds::service(index, view, service));
        assignments.extend(eds::service(index, &endpoints, service));
    }
    let inline = |built: &Built| {
        let mut cluster = json(CLUSTER, built);
        if let Some(waits_for) = &built.waits_for {
            let object = cluster.as_object_mut().unwrap();
            object.remove("eds_cluster_config");
            object.insert("type".into(), "STATIC".into());
            object.insert("load_assignment".into(), named(ASSIGNMENT, &assignments, waits_for));
        }
        cluster
    };
    all.iter().map(inline).collect()
}

/// The same with EDS left as it is.
fn eds_clusters(index: &Index, view: &ClusterView) -> Vec<Value> {
    let all = index.services().flat_map(|s| cds::service(index, view, s));
    all.map(|built| json(CLUSTER, &built)).collect()
}

/// Listeners with their routes inside.
fn outbound(index: &Index, interception: Interception) -> Vec<Value> {
    let view = crate::view::ListenerView { interception, ..listener_view() };
    let mut all = lds::outbound::fixed(index, &view);
    let mut routes = Vec::new();
    for port in index.ports() {
        all.extend(lds::outbound::port(index, &view, port));
        routes.extend(rds::port(index, &route_view(), port));
    }
    for service in index.services() {
        all.extend(lds::outbound::service(index, &view, service));
        routes.extend(rds::sniffed(index, &view.scope, service));
    }
    let mut listeners: Vec<_> = all.iter().map(|built| json(LISTENER, built)).collect();
    for listener in &mut listeners {
        inline_routes(listener, &routes);
    }
    listeners
}

fn inline_routes(value: &mut Value, routes: &[Built]) {
    match value {
        Value::Object(object) => {
            if let Some(rds) = object.remove("rds") {
                let name = rds["route_config_name"].as_str().unwrap();
                object.insert("route_config".into(), named(ROUTES, routes, name));
            }
            object.values_mut().for_each(|v| inline_routes(v, routes));
        }
        Value::Array(list) => list.iter_mut().for_each(|v| inline_routes(v, routes)),
        _ => {}
    }
}

fn with_access_log(index: &mut Index, json: bool) {
    let mesh = MeshConfig {
        access_log_file: Some("/dev/stdout".into()),
        access_log_json: json,
        ..MeshConfig::default()
    };
    set_mesh(index, mesh);
}

#[test]
fn stock_envoy_takes_a_sidecars_resources() {
    for (failover, json_log) in [(true, false), (false, true)] {
        let mut index = mesh(failover);
        with_access_log(&mut index, json_log);
        let view = cluster_view();
        let mut all = clusters(&index, &view, false);
        let inbound = inbound_view(MtlsMode::Permissive);
        all.extend(cds::inbound(&index, &inbound).iter().map(|b| json(CLUSTER, b)));
        let mut listeners = outbound(&index, Interception::Redirect);
        listeners.extend(lds::inbound::build(&index, &inbound).iter().map(|b| json(LISTENER, b)));
        validate("sidecar", all, listeners);
        validate("sidecar with EDS", eds_clusters(&index, &view), Vec::new());
    }
}

#[test]
fn stock_envoy_takes_every_mode_and_interception() {
    let index = mesh(true);
    for mode in [MtlsMode::Strict, MtlsMode::Disable] {
        let inbound = inbound_view(mode);
        let clusters = cds::inbound(&index, &inbound).iter().map(|b| json(CLUSTER, b)).collect::<Vec<_>>();
        let black_hole =
            cds::fixed(&index, &cluster_view()).iter().map(|b| json(CLUSTER, b)).collect::<Vec<_>>();
        let listeners = lds::inbound::build(&index, &inbound).iter().map(|b| json(LISTENER, b)).collect();
        validate("inbound", [clusters, black_hole].concat(), listeners);
    }
    let inbound =
        crate::view::InboundView { interception: Interception::None, ..inbound_view(MtlsMode::Permissive) };
    let mut all = clusters(&index, &cluster_view(), false);
    all.extend(cds::inbound(&index, &inbound).iter().map(|b| json(CLUSTER, b)));
    let mut listeners = outbound(&index, Interception::None);
    listeners.extend(lds::inbound::build(&index, &inbound).iter().map(|b| json(LISTENER, b)));
    validate("sidecar without capture", all, listeners);
}

#[test]
fn stock_envoy_takes_a_gateways_resources() {
    let index = mesh(true);
    let view = ClusterView { kind: ProxyKind::Router, sni_dnat: true, ..cluster_view() };
    let listeners = lds::gateway::build(&index, &gateway_view()).iter().map(|b| json(LISTENER, b)).collect();
    validate("gateway", clusters(&index, &view, true), listeners);
}
