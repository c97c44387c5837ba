//! Generates the messages from Envoy's own .proto files, which the package `envoy-types` carries.

use std::{env, path::PathBuf};

use anyhow::{Context, Result};
use tonic_prost_build::manual;

/// The files whose messages landbridge names; everything they import comes along.
const ROOTS: &[&str] = &[
    "envoy/admin/v3/config_dump.proto",
    "envoy/admin/v3/config_dump_shared.proto",
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/service/discovery/v3/ads.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "envoy/service/secret/v3/sds.proto",
    "envoy/service/status/v3/csds.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/access_loggers/stream/v3/stream.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/filters/http/credential_injector/v3/credential_injector.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/grpc_stats/v3/config.proto",
    "envoy/extensions/filters/http/grpc_web/v3/grpc_web.proto",
    "envoy/extensions/filters/http/health_check/v3/health_check.proto",
    "envoy/extensions/filters/http/rbac/v3/rbac.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/upstream_codec/v3/upstream_codec.proto",
    "envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto",
    "envoy/extensions/filters/listener/original_dst/v3/original_dst.proto",
    "envoy/extensions/filters/listener/original_src/v3/original_src.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/rbac/v3/rbac.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/http/injected_credentials/generic/v3/generic.proto",
    "envoy/extensions/request_id/uuid/v3/uuid.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/retry/priority/previous_priorities/v3/previous_priorities_config.proto",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "google/rpc/status.proto",
    // Ours.
    "istio/alpn.proto",
    "istio/ca.proto",
    "udpa/typed_struct.proto",
    "envelope.proto",
];

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto");
    #[allow(clippy::disallowed_methods, reason = "cargo speaks to build scripts through the environment")]
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let envoy = envoy_protos()?;
    let mut includes = vec![PathBuf::from("proto")];
    for part in [
        "data-plane-api",
        "xds",
        "protoc-gen-validate",
        "googleapis",
        "cel-spec/proto",
        "opentelemetry-proto",
        "client_model",
    ] {
        includes.push(envoy.join(part));
    }
    let descriptors = protox::compile(ROOTS, includes).context("Envoy's .proto files do not compile")?;
    std::fs::write(out.join("descriptors.bin"), prost_encode(&descriptors))?;

    let mut config = prost_build::Config::new();
    config.btree_map(["."]).bytes([".landbridge.envelope"]).include_file("messages.rs");
    config.compile_fds(descriptors)?;

    manual::Builder::new().build_client(true).build_server(true).compile(&[
        manual::Service::builder()
            .name("AggregatedDiscoveryService")
            .package("envoy.service.discovery.v3")
            .comment("ADS, with encoded resources as shared bytes in the responses.")
            .method(stream("stream_aggregated_resources", "StreamAggregatedResources", ""))
            .method(stream("delta_aggregated_resources", "DeltaAggregatedResources", "Delta"))
            .build(),
        manual::Service::builder()
            .name("SecretDiscoveryService")
            .package("envoy.service.secret.v3")
            .comment("SDS as a service of its own.")
            .method(stream("stream_secrets", "StreamSecrets", ""))
            .method(stream("delta_secrets", "DeltaSecrets", "Delta"))
            .build(),
        manual::Service::builder()
            .name("IstioCertificateService")
            .package("istio.v1.auth")
            .comment("The CA as Istio's agents call it.")
            .method(
                manual::Method::builder()
                    .name("create_certificate")
                    .route_name("CreateCertificate")
                    .input_type("crate::istio::v1::auth::IstioCertificateRequest")
                    .output_type("crate::istio::v1::auth::IstioCertificateResponse")
                    .codec_path("tonic_prost::ProstCodec")
                    .build(),
            )
            .build(),
    ]);
    Ok(())
}

fn stream(name: &str, route: &str, flavour: &str) -> manual::Method {
    manual::Method::builder()
        .name(name)
        .route_name(route)
        .input_type(format!("crate::envoy::service::discovery::v3::{flavour}DiscoveryRequest"))
        .output_type(format!("crate::landbridge::envelope::{flavour}DiscoveryResponse"))
        .codec_path("tonic_prost::ProstCodec")
        .client_streaming()
        .server_streaming()
        .build()
}

fn prost_encode(descriptors: &prost_types::FileDescriptorSet) -> Vec<u8> {
    use prost::Message;
    descriptors.encode_to_vec()
}

/// The folder with Envoy's .proto files, in the sources of the package that Cargo.lock pins.
fn envoy_protos() -> Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .other_options(["--locked".to_owned()])
        .exec()
        .context("`cargo metadata --locked` failed; it is how the build finds Envoy's .proto files")?;
    let package = metadata
        .packages
        .iter()
        .find(|p| p.name.as_str() == "envoy-types")
        .context("the package envoy-types is not in Cargo.lock")?;
    let root = package.manifest_path.parent().context("envoy-types has no folder")?;
    Ok(root.join("proto").into())
}
