//! What istiod sends for the same mesh, fact by fact.
//!
//! `fixtures/two-clusters` is a mesh of two clusters in two networks; `istiod.json` beside it holds the facts of what a
//! real istiod (August 2026) answered to a sidecar and to an east-west gateway of such a mesh. With Istio's defaults to
//! the letter (`--failover-by-default=false`) a proxy of Istio's gets the same from landbridge, but for the differences
//! that are made here one by one, each with its reason.

#[path = "reference/facts.rs"]
mod facts;
#[path = "reference/mesh.rs"]
mod mesh;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Instant};

use landbridge::{
    model::{Change, Kind, Object, ObjectKey, mesh::MeshConfig},
    snapshot::Snapshot,
};
use mesh::Client;
use serde_json::{Value, json};

const FRONTEND: Client = Client {
    id: "sidecar~10.1.0.25~frontend-0.production~production.svc.cluster.local",
    metadata: &[
        ("NAMESPACE", "production"),
        ("NAME", "frontend-0"),
        ("CLUSTER_ID", "cluster1"),
        ("NETWORK", "network1"),
        ("NODE_NAME", "cluster1-node0"),
        ("SERVICE_ACCOUNT", "frontend"),
    ],
    labels: &[("app", "frontend"), ("security.istio.io/tlsMode", "istio")],
    istio: true,
};

const GATEWAY: Client = Client {
    id: "router~10.1.0.26~istio-eastwestgateway-0.istio-system~istio-system.svc.cluster.local",
    metadata: &[
        ("NAMESPACE", "istio-system"),
        ("NAME", "istio-eastwestgateway-0"),
        ("CLUSTER_ID", "cluster1"),
        ("NETWORK", "network1"),
        ("NODE_NAME", "cluster1-node0"),
        ("REQUESTED_NETWORK_VIEW", "network1"),
    ],
    labels: &[("istio", "eastwestgateway"), ("topology.istio.io/network", "network1")],
    istio: true,
};

fn istiod(client: &str, kind: &str) -> BTreeMap<String, Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/two-clusters/istiod.json");
    let all: Value = serde_json::from_slice(&fs::read(path).expect("the table")).expect("JSON");
    serde_json::from_value(all[client][kind].clone()).expect("facts by name")
}

fn ours(snapshot: &Snapshot, kind: &str) -> BTreeMap<String, Value> {
    let resources = match kind {
        "cds" => &snapshot.clusters,
        "eds" => &snapshot.endpoints,
        "lds" => &snapshot.listeners,
        _ => &snapshot.routes,
    };
    let by_name = mesh::by_name(resources, facts::json);
    serde_json::from_value(facts::all(kind, &by_name)).expect("facts by name")
}

/// Every place in which two values differ, as `path: theirs / ours`.
fn differences(path: &str, theirs: &Value, ours: &Value, out: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let side = |o: &serde_json::Map<String, Value>| o.get(key).cloned().unwrap_or(Value::Null);
                differences(&format!("{path}.{key}"), &side(a), &side(b), out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{i}]"), a, b, out);
            }
        }
        _ if theirs == ours => {}
        _ => out.push(format!("{path}: istiod {theirs} / landbridge {ours}")),
    }
}

fn compare(client: &Client, name: &str, kind: &str, intended: impl Fn(&str, &mut Value)) {
    let mut state = mesh::state(false);
    let snapshot = client.snapshot(&mut state);
    let mut theirs = istiod(name, kind);
    for (resource, facts) in &mut theirs {
        intended(resource, facts);
    }
    let mut out = Vec::new();
    let whole = |map: BTreeMap<String, Value>| Value::Object(map.into_iter().collect());
    differences("", &whole(theirs), &whole(ours(&snapshot, kind)), &mut out);
    assert!(out.is_empty(), "{name} {kind}: {} differences\n{}", out.len(), out.join("\n"));
}

fn same(_: &str, _: &mut Value) {}

#[test]
fn a_sidecars_clusters() {
    compare(&FRONTEND, "frontend", "cds", same);
}

#[test]
fn a_sidecars_endpoints() {
    compare(&FRONTEND, "frontend", "eds", |_, groups| {
        // Localities from which nobody can be reached are not sent.
        if let Value::Array(groups) = groups {
            groups.retain(|g| g["members"].as_array().is_some_and(|m| !m.is_empty()));
        }
    });
}

#[test]
fn a_sidecars_listeners() {
    compare(&FRONTEND, "frontend", "lds", same);
}

#[test]
fn a_sidecars_routes() {
    compare(&FRONTEND, "frontend", "rds", same);
}

#[test]
fn a_gateways_clusters() {
    compare(&GATEWAY, "gateway", "cds", same);
}

#[test]
fn a_gateways_endpoints() {
    compare(&GATEWAY, "gateway", "eds", |_, groups| {
        if let Value::Array(groups) = groups {
            groups.retain(|g| g["members"].as_array().is_some_and(|m| !m.is_empty()));
        }
    });
}

#[test]
fn a_gateways_listeners() {
    compare(&GATEWAY, "gateway", "lds", same);
}

/// A stock Envoy beside the same workload.
const STOCK: Client = Client { istio: false, ..FRONTEND };

#[test]
fn a_stock_envoy_gets_nothing_of_istios() {
    let snapshot = STOCK.snapshot(&mut mesh::state(false));
    for resources in [&snapshot.clusters, &snapshot.listeners] {
        for (name, resource) in mesh::by_name(resources, facts::json) {
            let text = resource.to_string();
            for missing in
                ["istio.alpn", "metadata_exchange", "istio.stats", "sds-grpc", "istio-peer-exchange\",\"h2"]
            {
                assert!(!text.contains(missing), "{name} names {missing}");
            }
        }
    }
    // Workloads of endpoints are for Istio's telemetry.
    for (name, resource) in mesh::by_name(&snapshot.endpoints, facts::json) {
        assert!(!resource.to_string().contains("workload"), "{name} names workloads");
    }
    // Beside that it is the same: the names of everything, and all chains.
    for kind in ["cds", "eds", "lds", "rds"] {
        let names = |facts: BTreeMap<String, Value>| facts.into_keys().collect::<Vec<_>>();
        assert_eq!(names(ours(&snapshot, kind)), names(istiod("frontend", kind)), "{kind}");
    }
    let chains = |facts: &Value| {
        let all = facts["chains"].as_array().cloned().unwrap_or_default();
        all.into_iter().map(|c| c["match"].clone()).collect::<Vec<_>>()
    };
    let inbound = "virtualInbound";
    assert_eq!(chains(&ours(&snapshot, "lds")[inbound]), chains(&istiod("frontend", "lds")[inbound]));
}

#[test]
fn a_stock_envoy_gets_workloads_where_access_logs_show_them() {
    let mut state = mesh::state(false);
    let format = "%UPSTREAM_HOST% %UPSTREAM_METADATA(istio:workload)%\n";
    let config =
        MeshConfig { access_log_format: Some(format.into()), ..MeshConfig::clone(state.index.mesh()) };
    let key = ObjectKey {
        cluster: "cluster1".into(),
        kind: Kind::MeshConfig,
        namespace: "istio-system".into(),
        name: "istio".into(),
    };
    state.apply(vec![Change::Upsert(key, Object::MeshConfig(Arc::new(config)))], Instant::now());
    let snapshot = STOCK.snapshot(&mut state);
    let endpoints = mesh::by_name(&snapshot.endpoints, facts::json);
    let backend = endpoints["outbound|80||backend.production.svc.cluster.local"].to_string();
    assert!(backend.contains("backend-0;production;backend;;cluster1"), "{backend}");
}

/// A gateway of the other network is there once, with what is ready behind it. istiod writes its address once per
/// locality (of which Envoy keeps the first) and counts unready pods.
#[test]
fn the_other_network_is_one_endpoint() {
    let client = Client {
        id: "sidecar~10.2.0.24~reports-0.production~production.svc.cluster.local",
        metadata: &[
            ("NAMESPACE", "production"),
            ("NAME", "reports-0"),
            ("CLUSTER_ID", "cluster2"),
            ("NETWORK", "network2"),
        ],
        ..STOCK
    };
    let snapshot = client.snapshot(&mut mesh::state(false));
    let facts = ours(&snapshot, "eds");
    let groups =
        facts["outbound|80||backend.production.svc.cluster.local"].as_array().cloned().unwrap_or_default();
    let remote: Vec<_> = groups
        .iter()
        .flat_map(|g| g["members"].as_array().into_iter().flatten().map(|m| (&g["locality"], m)))
        .filter(|(_, m)| m["address"] == "172.30.0.1:15443")
        .map(|(locality, m)| (locality.clone(), m["weight"].clone()))
        .collect();
    assert_eq!(remote, [(json!("us-east-1/us-east-1a"), json!(2))]);
}

/// Our default mode: what makes a failover work, and nothing else, is different.
#[test]
fn failover_by_default_adds_what_failover_needs() {
    let strict = STOCK.snapshot(&mut mesh::state(false));
    let real = STOCK.snapshot(&mut mesh::state(true));
    let mut changed = std::collections::BTreeSet::new();
    for (a, b) in [
        (&strict.clusters, &real.clusters),
        (&strict.listeners, &real.listeners),
        (&strict.routes, &real.routes),
    ] {
        let (a, b) = (mesh::by_name(a, facts::json), mesh::by_name(b, facts::json));
        assert!(a.keys().eq(b.keys()));
        for (name, value) in &a {
            let mut out = Vec::new();
            differences("", value, &b[name], &mut out);
            let field = |d: &String| {
                let path = d.split(':').next().unwrap_or_default();
                path.split(['[', '.']).find(|p| !p.is_empty()).unwrap_or_default().to_owned()
            };
            changed.extend(out.iter().map(field));
        }
    }
    let expected =
        ["common_lb_config", "connect_timeout", "outlier_detection", "virtual_hosts"].map(str::to_owned);
    assert_eq!(changed.into_iter().collect::<Vec<_>>(), expected);

    let clusters = mesh::by_name(&real.clusters, facts::json);
    let of = |service: &str| &clusters[&format!("outbound|80||{service}.svc.cluster.local")];
    assert_eq!(of("vault.strict")["outlier_detection"]["max_ejection_percent"], 100, "no rule: ours");
    assert_eq!(
        of("payment-service.production")["outlier_detection"]["max_ejection_percent"],
        50,
        "the user's"
    );
    assert_eq!(of("mixed.production")["outlier_detection"]["max_ejection_percent"], 100, "the user set none");
    assert_eq!(of("reports.production")["outlier_detection"], Value::Null, "in one locality only");
}
