//! Clusters: what makes a failover work, and who may answer.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    json::{CLUSTER, named},
    mesh::*,
};
use crate::{
    index::Index,
    model::{
        destination_rule::{
            ClientTls, ClientTlsFiles, ClientTlsMode, ConnectionPool, HashKey, HashPolicy, LbAlgorithm,
            LoadBalancer, LocalityLb, OutlierDetection, PolicySettings, Warmup,
        },
        mesh::MeshConfig,
        node::{Interception, ProxyKind, SecretSource},
        peer_authentication::MtlsMode,
    },
    resource::cds,
    view::{ClusterView, InboundView},
};

const BACKEND: &str = "outbound|80||backend.production.svc.cluster.local";

fn cluster(index: &Index, view: &ClusterView, service: &str, name: &str) -> Value {
    let service = index.service(&service_key(service)).unwrap();
    named(CLUSTER, &cds::service(index, view, service), name)
}

fn backend(index: &Index) -> Value {
    cluster(index, &cluster_view(), "backend", BACKEND)
}

/// The mesh's TLS context of a cluster.
fn mutual(cluster: &Value) -> &Value {
    &cluster["transport_socket_matches"][0]["transport_socket"]["typed_config"]
}

#[test]
fn services_in_several_localities_fail_over_without_any_rule() {
    let cluster = backend(&mesh(true));
    assert_eq!(
        cluster["outlier_detection"],
        json!({
            "consecutive_5xx": 3, "enforcing_consecutive_5xx": 100,
            "consecutive_gateway_failure": 3, "enforcing_consecutive_gateway_failure": 100,
            "interval": "1s", "base_ejection_time": "3s", "max_ejection_time": "10s",
            "max_ejection_percent": 100, "enforcing_success_rate": 0
        })
    );
    assert_eq!(
        cluster["common_lb_config"],
        json!({"update_merge_window": "0s", "healthy_panic_threshold": {}})
    );

    assert_eq!(cluster["connect_timeout"], "1s", "a pod that vanished costs a second, not ten");

    // Istio's defaults to the letter.
    let strict = backend(&mesh(false));
    assert_eq!(strict["outlier_detection"], Value::Null);
    assert_eq!(strict["common_lb_config"], json!({"healthy_panic_threshold": {}}));

    // One cluster and one locality: there is nowhere to fail over to.
    let index = mesh(true);
    let alone = index.services().find(|s| !index.spans_localities(s)).expect("the mesh has such a service");
    for built in cds::service(&index, &cluster_view(), alone) {
        let cluster = named(CLUSTER, std::slice::from_ref(&built), &built.name);
        assert_eq!(cluster["outlier_detection"], Value::Null);
        assert_eq!(cluster["connect_timeout"], "10s");
    }
}

#[test]
fn a_mesh_without_locality_settings_does_not_fail_over() {
    let mut index = mesh(true);
    set_mesh(&mut index, MeshConfig { locality_lb: None, ..MeshConfig::default() });
    assert_eq!(backend(&index)["outlier_detection"], Value::Null);
}

/// The walk-through's rule, in full.
fn walkthrough() -> PolicySettings {
    PolicySettings {
        connection_pool: Some(ConnectionPool {
            max_connections: Some(100),
            max_requests_per_connection: Some(10),
            ..Default::default()
        }),
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: Some(3),
            interval: Some(Duration::from_secs(10)),
            base_ejection_time: Some(Duration::from_secs(30)),
            max_ejection_percent: Some(50),
            ..Default::default()
        }),
        load_balancer: Some(LoadBalancer {
            algorithm: LbAlgorithm::RoundRobin,
            locality: Some(LocalityLb {
                failover: vec![
                    ("us-east-1".into(), "us-central1".into()),
                    ("us-central1".into(), "us-east-1".into()),
                ],
                failover_priority: vec![
                    "topology.kubernetes.io/region".into(),
                    "topology.kubernetes.io/zone".into(),
                ],
                ..LocalityLb::default()
            }),
            warmup: Some(Warmup {
                duration: Duration::from_secs(30),
                minimum_percent: 10.0,
                aggression: 1.0,
            }),
        }),
        tls: None,
    }
}

#[test]
fn the_walkthroughs_rule() {
    for failover_by_default in [true, false] {
        let mut index = mesh(failover_by_default);
        index.update([mk_rule("backend", walkthrough())]);
        let cluster = backend(&index);
        // The user's 50 per cent stays, also where it hinders the failover (cds::outlier says how).
        assert_eq!(
            cluster["outlier_detection"],
            json!({
                "consecutive_5xx": 3, "enforcing_consecutive_5xx": 100, "enforcing_success_rate": 0,
                "interval": "10s", "base_ejection_time": "30s", "max_ejection_percent": 50
            })
        );
        assert_eq!(cluster["circuit_breakers"]["thresholds"][0]["max_connections"], 100);
        assert_eq!(
            cluster["round_robin_lb_config"],
            json!({"slow_start_config": {"slow_start_window": "30s"}})
        );
        assert_eq!(cluster["common_lb_config"]["locality_weighted_lb_config"], json!({}));
        assert_eq!(cluster["common_lb_config"]["healthy_panic_threshold"], json!({}));
        let window = &cluster["common_lb_config"]["update_merge_window"];
        assert_eq!(*window, if failover_by_default { json!("0s") } else { Value::Null });
        let http = &cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
        assert_eq!(http["common_http_protocol_options"]["max_requests_per_connection"], 10);
        assert_eq!(
            cluster["metadata"]["filter_metadata"]["istio"]["config"],
            "/apis/networking.istio.io/v1/namespaces/production/destination-rule/backend"
        );
    }
}

#[test]
fn a_rule_without_a_limit_may_take_out_everything() {
    let od =
        OutlierDetection { consecutive_5xx: Some(3), min_health_percent: Some(30), ..Default::default() };
    let settings = PolicySettings { outlier_detection: Some(od), ..Default::default() };
    for (failover_by_default, limit) in [(true, json!(100)), (false, Value::Null)] {
        let mut index = mesh(failover_by_default);
        index.update([mk_rule("backend", settings.clone())]);
        let cluster = backend(&index);
        assert_eq!(cluster["outlier_detection"]["max_ejection_percent"], limit);
        assert_eq!(cluster["common_lb_config"]["healthy_panic_threshold"], json!({"value": 30.0}));
    }
}

#[test]
fn mutual_tls_per_endpoint_as_stock_envoy_can_do_it() {
    let cluster = backend(&mesh(true));
    let tls = mutual(&cluster);
    assert_eq!(tls["sni"], "outbound_.80_._.backend.production.svc.cluster.local");
    let common = &tls["common_tls_context"];
    assert_eq!(common["alpn_protocols"], json!(["istio"]));
    let validation = &common["combined_validation_context"];
    assert_eq!(
        validation["default_validation_context"]["match_typed_subject_alt_names"],
        json!([{"san_type": "URI", "matcher": {"exact": "spiffe://cluster.local/ns/production/sa/backend"}}])
    );
    let root = &validation["validation_context_sds_secret_config"];
    assert_eq!(root["name"], "ROOTCA");
    assert_eq!(root["sds_config"]["ads"], json!({}));
    assert_eq!(common["tls_certificate_sds_secret_configs"][0]["name"], "default");
    assert_eq!(cluster["transport_socket_matches"][1]["match"], json!({}));
    assert_eq!(cluster["filters"], Value::Null);

    let grpc = "outbound|9000||mixed.production.svc.cluster.local";
    let grpc = self::cluster(&mesh(true), &cluster_view(), "mixed", grpc);
    assert_eq!(mutual(&grpc)["common_tls_context"]["alpn_protocols"], json!(["istio", "h2"]));
    let sniffed = "outbound|6000||mixed.production.svc.cluster.local";
    let sniffed = self::cluster(&mesh(true), &cluster_view(), "mixed", sniffed);
    assert_eq!(mutual(&sniffed)["common_tls_context"]["alpn_protocols"], json!(["istio"]));
}

#[test]
fn an_istio_proxy_gets_what_it_lists() {
    let view = ClusterView { extensions: ALL_EXTENSIONS, secrets: SecretSource::Agent, ..cluster_view() };
    let cluster = cluster(&mesh(true), &view, "backend", BACKEND);
    let common = &mutual(&cluster)["common_tls_context"];
    assert_eq!(common["alpn_protocols"], json!(["istio-peer-exchange", "istio"]));
    let sds = &common["tls_certificate_sds_secret_configs"][0]["sds_config"]["api_config_source"];
    assert_eq!(sds["grpc_services"][0]["envoy_grpc"]["cluster_name"], "sds-grpc");
    assert_eq!(cluster["filters"][0]["name"], "istio.metadata_exchange");
}

#[test]
fn identities_in_every_trust_domain() {
    let mut index = mesh(true);
    let aliases = vec!["old.example".into()];
    set_mesh(&mut index, MeshConfig { trust_domain_aliases: aliases, ..MeshConfig::default() });
    let cluster = backend(&index);
    let validation = &mutual(&cluster)["common_tls_context"]["combined_validation_context"];
    let sans = validation["default_validation_context"]["match_typed_subject_alt_names"].as_array().unwrap();
    let exact: Vec<_> = sans.iter().map(|s| s["matcher"]["exact"].as_str().unwrap()).collect();
    assert_eq!(
        exact,
        ["spiffe://cluster.local/ns/production/sa/backend", "spiffe://old.example/ns/production/sa/backend"]
    );
}

#[test]
fn gateways_forward_tls_that_is_not_theirs() {
    let index = mesh(true);
    let view = ClusterView { kind: ProxyKind::Router, sni_dnat: true, ..cluster_view() };
    let name = "outbound_.80_._.backend.production.svc.cluster.local";
    let forwarding = cluster(&index, &view, "backend", name);
    for field in ["transport_socket", "transport_socket_matches"] {
        assert_eq!(forwarding[field], Value::Null, "{field}");
    }
    assert_eq!(forwarding["eds_cluster_config"]["service_name"], name);
    let fixed: Vec<_> = cds::fixed(&index, &view).into_iter().map(|b| b.name.to_string()).collect();
    assert_eq!(fixed, ["BlackHoleCluster"]);
    let headless = "outbound|5432||stateful.production.svc.cluster.local";
    assert_eq!(cluster(&index, &view, "stateful", headless)["type"], "EDS");
}

#[test]
fn headless_services_are_called_by_address() {
    let cluster = cluster(
        &mesh(true),
        &cluster_view(),
        "stateful",
        "outbound|5432||stateful.production.svc.cluster.local",
    );
    assert_eq!(cluster["type"], "ORIGINAL_DST");
    assert_eq!(cluster["lb_policy"], "CLUSTER_PROVIDED");
    let tls = &cluster["transport_socket"]["typed_config"];
    assert_eq!(tls["sni"], "outbound_.5432_._.stateful.production.svc.cluster.local");
}

fn with_tls(mode: ClientTlsMode, files: Option<ClientTlsFiles>) -> Value {
    let tls =
        ClientTls { mode, sni: None, subject_alt_names: Vec::new(), insecure_skip_verify: false, files };
    let mut index = mesh(true);
    index.update([mk_rule("backend", PolicySettings { tls: Some(tls), ..Default::default() })]);
    backend(&index)
}

#[test]
fn tls_modes_of_rules() {
    let plain = with_tls(ClientTlsMode::Disable, None);
    assert_eq!(
        (&plain["transport_socket"], &plain["transport_socket_matches"]),
        (&Value::Null, &Value::Null)
    );

    let simple = with_tls(ClientTlsMode::Simple, None);
    let context = &simple["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(context["validation_context"]["trusted_ca"]["filename"], "/etc/ssl/certs/ca-certificates.crt");
    let http =
        &simple["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert_eq!(
        http["upstream_http_protocol_options"],
        json!({"auto_sni": true, "auto_san_validation": true})
    );

    let files = ClientTlsFiles {
        ca: Some("/c/ca.pem".into()),
        certificate: Some(("/c/chain.pem".into(), "/c/key.pem".into())),
    };
    let mutual = with_tls(ClientTlsMode::Mutual, Some(files));
    let context = &mutual["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(context["tls_certificates"][0]["private_key"]["filename"], "/c/key.pem");

    let istio = with_tls(ClientTlsMode::IstioMutual, None);
    assert_eq!(istio["transport_socket_matches"], Value::Null);
    assert_eq!(
        istio["transport_socket"]["typed_config"]["sni"],
        "outbound_.80_._.backend.production.svc.cluster.local"
    );
}

#[test]
fn namespaces_without_mutual_tls_are_called_in_plaintext() {
    let mut index = mesh(true);
    index.update([mk_peer("default", &[], MtlsMode::Disable)]);
    assert_eq!(backend(&index)["transport_socket_matches"], Value::Null);
}

#[test]
fn balancing_by_hash_and_http2_on_request() {
    let hash = HashPolicy { key: HashKey::Header("x-user".into()), minimum_ring_size: None, maglev: None };
    let settings = PolicySettings {
        load_balancer: Some(LoadBalancer { algorithm: LbAlgorithm::Hash(hash), ..Default::default() }),
        connection_pool: Some(ConnectionPool { h2_upgrade: Some(true), ..Default::default() }),
        ..Default::default()
    };
    let mut index = mesh(true);
    index.update([mk_rule("backend", settings)]);
    let cluster = backend(&index);
    assert_eq!(cluster["lb_policy"], "RING_HASH");
    assert_eq!(cluster["ring_hash_lb_config"]["minimum_ring_size"], "1024");
    assert_eq!(mutual(&cluster)["common_tls_context"]["alpn_protocols"], json!(["istio", "h2"]));
}

#[test]
fn inbound_clusters_lead_to_the_workload() {
    let index = mesh(true);
    let captured = inbound_view(MtlsMode::Permissive);
    let built = cds::inbound(&index, &captured);
    let names: Vec<_> = built.iter().map(|b| &*b.name).collect();
    assert_eq!(
        names,
        ["inbound|6000||", "inbound|7000||", "inbound|8080||", "inbound|9000||", "InboundPassthroughCluster"]
    );
    let http = named(CLUSTER, &built, "inbound|8080||");
    assert_eq!(http["upstream_bind_config"]["source_address"]["address"], "127.0.0.6");
    let real = InboundView { interception: Interception::None, ..captured };
    let http = named(CLUSTER, &cds::inbound(&index, &real), "inbound|8080||");
    let socket =
        &http["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"];
    assert_eq!(socket, &json!({"address": "127.0.0.1", "port_value": 8080}));
}

#[test]
fn the_same_mesh_gives_the_same_bytes() {
    let (one, other) = (mesh(true), mesh(true));
    for service in one.services() {
        let twin = other.service(&service.key).unwrap();
        assert_eq!(cds::service(&one, &cluster_view(), service), cds::service(&other, &cluster_view(), twin));
    }
}
