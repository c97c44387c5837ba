//! `xds-load floor`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use serde_json::json;

use super::{Floor, Sizes, measure};

/// What the machine allows, to hold measurements against.
#[derive(Clone, Debug, Subcommand)]
pub enum FloorCommand {
    /// Serves finished bytes to the clients of this tool: what a control plane cannot be faster than.
    Serve(Serve),
    /// Measures signing, verifying and key generation on one core. Prints JSON.
    Crypto {
        /// For each operation.
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
}

/// How the floor serves.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// Where clients connect to. The UDP port of the same number takes `push N`.
    #[arg(long, default_value = "127.0.0.1:15010")]
    listen: SocketAddr,
    /// Serve TLS, with a new certificate; its root is written to this file.
    #[arg(long)]
    tls_root: Option<PathBuf>,
    /// Full configuration: so many bytes for each stream after its first requests, clusters and endpoints together.
    #[arg(long, default_value_t = 4096)]
    full: usize,
    /// Bytes of the assignment in each push.
    #[arg(long, default_value_t = 1798)]
    push: usize,
    /// Push every so many seconds, and print what each push cost as a line of JSON.
    #[arg(long)]
    every: Option<f64>,
}

impl FloorCommand {
    /// Does it.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Serve(serve) => serve.run().await,
            Self::Crypto { seconds } => {
                let rates = measure(Duration::try_from_secs_f64(seconds).context("--seconds")?)?;
                println!("{}", serde_json::to_string_pretty(&rates)?);
                Ok(())
            }
        }
    }
}

impl Serve {
    async fn run(self) -> anyhow::Result<()> {
        let Self { listen, tls_root, full, push, every } = self;
        let tls = tls_root.map(|file| tls(&file, listen)).transpose()?;
        // Of what istiod sends to a proxy that sees 1,000 services, two fifths are clusters.
        let cluster = full * 2 / 5;
        let sizes = Sizes { cluster, assignment: full - cluster, push };
        let every = every.map(Duration::try_from_secs_f64).transpose().context("--every")?;
        let floor = Floor::bind(listen, tls, sizes).with_context(|| format!("cannot listen at {listen}"))?;
        let pid = std::process::id();
        println!("{}", json!({ "listening": floor.address()?.to_string(), "pid": pid }));
        let tell = |totals| println!("{}", json!({ "push": totals }));
        floor.run(every, tell).await.context("the floor ended")
    }
}

/// A certificate for the address and for localhost, signed by itself: its own root.
pub(super) fn tls(root: &Path, listen: SocketAddr) -> anyhow::Result<Arc<ServerConfig>> {
    let key = rcgen::KeyPair::generate()?;
    let names = vec![listen.ip().to_string(), "localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)?.self_signed(&key)?;
    fs::write(root, certificate.pem()).with_context(|| format!("cannot write {}", root.display()))?;
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
