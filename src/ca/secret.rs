//! SDS resources: pure functions from certificates to the bytes of `envoy.extensions.transport_sockets.tls.v3.Secret`.

use landbridge_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
use landbridge_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret::Type,
};
use prost::Message;

use super::svid::Svid;

/// The type URL of [`certificate`] and [`roots`].
pub const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// Istio's name of a workload's own certificate.
pub const CERTIFICATE: &str = "default";
/// Istio's name of the trusted roots.
pub const ROOTS: &str = "ROOTCA";

/// The secret with a workload's certificate and private key. Never log or dump these bytes.
pub fn certificate(name: &str, svid: &Svid) -> Vec<u8> {
    let secret = Secret {
        name: name.to_owned(),
        r#type: Some(Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline(svid.chain_pem.as_bytes()),
            private_key: inline(svid.key_pem.as_bytes()),
            ..Default::default()
        })),
    };
    secret.encode_to_vec()
}

/// The secret with the roots that peers are verified with.
pub fn roots(name: &str, roots_pem: &str) -> Vec<u8> {
    let secret = Secret {
        name: name.to_owned(),
        r#type: Some(Type::ValidationContext(CertificateValidationContext {
            trusted_ca: inline(roots_pem.as_bytes()),
            ..Default::default()
        })),
    };
    secret.encode_to_vec()
}

fn inline(bytes: &[u8]) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec())), ..Default::default() })
}
