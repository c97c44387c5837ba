//! Joins the clusters that remote secrets name, exchanges their credentials, and takes them away, while everything runs.
//! What is to be done is decided by `registry::remote`; this does it.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{sync::watch, time};
use tracing::info;

use super::clusters::{Clusters, PROOF};
use crate::{
    model::{ClusterId, remote_secret::Kubeconfig},
    registry::{
        RemoteSecrets,
        kubernetes::{Access, Allowed, Client, from_secret},
        remote::{Desired, LINGER, Members, Secrets, Step, desired},
    },
};

/// How long two API servers may take to say which clusters they are of.
const COMPARE: Duration = Duration::from_secs(3);

/// Why a kubeconfig is not used, and what to do.
type Refusal = (String, String);

/// The task that joins clusters.
pub struct Joiner {
    own: ClusterId,
    /// Clusters that flags name.
    given: BTreeSet<ClusterId>,
    clusters: Clusters,
    secrets: RemoteSecrets,
    allowed: Allowed,
    members: Members,
    access: BTreeMap<ClusterId, Access>,
    refused: BTreeMap<ClusterId, Refusal>,
    /// What is being tried: an API server that does not answer holds up nobody else.
    trials: FuturesUnordered<BoxFuture<'static, Trial>>,
    /// Whether it was seen which clusters are known from before.
    compared: Compared,
    settled: watch::Sender<bool>,
}

/// How far the clusters that are known from before a restart were compared with those that secrets name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Compared {
    No,
    /// The secrets cannot be read: all of them are served.
    Unread,
    /// With all secrets that there are.
    Whole,
}

/// How a trial ended: with a client for a cluster that is new, with nothing for one whose client was exchanged.
struct Trial {
    cluster: ClusterId,
    result: Result<Option<Client>, Refusal>,
}

impl Joiner {
    pub fn new(own: ClusterId, given: BTreeSet<ClusterId>, clusters: Clusters, allowed: Allowed) -> Self {
        Self {
            own,
            given,
            secrets: clusters.remote_secrets(),
            clusters,
            allowed,
            members: Members::default(),
            access: BTreeMap::new(),
            refused: BTreeMap::new(),
            trials: FuturesUnordered::new(),
            compared: Compared::No,
            settled: watch::Sender::new(false),
        }
    }

    /// Whether the clusters of the secrets that there were at first are being read.
    pub fn settled(&self) -> watch::Receiver<bool> {
        self.settled.subscribe()
    }

    /// Follows the secrets, for ever.
    pub async fn run(mut self) {
        let mut changes = self.secrets.subscribe();
        loop {
            let secrets = changes.borrow_and_update().clone();
            self.clusters.sources().joined().set_events(secrets.events);
            let (wanted, problems) = desired(&secrets, &self.own, &self.given);
            for step in self.members.steps(&wanted, Instant::now()) {
                self.begin(step).await;
            }
            self.compare_known(&secrets, &wanted).await;
            self.refused.retain(|cluster, _| self.members.is_in_doubt(cluster));
            self.clusters.sources().joined().set(
                &self.own,
                &wanted,
                |cluster| self.members.used(cluster).cloned(),
                &self.refused,
                problems,
            );
            if secrets.settled && self.trials.is_empty() {
                self.settled.send_if_modified(|settled| !std::mem::replace(settled, true));
            }
            let wake = async {
                match self.members.next() {
                    Some(at) => time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Its sender is a part of `self`.
                _ = changes.changed() => {}
                () = wake => {}
                Some(trial) = self.trials.next() => self.end(trial).await,
            }
        }
    }

    /// Secrets that cannot be read are not gone, and neither are their clusters: what was last known of these is served. Once
    /// all secrets are read, those that none names are.
    async fn compare_known(&mut self, secrets: &Secrets, wanted: &BTreeMap<ClusterId, Desired>) {
        let now = match (secrets.settled, secrets.whole) {
            (_, true) => Compared::Whole,
            (true, false) => Compared::Unread,
            (false, false) => Compared::No,
        };
        // Also those that were remembered later, because what their secrets said was refused.
        let mut known = if now == Compared::Whole { self.clusters.remembered() } else { Vec::new() };
        if now > self.compared {
            self.compared = now;
            known.extend(self.clusters.known());
        }
        for cluster in known.iter().filter(|c| !wanted.contains_key(c) && !self.given.contains(c)) {
            if now == Compared::Whole {
                info!(%cluster, "no secret names it any more");
                self.clusters.remove(cluster).await;
            } else {
                self.clusters.remember(cluster, "the secrets that name it cannot be read").await;
            }
        }
    }

    async fn begin(&mut self, step: Step) {
        match step {
            Step::Add(cluster, kubeconfig) => {
                let trial = client(kubeconfig, self.allowed);
                let result = async move { Trial { cluster, result: trial.await.map(Some) } };
                self.trials.push(result.boxed());
            }
            Step::Replace(cluster, kubeconfig) => {
                let trial = client(kubeconfig, self.allowed);
                let access = self.access.get(&cluster).cloned();
                self.trials
                    .push(async move { Trial { result: replace(trial, access).await, cluster } }.boxed());
            }
            Step::Remove(cluster) => {
                self.access.remove(&cluster);
                self.clusters.remove(&cluster).await;
            }
        }
    }

    async fn end(&mut self, Trial { cluster, result }: Trial) {
        if !self.members.done(&cluster, result.is_ok(), Instant::now()) {
            return;
        }
        match result {
            Err((mut reason, remedy)) => {
                if self.access.contains_key(&cluster) {
                    reason = format!("is not used, the credentials before it stay: {reason}");
                }
                if !self.access.contains_key(&cluster) && !self.clusters.remembers(&cluster) {
                    self.clusters.remember(&cluster, "the credentials in its secret are refused").await;
                }
                self.refused.insert(cluster, (reason, remedy));
            }
            Ok(made) => {
                self.refused.remove(&cluster);
                match made {
                    Some(client) => {
                        let access = self.clusters.join(cluster.clone(), client).await;
                        self.access.insert(cluster, access);
                    }
                    None => info!(%cluster, "new credentials are in use"),
                }
            }
        }
    }
}

/// Makes a client. The program that a kubeconfig may name runs on a thread where it holds up nobody.
async fn client(kubeconfig: Kubeconfig, allowed: Allowed) -> Result<Client, Refusal> {
    let made = async {
        let config = from_secret(kubeconfig.expose(), allowed).await;
        let config = config.map_err(|unusable| (unusable.reason, unusable.remedy.to_owned()))?;
        let program = config.auth_info.exec.as_ref().map(|exec| exec.command.clone().unwrap_or_default());
        let (sender, made) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new().name("credentials".into()).spawn(move || {
            let _runtime = runtime.enter();
            // Who does not wait any more does not want it.
            drop(sender.send(Client::new(&config)));
        });
        thread.map_err(|error| {
            (format!("got no thread: {error}"), "raise the limit of processes".to_owned())
        })?;
        let made = made.await.map_err(|_| ("made landbridge panic".to_owned(), "report this".to_owned()))?;
        made.map_err(|error| match program {
            // The words would quote what it printed.
            Some(program) => {
                (format!("its program {program} gave no credentials"), "run it by hand".to_owned())
            }
            None => (error.to_string(), "make the Secret again".to_owned()),
        })
    };
    let late = || (format!("gave no credentials in {PROOF:?}"), "see what its program waits for".to_owned());
    time::timeout(PROOF, made).await.map_err(|_| late())?
}

async fn replace(
    client: impl Future<Output = Result<Client, Refusal>>,
    access: Option<Access>,
) -> Result<Option<Client>, Refusal> {
    let client = client.await?;
    let Some(access) = access else { return Ok(Some(client)) };
    let old = access.client();
    let (was, is) = futures::join!(old.cluster_uid(COMPARE), client.cluster_uid(COMPARE));
    if let (Some(was), Some(is)) = (was, is)
        && was != is
    {
        // Watches cannot go on at versions of another cluster; and most likely a file was taken for another.
        let reason =
            format!("opens another cluster (its kube-system has UID {is}) than the one that is read ({was})");
        let remedy = format!(
            "give the right kubeconfig; if the cluster was replaced, delete the Secret, wait {LINGER:?}, and make it again"
        );
        return Err((reason, remedy));
    }
    let proof = access.replace(client, PROOF).await;
    proof.map(|()| None).map_err(|failure| (failure.to_string(), failure.remedy().to_owned()))
}
