use std::path::Path;
use std::process::Command;

use clap::Parser;
use serde_json::Value;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: BootstrapArgs,
}

const COMMON: &str = "--name client-1 --namespace production --service-account client --cluster-id cluster1 \
     --network network1 --ip 10.1.0.10,fd00::1 --region us-east --zone a --labels app=client,on=y";

fn mk_args(line: &str) -> Result<BootstrapArgs, String> {
    let words = std::iter::once("bootstrap").chain(line.split_whitespace());
    Line::try_parse_from(words).map(|line| line.args).map_err(|error| error.to_string())
}

fn mk_bootstrap(line: &str) -> (Value, Credential) {
    let args = mk_args(line).unwrap();
    let credential = args.credential().unwrap();
    (render::bootstrap(&args, &credential), credential)
}

#[test]
fn the_node_says_who_and_where_the_proxy_is() {
    let (sidecar, _) =
        mk_bootstrap(&format!("sidecar {COMMON} --plaintext --discovery-address istiod:15010"));
    let node = &sidecar["node"];
    assert_eq!(node["id"], "sidecar~10.1.0.10~client-1.production~production.svc.cluster.local");
    assert_eq!(node["cluster"], "client.production");
    assert_eq!(node["metadata"]["INSTANCE_IPS"], "10.1.0.10,fd00::1");
    assert_eq!(node["metadata"]["INTERCEPTION_MODE"], "REDIRECT");
    assert_eq!(node["metadata"]["LABELS"]["on"], "y");
    assert_eq!(sidecar["dynamic_resources"]["ads_config"]["api_type"], "DELTA_GRPC");
    assert_eq!(sidecar["admin"]["address"]["socket_address"]["address"], "127.0.0.1");
    assert_eq!(sidecar["static_resources"]["clusters"][0]["type"], "STRICT_DNS");

    let line = format!(
        "gateway {COMMON} --plaintext --discovery-address [::1]:15010 --protocol sotw --requested-network-view n1,n2"
    );
    let (gateway, _) = mk_bootstrap(&line);
    assert_eq!(gateway["node"]["id"], "router~10.1.0.10~client-1.production~production.svc.cluster.local");
    assert_eq!(gateway["node"]["metadata"]["REQUESTED_NETWORK_VIEW"], "n1,n2");
    assert_eq!(gateway["node"]["metadata"]["INTERCEPTION_MODE"], Value::Null);
    assert_eq!(gateway["dynamic_resources"]["ads_config"]["api_type"], "GRPC");
    assert_eq!(gateway["static_resources"]["clusters"][0]["type"], "STATIC");
}

#[test]
fn contradictory_arguments_are_refused() {
    for (line, word) in [
        ("--discovery-address a:1", "--root-cert"),
        ("--discovery-address a:1 --root-cert r", "--token-file"),
        (
            "--discovery-address a:1 --root-cert r --token-file t --cert-file c --key-file k",
            "cannot be used with",
        ),
        ("--discovery-address a:1 --root-cert r --cert-file c", "--key-file"),
        ("--discovery-address a:1 --plaintext --token-file t", "cannot be used with"),
        ("--discovery-address a --plaintext", "HOST:PORT"),
        ("--discovery-address ::1:15010 --plaintext", "HOST:PORT"),
        ("--discovery-address a:0 --plaintext", "HOST:PORT"),
        ("--discovery-address a:1 --plaintext --labels app", "key=value"),
        ("--discovery-address a:1 --plaintext --forward 15012", "PORT=HOST:PORT"),
        ("--discovery-address a:1 --plaintext --forward 0=a:1", "PORT=HOST:PORT"),
        ("--discovery-address a:1 --plaintext --forward 15012=a", "HOST:PORT"),
    ] {
        let error = mk_args(&format!("sidecar {COMMON} {line}")).unwrap_err();
        assert!(error.contains(word), "{line}: {error}");
    }
}

#[test]
fn plaintext_has_no_tls_and_no_credential() {
    let line = format!("sidecar {COMMON} --plaintext --discovery-address 127.0.0.1:15010 --root-cert r");
    let text = to_yaml(&mk_bootstrap(&line).0);
    assert!(!text.contains("transport_socket") && !text.contains("credential"), "{text}");
}

#[test]
fn a_port_is_given_once() {
    let line = format!("sidecar {COMMON} --plaintext --discovery-address a:1");
    let args = mk_args(&format!("{line} --status-port 15021 --forward 15012=a:1,15017=b:2")).unwrap();
    args.check_ports().unwrap();
    for twice in ["--status-port 15000", "--forward 1=a:1,1=b:1", "--status-port 7 --forward 7=a:1"] {
        let error = mk_args(&format!("{line} {twice}")).unwrap().check_ports().unwrap_err();
        assert!(error.to_string().contains("is given twice"), "{twice}: {error}");
    }
    let line = format!("gateway {COMMON} --plaintext --discovery-address a:1 --status-port 15021");
    let error = mk_args(&line).unwrap().check_ports().unwrap_err();
    assert!(error.to_string().contains("leave out --status-port"), "{error}");
}

#[test]
fn probes_see_readiness_and_nothing_else() {
    let line = format!("sidecar {COMMON} --plaintext --discovery-address a:1 --status-port 15021");
    let (bootstrap, _) = mk_bootstrap(&line);
    let listeners = bootstrap["static_resources"]["listeners"].as_array().unwrap();
    assert_eq!(listeners.len(), 1);
    assert_eq!(listeners[0]["address"]["socket_address"]["address"], "0.0.0.0");
    let manager = &listeners[0]["filter_chains"][0]["filters"][0]["typed_config"];
    let routes = manager["route_config"]["virtual_hosts"][0]["routes"].as_array().unwrap();
    assert_eq!((routes.len(), &routes[0]["match"]["path"]), (1, &Value::from("/healthz/ready")));
    let (none, _) = mk_bootstrap(&format!("sidecar {COMMON} --plaintext --discovery-address a:1"));
    assert_eq!(none["static_resources"]["listeners"], Value::Null);
}

/// Each variant, as stock Envoy reads it.
#[test]
fn a_real_envoy_accepts_every_variant() {
    let Some(envoy) = crate::args::envoy_for_tests() else {
        eprintln!("SKIPPED: no Envoy found: run `make setup`, or set ENVOY to a binary");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let key = crate::ca::key::PrivateKey::generate(Default::default()).unwrap();
    let cert = crate::ca::self_signed::root(&key, "mesh", "root", time::Duration::days(1)).unwrap();
    std::fs::write(path("root.pem"), cert.to_pem()).unwrap();
    std::fs::write(path("key.pem"), key.to_pem().unwrap().as_bytes()).unwrap();
    std::fs::write(path("token"), "a.b.c").unwrap();
    let tls = format!("--discovery-address 127.0.0.1:15012 --root-cert {}", path("root.pem"));
    let variants = [
        format!("sidecar {COMMON} {tls} --token-file {}", path("token")),
        format!("sidecar {COMMON} {tls} --token-file {} --protocol sotw --interception NONE", path("token")),
        format!("gateway {COMMON} {tls} --cert-file {} --key-file {}", path("root.pem"), path("key.pem")),
        format!("gateway {COMMON} --plaintext --discovery-address localhost:15010 --admin-port 15999"),
        format!(
            "gateway {COMMON} {tls} --token-file {} --forward 15012=istiod.istio-system.svc:15012,15017=10.96.0.9:443",
            path("token")
        ),
        format!("sidecar {COMMON} {tls} --token-file {} --status-port 15021", path("token")),
    ];
    for line in variants {
        validate(&envoy, dir.path(), &line);
    }
}

fn validate(envoy: &Path, dir: &Path, line: &str) {
    let (bootstrap, credential) = mk_bootstrap(line);
    if let Some((path, content)) = render::sds_file(&credential) {
        std::fs::write(path, to_yaml(&content)).unwrap();
    }
    let file = dir.join("bootstrap.yaml");
    std::fs::write(&file, to_yaml(&bootstrap)).unwrap();
    let output =
        Command::new(envoy).args(["--mode", "validate", "-l", "warning", "-c"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
}
