//! `landbridge serve`: the control plane.

use std::{collections::BTreeMap, io::IsTerminal, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use super::{bytes, duration, mcs::McsArgs, stale_cluster, token_issuers::TokenIssuerArgs};
use crate::{
    app::{self, Config, clusters::Place},
    authn::gateways::TrustedGateways,
    model::ClusterId,
    registry::kubernetes::Allowed,
};

/// Arguments of `landbridge serve`. Names of the environment are istiod's where the meaning is.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// The cluster that this control plane belongs to, which also holds the mesh's configuration. Without --kubeconfig or
    /// --files for it, it is the cluster in whose pod this runs.
    #[arg(long, env = "CLUSTER_ID", default_value = "Kubernetes")]
    cluster_id: String,
    /// The kubeconfig of the own cluster.
    #[arg(long, env = "LANDBRIDGE_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Another cluster and its kubeconfig, as NAME=PATH; its current context is used, and a changed file is taken over.
    #[arg(long, env = "LANDBRIDGE_KUBE", value_delimiter = ',', value_parser = kube_cluster)]
    kube: Vec<(ClusterId, Place)>,
    /// A cluster and the directory with its Kubernetes YAML, as NAME=DIR. Instead of an API server.
    #[arg(long, env = "LANDBRIDGE_FILES", value_delimiter = ',', value_parser = file_cluster)]
    files: Vec<(ClusterId, Place)>,
    /// Proxies are answered although another cluster could not be read for so long; 0s: never.
    #[arg(long, env = "PILOT_REMOTE_CLUSTER_TIMEOUT", default_value = "30s", value_parser = duration::parse)]
    remote_cluster_timeout: Duration,
    /// What is done to the endpoints of clusters that are away, as NAME=EFFECTS; NAME * is every cluster that is not named. `keep`
    /// (the default): they stay as they are. `deprioritise:30s`: after this time they are used only where nothing else is
    /// healthy. `withdraw:10m`: after this time they are taken from clients that have healthy ones elsewhere. Such as
    /// west=deprioritise:30s,withdraw:10m. A cluster's own proxies are left alone.
    #[arg(long, env = "LANDBRIDGE_STALE_CLUSTER", value_delimiter = ';', value_parser = stale_cluster::parse)]
    stale_cluster: Vec<stale_cluster::Given>,
    /// Probe the gateways of networks: endpoints behind one that is dead while others answer are used only where nothing else is
    /// healthy.
    #[arg(long, env = "LANDBRIDGE_PROBE_GATEWAYS", default_value_t = true, action = clap::ArgAction::Set)]
    probe_gateways: bool,
    /// Say at objects what is wrong with them, as Kubernetes Events: `kubectl describe` shows these.
    #[arg(long, env = "LANDBRIDGE_EVENTS", default_value_t = true, action = clap::ArgAction::Set)]
    events: bool,
    /// What kubeconfigs in remote secrets may do although it is dangerous: `exec` runs the programs that they name.
    #[arg(long, env = "PILOT_INSECURE_MULTICLUSTER_KUBECONFIG_OPTIONS", value_delimiter = ',', value_enum)]
    insecure_remote_kubeconfig_options: Vec<Insecure>,
    /// The system namespace: of the mesh's configuration, remote secrets, the authority's Secret and Leases.
    #[arg(short, long, env = "POD_NAMESPACE", default_value = "istio-system")]
    namespace: String,
    /// What this replica is called in Leases. Without it, a name that nobody else has.
    #[arg(long, env = "POD_NAME")]
    pod_name: Option<String>,
    /// Where the self-signed root, the development issuer's key, and what was last known of each cluster are kept: a cluster
    /// that is away at the start is served from there.
    #[arg(long, env = "LANDBRIDGE_STATE_DIR", default_value = "./landbridge-state")]
    state_dir: PathBuf,
    /// A directory in Istio's `cacerts` layout; without its files, see --ca-secrets.
    #[arg(long, env = "ROOT_CA_DIR")]
    ca_dir: Option<PathBuf>,
    /// The authority is Secret `cacerts` of the own cluster, else Secret `istio-ca-secret`, which is made if it is missing. `false`, or
    /// where the own cluster has no API server: a self-signed root in the state directory.
    #[arg(long, env = "LANDBRIDGE_CA_SECRETS", default_value_t = true, action = clap::ArgAction::Set)]
    ca_secrets: bool,
    /// xDS without encryption and without secrets.
    #[arg(long, env = "LANDBRIDGE_GRPC_ADDR", default_value = "0.0.0.0:15010")]
    grpc_addr: SocketAddr,
    /// xDS and certificates over TLS, for authenticated proxies.
    #[arg(long, env = "LANDBRIDGE_SECURE_GRPC_ADDR", default_value = "0.0.0.0:15012")]
    secure_grpc_addr: SocketAddr,
    /// `/ready`.
    #[arg(long, env = "LANDBRIDGE_HTTP_ADDR", default_value = "0.0.0.0:8080")]
    http_addr: SocketAddr,
    /// `/metrics`, `/version` and `/debug`.
    #[arg(long, env = "LANDBRIDGE_MONITORING_ADDR", default_value = "0.0.0.0:15014")]
    monitoring_addr: SocketAddr,
    /// `/validate`, for API servers: whether objects would be applied.
    #[arg(long, env = "LANDBRIDGE_HTTPS_ADDR", default_value = "0.0.0.0:15017")]
    https_addr: SocketAddr,
    /// Keep caBundle and failurePolicy of the ValidatingWebhookConfigurations that are labelled istio.io/rev=default. Empty: not. As with
    /// istiod nothing else of the name counts.
    #[arg(long, env = "VALIDATION_WEBHOOK_CONFIG_NAME", default_value = "istio-validator-istio-system")]
    validation_webhook_config_name: String,
    /// Accept tokens of `landbridge token`, signed with a key in the state directory. For development.
    #[arg(long, env = "LANDBRIDGE_DEV_TOKEN_ISSUER")]
    dev_token_issuer: bool,
    #[command(flatten)]
    token_issuers: TokenIssuerArgs,
    /// A token has to be meant for one of these.
    #[arg(long, env = "TOKEN_AUDIENCES", value_delimiter = ',', default_value = "istio-ca")]
    token_audiences: Vec<String>,
    /// Networks of gateways that end TLS in front of 15012, such as 10.1.0.0/16: what they say of their client's certificate in
    /// x-forwarded-client-cert counts, if nothing else does. They must set this header themselves (SANITIZE_SET or APPEND_FORWARD).
    #[arg(long, env = "TRUSTED_GATEWAY_CIDR", value_delimiter = ',', value_parser = network)]
    trusted_gateway_cidr: Vec<Option<IpNet>>,
    /// Lifetime of workload certificates, when the workload does not say.
    #[arg(long, env = "DEFAULT_WORKLOAD_CERT_TTL", default_value = "24h", value_parser = duration::parse_positive)]
    workload_cert_ttl: Duration,
    /// The longest lifetime that a workload may ask for.
    #[arg(long, env = "MAX_WORKLOAD_CERT_TTL", default_value = "2160h", value_parser = duration::parse_positive)]
    max_workload_cert_ttl: Duration,
    /// Further DNS names, or addresses, in our own server certificate.
    #[arg(long, env = "ISTIOD_CUSTOM_HOST", value_delimiter = ',')]
    custom_host: Vec<String>,
    /// Services with endpoints in more than one locality fail over without a DestinationRule. `false`: as Istio does.
    #[arg(long, env = "LANDBRIDGE_FAILOVER_BY_DEFAULT", default_value_t = true, action = clap::ArgAction::Set)]
    failover_by_default: bool,
    #[command(flatten)]
    mcs: McsArgs,
    /// Delta proxies from Envoy 1.38 on get the virtual hosts of a port as resources of their own (VHDS), so that a change
    /// sends one and not the whole route table. A proxy's metadata ENABLE_VHDS is stronger.
    #[arg(long, env = "LANDBRIDGE_ENABLE_VHDS", default_value_t = true, action = clap::ArgAction::Set)]
    enable_vhds: bool,
    /// Delta proxies from Envoy 1.38 on get the endpoints of large services as resources of their own (LEDS), so that a change
    /// sends one and not the whole assignment. A proxy's metadata ENABLE_LEDS is stronger.
    #[arg(long, env = "LANDBRIDGE_ENABLE_LEDS", default_value_t = true, action = clap::ArgAction::Set)]
    enable_leds: bool,
    /// Services are large for that when a proxy sees more endpoints of one of their ports than this.
    #[arg(long, env = "LANDBRIDGE_LEDS_ABOVE", default_value_t = 200)]
    leds_above: usize,
    /// Suffix of service hosts.
    #[arg(long, env = "LANDBRIDGE_DOMAIN", default_value = "cluster.local")]
    domain: String,
    /// A connection is asked to move on after this long, give or take a tenth.
    #[arg(long, env = "LANDBRIDGE_MAX_CONNECTION_AGE", default_value = "30m", value_parser = duration::parse_positive)]
    keepalive_max_server_connection_age: Duration,
    /// New streams are told to come again later while more memory than this is in use, such as 512Mi. Without it: nine
    /// tenths of what the cgroup allows.
    #[arg(long, env = "LANDBRIDGE_MEMORY_LIMIT", value_parser = bytes::parse)]
    memory_limit: Option<u64>,
    /// While there are more streams than this, some are asked to connect to another replica.
    #[arg(long, env = "LANDBRIDGE_MAX_STREAMS")]
    max_streams: Option<usize>,
    /// At the end, streams are given this long to go elsewhere.
    #[arg(long, env = "LANDBRIDGE_SHUTDOWN_DURATION", default_value = "10s", value_parser = duration::parse)]
    shutdown_duration: Duration,
    /// `text` or `json`.
    #[arg(long, env = "LANDBRIDGE_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// `info`, `debug`, or per module: `info,landbridge::xds=debug`.
    #[arg(long, env = "LANDBRIDGE_LOG_LEVEL", default_value = "info")]
    log_level: String,
}

/// What a kubeconfig may do although it is dangerous; istiod's names.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Insecure {
    /// Run a program that prints credentials.
    Exec,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// A JSON object per line.
    Json,
}

// === impl ServeArgs ===

impl ServeArgs {
    /// Serves until SIGTERM or SIGINT.
    pub fn run(self) -> anyhow::Result<()> {
        let Self {
            cluster_id,
            kubeconfig,
            kube,
            files,
            remote_cluster_timeout,
            stale_cluster,
            probe_gateways,
            events,
            insecure_remote_kubeconfig_options,
            namespace,
            pod_name,
            state_dir,
            ca_dir,
            ca_secrets,
            grpc_addr,
            secure_grpc_addr,
            http_addr,
            monitoring_addr,
            https_addr,
            validation_webhook_config_name,
            dev_token_issuer,
            token_issuers,
            token_audiences,
            trusted_gateway_cidr,
            workload_cert_ttl,
            max_workload_cert_ttl,
            custom_host,
            failover_by_default,
            mcs,
            enable_vhds,
            enable_leds,
            leds_above,
            domain,
            keepalive_max_server_connection_age,
            memory_limit,
            max_streams,
            shutdown_duration,
            log_format,
            log_level,
        } = self;
        start_logging(log_format, &log_level)?;
        let cluster_id = ClusterId::from(cluster_id.as_str());
        let own = kubeconfig.map(|path| (cluster_id.clone(), Place::Kubeconfig(path)));
        let clusters = clusters(&cluster_id, own.into_iter().chain(kube).chain(files))?;
        if workload_cert_ttl > max_workload_cert_ttl {
            bail!(
                "--workload-cert-ttl is greater than --max-workload-cert-ttl; lower the one or raise the other"
            );
        }
        let (mcs, mcs_api, mcs_auto_export) = mcs.resolve();
        let (token_issuers, jwks_ca_file) = token_issuers.resolve()?;
        let config = Config {
            cluster_id,
            clusters,
            remote_cluster_timeout: Some(remote_cluster_timeout).filter(|t| !t.is_zero()),
            stale_clusters: stale_cluster::policies(stale_cluster)?,
            probe_gateways,
            events,
            remote_kubeconfigs: Allowed {
                exec: insecure_remote_kubeconfig_options.iter().any(|o| matches!(o, Insecure::Exec)),
            },
            namespace,
            pod_name: pod_name.filter(|name| !name.is_empty()),
            state_dir,
            ca_dir,
            ca_secrets,
            grpc_addr,
            secure_grpc_addr,
            http_addr,
            monitoring_addr,
            https_addr,
            validation_webhooks: !validation_webhook_config_name.is_empty(),
            dev_token_issuer,
            token_issuers,
            jwks_ca_file,
            token_audiences,
            trusted_gateways: TrustedGateways::new(trusted_gateway_cidr.into_iter().flatten().collect()),
            workload_cert_ttl,
            max_workload_cert_ttl,
            custom_hosts: custom_host,
            failover_by_default,
            mcs,
            mcs_api,
            mcs_auto_export,
            enable_vhds,
            enable_leds,
            leds_above,
            domain,
            max_connection_age: keepalive_max_server_connection_age,
            memory_limit,
            max_streams,
            shutdown_duration,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("the operating system gives no threads")?;
        runtime.block_on(app::serve(config))
    }
}

/// Every cluster once; the own one from its pod's service account if nothing else is said.
fn clusters(
    own: &ClusterId,
    given: impl Iterator<Item = (ClusterId, Place)>,
) -> anyhow::Result<BTreeMap<ClusterId, Place>> {
    let mut clusters = BTreeMap::new();
    for (cluster, place) in given {
        if clusters.contains_key(&cluster) {
            bail!(
                "cluster {cluster} is named twice by --kubeconfig, --kube and --files: a cluster is read from one place; \
                 remove one of the two, or give one of them another name"
            );
        }
        clusters.insert(cluster, place);
    }
    clusters.entry(own.clone()).or_insert(Place::InCluster);
    Ok(clusters)
}

fn file_cluster(text: &str) -> Result<(ClusterId, Place), String> {
    let (cluster, dir) = named_path(text)
        .ok_or("write the cluster's name, `=` and its directory, such as east=clusters/east")?;
    Ok((cluster, Place::Files(dir)))
}

fn kube_cluster(text: &str) -> Result<(ClusterId, Place), String> {
    let (cluster, path) = named_path(text)
        .ok_or("write the cluster's name, `=` and its kubeconfig, such as west=west.kubeconfig")?;
    Ok((cluster, Place::Kubeconfig(path)))
}

fn named_path(text: &str) -> Option<(ClusterId, PathBuf)> {
    let (name, path) = text.split_once('=')?;
    (!name.is_empty() && !path.is_empty()).then(|| (ClusterId::from(name), path.into()))
}

/// None of a variable that is there and empty.
fn network(text: &str) -> Result<Option<IpNet>, String> {
    match text.trim() {
        "" => Ok(None),
        // istiod passes such an entry over, so that it never counts.
        text if !text.contains('/') => {
            Err(format!("it has no prefix length: write {text}/32, or /128 for IPv6"))
        }
        text => text.parse().map(Some).map_err(|_| "it is no network, such as 10.1.0.0/16".to_owned()),
    }
}

fn start_logging(format: LogFormat, level: &str) -> anyhow::Result<()> {
    // inotify forgets a directory that was replaced by itself; the crate warns when it then cannot.
    let filter = EnvFilter::try_new(format!("notify=error,{level}")).with_context(|| {
        format!("--log-level {level:?} cannot be read; try info or info,landbridge::xds=debug")
    })?;
    let colours = std::io::stderr().is_terminal();
    let logs =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}
