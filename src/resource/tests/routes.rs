//! Routes: names, and what is repeated.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    json::{HOST, ROUTES, json, named},
    mesh::*,
};
use crate::{
    index::Index,
    model::{
        Object,
        destination_rule::{
            HashKey, HashPolicy, LbAlgorithm, LoadBalancer, OutlierDetection, PolicySettings,
        },
        mesh::{HttpRetryPolicy, MeshConfig},
    },
    resource::{Built, rds},
    view::{RouteView, VirtualHosts},
};

fn host(index: &Index, view: &RouteView, name: &str) -> Value {
    let table = named(ROUTES, &rds::port(index, view, 80), "80");
    let hosts = table["virtual_hosts"].as_array().unwrap();
    hosts.iter().find(|h| h["name"] == name).unwrap_or_else(|| panic!("no {name} in {table}")).clone()
}

fn sniffed(index: &Index) -> Vec<Built> {
    index.services().flat_map(|s| rds::sniffed(index, &route_view().scope, s)).collect()
}

fn backend(index: &Index) -> Value {
    host(index, &route_view(), "backend.production.svc.cluster.local:80")
}

#[test]
fn a_service_is_called_by_all_its_names() {
    let index = mesh(true);
    assert_eq!(
        backend(&index)["domains"],
        json!([
            "backend.production.svc.cluster.local",
            "backend.production.svc.cluster.local.",
            "backend",
            "backend.production.svc",
            "backend.production",
            "ext.production.svc.cluster.local",
            "ext.production.svc.cluster.local.",
            "ext",
            "ext.production.svc",
            "ext.production",
            "10.96.1.10"
        ])
    );
    let old = host(&index, &route_view(), "old.legacy.svc.cluster.local:80");
    assert_eq!(
        old["domains"],
        json!([
            "old.legacy.svc.cluster.local",
            "old.legacy.svc.cluster.local.",
            "old.legacy",
            "old.legacy.svc",
            "10.96.1.14"
        ])
    );
    // The west has its own address.
    let west = RouteView { cluster: "west".into(), ..route_view() };
    let domains = host(&index, &west, "backend.production.svc.cluster.local:80")["domains"].to_string();
    assert!(domains.contains("10.97.1.10") && !domains.contains("10.96.1.10"), "{domains}");
}

#[test]
fn no_domain_occurs_twice() {
    let mut index = mesh(true);
    // The same address in the other cluster, and a short name that is another service's.
    index.update([
        put(
            "west",
            Object::Service(Arc::new(mk_service(NS, "aaa", Some("10.96.1.10"), &[("http", 80, 80)]))),
        ),
        put(
            "east",
            Object::Service(Arc::new(mk_service(
                "svc",
                "backend.production",
                Some("10.96.3.3"),
                &[("http", 80, 80)],
            ))),
        ),
    ]);
    let table = named(ROUTES, &rds::port(&index, &route_view(), 80), "80");
    let mut all: Vec<_> = table["virtual_hosts"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|h| h["domains"].as_array().unwrap().iter().map(|d| d.as_str().unwrap().to_owned()))
        .collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
    assert!(
        backend(&index)["domains"].to_string().contains("\"10.96.1.10\""),
        "the east's own service has it"
    );
}

/// With rivals for names and addresses among them.
#[test]
fn hosts_are_the_same_one_by_one_and_together() {
    let mut index = mesh(true);
    let rival = |namespace: &str, name: &str, ip: &str| {
        Object::Service(Arc::new(mk_service(namespace, name, Some(ip), &[("http", 80, 80)])))
    };
    index.update([
        put("west", rival(NS, "aaa", "10.96.1.10")),
        put("east", rival("svc", "backend.production", "10.96.3.3")),
        put("east", rival("svc", "backend", "10.96.3.4")),
    ]);
    for (cluster, namespace) in [("east", NS), ("west", NS), ("east", "svc"), ("elsewhere", "legacy")] {
        let together = RouteView { cluster: cluster.into(), namespace: namespace.into(), ..route_view() };
        let apart = RouteView { virtual_hosts: VirtualHosts::OneByOne, ..together.clone() };
        let table = named(ROUTES, &rds::port(&index, &together, 80), "80");
        let mut expected = table["virtual_hosts"].as_array().unwrap().clone();

        let built = index.services().flat_map(|s| rds::service(&index, &apart, s));
        let mut hosts: Vec<_> = built.filter(|b| b.name.starts_with("80/")).map(|b| json(HOST, &b)).collect();
        assert!(hosts.iter().all(|host| host["name"].as_str().unwrap().starts_with("80/")));
        for host in &mut hosts {
            host["name"] = host["name"].as_str().unwrap()[3..].into();
        }
        hosts.sort_by_key(|host| host["name"].to_string());
        let table = named(ROUTES, &rds::port(&index, &apart, 80), "80");
        assert!(table["vhds"]["config_source"]["ads"].is_object(), "{table}");
        hosts.extend(table["virtual_hosts"].as_array().unwrap().clone());
        expected.iter_mut().chain(&mut hosts).for_each(|h| drop(h.as_object_mut().unwrap().remove("@type")));
        assert_eq!(hosts, expected, "{cluster} {namespace}");
    }
}

#[test]
fn what_may_be_repeated_is_repeated_elsewhere() {
    let index = mesh(true);
    let routes = backend(&index)["routes"].clone();
    let [repeatable, any] = routes.as_array().unwrap().as_slice() else { panic!("two routes: {routes}") };
    let method = &repeatable["match"]["headers"][0];
    assert_eq!(method["name"], ":method");
    assert_eq!(method["string_match"]["safe_regex"]["regex"], "GET|HEAD|OPTIONS");
    let conditions = |route: &Value| {
        let text = route["route"]["retry_policy"]["retry_on"].as_str().unwrap().to_owned();
        text.split(',').map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(conditions(repeatable).contains(&"5xx".to_owned()));
    assert!(!conditions(any).contains(&"5xx".to_owned()));
    for route in [repeatable, any] {
        assert!(conditions(route).contains(&"connect-failure".to_owned()));
        let policy = &route["route"]["retry_policy"];
        assert_eq!(policy["num_retries"], 2);
        assert_eq!(policy["retry_host_predicate"][0]["name"], "envoy.retry_host_predicates.previous_hosts");
        assert_eq!(policy["retry_priority"]["name"], "envoy.retry_priorities.previous_priorities");
        assert_eq!(policy["retry_priority"]["typed_config"]["update_frequency"], 1);
        assert_eq!(route["route"]["timeout"], "0s");
    }

    // Istio's defaults to the letter; and a service in one locality has no other place to go.
    for host in [backend(&mesh(false)), one_locality()] {
        let [only] = host["routes"].as_array().unwrap().as_slice() else { panic!("one route: {host}") };
        let policy = &only["route"]["retry_policy"];
        assert_eq!(
            policy["retry_on"],
            "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
        );
        assert_eq!(policy["retry_priority"], Value::Null);
    }
}

fn one_locality() -> Value {
    let mut index = empty(true);
    let service = mk_service(NS, "backend", Some("10.96.1.10"), &[("http", 80, 8080)]);
    index.update([put("east", Object::Service(Arc::new(service)))]);
    index.update(pod("east", "backend", "backend-0", "10.1.0.10", "e-a").changes(&[("http", 8080)]));
    backend(&index)
}

#[test]
fn the_users_own_retries_win() {
    let with = |retries: HttpRetryPolicy| {
        let mut index = mesh(true);
        set_mesh(&mut index, MeshConfig { http_retries: Some(retries), ..MeshConfig::default() });
        backend(&index)["routes"].clone()
    };
    let none = with(HttpRetryPolicy { attempts: 0, retry_on: None, per_try_timeout: None });
    assert_eq!((none.as_array().unwrap().len(), &none[0]["route"]["retry_policy"]), (1, &Value::Null));
    let own =
        with(HttpRetryPolicy { attempts: 5, retry_on: Some("5xx,reset,418".into()), per_try_timeout: None });
    let policy = &own[0]["route"]["retry_policy"];
    assert_eq!(policy["retry_on"], "5xx,reset,retriable-status-codes");
    assert_eq!((&policy["retriable_status_codes"], &policy["num_retries"]), (&json!([418]), &json!(5)));
    assert_eq!(own.as_array().unwrap().len(), 1, "for all methods");
    let more = with(HttpRetryPolicy { attempts: 4, retry_on: None, per_try_timeout: None });
    assert_eq!(more[1]["route"]["retry_policy"]["num_retries"], 4);
}

#[test]
fn a_hash_leads_to_the_same_endpoint_again() {
    let hash = HashPolicy { key: HashKey::Header("x-user".into()), minimum_ring_size: None, maglev: None };
    let settings = PolicySettings {
        load_balancer: Some(LoadBalancer { algorithm: LbAlgorithm::Hash(hash), ..Default::default() }),
        outlier_detection: Some(OutlierDetection::default()),
        ..Default::default()
    };
    let mut index = mesh(true);
    index.update([mk_rule("backend", settings)]);
    let route = &backend(&index)["routes"][1]["route"];
    assert_eq!(route["hash_policy"][0]["header"]["header_name"], "x-user");
    assert_eq!(route["retry_policy"]["retry_host_predicate"], Value::Null);
}

#[test]
fn sniffed_ports_have_a_table_of_their_own() {
    let index = mesh(true);
    let built = sniffed(&index);
    let table = named(ROUTES, &built, "mixed.production.svc.cluster.local:6000");
    assert_eq!(table["virtual_hosts"][0]["domains"], json!(["*"]));
    assert!(
        rds::port(&index, &route_view(), 6000).is_empty()
            && rds::port(&index, &route_view(), 7000).is_empty()
    );
}

#[test]
fn hosts_that_no_service_has() {
    let mut index = mesh(true);
    let allowed = host(&index, &route_view(), "allow_any");
    assert_eq!(allowed["routes"][0]["route"]["cluster"], "PassthroughCluster");
    set_mesh(&mut index, MeshConfig { registry_only: true, ..MeshConfig::default() });
    let blocked = host(&index, &route_view(), "block_all");
    assert_eq!(blocked["routes"][0]["direct_response"]["status"], 502);
}
