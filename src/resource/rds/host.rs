//! A service's virtual host.

use std::borrow::Cow;

use landbridge_proto::envoy::{
    config::route::v3::{
        HeaderMatcher, RouteAction, VirtualHost,
        header_matcher::HeaderMatchSpecifier,
        route::Action,
        route_action::{
            ClusterSpecifier, HashPolicy,
            hash_policy::{ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter},
        },
    },
    r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
};

use super::{any_grpc_timeout, default_route, retry};
use crate::{
    index::{Index, Scope},
    model::{
        destination_rule::{HashKey, LbAlgorithm},
        mesh::HttpRetryPolicy,
        service::{Port, Service},
    },
    resource::{
        Built, name,
        policy::{self, Policy},
        proto::{duration, zero},
        template::{Templates, place},
    },
};

/// All that a virtual host says of its service but names, so that one template does for all services with the same
/// settings.
#[derive(Clone, PartialEq)]
struct Shape {
    policy: Policy,
    /// Of the mesh.
    retries: Option<HttpRetryPolicy>,
}

/// The places of its texts.
const NAME: u8 = 0;
const OPERATION: u8 = 1;
const CLUSTER: u8 = 2;
const DOMAINS: u8 = 3;

thread_local! {
    static TEMPLATES: Templates<Shape> = const { Templates::new() };
}

/// The virtual host of a port of a service, called by the prefix and its usual name.
pub fn build(
    index: &Index,
    scope: &Scope,
    service: &Service,
    port: &Port,
    prefix: &str,
    domains: &[Cow<str>],
) -> Built {
    let (policy, rule) = policy::effective(index, scope, service, port, None);
    let shape = Shape { policy, retries: index.mesh().http_retries.clone() };
    let host = &service.key.host;
    let operation = [prefix, host, ":", itoa::Buffer::new().format(port.number), "/*"].concat();
    let name = &operation[..operation.len() - "/*".len()];
    let cluster = name::outbound(port.number, "", host);
    let domains: Vec<_> = domains.iter().map(|domain| &**domain).collect();
    let texts = [&[name], &[&operation[prefix.len()..]], &[&*cluster], domains.as_slice()];
    let message = TEMPLATES.with(|templates| templates.fill(&shape, Shape::virtual_host, &texts));
    Built::of_bytes(name, message, policy::sources(service, rule))
}

impl Shape {
    /// With places for names.
    fn virtual_host(&self) -> VirtualHost {
        let retries = retry::retries(self.retries.as_ref(), &self.policy);
        let action = RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(place(CLUSTER))),
            timeout: Some(zero()),
            max_stream_duration: Some(any_grpc_timeout()),
            hash_policy: hash_policy(&self.policy),
            retry_policy: retries.any,
            ..Default::default()
        };
        let route = default_route(place(OPERATION), action.clone());
        let mut routes = Vec::new();
        if let Some(repeatable) = retries.repeatable {
            let mut first = route.clone();
            "repeatable".clone_into(&mut first.name);
            if let Some(m) = &mut first.r#match {
                m.headers.push(method_is(retry::REPEATABLE_METHODS));
            }
            first.action = Some(Action::Route(RouteAction { retry_policy: Some(repeatable), ..action }));
            routes.push(first);
        }
        routes.push(route);
        VirtualHost {
            name: place(NAME),
            domains: vec![place(DOMAINS)],
            routes,
            include_request_attempt_count: true,
            ..Default::default()
        }
    }
}

fn method_is(regex: &str) -> HeaderMatcher {
    let regex = RegexMatcher { regex: regex.to_owned(), ..Default::default() };
    let matcher = StringMatcher { match_pattern: Some(MatchPattern::SafeRegex(regex)), ..Default::default() };
    HeaderMatcher {
        name: ":method".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(matcher)),
        ..Default::default()
    }
}

fn hash_policy(policy: &Policy) -> Vec<HashPolicy> {
    let Some(LbAlgorithm::Hash(hash)) = policy.settings.load_balancer.as_ref().map(|lb| &lb.algorithm) else {
        return Vec::new();
    };
    let specifier = match &hash.key {
        HashKey::Header(name) => {
            PolicySpecifier::Header(Header { header_name: name.to_string(), ..Default::default() })
        }
        HashKey::Cookie { name, path, ttl } => PolicySpecifier::Cookie(Cookie {
            name: name.to_string(),
            path: path.to_string(),
            ttl: ttl.map(duration),
            ..Default::default()
        }),
        HashKey::SourceIp => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
        HashKey::QueryParameter(name) => {
            PolicySpecifier::QueryParameter(QueryParameter { name: name.to_string() })
        }
    };
    vec![HashPolicy { policy_specifier: Some(specifier), ..Default::default() }]
}
