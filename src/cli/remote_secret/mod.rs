//! `landbridge create-remote-secret`: what one cluster gives to the control plane of another.
//!
//! ```text
//! kubeconfig of the cluster --> account: service account, rights, token --> document: the Secret, on stdout
//!                                    \-- reach: can the address be reached from elsewhere? --> warnings, on stderr
//! ```

pub(super) mod account;
mod document;
mod reach;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{duration, mcs};
use crate::{
    model::mcs::GROUP,
    pem,
    registry::kubernetes::{Allowed, Client, Failure, from_context, from_secret},
};
use anyhow::{Context, Result, bail};

/// For an answer of the API server.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Arguments of `landbridge create-remote-secret`; the names are istioctl's.
#[derive(Debug, clap::Args)]
pub struct RemoteSecretArgs {
    /// What the cluster is called: the --cluster-id of its control plane and the CLUSTER_ID of its proxies. Without it, the
    /// UID of its namespace kube-system.
    #[arg(long)]
    name: Option<String>,
    /// The address of its API server as the other control plane reaches it, such as https://192.0.2.1:6443. Without it,
    /// the kubeconfig's.
    #[arg(long)]
    server: Option<String>,
    /// The namespace of the service account, and of the Secret in the other cluster
    #[arg(short, long, short_alias = 'i', alias = "istioNamespace", default_value = "istio-system")]
    namespace: String,
    /// The service account that the other control plane reads with
    #[arg(long, default_value = "istio-reader-service-account")]
    service_account: String,
    /// Make the service account, and allow it to read what a control plane reads, if that is missing
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    create_service_account: bool,
    /// The API group in which the other control plane reads ServiceExports and ServiceImports
    #[arg(long, env = "MCS_API_GROUP", default_value = GROUP, value_parser = mcs::group)]
    mcs_api_group: Arc<str>,
    /// How long the token is good for. Without it, it does not expire: a Secret of the service account has it.
    #[arg(long, value_parser = duration::parse_positive)]
    token_duration: Option<Duration>,
    /// What the Secret is for
    #[arg(long, value_enum, default_value = "remote")]
    r#type: Type,
    /// The cluster's kubeconfig. Without it, ~/.kube/config
    #[arg(short = 'c', long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Its context. Without it, the current one
    #[arg(long)]
    context: Option<String>,
}

/// What a Secret is for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Type {
    /// Registers a cluster.
    Remote,
    /// The kubeconfig of a control plane outside of the cluster that it serves: Secret `istio-kubeconfig`, key `config`.
    Config,
}

impl RemoteSecretArgs {
    /// Prints the Secret and nothing else on stdout; what there is to say goes to stderr.
    pub fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        print!("{}", runtime.block_on(self.make())?);
        Ok(())
    }

    async fn make(self) -> Result<String> {
        let Self { namespace, service_account, r#type, .. } = &self;
        if matches!(r#type, Type::Config) && self.create_service_account {
            bail!(
                "--type config: the account that is made here may only read, and a control plane writes, too; chart landbridge makes \
                 account istiod with global.configCluster: give --service-account istiod --create-service-account=false"
            );
        }
        let path = user_kubeconfig(self.kubeconfig.as_deref())?;
        let config = from_context(&path, self.context.as_deref()).await?;
        let client = Client::new(&config)?;
        let name = match &self.name {
            Some(name) => name.clone(),
            None => cluster_uid(&client).await?,
        };
        check_name(&name)?;
        let server = match &self.server {
            Some(server) => checked_server(server)?,
            None => config.cluster_url.to_string().trim_end_matches('/').to_owned(),
        };
        if self.create_service_account {
            account::make(&client, namespace, service_account, &self.mcs_api_group).await?;
        }
        let token = account::token(&client, namespace, service_account, self.token_duration).await?;
        let authority = match token.authority {
            Some(authority) => Some(authority),
            None => config
                .root_cert
                .as_ref()
                .map(|certificates| certificates.iter().map(|der| pem::encode("CERTIFICATE", der)).collect()),
        };
        let kubeconfig = document::kubeconfig(&name, &server, authority.as_deref(), &token.token);
        let inside = account::inside_address(&client).await;
        for warning in reach::warnings(&server, inside.as_deref(), &name) {
            eprintln!("warning: {warning}");
        }
        if let Err(why) = try_it(&kubeconfig).await {
            eprintln!("warning: from here, what the Secret says does not work: {why}");
        }
        if let Some(expires) = token.expires {
            eprintln!(
                "note: the token expires at {expires}; make the Secret again before, and apply it: it is taken over \
                 without a restart"
            );
        }
        Ok(match r#type {
            Type::Remote => document::secret(&name, namespace, &kubeconfig),
            Type::Config => document::config_secret(&name, namespace, &kubeconfig),
        })
    }
}

/// The kubeconfig that is named, or the user's.
pub(super) fn user_kubeconfig(named: Option<&Path>) -> Result<PathBuf> {
    match named {
        Some(path) => Ok(path.to_owned()),
        None => {
            Ok(std::env::home_dir().context("no home directory: give --kubeconfig")?.join(".kube/config"))
        }
    }
}

/// The name becomes the Secret's, its key and a part of resource names.
fn check_name(name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.len() <= 200 && name.starts_with(ends) && name.ends_with(ends) && name.chars().all(fine) {
        return Ok(());
    }
    bail!(
        "--name {name:?}: a part of the Secret's name is made of it; write lower-case letters, digits, '-' and '.', \
         as the cluster's --cluster-id says"
    )
}

fn checked_server(server: &str) -> Result<String> {
    let url = reqwest::Url::parse(server).ok().filter(|url| url.scheme() == "https" && url.has_host());
    url.with_context(|| format!("--server {server:?} is no address: write https://HOST:PORT"))?;
    Ok(server.trim_end_matches('/').to_owned())
}

async fn cluster_uid(client: &Client) -> Result<String> {
    let uid = client.cluster_uid(PATIENCE).await;
    Ok(uid.context("the UID of namespace kube-system cannot be read: give --name")?.into())
}

/// An error of the API server, with what was wanted and what to do.
pub(super) fn said(failure: &Failure, wanted: &str) -> anyhow::Error {
    anyhow::anyhow!("cannot {wanted}: {failure}; {}", failure.remedy())
}

/// Uses what the Secret says, as the other control plane will.
async fn try_it(kubeconfig: &str) -> Result<(), String> {
    let config = from_secret(kubeconfig.as_bytes(), Allowed::default()).await.map_err(|e| e.to_string())?;
    let client = Client::new(&config).map_err(|e| e.to_string())?;
    let answer = client.get_json("/api/v1/namespaces?limit=1", Duration::from_secs(5)).await;
    answer.map(drop).map_err(|failure| match failure.code() {
        Some(401 | 403) => format!("{failure}; {}", failure.remedy()),
        _ => format!("{failure}; if it is reached from the other cluster only, that is as it should be, else give --server"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_servers_are_checked() {
        assert!(["west", "c-1.eu", "0"].iter().all(|name| check_name(name).is_ok()));
        for name in ["", "West", "-a", "a-", "a_b", "a/b", "ü", "a\nb"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert_eq!(checked_server("https://192.0.2.1:6443/").ok().as_deref(), Some("https://192.0.2.1:6443"));
        for server in ["192.0.2.1:6443", "http://192.0.2.1", "https://", "", "https://a b"] {
            assert!(checked_server(server).is_err(), "{server:?}");
        }
    }
}
