//! `landbridge bootstrap`: the bootstrap of a stock Envoy, in the variants that were run against Envoy 1.40.

mod listeners;
mod render;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::yaml::to_yaml;
use crate::files;
use crate::model::identity::Spiffe;

/// Arguments of `landbridge bootstrap`.
#[derive(Debug, clap::Args)]
pub struct BootstrapArgs {
    /// What the proxy is: beside a workload, or at the edge of a cluster.
    #[arg(value_enum)]
    kind: NodeKind,
    /// Name of the pod.
    #[arg(long, env = "POD_NAME")]
    name: String,
    /// Namespace of the pod.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// Service account of the pod.
    #[arg(long, env = "SERVICE_ACCOUNT")]
    service_account: String,
    /// Cluster that the pod runs in.
    #[arg(long, env = "CLUSTER_ID")]
    cluster_id: String,
    /// Network that the pod is on.
    #[arg(long, env = "ISTIO_META_NETWORK", default_value = "")]
    network: String,
    /// Addresses of the pod, the first one in the node's name, separated by commas.
    #[arg(long, env = "INSTANCE_IP", value_delimiter = ',', required = true)]
    ip: Vec<IpAddr>,
    /// Where landbridge serves xDS.
    #[arg(long, env = "LANDBRIDGE_DISCOVERY_ADDRESS", value_name = "HOST:PORT")]
    discovery_address: HostPort,
    /// Root certificates that landbridge's own certificate is verified with.
    #[arg(long, env = "LANDBRIDGE_ROOT_CERT", required_unless_present = "plaintext")]
    root_cert: Option<PathBuf>,
    /// File with the service-account token, read again whenever it is replaced.
    #[arg(long, env = "LANDBRIDGE_TOKEN_FILE", conflicts_with_all = ["cert_file", "key_file", "plaintext"], required_unless_present_any = ["cert_file", "plaintext"])]
    token_file: Option<PathBuf>,
    /// Client certificate (a workload's, with its chain) instead of a token; rotated files are picked up.
    #[arg(long, env = "LANDBRIDGE_CERT_FILE", requires = "key_file", conflicts_with = "plaintext")]
    cert_file: Option<PathBuf>,
    /// Private key of --cert-file.
    #[arg(long, env = "LANDBRIDGE_KEY_FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// No TLS and no credential (port 15010): configuration, but no certificates. For development.
    #[arg(long, env = "LANDBRIDGE_PLAINTEXT")]
    plaintext: bool,
    /// Directory for the small file that makes Envoy watch the token or the client certificate [default: the directory of that file].
    #[arg(long, env = "LANDBRIDGE_SDS_DIR")]
    sds_dir: Option<PathBuf>,
    /// Labels of the pod, as k=v,k=v.
    #[arg(long, env = "LANDBRIDGE_LABELS", value_delimiter = ',', value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Region of the pod.
    #[arg(long, env = "LANDBRIDGE_REGION", default_value = "")]
    region: String,
    /// Zone of the pod.
    #[arg(long, env = "LANDBRIDGE_ZONE", default_value = "")]
    zone: String,
    /// Node that the pod runs on.
    #[arg(long, env = "ISTIO_META_NODE_NAME")]
    node: Option<String>,
    /// How traffic reaches the sidecar: redirected by iptables, or by real listeners.
    #[arg(long, env = "ISTIO_META_INTERCEPTION_MODE", value_enum, default_value = "REDIRECT")]
    interception: Interception,
    /// Networks whose endpoints the proxy wants to see; all if not given.
    #[arg(long, env = "ISTIO_META_REQUESTED_NETWORK_VIEW", value_delimiter = ',')]
    requested_network_view: Vec<String>,
    /// Virtual hosts one by one, or not; as the control plane likes it, if not given. Delta only.
    #[arg(long, env = "ISTIO_META_ENABLE_VHDS")]
    enable_vhds: Option<bool>,
    /// Endpoints of large services one by one, or not; as the control plane likes it, if not given. Delta only.
    #[arg(long, env = "ISTIO_META_ENABLE_LEDS")]
    enable_leds: Option<bool>,
    /// Variant of the xDS protocol.
    #[arg(long, env = "LANDBRIDGE_XDS_PROTOCOL", value_enum, default_value = "delta")]
    protocol: Protocol,
    /// DNS name that landbridge's certificate must have.
    #[arg(long, env = "ISTIOD_SAN", default_value = "istiod.istio-system.svc")]
    discovery_san: String,
    /// Port of Envoy's admin interface, on 127.0.0.1 only.
    #[arg(long, env = "LANDBRIDGE_ADMIN_PORT", default_value_t = 15000)]
    admin_port: u16,
    /// Answers `/healthz/ready` on this port of all addresses: 200 once Envoy has a whole configuration. Istio's is 15021. Of a
    /// sidecar: a gateway has such a port by its configuration.
    #[arg(long, env = "LANDBRIDGE_STATUS_PORT")]
    status_port: Option<u16>,
    /// Passes the connections of a port on to an address, as they are, as PORT=HOST:PORT. Of a gateway, such as
    /// 15012=istiod.istio-system.svc:15012 for the proxies of remote clusters.
    #[arg(long, env = "LANDBRIDGE_FORWARD", value_delimiter = ',')]
    forward: Vec<Forward>,
    /// Where the bootstrap goes. Without it: to stdout.
    #[arg(short, long, env = "LANDBRIDGE_BOOTSTRAP_OUT")]
    out: Option<PathBuf>,
    /// Name of the mesh.
    #[arg(long, env = "ISTIO_META_MESH_ID", default_value = "cluster.local")]
    mesh_id: String,
    /// DNS domain of the clusters.
    #[arg(long, env = "LANDBRIDGE_DOMAIN", default_value = "cluster.local")]
    domain: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum NodeKind {
    /// Beside a workload.
    Sidecar,
    /// At the edge: ingress, egress, east-west.
    Gateway,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
enum Interception {
    Redirect,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Protocol {
    /// Only what changed.
    Delta,
    /// State of the world: all resources of a type each time.
    Sotw,
}

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPort {
    host: String,
    port: u16,
}

/// A port whose connections go elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Forward {
    port: u16,
    to: HostPort,
}

/// How the proxy proves who it is.
#[derive(Clone, Debug)]
enum Credential {
    /// A service-account token, in a file.
    Token { file: PathBuf, sds: PathBuf },
    /// A client certificate, in files.
    Certificate { cert: PathBuf, key: PathBuf, sds: PathBuf },
    /// Nothing, and no TLS either.
    Plaintext,
}

// === impl BootstrapArgs ===

impl BootstrapArgs {
    /// Prints the bootstrap on stdout, or writes it. With a token or a client certificate it also writes the file that names it for
    /// Envoy's file-based SDS, which is how stock Envoy notices that a credential was replaced.
    pub fn run(self) -> anyhow::Result<()> {
        Spiffe::new("cluster.local", &self.namespace, &self.service_account)?;
        if self.name.is_empty() || self.name.contains('~') || self.cluster_id.is_empty() {
            bail!("--name and --cluster-id must not be empty, and `~` separates the parts of a node's name");
        }
        self.check_ports()?;
        let credential = self.credential()?;
        if let Some((path, content)) = render::sds_file(&credential) {
            write_for_envoy(&path, &content, "--sds-dir")?;
            eprintln!("wrote {}: Envoy needs it beside its bootstrap", path.display());
        }
        let bootstrap = render::bootstrap(&self, &credential);
        match &self.out {
            Some(path) => write_for_envoy(path, &bootstrap, "--out")?,
            None => print!("{}", to_yaml(&bootstrap)),
        }
        Ok(())
    }

    fn credential(&self) -> anyhow::Result<Credential> {
        // Envoy may run in another directory than this command did.
        let absolute = |path: &PathBuf| std::path::absolute(path).with_context(|| path.display().to_string());
        let sds_path = |file: &PathBuf, name: &str| match &self.sds_dir {
            Some(dir) => Ok(absolute(dir)?.join(name)),
            None => Ok::<_, anyhow::Error>(absolute(file)?.with_file_name(name)),
        };
        match (&self.token_file, &self.cert_file, &self.key_file) {
            (Some(token), _, _) => Ok(Credential::Token {
                file: absolute(token)?,
                sds: sds_path(token, "landbridge-sds-token.yaml")?,
            }),
            (None, Some(cert), Some(key)) => Ok(Credential::Certificate {
                cert: absolute(cert)?,
                key: absolute(key)?,
                sds: sds_path(cert, "landbridge-sds-client.yaml")?,
            }),
            _ => Ok(Credential::Plaintext),
        }
    }

    /// Envoy takes the first of two listeners, and refuses the configuration with the other.
    fn check_ports(&self) -> anyhow::Result<()> {
        if self.kind == NodeKind::Gateway && self.status_port.is_some() {
            bail!("a gateway answers on 15021 by its configuration: leave out --status-port");
        }
        let given = self.status_port.iter().copied().chain(self.forward.iter().map(|forward| forward.port));
        let mut taken = BTreeSet::from([self.admin_port]);
        for port in given {
            if !taken.insert(port) {
                bail!("port {port} is given twice by --admin-port, --status-port and --forward");
            }
        }
        Ok(())
    }

    fn labels(&self) -> BTreeMap<&str, &str> {
        self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }
}

/// Neither file holds secrets, only their paths, and Envoy may run as another user.
fn write_for_envoy(path: &Path, content: &serde_json::Value, flag: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    files::write_private(path, to_yaml(content).as_bytes())
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)))
        .with_context(|| format!("write {}: name a place that can be written with {flag}", path.display()))
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not a label: write key=value")),
    }
}

impl std::str::FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad =
            || format!("`{text}` is not HOST:PORT, such as istiod.istio-system.svc:15012 or [::1]:15012");
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let host = match host.strip_prefix('[') {
            Some(v6) => {
                v6.strip_suffix(']').filter(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()).ok_or_else(bad)?
            }
            None if host.is_empty() || host.contains(':') => return Err(bad()),
            None => host,
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl std::str::FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("`{text}` is not PORT=HOST:PORT, such as 15012=istiod.istio-system.svc:15012");
        let (port, to) = text.split_once('=').ok_or_else(bad)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        Ok(Self { port, to: to.parse()? })
    }
}

#[cfg(test)]
mod tests;
