//! Listeners: which connection goes where.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    json::{LISTENER, json, named},
    mesh::*,
};
use crate::{
    index::Index,
    model::{
        Object,
        mesh::MeshConfig,
        node::{Interception, SecretSource},
        peer_authentication::MtlsMode,
    },
    resource::{Built, lds},
    view::{GatewayView, InboundView, ListenerView},
};

fn outbound(index: &Index, view: &ListenerView) -> Vec<Built> {
    let ports = index.ports().flat_map(|port| lds::outbound::port(index, view, port));
    let visible = index.services().filter(|s| index.sees(&view.scope, s));
    let services = visible.flat_map(|service| lds::outbound::service(index, view, service));
    lds::outbound::fixed(index, view).into_iter().chain(ports).chain(services).collect()
}

/// Those of one port.
fn on_port(index: &Index, view: &ListenerView, port: u16) -> Vec<Built> {
    let suffix = format!("_{port}");
    outbound(index, view).into_iter().filter(|b| b.name.ends_with(&suffix)).collect()
}

fn names(built: &[Built]) -> Vec<&str> {
    let mut names: Vec<_> = built.iter().map(|b| &*b.name).collect();
    names.sort_unstable();
    names
}

/// Each chain as `name: transport ALPN -> kind, TLS`.
fn chains(listener: &Value) -> Vec<String> {
    let chain = |c: &Value| {
        let matches = &c["filter_chain_match"];
        let protocols = matches["application_protocols"].as_array().cloned().unwrap_or_default();
        let protocols: Vec<_> = protocols.iter().map(|p| p.as_str().unwrap()).collect();
        let last = c["filters"].as_array().unwrap().last().unwrap()["name"].as_str().unwrap();
        let tls = if c["transport_socket"].is_null() { "" } else { " mtls" };
        format!(
            "{} {}{} [{}] {}{tls}",
            c["name"].as_str().unwrap_or("-"),
            matches["destination_port"].as_u64().map(|p| format!("{p} ")).unwrap_or_default(),
            matches["transport_protocol"].as_str().unwrap_or("any"),
            protocols.join(","),
            last.rsplit('.').next().unwrap(),
        )
    };
    listener["filter_chains"].as_array().unwrap().iter().map(chain).collect()
}

#[test]
fn http_is_shared_and_bytes_go_by_address() {
    let index = mesh(true);
    let built = outbound(&index, &listener_view());
    assert_eq!(
        names(&built),
        [
            "0.0.0.0_80",
            "0.0.0.0_9000",
            "10.1.0.18_5432",
            "10.96.1.12_6000",
            "10.96.1.12_7000",
            "10.96.1.12_8443",
            "10.96.9.9_15021",
            "10.96.9.9_15443",
            "virtualOutbound",
        ]
    );
    let http = named(LISTENER, &built, "0.0.0.0_80");
    assert_eq!(chains(&http), ["- raw_buffer [http/1.1,h2c] http_connection_manager"]);
    assert_eq!(http["default_filter_chain"]["name"], "PassthroughFilterChain");
    assert_eq!(http["bind_to_port"], false);
    assert_eq!(http["listener_filters_timeout"], "0s");
    let manager = &http["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(manager["rds"]["route_config_name"], "80");
    let filters: Vec<_> =
        manager["http_filters"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    let prefix = "envoy.filters.http.";
    assert_eq!(filters, ["grpc_stats", "fault", "cors", "router"].map(|f| format!("{prefix}{f}")));

    let sniffed = named(LISTENER, &built, "10.96.1.12_6000");
    let manager = &sniffed["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(manager["rds"]["route_config_name"], "mixed.production.svc.cluster.local:6000");
    let bytes = &sniffed["default_filter_chain"]["filters"][0]["typed_config"]["cluster"];
    assert_eq!(bytes, "outbound|6000||mixed.production.svc.cluster.local");
    let tcp = named(LISTENER, &built, "10.96.1.12_7000");
    assert_eq!(chains(&tcp), ["- any [] tcp_proxy"]);
    assert_eq!(tcp["listener_filters"], Value::Null);
}

#[test]
fn istios_filters_only_for_proxies_that_list_them() {
    let view = ListenerView { extensions: ALL_EXTENSIONS, ..listener_view() };
    let text = json(LISTENER, &lds::outbound::port(&mesh(true), &view, 80)[0]).to_string();
    assert!(text.contains("istio.alpn") && text.contains("istio.metadata_exchange"));
    for built in outbound(&mesh(true), &listener_view()) {
        let text = json(LISTENER, &built).to_string();
        assert!(!text.contains("istio.alpn") && !text.contains("metadata_exchange"), "{}", built.name);
    }
}

#[test]
fn what_is_not_in_the_registry() {
    let mut index = mesh(true);
    let catch_all = |index: &Index| {
        let built = outbound(index, &listener_view());
        let virtual_outbound = named(LISTENER, &built, "virtualOutbound");
        let http = named(LISTENER, &built, "0.0.0.0_80");
        assert_eq!(
            virtual_outbound["filter_chains"][0]["filters"][0]["typed_config"]["cluster"],
            "BlackHoleCluster"
        );
        [
            virtual_outbound["filter_chains"][1]["filters"][0]["typed_config"]["cluster"].clone(),
            http["default_filter_chain"]["filters"][0]["typed_config"]["cluster"].clone(),
        ]
    };
    assert_eq!(catch_all(&index), ["PassthroughCluster", "PassthroughCluster"]);
    set_mesh(&mut index, MeshConfig { registry_only: true, ..MeshConfig::default() });
    assert_eq!(catch_all(&index), ["BlackHoleCluster", "BlackHoleCluster"]);
}

#[test]
fn an_address_belongs_to_the_service_of_the_clients_cluster() {
    let mut index = mesh(true);
    // Only in the west, with an address that a service of the east has.
    let foreign = mk_service(NS, "aaa-foreign", Some("10.96.1.12"), &[("tcp-raw", 7000, 7000)]);
    index.update([put("west", Object::Service(Arc::new(foreign)))]);
    let built = on_port(&index, &listener_view(), 7000);
    assert_eq!(names(&built), ["10.96.1.12_7000"]);
    let cluster = &json(LISTENER, &built[0])["filter_chains"][0]["filters"][0]["typed_config"]["cluster"];
    assert_eq!(cluster, "outbound|7000||mixed.production.svc.cluster.local");
}

#[test]
fn without_capture_the_proxy_listens_on_the_loopback_interface() {
    let view = ListenerView { interception: Interception::None, ..listener_view() };
    let index = mesh(true);
    let built = outbound(&index, &view);
    assert_eq!(
        names(&built),
        [
            "127.0.0.1_15443",
            "127.0.0.1_6000",
            "127.0.0.1_7000",
            "127.0.0.1_80",
            "127.0.0.1_8443",
            "127.0.0.1_9000",
        ]
    );
    let http = named(LISTENER, &built, "127.0.0.1_80");
    assert_eq!(chains(&http), ["- any [] http_connection_manager"]);
    assert_eq!(http["bind_to_port"], Value::Null);
    let inbound = InboundView { interception: Interception::None, ..inbound_view(MtlsMode::Permissive) };
    let built = lds::inbound::build(&index, &inbound);
    assert_eq!(names(&built), ["10.1.0.16_6000", "10.1.0.16_7000", "10.1.0.16_8080", "10.1.0.16_9000"]);
}

#[test]
fn a_proxy_does_not_listen_for_its_own_headless_address() {
    let view = ListenerView { own_headless_ips: ["10.1.0.18".parse().unwrap()].into(), ..listener_view() };
    assert!(on_port(&mesh(true), &view, 5432).is_empty());
}

#[test]
fn inbound_chains_are_istios() {
    let index = mesh(true);
    let inbound = |mode| json(LISTENER, &lds::inbound::build(&index, &inbound_view(mode))[0]);
    let any = "istio,istio-peer-exchange,istio-http/1.0,istio-http/1.1,istio-h2";
    let http = "istio-http/1.0,istio-http/1.1,istio-h2";
    let hcm = "http_connection_manager";
    let permissive = inbound(MtlsMode::Permissive);
    assert_eq!(
        chains(&permissive),
        [
            "virtualInbound-blackhole 15006 any [] tcp_proxy".to_owned(),
            format!("virtualInbound-catchall-http tls [{http}] {hcm} mtls"),
            format!("virtualInbound-catchall-http raw_buffer [http/1.1,h2c] {hcm}"),
            "virtualInbound tls [istio-peer-exchange,istio] tcp_proxy mtls".to_owned(),
            "virtualInbound raw_buffer [] tcp_proxy".to_owned(),
            "virtualInbound tls [] tcp_proxy".to_owned(),
            format!("virtualInbound-catchall-http 9999 raw_buffer [http/1.1,h2c] {hcm}"),
            "virtualInbound 9999 raw_buffer [] tcp_proxy".to_owned(),
            format!("0.0.0.0_6000 6000 tls [{http}] {hcm} mtls"),
            format!("0.0.0.0_6000 6000 raw_buffer [http/1.1,h2c] {hcm}"),
            "0.0.0.0_6000 6000 tls [istio-peer-exchange,istio] tcp_proxy mtls".to_owned(),
            "0.0.0.0_6000 6000 raw_buffer [] tcp_proxy".to_owned(),
            "0.0.0.0_6000 6000 tls [] tcp_proxy".to_owned(),
            format!("0.0.0.0_7000 7000 tls [{any}] tcp_proxy mtls"),
            "0.0.0.0_7000 7000 tls [] tcp_proxy".to_owned(),
            "0.0.0.0_7000 7000 raw_buffer [] tcp_proxy".to_owned(),
            format!("0.0.0.0_8080 8080 tls [{any}] {hcm} mtls"),
            format!("0.0.0.0_8080 8080 raw_buffer [] {hcm}"),
            format!("0.0.0.0_9000 9000 tls [{any}] {hcm} mtls"),
            format!("0.0.0.0_9000 9000 raw_buffer [] {hcm}"),
        ]
    );
    let strict = chains(&inbound(MtlsMode::Strict));
    assert_eq!(strict[1], format!("virtualInbound-catchall-http tls [{http}] {hcm} mtls"));
    assert!(strict[5..].iter().all(|c| c.ends_with("mtls")), "{strict:?}");
    let disabled = chains(&inbound(MtlsMode::Disable));
    assert!(disabled.iter().all(|c| !c.ends_with("mtls")), "{disabled:?}");

    // The server answers protocols that say HTTP/1.1 or 2, and never a name of Istio's.
    let alpn = &permissive["filter_chains"][1]["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(alpn["alpn_protocols"], json!(["h2", "http/1.1"]));
    let sans = &alpn["combined_validation_context"]["default_validation_context"];
    assert_eq!(
        sans["match_typed_subject_alt_names"],
        json!([{"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/"}}])
    );
    // No inspector runs where it is not needed.
    let filters = permissive["listener_filters"].as_array().unwrap();
    assert_eq!(filters.len(), 3);
    let ports = |filter: &Value| {
        let rules = filter["filter_disabled"]["or_match"]["rules"].as_array().cloned().unwrap_or_default();
        rules.iter().map(|r| r["destination_port_range"]["start"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ports(&filters[1]), [9999, 15006], "TLS");
    assert_eq!(ports(&filters[2]), [7000, 8080, 9000, 15006], "HTTP");
}

#[test]
fn a_gateway_has_a_chain_for_each_service_and_subset() {
    let index = mesh(true);
    let built = lds::gateway::build(&index, &gateway_view());
    assert_eq!(names(&built), ["0.0.0.0_15021", "0.0.0.0_15443"]);
    let listener = named(LISTENER, &built, "0.0.0.0_15443");
    let mut servers: Vec<_> = listener["filter_chains"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| {
            let name = c["filter_chain_match"]["server_names"][0].as_str().unwrap();
            assert_eq!(c["filters"][0]["typed_config"]["cluster"], name);
            name.split("_.").skip(1).collect::<Vec<_>>().join(" ")
        })
        .collect();
    servers.retain(|s| s.contains("mixed") && s.starts_with("80 ") || s.contains("backend"));
    assert_eq!(
        servers,
        [
            "80  backend.production.svc.cluster.local",
            "80  mixed.production.svc.cluster.local",
            "80 east mixed.production.svc.cluster.local"
        ]
    );
    let health = named(LISTENER, &built, "0.0.0.0_15021").to_string();
    assert!(health.contains("/healthz/ready"), "{health}");

    // Hosts of other names, and an agent with a health page of its own: nothing to listen for.
    let mut gateway = gateway();
    gateway.servers[0].hosts = vec![("*".into(), "*.example.com".into())];
    let gateways = vec![crate::view::GatewayRef(Arc::new(gateway))];
    let view = GatewayView { gateways, secrets: SecretSource::Agent, ..gateway_view() };
    assert!(lds::gateway::build(&index, &view).is_empty());
}

#[test]
fn logs_go_to_the_open_descriptor() {
    let mut index = mesh(true);
    set_mesh(&mut index, MeshConfig { access_log_file: Some("/dev/stdout".into()), ..MeshConfig::default() });
    let listener = json(LISTENER, &lds::outbound::port(&index, &listener_view(), 80)[0]);
    assert_eq!(listener["access_log"][0]["name"], "envoy.access_loggers.stdout");
    assert_eq!(listener["access_log"][0]["filter"]["response_flag_filter"]["flags"], json!(["NR"]));
    let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(manager["access_log"][0]["filter"], Value::Null);
}
