//! The bootstrap as a value: pure functions of the arguments.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{BootstrapArgs, Credential, HostPort, Interception, NodeKind, Protocol, listeners};

/// The cluster that Envoy reaches landbridge by; the name that Istio's own bootstrap uses.
const XDS_CLUSTER: &str = "xds-grpc";
const TOKEN_SECRET: &str = "landbridge-token";
const CLIENT_SECRET: &str = "landbridge-client";

/// The whole bootstrap.
pub fn bootstrap(args: &BootstrapArgs, credential: &Credential) -> Value {
    let api_type = match args.protocol {
        Protocol::Delta => "DELTA_GRPC",
        Protocol::Sotw => "GRPC",
    };
    // A timeout of 0 means to wait for ever: Envoy must not go on with half a configuration.
    let over_ads = json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" });
    let mut clusters = vec![xds_cluster(args, credential)];
    clusters.extend(listeners::clusters(args));
    let mut fixed = json!({ "clusters": clusters });
    let own = listeners::listeners(args);
    if !own.is_empty() {
        fixed["listeners"] = own.into();
    }
    json!({
        "node": node(args),
        "admin": { "address": socket_address("127.0.0.1", args.admin_port) },
        "dynamic_resources": {
            "ads_config": {
                "api_type": api_type,
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{
                    "envoy_grpc": { "cluster_name": XDS_CLUSTER },
                    // Istio's agent sends this header too; a token of a cluster is only good together with it.
                    "initial_metadata": [{ "key": "clusterid", "value": args.cluster_id }],
                }],
            },
            "cds_config": over_ads,
            "lds_config": over_ads,
        },
        "static_resources": fixed,
    })
}

/// The file of Envoy's file-based SDS that names the credential, and where it goes.
pub fn sds_file(credential: &Credential) -> Option<(PathBuf, Value)> {
    let (path, mut secret) = match credential {
        Credential::Token { file, sds } => {
            (sds, json!({ "name": TOKEN_SECRET, "generic_secret": { "secret": { "filename": file } } }))
        }
        Credential::Certificate { cert, key, sds } => (
            sds,
            json!({ "name": CLIENT_SECRET, "tls_certificate": {
                "certificate_chain": { "filename": cert },
                "private_key": { "filename": key },
                "watched_directory": { "path": parent(cert) },
            }}),
        ),
        Credential::Plaintext => return None,
    };
    secret["@type"] = json!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret");
    Some((path.clone(), json!({ "resources": [secret] })))
}

fn node(args: &BootstrapArgs) -> Value {
    let BootstrapArgs { name, namespace, domain, .. } = args;
    let kind = match args.kind {
        NodeKind::Sidecar => "sidecar",
        NodeKind::Gateway => "router",
    };
    let ips: Vec<String> = args.ip.iter().map(IpAddr::to_string).collect();
    let labels = args.labels();
    let app = labels.get("app").or_else(|| labels.get("app.kubernetes.io/name")).copied().unwrap_or(name);
    let mut metadata = json!({
        "NAME": name,
        "NAMESPACE": namespace,
        "SERVICE_ACCOUNT": args.service_account,
        "CLUSTER_ID": args.cluster_id,
        "MESH_ID": args.mesh_id,
        "INSTANCE_IPS": ips.join(","),
        "LABELS": labels,
    });
    let optional = [
        ("NETWORK", args.network.clone()),
        ("NODE_NAME", args.node.clone().unwrap_or_default()),
        ("REQUESTED_NETWORK_VIEW", args.requested_network_view.join(",")),
        ("ENABLE_VHDS", args.enable_vhds.map(|on| on.to_string()).unwrap_or_default()),
        ("ENABLE_LEDS", args.enable_leds.map(|on| on.to_string()).unwrap_or_default()),
    ];
    for (key, value) in optional {
        if !value.is_empty() {
            metadata[key] = json!(value);
        }
    }
    if args.kind == NodeKind::Sidecar {
        metadata["INTERCEPTION_MODE"] = json!(match args.interception {
            Interception::Redirect => "REDIRECT",
            Interception::None => "NONE",
        });
    }
    json!({
        "id": format!("{kind}~{}~{name}.{namespace}~{namespace}.svc.{domain}", ips[0]),
        "cluster": format!("{app}.{namespace}"),
        "locality": { "region": args.region, "zone": args.zone },
        "metadata": metadata,
    })
}

fn xds_cluster(args: &BootstrapArgs, credential: &Credential) -> Value {
    let mut protocol = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        // Pings find a control plane whose machine is gone; without them a stream can hang for minutes.
        "explicit_http_config": { "http2_protocol_options": {
            "connection_keepalive": { "interval": "30s", "timeout": "10s" },
        }},
    });
    if let Credential::Token { file, sds } = credential {
        protocol["http_filters"] = inject_token(file, sds);
    }
    let mut cluster = cluster(XDS_CLUSTER, &args.discovery_address);
    cluster["typed_extension_protocol_options"] =
        json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol });
    // clap lets --root-cert be absent only with --plaintext.
    if let Some(root) = args.root_cert.as_ref().filter(|_| !matches!(credential, Credential::Plaintext)) {
        cluster["transport_socket"] = tls(args, root, credential);
    }
    cluster
}

/// A cluster of one address.
pub fn cluster(name: &str, address: &HostPort) -> Value {
    let kind = if address.host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    let mut cluster = json!({
        "name": name,
        "type": kind,
        "connect_timeout": "1s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{
                "endpoint": { "address": socket_address(&address.host, address.port) },
            }]}],
        },
    });
    if kind == "STRICT_DNS" {
        cluster["dns_lookup_family"] = json!("V4_PREFERRED");
    }
    cluster
}

fn tls(args: &BootstrapArgs, root: &Path, credential: &Credential) -> Value {
    let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let mut common = json!({
        "alpn_protocols": ["h2"],
        "validation_context": {
            "trusted_ca": { "filename": root },
            "match_typed_subject_alt_names": [
                { "san_type": "DNS", "matcher": { "exact": args.discovery_san } },
            ],
        },
    });
    if let Credential::Certificate { sds, .. } = credential {
        common["tls_certificate_sds_secret_configs"] = json!([{
            "name": CLIENT_SECRET,
            "sds_config": { "path_config_source": { "path": sds }, "resource_api_version": "V3" },
        }]);
    }
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": args.discovery_san,
            "common_tls_context": common,
        },
    })
}

/// Puts the token on each stream. Metadata in the bootstrap would be simpler, but Envoy never reads it again, and
/// Kubernetes replaces tokens every hour.
fn inject_token(file: &Path, sds: &Path) -> Value {
    json!([
        {
            "name": "envoy.filters.http.credential_injector",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
                "overwrite": true,
                "credential": {
                    "name": "envoy.http.injected_credentials.generic",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic",
                        "header": "authorization",
                        "header_value_prefix": "Bearer ",
                        "credential": {
                            "name": TOKEN_SECRET,
                            "sds_config": {
                                // The directory of the token is watched, so that replacing the token is enough.
                                "path_config_source": {
                                    "path": sds,
                                    "watched_directory": { "path": parent(file) },
                                },
                                "resource_api_version": "V3",
                            },
                        },
                    },
                },
            },
        },
        {
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
            },
        },
    ])
}

pub fn socket_address(host: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": host, "port_value": port } })
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
