//! What clusters speak: HTTP/1.1, HTTP/2, or whatever the caller does.

use std::collections::BTreeMap;

use landbridge_proto::envoy::{
    config::core::v3 as core,
    extensions::upstreams::http::v3::{
        HttpProtocolOptions,
        http_protocol_options::{
            ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
            explicit_http_config::ProtocolConfig,
        },
    },
};
use prost_types::Any;

use super::shape::{Shape, Transport};
use crate::{
    model::{
        destination_rule::ConnectionPool,
        mesh::MeshConfig,
        port::{ListenerClass, Protocol},
    },
    resource::proto::{any, duration, seconds},
};

const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Of the passthrough clusters: as the caller speaks; idle connections go after Istio's five minutes.
pub fn passthrough() -> BTreeMap<String, Any> {
    options(&HttpProtocolOptions {
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: Some(seconds(300)),
            ..Default::default()
        }),
        upstream_protocol_options: Some(as_downstream(core::Http2ProtocolOptions::default())),
        ..Default::default()
    })
}

/// HTTP/2 only.
pub fn http2() -> BTreeMap<String, Any> {
    let http2 = ProtocolConfig::Http2ProtocolOptions(core::Http2ProtocolOptions::default());
    options(&HttpProtocolOptions { upstream_protocol_options: Some(explicit(http2)), ..Default::default() })
}

/// HTTP as the caller speaks it.
pub fn as_caller() -> BTreeMap<String, Any> {
    options(&HttpProtocolOptions {
        upstream_protocol_options: Some(as_downstream(core::Http2ProtocolOptions::default())),
        ..Default::default()
    })
}

/// Whether a cluster always speaks HTTP/2.
pub fn only_http2(mesh: &MeshConfig, protocol: Protocol, pool: Option<&ConnectionPool>) -> bool {
    let upgrade = pool.and_then(|p| p.h2_upgrade).unwrap_or(mesh.h2_upgrade);
    let by_client = pool.is_some_and(|p| p.use_client_protocol);
    let http = protocol.listener_class() == ListenerClass::Http;
    protocol.is_http2() || (upgrade && http && !by_client)
}

impl Shape {
    /// Empty where Envoy's default, HTTP/1.1, is meant and nothing else is said.
    pub(super) fn http_options(&self) -> BTreeMap<String, Any> {
        let sni_by_host = self.sni_by_host();
        let pool = self.policy.settings.connection_pool.clone().unwrap_or_default();
        let http2_options = core::Http2ProtocolOptions {
            max_concurrent_streams: pool.max_concurrent_streams,
            ..Default::default()
        };
        let idle_timeout = pool.http_idle_timeout.or(pool.tcp_idle_timeout).map(duration);
        let common = (idle_timeout.is_some() || pool.max_requests_per_connection.is_some()).then(|| {
            core::HttpProtocolOptions {
                idle_timeout,
                max_requests_per_connection: pool.max_requests_per_connection,
                ..Default::default()
            }
        });
        let by_caller = pool.use_client_protocol || self.finds_out_protocol;
        if !self.http2 && !by_caller && common.is_none() && sni_by_host.is_none() {
            return BTreeMap::new();
        }
        let upstream = if self.http2 {
            explicit(ProtocolConfig::Http2ProtocolOptions(http2_options))
        } else if by_caller {
            as_downstream(http2_options)
        } else {
            explicit(ProtocolConfig::HttpProtocolOptions(core::Http1ProtocolOptions::default()))
        };
        options(&HttpProtocolOptions {
            common_http_protocol_options: common,
            upstream_http_protocol_options: sni_by_host,
            upstream_protocol_options: Some(upstream),
            ..Default::default()
        })
    }

    /// A rule with TLS but no SNI means that of the request's host, checked if nothing else is.
    fn sni_by_host(&self) -> Option<core::UpstreamHttpProtocolOptions> {
        let tls = self.policy.settings.tls.as_ref();
        let tls = tls.filter(|tls| self.transport == Transport::ByRule && tls.sni.is_none())?;
        Some(core::UpstreamHttpProtocolOptions {
            auto_sni: true,
            auto_san_validation: tls.subject_alt_names.is_empty() && !tls.insecure_skip_verify,
            ..Default::default()
        })
    }
}

fn as_downstream(http2: core::Http2ProtocolOptions) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
        http_protocol_options: Some(core::Http1ProtocolOptions::default()),
        http2_protocol_options: Some(http2),
        http3_protocol_options: None,
    })
}

fn explicit(config: ProtocolConfig) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
}

fn options(options: &HttpProtocolOptions) -> BTreeMap<String, Any> {
    BTreeMap::from([(KEY.to_owned(), any(KEY, options))])
}
