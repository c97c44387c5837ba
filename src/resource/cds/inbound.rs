//! Clusters towards the proxy's own workload.

use landbridge_proto::envoy::config::{
    cluster::v3::{
        Cluster,
        cluster::{CommonLbConfig, DiscoveryType},
    },
    core::v3::{BindConfig, SocketAddress, socket_address},
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
    },
};

use super::{circuit_breakers, http, kind, original_dst, stat_name};
use crate::{
    index::Index,
    model::{destination_rule::ConnectionPool, node::Interception},
    resource::{
        Built, name,
        proto::{address, duration, list, metadata, nested, object, seconds, string},
    },
    view::{InboundPort, InboundView},
};

/// Connections to the workload come from here, so that capture lets them pass.
const INBOUND_SOURCE: &str = "127.0.0.6";
/// Istio's "never" for forgetting the one address of an inbound cluster: what Envoy's nanosecond clock can hold.
const NEVER_SECONDS: i64 = 9_223_372_035;

/// One cluster per inbound port, and the one for all other ports.
pub fn inbound(index: &Index, view: &InboundView) -> Vec<Built> {
    let mut built: Vec<_> = view.ports.iter().map(|port| inbound_port(index, view, port)).collect();
    if view.interception != Interception::None {
        let mut passthrough = original_dst(name::INBOUND_PASSTHROUGH, index.mesh());
        // Istio's name in statistics for both passthrough clusters.
        passthrough.alt_stat_name = stat_name(name::PASSTHROUGH);
        passthrough.upstream_bind_config = Some(from_source());
        passthrough.typed_extension_protocol_options = http::passthrough();
        built.push(Built::new(name::INBOUND_PASSTHROUGH, &passthrough, Vec::new()));
    }
    built
}

fn inbound_port(index: &Index, view: &InboundView, port: &InboundPort) -> Built {
    let name = name::inbound(port.target);
    let mesh = index.mesh();
    let mut cluster = match view.interception {
        Interception::Redirect | Interception::Tproxy => {
            let mut cluster = original_dst(&name, mesh);
            cluster.upstream_bind_config = Some(from_source());
            cluster.cleanup_interval = Some(seconds(NEVER_SECONDS));
            cluster.common_lb_config = Some(CommonLbConfig::default());
            cluster
        }
        // Nobody redirects, so there is no original address: the workload listens on the loopback interface and the
        // proxy on the pod's.
        Interception::None => Cluster {
            name: name.to_string(),
            alt_stat_name: stat_name(&name),
            cluster_discovery_type: Some(kind(DiscoveryType::Static)),
            connect_timeout: Some(duration(mesh.connect_timeout)),
            circuit_breakers: Some(circuit_breakers(&ConnectionPool::default())),
            load_assignment: Some(loopback(&name, port.target)),
            ..Default::default()
        },
    };
    let service = object([
        ("host", string(&port.service.host)),
        ("name", string(&port.service_name)),
        ("namespace", string(&port.service.namespace)),
    ]);
    cluster.metadata = Some(metadata([("istio", object([("services", list(vec![nested(service)]))]))]));
    if port.protocol.is_http2() {
        cluster.typed_extension_protocol_options = http::http2();
    } else if port.protocol == crate::model::port::Protocol::Auto {
        cluster.typed_extension_protocol_options = http::as_caller();
    }
    let sources = index.service(&port.service).map(|s| s.sources.clone()).unwrap_or_default();
    Built::new(name, &cluster, sources)
}

fn from_source() -> BindConfig {
    BindConfig {
        source_address: Some(SocketAddress {
            address: INBOUND_SOURCE.to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(0)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn loopback(name: &str, port: u16) -> ClusterLoadAssignment {
    let endpoint = Endpoint { address: Some(address("127.0.0.1", port)), ..Default::default() };
    let endpoint =
        LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..Default::default() };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
        ..Default::default()
    }
}
