use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::model::{
    NetworkId,
    gateway::{Gateway, ServerTlsMode},
    mesh::{HttpRetryPolicy, MeshConfig, Network},
    peer_authentication::{MtlsMode, PeerAuthentication},
    service::ExportTo,
};

fn peer_authentication(spec: &str) -> (Arc<PeerAuthentication>, Vec<String>) {
    let text = format!(
        "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata: {{name: p}}\nspec: {spec}"
    );
    match object(&text) {
        (_, Object::PeerAuthentication(policy), said) => (policy, said),
        other => panic!("{other:?}"),
    }
}

#[test]
fn peer_authentications() {
    let (p, said) = peer_authentication(
        "{selector: {matchLabels: {app: mixed}}, mtls: {mode: STRICT}, portLevelMtls: {'6000': {mode: DISABLE}, \
         7000: {mode: PERMISSIVE}, 8000: {}}}",
    );
    assert_eq!((p.mode, p.selector.clone()), (Some(MtlsMode::Strict), Some(labels(&[("app", "mixed")]))));
    let ports = [(6000, Some(MtlsMode::Disable)), (7000, Some(MtlsMode::Permissive)), (8000, None)];
    assert_eq!(p.ports, BTreeMap::from(ports));
    assert!(said.is_empty());
    for spec in ["{}", "{mtls: {}}", "{mtls: {mode: UNSET}, selector: {}}"] {
        let (p, said) = peer_authentication(spec);
        assert_eq!((p.mode, &p.selector, said.len()), (None, &None, 0), "{spec}");
    }
    let (p, said) = peer_authentication("{mtls: {mode: STRICT}, portLevelMtls: {'8080': {mode: DISABLE}}}");
    assert!(p.ports.is_empty());
    assert_said(&said, &["spec.portLevelMtls", "need a workload selector", "matchLabels"]);
    let text = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p}}\nspec: {spec}"
        )
    };
    assert_refused(&[
        (&text("{mtls: {mode: STRIKT}}"), &["spec.mtls.mode", "did you mean STRICT?"]),
        (&text("{portLevelMtls: {http: {}}}"), &["spec.portLevelMtls.http", "no port number"]),
        (&text("{portLevelMtls: {70000: {}}}"), &["70000"]),
    ]);
}

fn gateway_text(servers: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: Gateway\nmetadata: {{name: g, namespace: istio-system}}\n\
         spec: {{selector: {{istio: eastwestgateway}}, servers: {servers}}}"
    )
}

fn gateway(servers: &str) -> (Arc<Gateway>, Vec<String>) {
    match object(&gateway_text(servers)) {
        (_, Object::Gateway(gateway), said) => (gateway, said),
        other => panic!("{other:?}"),
    }
}

#[test]
fn gateways() {
    let (g, said) = gateway(
        "[{port: {number: 15443, name: tls, protocol: TLS}, tls: {mode: AUTO_PASSTHROUGH}, hosts: ['*.local']}, \
         {port: {number: 80, protocol: http}, tls: {httpsRedirect: true}, hosts: [./a.example, 'prod/*', '*/b']}, \
         {port: {number: 443, protocol: HTTPS}, tls: {}, hosts: ['*']}]",
    );
    assert_eq!(g.selector, labels(&[("istio", "eastwestgateway")]));
    assert_eq!((g.servers[0].port, g.servers[0].tls), (15443, Some(ServerTlsMode::AutoPassthrough)));
    let pair = |a: &str, b: &str| (Arc::from(a), Arc::from(b));
    assert_eq!(g.servers[0].hosts, [pair("*", "*.local")]);
    assert_eq!((&*g.servers[1].protocol, g.servers[1].tls), ("HTTP", None));
    assert_eq!(g.servers[1].hosts, [pair("istio-system", "a.example"), pair("prod", "*"), pair("*", "b")]);
    assert_eq!(g.servers[2].tls, Some(ServerTlsMode::Passthrough));
    assert_said(&said[..1], &["spec.servers[1]", "nothing listens on port 80", "Istio's gateway"]);
    assert_eq!(said.len(), 2, "the AUTO_PASSTHROUGH one is served: {said:?}");
    let (_, said) =
        gateway("[{port: {number: 15012, protocol: tls}, tls: {mode: PASSTHROUGH}, hosts: ['*']}]");
    assert_said(&said, &["port 15012", "exposeControlPlane", "--forward"]);
    let server = |server: &str| gateway_text(&format!("[{server}]"));
    assert_refused(&[
        (&gateway_text("[]"), &["spec.servers: is empty"]),
        (&server("{hosts: [a]}"), &["spec.servers[0].port: is missing"]),
        (&server("{port: {number: 1, protocol: TLS}, hosts: [a]}"), &["servers[0].tls: is missing"]),
        (
            &server("{port: {number: 1, protocol: TLS}, tls: {mode: AUTOPASSTHROUGH}, hosts: [a]}"),
            &["tls.mode", "did you mean AUTO_PASSTHROUGH?"],
        ),
        (
            &server("{port: {number: 1, protocol: HTPP}, hosts: [a]}"),
            &["port.protocol", "did you mean HTTP?"],
        ),
        (&server("{port: {number: 0, protocol: HTTP}, hosts: [a]}"), &["port.number: 0"]),
        (&server("{port: {number: 1, protocol: HTTP}, hosts: ['a.*.b']}"), &["hosts[0]", "first label"]),
        (&server("{port: {number: 1, protocol: HTTP}}"), &["hosts: is empty"]),
        (
            &server("{port: {protocol: HTTP}, hosts: [a]}"),
            &["spec.servers[0].port", "missing field `number`"],
        ),
    ]);
}

fn mesh_text(mesh: &str) -> String {
    let indented = mesh.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |-\n{indented}"
    )
}

fn mesh(text: &str) -> (Arc<MeshConfig>, Vec<String>) {
    match object(text) {
        (key, Object::MeshConfig(mesh), said) => {
            assert_eq!(key.to_string(), "east/istio-system/MeshConfig/istio");
            (mesh, said)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn mesh_config_with_everything() {
    let (m, said) = mesh(&mesh_text(
        "trustDomain: company.com
trustDomainAliases: [old.com]
rootNamespace: istio-system
defaultConfig: {meshId: company-mesh, proxyMetadata: {ISTIO_META_DNS_CAPTURE: 'true'}}
outboundTrafficPolicy: {mode: REGISTRY_ONLY}
enableAutoMtls: false
connectTimeout: 2s
protocolDetectionTimeout: 0s
defaultServiceExportTo: ['.']
defaultDestinationRuleExportTo: ['~']
localityLbSetting: {enabled: false}
defaultTrafficPolicy: {outlierDetection: {consecutive5xxErrors: 7}}
defaultHttpRetryPolicy: {attempts: 0}
serviceSettings: [{settings: {clusterLocal: true}, hosts: ['*.dev.svc.cluster.local']}]
accessLogFile: /dev/stdout
accessLogEncoding: JSON
h2UpgradePolicy: UPGRADE
proxyListenPort: 16001
",
    ));
    assert!(said.is_empty(), "{said:?}");
    assert_eq!((&*m.trust_domain, m.trust_domain_aliases.len()), ("company.com", 1));
    assert!(m.registry_only && !m.auto_mtls && m.h2_upgrade && m.access_log_json && m.locality_lb.is_none());
    assert_eq!((m.connect_timeout, m.outbound_port, m.inbound_port), (Duration::from_secs(2), 16001, 15006));
    assert_eq!(m.default_service_export_to, ExportTo::Namespaces(["istio-system".into()].into()));
    assert_eq!(m.default_rule_export_to, ExportTo::Nobody);
    assert_eq!(m.outlier_detection.as_ref().unwrap().consecutive_5xx, Some(7));
    assert_eq!(m.http_retries, Some(HttpRetryPolicy { attempts: 0, retry_on: None, per_try_timeout: None }));
    assert_eq!(m.cluster_local, [("*.dev.svc.cluster.local".into(), true)]);
}

#[test]
fn mesh_config_with_little_or_wrong() {
    let (m, said) = mesh(&mesh_text("{}\n"));
    assert_eq!((*m).clone(), MeshConfig::default());
    assert!(said.is_empty());
    let (_, said) = mesh(&mesh_text("enableTracing: true\ntrustdomain: a\nconnectTimeout: 5\n"));
    assert_said(&said, &["data.mesh.enableTracing", "enableTracing, trustdomain"]);
    assert_said(&said, &["data.mesh.connectTimeout", "write 5s"]);
    assert_refused(&[
        (&mesh_text("trustDomain: [\n"), &["data.mesh", "line"]),
        (
            &mesh_text("outboundTrafficPolicy: {mode: REGISTRYONLY}\n"),
            &["data.mesh.outboundTrafficPolicy.mode", "REGISTRY_ONLY?"],
        ),
        (&mesh_text("connectTimeout: {}\n"), &["data.mesh.connectTimeout"]),
        (&mesh_text("proxyListenPort: 0\n"), &["data.mesh.proxyListenPort"]),
    ]);
    let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: elsewhere}";
    assert_eq!(read(other), Outcome::NotRead("v1/ConfigMap".into()));
}

#[test]
fn mesh_networks() {
    let networks = |text: &str| format!("{}  meshNetworks: '{text}'\n", mesh_text("{}\n"));
    let (m, said) = mesh(&networks(
        "networks: {n1: {endpoints: [{fromRegistry: east}, {fromCidr: 10.0.0.0/8}], gateways: [{address: 1.2.3.4, \
         port: 15443}, {address: GW.example}, {registryServiceName: gw, port: 1}]}, n2: {}}",
    ));
    let gateways = vec![("1.2.3.4".into(), 15443), ("gw.example".into(), 15443)];
    let n1 = Network { registries: vec!["east".into()], gateways };
    let expected = [(NetworkId::from("n1"), n1), (NetworkId::from("n2"), Network::default())];
    assert_eq!(m.networks, BTreeMap::from(expected));
    assert_said(&said, &["data.meshNetworks.networks.n1.endpoints[1].fromCidr", "fromRegistry"]);
    assert_said(&said, &["gateways[2].registryServiceName", "topology.istio.io/network"]);
    assert_refused(&[(
        &networks("networks: {n1: {gateways: [{address: a, port: 70000}]}}"),
        &["gateways[0].port"],
    )]);
}
