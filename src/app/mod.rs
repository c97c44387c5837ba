//! The composition root: builds the parts, wires them, spawns them and ends them. The only place that spawns tasks which
//! live as long as the process.

mod api_servers;
mod authenticate;
mod authority;
mod ca_copy;
mod ca_secret;
mod cgroup;
pub mod clusters;
mod joining;
mod memory;
mod remembered;
mod secrets;
mod writing;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use prometheus_client::registry::Registry;
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    ca_copy::Copy,
    clusters::{Clusters, Place},
    joining::Joiner,
    writing::Writing,
};
use crate::{
    admin::{self, AdminState},
    authn::{
        Authenticator,
        dev_issuer::DevIssuer,
        gateways::TrustedGateways,
        jwks::{Fetching, Jwks, Source as KeySource},
        metrics::AuthnMetrics,
    },
    ca::{
        metrics::CaMetrics,
        server_cert,
        service::{CertificateService, Lifetimes},
        signers::Signers,
        svid::SvidStore,
    },
    gateways::{
        Gateways, Prober, dns,
        resolve::{Resolver, Unresolved},
    },
    index::Options,
    model::{
        ClusterId,
        change::{Batch, ClusterState},
        identity::Spiffe,
        mcs::{Api, Mcs},
        staleness::StalePolicies,
    },
    pipeline::{Inspector, Pipeline},
    registry::{Settings as RegistrySettings, Snapshots, kubernetes::Allowed},
    snapshot::Attacher,
    webhook::{self, Validator, WebhookMetrics},
    writers::{Terms, Writer, metrics::WriterMetrics},
    xds::{
        Access,
        listener::{self, ConnectionSettings},
        metrics::Metrics as XdsMetrics,
        overload::{Bounds, Overload},
        server::{self, Context, Settings as XdsSettings},
        status::Streams,
    },
};

/// Everything that the operator decides.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster that this control plane belongs to, and whose Istio objects are in force.
    pub cluster_id: ClusterId,
    /// The registered clusters, and where each is read from.
    pub clusters: BTreeMap<ClusterId, Place>,
    /// How long the first read of another cluster may take before it counts as away; none: for ever.
    pub remote_cluster_timeout: Option<Duration>,
    /// What is done to the endpoints of clusters that are away.
    pub stale_clusters: StalePolicies,
    /// Whether the gateways of networks are probed.
    pub probe_gateways: bool,
    /// Whether Events say at objects what is wrong with them.
    pub events: bool,
    /// Whether the validating webhooks of the own cluster are kept: their roots, and that they are strict.
    pub validation_webhooks: bool,
    /// What kubeconfigs of remote secrets may do although it is dangerous.
    pub remote_kubeconfigs: Allowed,
    /// The system namespace: of the mesh's configuration, remote secrets, the authority's Secret and Leases.
    pub namespace: String,
    /// What this replica is called in Leases; none: after the machine, and at random.
    pub pod_name: Option<String>,
    /// Where the self-signed root, the development issuer's key and the snapshots of clusters are kept.
    pub state_dir: PathBuf,
    /// A directory in Istio's `cacerts` layout.
    pub ca_dir: Option<PathBuf>,
    /// Without files there, the authority is a Secret of the own cluster.
    pub ca_secrets: bool,
    /// xDS without encryption.
    pub grpc_addr: SocketAddr,
    /// xDS and CA over TLS.
    pub secure_grpc_addr: SocketAddr,
    /// Readiness.
    pub http_addr: SocketAddr,
    /// Metrics and debug pages.
    pub monitoring_addr: SocketAddr,
    /// Webhooks over TLS.
    pub https_addr: SocketAddr,
    /// Accept tokens of the development issuer.
    pub dev_token_issuer: bool,
    /// Issuers of tokens beside the API servers of clusters.
    pub token_issuers: Vec<TokenIssuer>,
    /// The authorities of the servers that have their keys; none: the system's.
    pub jwks_ca_file: Option<PathBuf>,
    /// Accepted audiences of tokens, where their issuer has none of its own.
    pub token_audiences: Vec<String>,
    /// Gateways whose word on their clients' certificates counts.
    pub trusted_gateways: TrustedGateways,
    /// Lifetime of workload certificates.
    pub workload_cert_ttl: Duration,
    /// The longest that may be asked for.
    pub max_workload_cert_ttl: Duration,
    /// Further DNS names of our own certificate.
    pub custom_hosts: Vec<String>,
    /// Failover without a DestinationRule.
    pub failover_by_default: bool,
    /// What of the Multi-Cluster Services API is in force.
    pub mcs: Mcs,
    /// Where its kinds are.
    pub mcs_api: Api,
    /// Whether a ServiceExport is made for every Service.
    pub mcs_auto_export: bool,
    /// Virtual hosts one by one for proxies that can take them.
    pub enable_vhds: bool,
    /// Endpoints of large assignments one by one for proxies that can take them.
    pub enable_leds: bool,
    /// Assignments of more endpoints than this are large.
    pub leds_above: usize,
    /// Suffix of service hosts.
    pub domain: String,
    /// Connections are asked to move on after about this long.
    pub max_connection_age: Duration,
    /// New streams are refused above this many bytes of resident memory. None: nine tenths of the cgroup's limit.
    pub memory_limit: Option<u64>,
    /// Above this many streams, some are asked to connect elsewhere.
    pub max_streams: Option<usize>,
    /// How long streams have at the end.
    pub shutdown_duration: Duration,
}

/// An issuer of tokens.
#[derive(Clone, Debug)]
pub struct TokenIssuer {
    /// The `iss` of its tokens.
    pub name: String,
    /// Where its keys are.
    pub keys: KeySource,
    /// The audiences that are accepted in its tokens.
    pub audiences: Option<Vec<String>>,
}

/// So many batches may wait for the pipeline before sources have to.
const QUEUED_BATCHES: usize = 1024;

/// Serves until SIGTERM or SIGINT, or until a part ends that should not.
pub async fn serve(config: Config) -> Result<()> {
    let started = Instant::now();
    let sockets = Sockets::bind(&config).await?;
    let mut tasks = Tasks::default();
    let mut metrics = Registry::default();
    let xds_metrics = XdsMetrics::register(&mut metrics);
    let ca_metrics = CaMetrics::register(&mut metrics);
    let authn_metrics = AuthnMetrics::register(&mut metrics);
    let webhook_metrics = WebhookMetrics::register(&mut metrics);
    let streams = Arc::new(Streams::default());
    let (ready, is_ready) = watch::channel(false);

    let (inspector, inspections) = Inspector::new();
    let (attacher, commands) = Attacher::new();
    let (changes, batches) = mpsc::channel::<Batch>(QUEUED_BATCHES);
    let awaited: BTreeSet<_> = config.clusters.keys().cloned().collect();
    let (pipeline, mut complete) = Pipeline::new(options(&config), awaited, batches, commands, inspections);
    let (dead, seen_dead) = watch::channel(Arc::default());
    let (addresses, seen_addresses) = watch::channel(Arc::default());
    let pipeline = pipeline
        .with_stale_policies(config.stale_clusters.clone())
        .with_dead_gateways(seen_dead)
        .with_gateway_addresses(seen_addresses);
    tasks.spawn("pipeline", pipeline.run());
    let mut clusters = Clusters::new(
        config.cluster_id.clone(),
        registry_settings(&config),
        config.remote_cluster_timeout,
        changes,
    )
    .with_snapshots(snapshots(&config));
    let ending = clusters.ending();
    let (trusted, roots) = watch::channel(None);
    let writing = Writing::new(Writer {
        own: config.cluster_id.clone(),
        namespace: config.namespace.as_str().into(),
        identity: writing::identity(config.pod_name.as_deref()),
        discovery: clusters.discovery(),
        roots,
        terms: Terms::default(),
        metrics: WriterMetrics::register(&mut metrics),
        notices: clusters.sources().notices().clone(),
        problems: config.events.then(|| clusters.sources().clone()),
        webhooks: config.validation_webhooks,
        mcs_api: config.mcs_api.clone(),
        auto_export: config.mcs_auto_export,
        domain: config.domain.as_str().into(),
    });
    clusters.write_with(writing.clone());
    for (cluster, place) in &config.clusters {
        clusters.add(cluster.clone(), place).await?;
    }
    let (sources, api_servers) = (clusters.sources(), clusters.api_servers());
    let ca_secrets = ca_secret::Secrets {
        cluster: config.cluster_id.clone(),
        namespace: config.namespace.as_str().into(),
        access: api_servers.own_access(),
        standing: writing.own(),
        notices: sources.notices().clone(),
        copy: Copy::new(&config.state_dir, format!("{}/{}", config.cluster_id, config.namespace)),
    };
    let given = config.clusters.keys().cloned().collect();
    let joiner = Joiner::new(config.cluster_id.clone(), given, clusters, config.remote_kubeconfigs);
    let mut joined = joiner.settled();
    tasks.spawn("clusters of remote secrets", joiner.run());

    let gateways = Gateways::default();
    let unresolved = Unresolved::default();
    let resolver = Resolver {
        lookup: dns::system(),
        inspector: inspector.clone(),
        notices: sources.notices().clone(),
        own: config.cluster_id.clone(),
        state_dir: config.state_dir.clone(),
        told: addresses,
        unresolved: unresolved.clone(),
    };
    tasks.spawn("host names of gateways", resolver.run());
    let admin = AdminState {
        inspector: inspector.clone(),
        ready: is_ready,
        metrics: Arc::new(metrics),
        started,
        streams: streams.clone(),
        sources,
        gateways: gateways.clone(),
        unresolved: unresolved.clone(),
    };
    tasks.spawn_http("http", sockets.http, admin::ready_router(admin.clone()));
    tasks.spawn_http("monitoring", sockets.monitoring, admin::router(admin));

    // Told now, a proxy would lose what was not read yet: xDS begins when every cluster was read once, those of remote
    // secrets, too.
    let all_read = async {
        complete.wait_for(|complete| *complete).await.context("the pipeline ended")?;
        joined.wait_for(|settled| *settled).await.context("the joining of clusters ended")?;
        while any_unread(&inspector).await? {
            tokio::time::sleep(LOOK).await;
        }
        unresolved.settled(&inspector).await;
        anyhow::Ok(())
    };
    tokio::select! {
        done = all_read => done?,
        ended = tasks.first_end() => return Err(ended),
        () = stop_signal()? => {
            writing.end_all().await;
            return Ok(());
        }
    }
    let (trust_domain, root_namespace) = inspector
        .ask(|state| (state.index.mesh().trust_domain.clone(), state.index.mesh().root_namespace.clone()))
        .await
        .context("the pipeline does not answer")?;

    let authority = tokio::select! {
        authority = authority::open(&config, &trust_domain, ca_secrets, &mut tasks) => authority?,
        () = stop_signal()? => {
            writing.end_all().await;
            return Ok(());
        }
    };
    tasks.spawn("roots for namespaces", authority::tell_roots(authority.clone(), trusted));
    let signers = Signers::start();
    let svids = Arc::new(SvidStore::new(authority.clone(), config.workload_cert_ttl, signers.clone()));
    tasks.spawn("renewal of workload certificates", run_svids(svids.clone()));
    if config.probe_gateways {
        let identity = Spiffe::new(&trust_domain, &config.namespace, SERVICE_ACCOUNT)
            .context("no identity to probe gateways with")?;
        let prober = Prober::new(authority.clone(), identity, inspector, gateways, dead);
        tasks.spawn("probes of gateways", prober.run());
    }
    let authenticator =
        authenticator(&config, &trust_domain, authn_metrics)?.with_reviewers(Arc::new(api_servers));
    let authenticator = Arc::new(authenticator);
    tasks.spawn("keys of token issuers", run_authenticator(authenticator.clone()));

    let overload = Arc::new(Overload::new(bounds(&config), xds_metrics.clone()));
    let context = Arc::new(Context {
        attacher,
        secrets: Arc::new(secrets::WorkloadSecrets(svids)),
        streams,
        shared: Arc::default(),
        metrics: xds_metrics,
        overload: overload.clone(),
        settings: XdsSettings {
            enable_vhds: config.enable_vhds,
            enable_leds: config.enable_leds,
            leds_above: config.leds_above,
            ..XdsSettings::default()
        },
    });
    memory::spawn(Arc::downgrade(&context));
    let settings = ConnectionSettings {
        max_age: Some(config.max_connection_age),
        grace: config.shutdown_duration,
        ..ConnectionSettings::default()
    };
    let drain = CancellationToken::new();
    let (plain, plain_health) = server::routes(context.clone(), Access::Anonymous);
    let (mut secure, secure_health) = server::routes(
        context,
        Access::Authenticated(Arc::new(authenticate::ByCredentials(authenticator.clone()))),
    );
    let lifetimes = Lifetimes { default: config.workload_cert_ttl, max: config.max_workload_cert_ttl };
    CertificateService::new(authority.clone(), authenticator, lifetimes, ca_metrics, signers)
        .mount(&mut secure);
    let names = server_cert::dns_names(&root_namespace, &config.domain, &config.custom_hosts);
    let tls = server_cert::server_config(authority, &names).context("no certificate for our own TLS port")?;

    let validator = Validator::new(config.cluster_id.clone(), registry_settings(&config));
    let webhooks = webhook::serve(sockets.https, server_cert::https_config(&tls), validator, webhook_metrics);
    tasks.spawn("webhooks", async move {
        let Err(error) = webhooks.await;
        warn!(%error, "the webhooks' server ended");
    });

    let mut servers = JoinSet::new();
    servers.spawn(listener::serve(sockets.grpc, None, plain, settings, overload.clone(), drain.clone()));
    let (secure_grpc, stop) = (sockets.secure_grpc, drain.clone());
    servers.spawn(listener::serve(secure_grpc, Some(tls), secure, settings, overload, stop));
    ready.send_replace(true);
    info!(cluster = %config.cluster_id, grpc = %config.grpc_addr, secure_grpc = %config.secure_grpc_addr,
        monitoring = %config.monitoring_addr, elapsed = ?started.elapsed(), "serving");

    let ended = tokio::select! {
        () = stop_signal()? => None,
        ended = tasks.first_end() => Some(ended),
    };
    ready.send_replace(false);
    info!(grace = ?config.shutdown_duration, "draining: streams are asked to connect elsewhere");
    plain_health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    secure_health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    drain.cancel();
    writing.end_all().await;
    while servers.join_next().await.is_some() {}
    ending.end().await;
    match ended {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// That of control planes in Istio's charts, and ours.
const SERVICE_ACCOUNT: &str = "istiod";

/// Without a place for them everything runs, until it has to start while a cluster is away.
fn snapshots(config: &Config) -> Option<Snapshots> {
    let dir = config.state_dir.join("clusters");
    match Snapshots::open(&dir, config.cluster_id.clone()) {
        Ok(snapshots) => Some(snapshots),
        Err(error) => {
            warn!(dir = %dir.display(), %error, "what is known of clusters is not kept over restarts; give landbridge a --state-dir that it can write to");
            None
        }
    }
}

/// Between looks at clusters that are read for the first time.
const LOOK: Duration = Duration::from_millis(20);

async fn any_unread(inspector: &Inspector) -> Result<bool> {
    let unread =
        inspector.ask(|state| state.index.clusters().any(|(_, s)| *s == ClusterState::Syncing)).await;
    unread.context("the pipeline does not answer")
}

/// Without a limit of its own, the process leaves a tenth of what the system gives it.
fn bounds(config: &Config) -> Bounds {
    let given = || cgroup::memory_limit().map(|bytes| bytes / 10 * 9);
    let memory_bytes = config.memory_limit.or_else(given);
    info!(memory_bytes, streams = config.max_streams, "bounds");
    Bounds { memory_bytes, streams: config.max_streams }
}

fn options(config: &Config) -> Options {
    Options {
        config_cluster: config.cluster_id.clone(),
        failover_by_default: config.failover_by_default,
        domain: config.domain.as_str().into(),
        mcs: config.mcs,
    }
}

fn registry_settings(config: &Config) -> RegistrySettings {
    RegistrySettings {
        domain: config.domain.as_str().into(),
        failover_by_default: config.failover_by_default,
        root_namespace: config.namespace.as_str().into(),
        mcs: config.mcs != Mcs::Off,
        mcs_api: config.mcs_api.clone(),
    }
}

fn authenticator(config: &Config, trust_domain: &str, metrics: AuthnMetrics) -> Result<Authenticator> {
    for network in config.trusted_gateways.everybody() {
        warn!(%network, "every address is that of a trusted gateway: whoever reaches the port can be any workload; narrow --trusted-gateway-cidr");
    }
    let mut authenticator = Authenticator::new(trust_domain, config.token_audiences.clone())
        .with_trusted_gateways(config.trusted_gateways.clone());
    let fetching = Fetching { ca_file: config.jwks_ca_file.clone(), metrics };
    for TokenIssuer { name, keys, audiences } in &config.token_issuers {
        if keys.is_plain() {
            warn!(issuer = %name, source = %keys,
                "the keys of a token issuer come in plain text: whoever can change them on their way can be any workload; use https");
        }
        let keys = Jwks::from_source(keys.clone(), fetching.clone())
            .map_err(|reason| anyhow!("the keys of token issuer {name} cannot be fetched: {reason}"))?;
        authenticator = authenticator.with_issuer(name, audiences.clone(), keys);
    }
    if config.dev_token_issuer {
        warn!(
            "tokens of the development issuer are accepted: whoever reads the state directory can be any workload"
        );
        let issuer = DevIssuer::load_or_create(&config.state_dir).context("no development issuer")?;
        authenticator = authenticator.with_dev_issuer(&issuer);
    }
    Ok(authenticator)
}

async fn run_svids(svids: Arc<SvidStore>) {
    svids.run().await;
}

async fn run_authenticator(authenticator: Arc<Authenticator>) {
    authenticator.run().await;
}

fn stop_signal() -> Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The sockets, bound before anything else: a port in use is said at once.
struct Sockets {
    grpc: TcpListener,
    secure_grpc: TcpListener,
    http: TcpListener,
    monitoring: TcpListener,
    https: TcpListener,
}

impl Sockets {
    async fn bind(config: &Config) -> Result<Self> {
        let bind = async |flag: &str, address: SocketAddr| {
            listen(address).with_context(|| {
                format!(
                    "cannot listen on {address} (--{flag}): end what uses the port, or choose another address"
                )
            })
        };
        Ok(Self {
            grpc: bind("grpc-addr", config.grpc_addr).await?,
            secure_grpc: bind("secure-grpc-addr", config.secure_grpc_addr).await?,
            http: bind("http-addr", config.http_addr).await?,
            monitoring: bind("monitoring-addr", config.monitoring_addr).await?,
            https: bind("https-addr", config.https_addr).await?,
        })
    }
}

/// When a server starts, all its proxies come at once. What the backlog cannot hold comes again after a second, then
/// after three.
const BACKLOG: u32 = 4096;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Tasks that live as long as the process; one that ends is an error.
#[derive(Default)]
struct Tasks(JoinSet<&'static str>);

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            task.await;
            name
        });
    }

    fn spawn_http(&mut self, name: &'static str, listener: TcpListener, router: axum::Router) {
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        self.spawn(name, async move {
            if let Err(error) = axum::serve(listener, service).await {
                warn!(%error, "an HTTP server ended");
            }
        });
    }

    async fn first_end(&mut self) -> anyhow::Error {
        match self.0.join_next().await {
            Some(Ok(name)) => anyhow!("{name}: ended unexpectedly"),
            Some(Err(error)) => anyhow!("a part of the control plane panicked: {error}"),
            None => anyhow!("nothing runs"),
        }
    }
}
