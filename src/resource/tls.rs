//! TLS contexts: the mesh's own mutual TLS on both sides, and what destination rules ask for.
//!
//! ALPN is where stock Envoy and Istio's build part (measured, `envoy.md` 3). Istio's filter `istio.alpn` rewrites what a
//! client offers by the request's protocol; without it a client offers `istio` only, by which the server's filter chain
//! is chosen, plus `h2` where the cluster always speaks HTTP/2. A server answers `h2` or `http/1.1` and never an istio
//! name: a negotiated name other than `h2` would pin the server's codec to HTTP/1.1.

use std::{collections::BTreeSet, sync::Arc};

use landbridge_proto::envoy::{
    config::core::v3::{
        ApiConfigSource, ApiVersion, ConfigSource, DataSource, GrpcService, TransportSocket,
        api_config_source, config_source, data_source, grpc_service, transport_socket,
    },
    extensions::transport_sockets::{
        raw_buffer::v3::RawBuffer,
        tls::v3::{
            CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
            SubjectAltNameMatcher, TlsCertificate, TlsParameters, UpstreamTlsContext,
            certificate_validation_context::TrustChainVerification,
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
            subject_alt_name_matcher::SanType,
            tls_parameters::TlsProtocol,
        },
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

use super::proto::{ads, any, zero};
use crate::model::{
    destination_rule::{ClientTls, ClientTlsMode},
    endpoint::ServiceEndpoints,
    mesh::MeshConfig,
    node::{Extensions, SecretSource},
    service::Service,
};

/// The proxy's own certificate and key.
const OWN_SECRET: &str = "default";
/// The roots that it trusts.
const ROOT_SECRET: &str = "ROOTCA";
/// Where Debian and its descendants keep the public roots; for SIMPLE without `caCertificates` on a proxy without
/// Istio's agent, which would look for the file itself.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// What Istio allows on the server's side with TLS 1.2.
const CIPHERS: &[&str] = &[
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// What a client's mutual TLS towards one port of a service needs to know.
pub struct Upstream {
    /// Server name to send.
    pub sni: String,
    /// Identities that may answer; empty accepts any of the mesh.
    pub identities: Vec<String>,
    /// The cluster always speaks HTTP/2.
    pub http2: bool,
    /// Where the certificate comes from.
    pub secrets: SecretSource,
    /// Which of Istio's filters the proxy has.
    pub extensions: Extensions,
}

/// Who may answer for a service ("secure naming"): the identities of its endpoints in all clusters and those that it
/// names itself, in every trust domain of the mesh. Sorted.
pub fn identities(service: &Service, endpoints: &ServiceEndpoints, mesh: &MeshConfig) -> Vec<String> {
    let domains: Vec<_> = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases).collect();
    let mut all = BTreeSet::new();
    for identity in endpoints.identities().chain(&service.extra_identities) {
        all.insert(identity.to_string());
        let Some((domain, path)) = identity.strip_prefix("spiffe://").and_then(|i| i.split_once('/')) else {
            continue;
        };
        if domains.iter().any(|d| ***d == *domain) {
            all.extend(domains.iter().map(|d| format!("spiffe://{d}/{path}")));
        }
    }
    all.into_iter().collect()
}

/// Mutual TLS with the mesh's certificates, as a client.
pub fn upstream_mutual(upstream: Upstream) -> TransportSocket {
    let mut alpn = Vec::new();
    if upstream.extensions.metadata_exchange {
        alpn.push("istio-peer-exchange");
    }
    alpn.push("istio");
    if upstream.http2 {
        alpn.push("h2");
    }
    let common = CommonTlsContext {
        tls_params: Some(protocol_versions()),
        tls_certificate_sds_secret_configs: vec![secret(OWN_SECRET, upstream.secrets)],
        validation_context_type: Some(trust(
            upstream.identities.into_iter().map(MatchPattern::Exact),
            upstream.secrets,
        )),
        alpn_protocols: strings(&alpn),
        ..Default::default()
    };
    upstream_socket(UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: upstream.sni,
        ..Default::default()
    })
}

/// TLS as a destination rule asks for it: SIMPLE or MUTUAL.
pub fn upstream_by_rule(tls: &ClientTls, http2: bool, secrets: SecretSource) -> TransportSocket {
    let files = tls.files.clone().unwrap_or_default();
    let sans: Vec<_> = tls.subject_alt_names.iter().map(|san| MatchPattern::Exact(san.to_string())).collect();
    let mut common = CommonTlsContext {
        alpn_protocols: if http2 { strings(&["h2"]) } else { Vec::new() },
        ..Default::default()
    };
    if let (ClientTlsMode::Mutual, Some((chain, key))) = (tls.mode, &files.certificate) {
        match secrets {
            SecretSource::Agent => {
                let name = format!("file-cert:{chain}~{key}");
                common.tls_certificate_sds_secret_configs = vec![secret(&name, secrets)];
            }
            SecretSource::Ads => {
                common.tls_certificates = vec![TlsCertificate {
                    certificate_chain: Some(file(chain)),
                    private_key: Some(file(key)),
                    ..Default::default()
                }];
            }
        }
    }
    common.validation_context_type = Some(if tls.insecure_skip_verify {
        ValidationContextType::ValidationContext(CertificateValidationContext {
            trust_chain_verification: TrustChainVerification::AcceptUntrusted.into(),
            ..Default::default()
        })
    } else {
        match (secrets, &files.ca) {
            (SecretSource::Agent, ca) => {
                let name = format!("file-root:{}", ca.as_deref().unwrap_or("system"));
                combined(san_matchers(sans, false), secret(&name, secrets))
            }
            (SecretSource::Ads, ca) => {
                ValidationContextType::ValidationContext(CertificateValidationContext {
                    trusted_ca: Some(file(
                        ca.as_deref().filter(|ca| *ca != "system").unwrap_or(SYSTEM_ROOTS),
                    )),
                    match_typed_subject_alt_names: san_matchers(sans, false),
                    ..Default::default()
                })
            }
        }
    });
    upstream_socket(UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: tls.sni.as_deref().unwrap_or_default().to_owned(),
        ..Default::default()
    })
}

/// Mutual TLS with the mesh's certificates, as a server. `peer_exchange`: a TCP chain of a proxy that exchanges metadata
/// on connections.
pub fn downstream_mutual(mesh: &MeshConfig, secrets: SecretSource, peer_exchange: bool) -> TransportSocket {
    let domains: BTreeSet<&Arc<str>> =
        std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases).collect();
    let prefixes = domains.into_iter().map(|d| MatchPattern::Prefix(format!("spiffe://{d}/")));
    let alpn: &[&str] =
        if peer_exchange { &["istio-peer-exchange", "h2", "http/1.1"] } else { &["h2", "http/1.1"] };
    let common = CommonTlsContext {
        tls_params: Some(TlsParameters { cipher_suites: strings(CIPHERS), ..protocol_versions() }),
        tls_certificate_sds_secret_configs: vec![secret(OWN_SECRET, secrets)],
        validation_context_type: Some(trust(prefixes, secrets)),
        alpn_protocols: strings(alpn),
        ..Default::default()
    };
    let context = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(true),
        ..Default::default()
    };
    socket(
        "envoy.transport_sockets.tls",
        any("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", &context),
    )
}

/// No TLS, where a socket has to be named.
pub fn plaintext() -> TransportSocket {
    socket(
        "envoy.transport_sockets.raw_buffer",
        any("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", &RawBuffer {}),
    )
}

fn upstream_socket(context: UpstreamTlsContext) -> TransportSocket {
    socket(
        "envoy.transport_sockets.tls",
        any("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", &context),
    )
}

fn socket(name: &str, config: prost_types::Any) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(config)),
    }
}

fn protocol_versions() -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        ..Default::default()
    }
}

fn trust(sans: impl IntoIterator<Item = MatchPattern>, secrets: SecretSource) -> ValidationContextType {
    combined(san_matchers(sans, true), secret(ROOT_SECRET, secrets))
}

fn combined(sans: Vec<SubjectAltNameMatcher>, root: SdsSecretConfig) -> ValidationContextType {
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: sans,
            ..Default::default()
        }),
        validation_context_sds_secret_config: Some(root),
        ..Default::default()
    })
}

/// Identities of the mesh are URIs; names in a rule may also be of DNS kind, and Envoy wants a matcher for each kind.
fn san_matchers(
    patterns: impl IntoIterator<Item = MatchPattern>,
    uris_only: bool,
) -> Vec<SubjectAltNameMatcher> {
    let kinds: &[SanType] = if uris_only { &[SanType::Uri] } else { &[SanType::Dns, SanType::Uri] };
    let one = |pattern: MatchPattern| {
        kinds.iter().map(move |kind| SubjectAltNameMatcher {
            san_type: (*kind).into(),
            matcher: Some(StringMatcher { match_pattern: Some(pattern.clone()), ignore_case: false }),
            oid: String::new(),
        })
    };
    patterns.into_iter().flat_map(one).collect()
}

fn secret(name: &str, source: SecretSource) -> SdsSecretConfig {
    let sds_config = match source {
        SecretSource::Ads => ads(),
        SecretSource::Agent => agent(),
    };
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(sds_config) }
}

/// Istio's agent beside the proxy, as its bootstrap names it.
fn agent() -> ConfigSource {
    let envoy_grpc = grpc_service::EnvoyGrpc { cluster_name: "sds-grpc".to_owned(), ..Default::default() };
    let grpc = GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(envoy_grpc)),
        ..Default::default()
    };
    let api = ApiConfigSource {
        api_type: api_config_source::ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![grpc],
        set_node_on_first_message_only: true,
        ..Default::default()
    };
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        initial_fetch_timeout: Some(zero()),
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::ApiConfigSource(api)),
        ..Default::default()
    }
}

fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::Filename(path.to_owned())), ..Default::default() }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}
