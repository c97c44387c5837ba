use landbridge_proto::envoy::config::core::v3::{BuildVersion, Extension, Locality as LocalityProto};

use super::*;

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.into())) }
}

fn object(pairs: &[(&str, Value)]) -> Struct {
    Struct { fields: pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect() }
}

fn node(id: &str, pairs: &[(&str, Value)]) -> Node {
    Node { id: id.into(), metadata: Some(object(pairs)), ..Node::default() }
}

const SIDECAR: &str = "sidecar~10.1.0.7~web-1.shop~shop.svc.cluster.local";

#[test]
fn a_sidecar_of_istios_agent() {
    let labels = Value { kind: Some(Kind::StructValue(object(&[("app", text("web")), ("n", text(""))]))) };
    let config = Value { kind: Some(Kind::StructValue(Struct::default())) };
    let mut node = node(
        SIDECAR,
        &[
            ("NAMESPACE", text("shop")),
            ("SERVICE_ACCOUNT", text("web")),
            ("CLUSTER_ID", text("east")),
            ("NETWORK", text("n1")),
            ("INSTANCE_IPS", text("10.1.0.7, fd00::7")),
            ("REQUESTED_NETWORK_VIEW", text("n1,n2")),
            ("LABELS", labels),
            ("ISTIO_VERSION", text("1.30.0")),
            ("PROXY_CONFIG", config),
            ("ENVOY_STATUS_PORT", Value { kind: Some(Kind::NumberValue(15021.0)) }),
            ("NODE_NAME", text("worker-1")),
        ],
    );
    node.locality = Some(LocalityProto { region: "eu".into(), zone: "a".into(), sub_zone: String::new() });
    node.extensions = vec![
        Extension { name: "istio.alpn".into(), ..Default::default() },
        Extension { name: "istio.stats".into(), disabled: true, ..Default::default() },
        Extension { name: "istio.metadata_exchange".into(), ..Default::default() },
    ];
    let proxy = proxy(Some(&node)).unwrap();
    assert_eq!(&*proxy.id, "web-1.shop");
    assert_eq!((&*proxy.name, &*proxy.namespace), ("web-1", "shop"));
    assert_eq!(proxy.kind, ProxyKind::Sidecar);
    assert_eq!(proxy.ips, ["10.1.0.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
    assert_eq!(proxy.cluster.as_str(), "east");
    assert_eq!(proxy.requested_networks, Some([NetworkId::from("n1"), NetworkId::from("n2")].into()));
    assert_eq!(proxy.labels.get("app").map(|v| &**v), Some("web"));
    assert_eq!(proxy.locality, Locality::new("eu", "a", ""));
    assert_eq!(proxy.secrets, SecretSource::Agent);
    assert_eq!(proxy.interception, Interception::Redirect);
    assert_eq!(proxy.extensions, Extensions { alpn: true, metadata_exchange: false, stats: false });
    assert_eq!(proxy.node.as_deref(), Some("worker-1"));
}

#[test]
fn what_is_missing_comes_from_the_id() {
    let p = proxy(Some(&node(SIDECAR, &[]))).unwrap();
    assert_eq!((&*p.name, &*p.namespace, &*p.dns_domain), ("web-1", "shop", "shop.svc.cluster.local"));
    assert_eq!(p.secrets, SecretSource::Ads);
    assert_eq!((p.cluster.as_str(), p.network.as_str()), ("", ""));
    let p = proxy(Some(&node("router~10.0.0.1~gw.x.edge~local", &[]))).unwrap();
    assert_eq!((p.kind, &*p.namespace, &*p.name), (ProxyKind::Router, "edge", "gw.x"));
    let p = proxy(Some(&node(SIDECAR, &[("INSTANCE_IPS", text("10.0.0.1,nonsense"))]))).unwrap();
    assert_eq!(p.ips, ["10.1.0.7".parse::<IpAddr>().unwrap()], "one bad address voids the list");
}

#[test]
fn a_plain_envoy_says_the_rest_in_metadata() {
    let p = proxy(Some(&node("envoy-1", &[("NAMESPACE", text("shop")), ("INSTANCE_IPS", text("10.0.0.1"))])));
    let p = p.unwrap();
    assert_eq!((&*p.id, &*p.name, &*p.namespace), ("envoy-1", "envoy-1", "shop"));
    assert_eq!(&*p.dns_domain, "shop.svc.cluster.local");
}

#[test]
fn the_locality_label_is_stronger_than_the_nodes() {
    let labels = Value { kind: Some(Kind::StructValue(object(&[("istio-locality", text("us.west.r1"))]))) };
    let mut node = node(SIDECAR, &[("LABELS", labels)]);
    node.locality = Some(LocalityProto { region: "eu".into(), ..Default::default() });
    assert_eq!(proxy(Some(&node)).unwrap().locality, Locality::new("us", "west", "r1"));
}

#[test]
fn refusals_say_what_to_send() {
    let long = "x".repeat(100_000);
    let cases: &[(Option<Node>, &str)] = &[
        (None, "no node"),
        (Some(node("", &[])), "node.id"),
        (Some(node("sidecar~10.0.0.1~a.b", &[])), "3 parts"),
        (Some(node("~~~~~", &[])), "6 parts"),
        (Some(node("waypoint~10.0.0.1~a.b~c.d", &[])), "`sidecar` and `router`"),
        (Some(node("sidecar~ten~a.b~b.svc", &[])), "INSTANCE_IPS"),
        (Some(node("sidecar~10.0.0.1~a~local", &[])), "NAMESPACE"),
        (Some(node("plain", &[("NAMESPACE", text("a"))])), "INSTANCE_IPS"),
        (Some(node(SIDECAR, &[("INTERCEPTION_MODE", text("MAYBE"))])), "TPROXY"),
        (Some(node(SIDECAR, &[("LABELS", text("a=b"))])), "an object of strings"),
        (
            Some(node(SIDECAR, &[("NETWORK", Value { kind: Some(Kind::StructValue(Struct::default())) })])),
            "send a string",
        ),
        (Some(node(SIDECAR, &[("CLUSTER_ID", text(&long))])), "CLUSTER_ID of the node is too large"),
        (Some(node(&long, &[])), "the id of the node is too large"),
        (
            Some(node(SIDECAR, &[("OTHER", text(&"x".repeat(2 << 20)))])),
            "the message of the node is too large",
        ),
    ];
    for (node, expected) in cases {
        let error = proxy(node.as_ref()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} should say {expected:?}");
        assert!(error.len() < 500, "{} bytes", error.len());
    }
}

fn envoy(major: u32, minor: u32, pairs: &[(&str, Value)]) -> Node {
    let version = landbridge_proto::envoy::r#type::v3::SemanticVersion {
        major_number: major,
        minor_number: minor,
        patch: 0,
    };
    let build = BuildVersion { version: Some(version), metadata: None };
    Node {
        user_agent_name: "envoy".into(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(build)),
        ..node(SIDECAR, pairs)
    }
}

#[test]
fn virtual_hosts_come_one_by_one_where_version_and_operator_allow_it() {
    use VirtualHosts::{OneByOne, Together};
    let of = |node: &Node, offered| virtual_hosts(Some(node), offered).unwrap();
    assert_eq!((of(&envoy(1, 40, &[]), true), of(&envoy(1, 40, &[]), false)), (OneByOne, Together));
    assert_eq!((of(&envoy(1, 36, &[]), true), of(&node(SIDECAR, &[]), true)), (Together, Together));
    assert_eq!(of(&envoy(2, 0, &[]), true), OneByOne);
    let asks = |value| envoy(1, 36, &[("ENABLE_VHDS", text(value))]);
    assert_eq!((of(&asks("true"), false), of(&asks("false"), true)), (OneByOne, Together));
    let error = virtual_hosts(Some(&asks("maybe")), true).unwrap_err().to_string();
    assert!(error.contains("ENABLE_VHDS") && error.contains("true or false"), "{error}");
}

#[test]
fn endpoints_come_one_by_one_where_version_and_operator_allow_it() {
    let of = |node: &Node, offered| endpoints_one_by_one(Some(node), offered).unwrap();
    assert_eq!((of(&envoy(1, 38, &[]), true), of(&envoy(1, 38, &[]), false)), (true, false));
    assert_eq!((of(&envoy(1, 37, &[]), true), of(&node(SIDECAR, &[]), true)), (false, false));
    let asks = |value| envoy(1, 37, &[("ENABLE_LEDS", text(value))]);
    assert_eq!((of(&asks("true"), false), of(&asks("false"), true)), (true, false));
    let error = endpoints_one_by_one(Some(&asks("")), true).map(|_| ());
    assert_eq!(error, Ok(()), "an empty value says nothing");
}
