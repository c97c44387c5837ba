//! What is written and read by hand, against the generated messages.

use landbridge_proto::envoy::{
    config::{
        cluster::v3::{Cluster, cluster},
        core::v3::{
            AggregatedConfigSource, ConfigSource, Node as NodeMessage, TransportSocket,
            config_source::ConfigSourceSpecifier, transport_socket,
        },
        endpoint::v3::{
            ClusterLoadAssignment, LedsClusterLocalityConfig, LocalityLbEndpoints,
            locality_lb_endpoints::LbConfig,
        },
        listener::v3::{Filter, FilterChain, Listener, filter},
        route::v3::{RouteConfiguration, Vhds},
    },
    extensions::{
        filters::network::http_connection_manager::v3::{
            HttpConnectionManager, Rds, http_connection_manager::RouteSpecifier,
        },
        transport_sockets::tls::v3::{CommonTlsContext, SdsSecretConfig, UpstreamTlsContext},
    },
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
    },
};
use proptest::prelude::*;
use prost::Message;
use prost_types::{Any, value::Kind};

use super::{
    TYPES,
    discovery::{self, Common},
    links::{Links, links},
    node::{Metadata, Node},
    type_of, type_url,
};
use crate::expect::Type;

fn packed(url: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{url}"), value: message.encode_to_vec() }
}

fn ads() -> ConfigSource {
    let ads = ConfigSourceSpecifier::Ads(AggregatedConfigSource {});
    ConfigSource { config_source_specifier: Some(ads), ..ConfigSource::default() }
}

#[test]
fn types_have_their_urls() {
    for kind in TYPES {
        assert_eq!(type_of(type_url(kind)), Some(kind));
        assert_eq!(super::from_short_name(super::short_name(kind)), Some(kind));
    }
    assert_eq!(type_of("type.googleapis.com/envoy.config.core.v3.Node"), None);
}

#[test]
fn requests_are_what_servers_read() {
    let common = Common { node: Some(b"\x0a\x02id"), type_url: "t", nonce: "n", refused: Some("why") };
    let request =
        discovery::delta_request(common, ["a", "b"].into_iter(), ["c"].into_iter(), [("d", "1")].into_iter());
    let request = DeltaDiscoveryRequest::decode(&*request).unwrap();
    assert_eq!(request.node.unwrap().id, "id");
    assert_eq!((request.resource_names_subscribe.len(), &*request.resource_names_unsubscribe[0]), (2, "c"));
    assert_eq!(request.initial_resource_versions.get("d").map(|v| &**v), Some("1"));
    assert_eq!((&*request.response_nonce, request.error_detail.unwrap().message), ("n", "why".to_owned()));

    let request = discovery::sotw_request(common, "v", ["a"].into_iter());
    let request = DiscoveryRequest::decode(&*request).unwrap();
    assert_eq!((&*request.version_info, &*request.type_url, &*request.resource_names[0]), ("v", "t", "a"));
    assert_eq!((request.node.unwrap().id, request.error_detail.unwrap().code), ("id".to_owned(), 3));
}

#[test]
fn responses_of_servers_are_read() {
    let cluster = Cluster { name: "a".into(), ..Cluster::default() };
    let body = packed("envoy.config.cluster.v3.Cluster", &cluster);
    let resource = Resource {
        name: "a".into(),
        version: "7".into(),
        resource: Some(body.clone()),
        ..Resource::default()
    };
    let delta = DeltaDiscoveryResponse {
        type_url: "t".into(),
        nonce: "n".into(),
        system_version_info: "w".into(),
        resources: vec![resource.clone()],
        removed_resources: vec!["b".into()],
        ..DeltaDiscoveryResponse::default()
    }
    .encode_to_vec();
    let read = discovery::delta_response(&delta).unwrap();
    assert_eq!((read.type_url, read.nonce, read.version, &read.removed[..]), ("t", "n", "w", &["b"][..]));
    assert_eq!((read.resources[0].name, read.resources[0].version), ("a", "7"));
    assert_eq!(read.resources[0].body, Some(&*cluster.encode_to_vec()));

    let wrapped = packed("envoy.service.discovery.v3.Resource", &resource);
    let sotw = DiscoveryResponse {
        version_info: "v".into(),
        resources: vec![body, wrapped],
        type_url: "t".into(),
        nonce: "n".into(),
        ..DiscoveryResponse::default()
    }
    .encode_to_vec();
    let read = discovery::sotw_response(&sotw).unwrap();
    assert_eq!((read.version, read.resources.len()), ("v", 2));
    assert!(read.resources.iter().all(|r| r.name == "a" && r.body == Some(&*cluster.encode_to_vec())));
}

#[test]
fn nodes_are_what_servers_read() {
    let labels = Metadata::Struct([("app".to_owned(), "shop".into())].into());
    let node = Node {
        id: "sidecar~10.0.0.1~p.ns~ns.svc".into(),
        cluster: "shop.ns".into(),
        metadata: [("NAMESPACE".to_owned(), "ns".into()), ("LABELS".to_owned(), labels)].into(),
        locality: ["r".into(), "z".into(), String::new()],
    };
    let read = NodeMessage::decode(&*node.encode()).unwrap();
    assert_eq!((&*read.id, &*read.cluster, &*read.user_agent_name), (&*node.id, "shop.ns", "envoy"));
    let locality = read.locality.unwrap();
    assert_eq!((&*locality.region, &*locality.zone, &*locality.sub_zone), ("r", "z", ""));
    let metadata = read.metadata.unwrap().fields;
    assert_eq!(metadata["NAMESPACE"].kind, Some(Kind::StringValue("ns".into())));
    let Some(Kind::StructValue(labels)) = &metadata["LABELS"].kind else { panic!("labels are a struct") };
    assert_eq!(labels.fields["app"].kind, Some(Kind::StringValue("shop".into())));
}

#[test]
fn links_are_found_where_envoy_finds_them() {
    let secret = |name: &str, source| SdsSecretConfig { name: name.into(), sds_config: source };
    let context = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![secret("default", Some(ads())), secret("agent", None)],
            ..CommonTlsContext::default()
        }),
        ..UpstreamTlsContext::default()
    };
    let context = packed("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", &context);
    let socket = TransportSocket {
        name: "tls".into(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(context)),
    };
    let cluster = |service_name: &str, kind: cluster::DiscoveryType| {
        let config = cluster::EdsClusterConfig { eds_config: Some(ads()), service_name: service_name.into() };
        let cluster = Cluster {
            name: "c".into(),
            cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(kind as i32)),
            eds_cluster_config: Some(config),
            transport_socket: Some(socket.clone()),
            ..Cluster::default()
        };
        links(Type::Cluster, &cluster.encode_to_vec()).unwrap().names
    };
    let secrets = (Type::Secret, "default".to_owned());
    let eds = cluster::DiscoveryType::Eds;
    assert_eq!(cluster("svc", eds), [secrets.clone(), (Type::Endpoint, "svc".to_owned())]);
    assert_eq!(cluster("", eds), [secrets.clone(), (Type::Endpoint, "c".to_owned())]);
    assert_eq!(cluster("svc", cluster::DiscoveryType::OriginalDst), [secrets]);

    let rds = |name: &str| {
        let rds = Rds { config_source: Some(ads()), route_config_name: name.into() };
        let manager = HttpConnectionManager {
            route_specifier: Some(RouteSpecifier::Rds(rds)),
            ..HttpConnectionManager::default()
        };
        let manager = packed(
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            &manager,
        );
        let filter =
            Filter { name: "hcm".into(), config_type: Some(filter::ConfigType::TypedConfig(manager)) };
        FilterChain { filters: vec![filter], ..FilterChain::default() }
    };
    let listener = Listener {
        filter_chains: vec![rds("80"), rds("80"), rds("8080")],
        default_filter_chain: Some(rds("other")),
        ..Listener::default()
    };
    let found = links(Type::Listener, &listener.encode_to_vec()).unwrap().names;
    assert_eq!(found, ["80", "8080", "other"].map(|name| (Type::Route, name.to_owned())));

    let leds = LedsClusterLocalityConfig { leds_config: Some(ads()), leds_collection_name: "x/*".into() };
    let leds = Some(LbConfig::LedsClusterLocalityConfig(leds));
    let locality = LocalityLbEndpoints { lb_config: leds, ..LocalityLbEndpoints::default() };
    let assignment = ClusterLoadAssignment { endpoints: vec![locality], ..ClusterLoadAssignment::default() };
    let found = links(Type::Endpoint, &assignment.encode_to_vec()).unwrap();
    assert_eq!(found.names, [(Type::LbEndpoint, "x/*".to_owned())]);

    let route = RouteConfiguration {
        vhds: Some(Vhds { config_source: Some(ads()) }),
        ..RouteConfiguration::default()
    };
    let found = links(Type::Route, &route.encode_to_vec()).unwrap();
    assert_eq!(found, Links { virtual_hosts: true, ..Links::default() });
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = discovery::delta_response(&bytes);
        let _ = discovery::sotw_response(&bytes);
        for kind in TYPES {
            let _ = links(kind, &bytes);
        }
        let _ = super::assignment::of_assignment(&bytes, |_| {});
    }
}
