//! `landbridge cluster rotate`: new credentials for a joined cluster, and none left of the old ones.
//!
//! ```text
//! remote secret (config cluster) --> its token: whose, of which Secret --> new Secret and token (that cluster)
//!     --> remote secret --> every landbridge says that it uses them --> the old Secret is deleted, and its token with it
//!                       \-- it does not in time: everything as before, and why
//! ```

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    admin::AdminArgs,
    duration,
    remote_secret::{
        account::{self, Issued},
        user_kubeconfig,
    },
    rotation::{self, Login, Place},
};
use crate::{
    admin::topology::Cluster,
    registry::{
        kubernetes::{Client, from_context},
        remote::fingerprint,
    },
};

/// Between looks at what landbridge says.
const LOOK: Duration = Duration::from_millis(500);

/// Arguments of `landbridge cluster`.
#[derive(Debug, clap::Args)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ClusterCommand {
    /// Give landbridge new credentials for a cluster that it reads, and take the old ones out of use.
    Rotate(RotateArgs),
}

/// Arguments of `landbridge cluster rotate`.
#[derive(Debug, clap::Args)]
struct RotateArgs {
    /// The cluster, as `landbridge remote-clusters` calls it
    name: String,
    /// A kubeconfig with rights to make tokens in that cluster. Without it, ~/.kube/config
    #[arg(short = 'c', long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// The context of that cluster
    #[arg(long)]
    context: Option<String>,
    /// A kubeconfig with rights to change remote secrets in the config cluster. Without it, the same file
    #[arg(long)]
    config_kubeconfig: Option<PathBuf>,
    /// The context of the config cluster. Without it, the file's current one
    #[arg(long)]
    config_context: Option<String>,
    /// The namespace of remote secrets
    #[arg(short, long, default_value = "istio-system")]
    namespace: String,
    /// How long the new token is good for. Without it, it does not expire, where the cluster makes such tokens.
    #[arg(long, value_parser = duration::parse_positive)]
    token_duration: Option<Duration>,
    /// Addresses of the monitoring ports of all landbridges that read the cluster
    #[arg(long, env = "LANDBRIDGE_ADMIN", default_value = "http://127.0.0.1:15014", value_delimiter = ',')]
    admin: Vec<String>,
    /// How long landbridge may take to use the new credentials; afterwards the old ones are put back.
    #[arg(long, default_value = "60s", value_parser = duration::parse_positive)]
    timeout: Duration,
}

impl ClusterArgs {
    /// Runs the chosen command.
    pub fn run(self) -> Result<()> {
        match self.command {
            ClusterCommand::Rotate(args) => args.run(),
        }
    }
}

impl RotateArgs {
    fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let file = user_kubeconfig(self.kubeconfig.as_deref())?;
        let config_file = self.config_kubeconfig.as_ref().unwrap_or(&file);
        // It is asked first: without it, nothing could be proved and nothing should be changed.
        for admin in &self.admin {
            self.known(admin)?;
        }
        let (there, config) = runtime.block_on(async {
            let client = async |file, context: &Option<String>| {
                anyhow::Ok(Client::new(&from_context(file, context.as_deref()).await?)?)
            };
            anyhow::Ok((
                client(&file, &self.context).await?,
                client(config_file, &self.config_context).await?,
            ))
        })?;
        let Place { secret, kubeconfig } =
            runtime.block_on(rotation::find(&config, &self.namespace, &self.name))?;
        let old = Login::read(&kubeconfig)?;
        let (namespace, account) = old.account(&self.namespace);
        runtime.block_on(rotation::same_cluster(&there, &kubeconfig, &self.name))?;
        eprintln!("a new token of ServiceAccount {namespace}/{account} is made in cluster {}", self.name);
        let Issued { token, holder, expires } =
            runtime.block_on(account::issue(&there, &namespace, &account, self.token_duration))?;
        let next = rotation::with_token(&kubeconfig, &token)?;
        let stored = runtime.block_on(rotation::store(&config, &secret, &self.name, next.as_bytes()));
        let used = stored.and_then(|()| self.until_used(&fingerprint(next.as_bytes())));
        if let Err(why) = used {
            let back = async {
                rotation::store(&config, &secret, &self.name, kubeconfig.as_bytes()).await?;
                holder.delete(&there).await
            };
            return Err(match runtime.block_on(back) {
                Ok(()) => why.context("the credentials are as they were before"),
                Err(error) => why.context(format!(
                    "the old credentials are still in use, and could not be put back into the Secret ({error:#})"
                )),
            });
        }
        println!("{}: the new credentials are in use", self.name);
        if let Some(expires) = expires {
            eprintln!("note: the new token expires at {expires}; rotate again before");
        }
        runtime.block_on(self.take_out_of_use(&there, &old, &namespace))
    }

    /// Waits until every landbridge says that it uses these credentials.
    fn until_used(&self, fingerprint: &str) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        for admin in &self.admin {
            loop {
                let found = self.known(admin);
                if found.as_ref().is_ok_and(|cluster| cluster.credentials.as_deref() == Some(fingerprint)) {
                    break;
                }
                if Instant::now() > deadline {
                    let cluster = found?;
                    let why = cluster.problem.unwrap_or_else(|| {
                        "it says no reason: see whether it is in charge of that remote secret, and its log".into()
                    });
                    bail!(
                        "landbridge at {admin} does not use the new credentials after {:?}: {why}",
                        self.timeout
                    );
                }
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }

    /// What a landbridge knows of the cluster.
    fn known(&self, admin: &str) -> Result<Cluster> {
        let clusters: Vec<Cluster> = AdminArgs { admin: admin.to_owned() }.get("/debug/clusterz", &[])?;
        let mut names: Vec<_> =
            clusters.iter().filter(|c| !c.secret_name.is_empty()).map(|c| c.id.clone()).collect();
        names.sort();
        let found = clusters.into_iter().find(|c| c.id == self.name && !c.secret_name.is_empty());
        found.with_context(|| {
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            format!(
                "landbridge at {admin} reads no cluster {} by a remote secret; by remote secrets: {known}",
                self.name
            )
        })
    }

    async fn take_out_of_use(&self, there: &Client, old: &Login, namespace: &str) -> Result<()> {
        match old.holder(namespace) {
            Some(holder) => {
                holder.delete(there).await?;
                println!("{}: the old token is taken back (Secret {holder} is deleted)", self.name);
            }
            None => eprintln!(
                "note: the old credentials cannot be taken back one by one: {}",
                old.ends()
                    .unwrap_or("they hold until what they are made of is deleted in that cluster".to_owned())
            ),
        }
        Ok(())
    }
}
