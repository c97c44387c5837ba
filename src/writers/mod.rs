//! What is written to API servers: by one replica for each cluster, the one that holds the Lease there.
//!
//! ```text
//!  namespace istio-system --annotation--> ownership: is the cluster ours to write to?
//!    Lease landbridge-leader <--> election: do it --> Standing: leads until --.
//!                                 lease: the rules (pure)                     v
//!    namespaces, ConfigMaps, roots, selectors --> root_certs: what is due (pure) --> keeper: write it
//!    what is wrong with objects ----------------> events: say it there
//!    Services, ServiceExports, mesh ------------> exports: what is due (pure), make it
//!    webhooks of the own cluster, roots --------> webhooks: what is due (pure), write it
//! ```
//!
//! Readers never wait for any of this, and what fails here is said at the cluster (`Notices`) and hurts nothing else.
//!
//! No two write at once: a leader writes until ten seconds after it last began to renew the Lease with success, by its own
//! monotonic clock; others take the Lease only after they saw it unchanged for fifteen, by theirs.

mod election;
mod events;
mod exports;
mod keeper;
mod lease;
pub mod metrics;
mod ownership;
mod root_certs;
mod webhooks;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::OptionFuture;
use tokio::{
    sync::{Notify, watch},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;

use self::{
    election::Election, events::Reporter, exports::Exporter, keeper::Keeper, metrics::WriterMetrics,
    webhooks::Patcher,
};
pub use self::{election::Standing, lease::Terms};
use crate::{
    model::{ClusterId, mcs::Api},
    registry::{
        Discovery, Notices, Sources,
        kubernetes::{Access, Failure},
    },
};

/// For an answer to something written.
const PATIENCE: Duration = Duration::from_secs(5);

/// What writers of all clusters have in common.
#[derive(Clone, Debug)]
pub struct Writer {
    /// The cluster that this control plane belongs to.
    pub own: ClusterId,
    /// The namespace of Leases, and of the annotation that gives a cluster to a control plane.
    pub namespace: Arc<str>,
    /// What this replica is called in Leases; no other process has the same.
    pub identity: Arc<str>,
    /// Which namespaces are the mesh's.
    pub discovery: Discovery,
    /// The roots to trust as PEM; none until there is an authority.
    pub roots: watch::Receiver<Option<Arc<str>>>,
    /// How long Leases hold.
    pub terms: Terms,
    /// What is counted.
    pub metrics: WriterMetrics,
    /// Where problems are said.
    pub notices: Notices,
    /// What is wrong with objects, to be said there as Events; none: no Events are written.
    pub problems: Option<Sources>,
    /// Whether the validating webhooks of the own cluster are kept.
    pub webhooks: bool,
    /// Where ServiceExports are.
    pub mcs_api: Api,
    /// Whether one is made for every Service.
    pub auto_export: bool,
    /// Suffix of service hosts.
    pub domain: Arc<str>,
}

impl Writer {
    /// Writes to a cluster whenever it is ours and its Lease is held, until `stop`; gives the Lease back then. `standing` says
    /// who leads.
    pub async fn run(
        &self,
        cluster: &ClusterId,
        access: Access,
        standing: watch::Sender<Standing>,
        stop: CancellationToken,
    ) {
        self.metrics.stands(cluster, standing.subscribe());
        let mut election = Election::new(self, cluster, access.clone());
        if *cluster == self.own {
            self.lead(cluster, &access, &mut election, &standing, &stop).await;
        } else {
            let (owned, mut ours) = watch::channel(false);
            let look = ownership::follow(&access, &self.namespace, &self.own, &owned);
            let lead = async {
                while !stop.is_cancelled() {
                    let begin = ours.wait_for(|ours| *ours);
                    if stop.run_until_cancelled(begin).await.is_none_or(|begun| begun.is_err()) {
                        return;
                    }
                    let taken = stop.child_token();
                    tokio::select! {
                        () = self.lead(cluster, &access, &mut election, &standing, &taken) => {}
                        () = async { drop(ours.wait_for(|ours| !*ours).await) } => {
                            tracing::info!(%cluster, "the cluster is not ours to write to any more");
                            standing.send_replace(Standing::default());
                            election.release().await;
                        }
                    }
                }
            };
            tokio::select! {
                never = look => match never {},
                () = lead => {}
            }
        }
        self.metrics.forget(cluster);
        self.notices.set(cluster, election::TOPIC, Vec::new());
        self.notices.set(cluster, keeper::TOPIC, Vec::new());
        self.notices.set(cluster, events::TOPIC, Vec::new());
        self.notices.set(cluster, exports::TOPIC, Vec::new());
        self.notices.set(cluster, webhooks::TOPIC, Vec::new());
    }

    /// Stands for election and writes while elected, until `stop`.
    async fn lead(
        &self,
        cluster: &ClusterId,
        access: &Access,
        election: &mut Election,
        standing: &watch::Sender<Standing>,
        stop: &CancellationToken,
    ) {
        let mut elected = standing.subscribe();
        let write = async {
            loop {
                let leads = |standing: &Standing| standing.leads(Instant::now());
                if elected.wait_for(leads).await.is_err() {
                    return;
                }
                tracing::info!(%cluster, "this replica writes to the cluster");
                let report = async {
                    match &self.problems {
                        Some(sources) => {
                            Reporter::new(self, cluster, access, standing.subscribe()).run(sources).await;
                        }
                        None => std::future::pending().await,
                    }
                };
                let patch = async {
                    // Only there are Istio's objects in force.
                    if !self.webhooks || *cluster != self.own {
                        return std::future::pending().await;
                    }
                    Patcher::new(self, cluster, access, standing.subscribe()).run().await;
                };
                let export = async {
                    if !self.auto_export {
                        return std::future::pending().await;
                    }
                    Exporter::new(self, cluster, access, standing.subscribe()).run().await;
                };
                tokio::select! {
                    () = Keeper::new(self, cluster, access, standing.subscribe()).run() => {}
                    () = report => {}
                    () = patch => {}
                    () = export => {}
                    () = deposed(standing.subscribe()) => {}
                }
                tracing::info!(%cluster, "this replica does not write to the cluster any more");
            }
        };
        let stopped = tokio::select! {
            () = write => false,
            () = election.run(standing) => false,
            () = stop.cancelled() => true,
        };
        if stopped {
            // Nothing is written any more from here on.
            standing.send_replace(Standing::default());
            election.release().await;
        }
    }
}

/// Until a plan has news, or it is time for the next thing in it.
async fn news_or(news: &Notify, next: Option<Instant>) {
    let due = OptionFuture::from(next.map(|next| sleep_until(next.into())));
    tokio::select! {
        () = news.notified() => {}
        Some(()) = due => {}
    }
}

/// Comes back when the leader leads no more.
async fn deposed(mut standing: watch::Receiver<Standing>) {
    loop {
        let Some(until) = standing.borrow_and_update().until.filter(|until| Instant::now() < *until) else {
            return;
        };
        tokio::select! {
            () = sleep_until(until.into()) => {}
            changed = standing.changed() => if changed.is_err() { return },
        }
    }
}

/// What a person can do about a write that was refused; `wanted` are the rights.
fn remedy(failure: &Failure, wanted: &str) -> String {
    match failure.code() {
        Some(403) => format!("allow {wanted} to landbridge's account in that cluster"),
        _ => failure.remedy().to_owned(),
    }
}
