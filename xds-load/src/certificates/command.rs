//! `xds-load certificates`.

use std::{net::SocketAddr, path::PathBuf, rc::Rc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use tokio::{process::Command, task::LocalSet};

use super::{Answers, Credentials, Pace, Pool, Requests, SecretsReport, TokenKey, Watchers, check};
use crate::{
    floor::cpu,
    h2::{Target, Tls, TlsFiles},
    run::process::{Usage, usage},
};

/// Certificates under load.
#[derive(Clone, Debug, Subcommand)]
pub enum CertificatesCommand {
    /// `CreateCertificate`, as Istio's agents call it. Prints JSON; fails if an answer is missing or wrong.
    Request(Box<RequestArgs>),
    /// Keys and certificates over SDS: until all identities have theirs, and until all have new ones. Prints JSON.
    Secrets(Box<SecretsArgs>),
}

/// The server, and who asks.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// The control plane.
    #[arg(long, default_value = "127.0.0.1:15012")]
    server: SocketAddr,
    /// The name in its certificate.
    #[arg(long, default_value = "istiod.istio-system.svc")]
    server_name: String,
    /// Roots of its certificate, PEM. Without them it is not checked.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// No TLS.
    #[arg(long, conflicts_with_all = ["ca", "client_cert"])]
    plaintext: bool,
    /// A client certificate chain for all connections, PEM.
    #[arg(long, requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// Service-account tokens, one per line: connection n has the nth.
    #[arg(long, conflicts_with = "token_key")]
    tokens: Option<PathBuf>,
    /// Mint tokens with this key of an issuer that the server trusts (P-256, PKCS#8 PEM).
    #[arg(long)]
    token_key: Option<PathBuf>,
    /// `iss` of minted tokens. The default is that of `landbridge serve --dev-token-issuer`, whose key is in its state directory.
    #[arg(long, default_value = "landbridge-development-issuer")]
    token_issuer: String,
    /// `aud` of minted tokens.
    #[arg(long, default_value = "istio-ca")]
    token_audience: String,
    /// Identities that tokens are minted for.
    #[arg(long, default_value_t = 1)]
    identities: usize,
    /// Their namespace.
    #[arg(long, default_value = "xds-load")]
    namespace: String,
    /// The trust domain of the identities.
    #[arg(long, default_value = "cluster.local")]
    trust_domain: String,
    /// The cluster that callers say they are in.
    #[arg(long)]
    cluster: Option<String>,
    /// The server's process: its CPU time is taken from /proc.
    #[arg(long)]
    pid: Option<u32>,
}

/// What is asked.
#[derive(Clone, Debug, Args)]
pub struct RequestArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Connections at the same time.
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// For how long.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Requests in a second, at fixed times; without it each connection asks again as soon as it has its answer.
    #[arg(long)]
    rate: Option<f64>,
    /// A new connection for each request, as a pod that starts has one.
    #[arg(long)]
    new_connection: bool,
    /// Each caller gets a certificate by its token first, and asks with that as its client certificate.
    #[arg(long, conflicts_with_all = ["plaintext", "client_cert"])]
    mutual: bool,
    /// Different keys and requests, made before the time starts.
    #[arg(long, default_value_t = 256)]
    csrs: usize,
    /// Lifetime to ask for, in seconds; 0: the server's default.
    #[arg(long, default_value_t = 86_400)]
    validity: u64,
    /// Answers to check, after the time is over; later ones are only counted.
    #[arg(long, default_value_t = 200_000)]
    check: usize,
    /// Roots that answers have to come with, PEM.
    #[arg(long)]
    trust: Option<PathBuf>,
}

/// What is watched.
#[derive(Clone, Debug, Args)]
pub struct SecretsArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// A shell command that makes the server issue new certificates, such as one that replaces its intermediate.
    #[arg(long)]
    rotate: Option<String>,
    /// How long to wait, each time.
    #[arg(long, default_value_t = 60.0)]
    patience: f64,
}

impl CertificatesCommand {
    /// Does it.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Request(args) => args.run().await,
            Self::Secrets(args) => args.run().await,
        }
    }
}

impl ServerArgs {
    fn target(&self) -> anyhow::Result<Target> {
        let identity = self.client_cert.clone().zip(self.client_key.clone());
        let files = TlsFiles { roots: self.ca.clone(), identity };
        let tls = if self.plaintext { None } else { Some(Tls::load(&files, &self.server_name)?) };
        let authority = format!("{}:{}", self.server_name, self.server.port()).into();
        Ok(Target { address: self.server, authority, source: None, tls })
    }

    fn credentials(&self) -> anyhow::Result<Credentials> {
        let cluster = self.cluster.as_deref();
        Ok(match (&self.tokens, &self.token_key) {
            (Some(path), _) => Credentials::tokens(path, &self.trust_domain, cluster)?,
            (None, Some(path)) => {
                let key = TokenKey::read(path, &self.token_issuer, &self.token_audience, &self.trust_domain)?;
                Credentials::minted(&key, self.identities, &self.namespace, cluster)?
            }
            (None, None) => Credentials::anonymous(cluster),
        })
    }

    /// The server's CPU time so far.
    fn usage(&self) -> anyhow::Result<Option<Usage>> {
        let of = |pid| usage(pid).with_context(|| format!("there is no process {pid} (--pid)"));
        self.pid.map(of).transpose()
    }
}

impl RequestArgs {
    async fn run(self) -> anyhow::Result<()> {
        let target = self.server.target()?;
        let pool = Rc::new(Pool::generate(self.csrs.max(self.server.identities))?);
        let mut credentials = self.server.credentials()?;
        let trust = self.trust.as_ref().map(std::fs::read_to_string).transpose().context("--trust")?;
        if self.mutual {
            for caller in &mut credentials.0 {
                let tls = (self.server.ca.as_deref(), self.server.server_name.as_str());
                caller.obtain(&target, pool.get(0), tls).await.context("--mutual")?;
            }
        }
        let requests = Requests {
            target,
            connections: self.connections.max(1),
            new_connection: self.new_connection,
            pace: self.rate.map_or(Pace::Closed, Pace::Open),
            lasting: Duration::try_from_secs_f64(self.seconds).context("--seconds")?,
            validity: self.validity,
            keep: self.check,
        };
        let (server, client) = (self.server.usage()?, cpu::of_this_thread());
        let answers = requests.run(pool.clone(), &credentials).await;
        let client = (cpu::of_this_thread() - client).as_secs_f64();
        let server =
            server.zip(self.server.usage()?).map(|(before, after)| after.since(&before).as_secs_f64());
        let checked = check(&answers.kept, &pool, trust.as_deref());
        let Answers { recorder, failed, seconds, .. } = answers;
        let latencies = recorder.latencies();
        let each = |seconds: f64| seconds * 1e6 / latencies.count.max(1) as f64;
        let report = json!({
            "perSecond": latencies.count as f64 / seconds,
            "seconds": seconds,
            "latencies": latencies,
            "serverMicroseconds": server.map(each),
            "clientMicroseconds": each(client),
            "failed": failed,
            "checked": checked,
        });
        println!("{report:#}");
        ensure!(failed.is_empty(), "requests failed");
        ensure!(checked.wrong.is_empty(), "answers are wrong");
        ensure!(latencies.count > 0, "no request was answered");
        Ok(())
    }
}

impl SecretsArgs {
    async fn run(self) -> anyhow::Result<()> {
        let target = self.server.target()?;
        let credentials = self.server.credentials()?;
        let patience = Duration::try_from_secs_f64(self.patience).context("--patience")?;
        let cluster = self.server.cluster.clone().unwrap_or_default();
        let local = LocalSet::new();
        let work = async {
            let before = self.server.usage()?;
            let watchers = Watchers::start(&local, &target, &credentials, &cluster);
            let first = watchers.delivered(patience).await;
            let between = self.server.usage()?;
            let rotated = match &self.rotate {
                None => None,
                Some(command) => {
                    watchers.rotate(run_shell(command)).await?;
                    Some(watchers.delivered(patience).await)
                }
            };
            let cpu = |from: Option<Usage>, to: Option<Usage>| {
                Some(to?.since(&from?).as_secs_f64() * 1e6 / credentials.0.len() as f64)
            };
            let micros = [cpu(before, between), cpu(between, self.server.usage()?)];
            anyhow::Ok((SecretsReport { first, rotated, failed: watchers.failed() }, micros))
        };
        let (report, micros) = local.run_until(work).await?;
        println!("{:#}", json!({ "report": report, "serverMicrosecondsEach": micros }));
        for delivery in std::iter::once(&report.first).chain(&report.rotated) {
            ensure!(delivery.delivered == delivery.wanted, "not all identities got their secrets");
            ensure!(delivery.checked.wrong.is_empty(), "secrets are wrong");
        }
        Ok(())
    }
}

async fn run_shell(command: &str) -> anyhow::Result<()> {
    let status = Command::new("sh").arg("-c").arg(command).status().await.context("cannot run --rotate")?;
    if !status.success() {
        bail!("the command of --rotate ended with {status}");
    }
    Ok(())
}
