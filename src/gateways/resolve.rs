//! Follows the host names of gateways: asks for them, tells the pipeline, names those that do not resolve, and remembers over
//! the end of the process what they meant, so that a start while DNS is away takes no gateway from anybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::FuturesUnordered,
};
use parking_lot::Mutex;
use tokio::{sync::watch, time::sleep_until};
use tracing::{info, warn};

use super::{
    dns::Lookup,
    names::{Answer, Names},
};
use crate::{
    files,
    index::{Addresses, networks::HostNames},
    model::{ClusterId, NetworkId},
    pipeline::Inspector,
    registry::{Notices, Problem, Severity},
};

/// Between looks at which names there are.
const LOOK: Duration = Duration::from_millis(250);
/// In the state directory.
const FILE: &str = "gateway-names.json";
/// A start waits so long for names to be resolved that were never resolved before.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between looks of who waits.
const POLL: Duration = Duration::from_millis(20);
const TOPIC: &str = "host names of gateways";

/// Why names do not resolve, for those who show it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Unresolved(Arc<Mutex<BTreeMap<Arc<str>, String>>>);

/// Follows host names.
pub struct Resolver {
    /// Asks for a name.
    pub lookup: Lookup,
    /// Where the names come from.
    pub inspector: Inspector,
    /// Where what is wrong is named.
    pub notices: Notices,
    /// Whose `meshNetworks` are in force.
    pub own: ClusterId,
    /// Where what names mean is kept over the end of the process.
    pub state_dir: PathBuf,
    /// Who uses the answers.
    pub told: watch::Sender<Arc<Addresses>>,
    /// Where it is shown why a name does not resolve.
    pub unresolved: Unresolved,
}

// === impl Unresolved ===

impl Unresolved {
    /// Why a name did not resolve when it was asked for last.
    pub fn why(&self, host: &str) -> Option<String> {
        self.0.lock().get(host).cloned()
    }

    /// Waits until every gateway's name is resolved, or did not resolve; not for long. Told earlier, a proxy would lose what
    /// lies behind.
    pub async fn settled(&self, inspector: &Inspector) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let open = inspector.ask(|state| state.index.networks().unresolved()).await.unwrap_or_default();
            if open.iter().all(|host| self.why(host).is_some()) {
                return;
            }
            if Instant::now() > deadline {
                warn!(names = ?open, "host names of gateways were not resolved in {PATIENCE:?}; what lies behind them is not served yet");
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

// === impl Resolver ===

impl Resolver {
    /// Follows them for ever.
    pub async fn run(self) {
        let Self { lookup, inspector, notices, own, state_dir, told, unresolved } = self;
        let file = state_dir.join(FILE);
        let mut names = Names::remember(read(&file));
        let mut hosts = HostNames::new();
        let mut flights: FuturesUnordered<BoxFuture<'static, (Arc<str>, Answer)>> = FuturesUnordered::new();
        let look_at = |at| super::ask_at(&inspector, at, |state| state.index.networks().host_names());
        let mut look = look_at(Instant::now());
        loop {
            let due = names.next().map(|due| sleep_until(due.into()));
            tokio::select! {
                seen = &mut look => {
                    look = look_at(Instant::now() + LOOK);
                    // A pipeline that does not answer has not lost its gateways.
                    let Some(seen) = seen.filter(|seen| *seen != hosts) else { continue };
                    hosts = seen;
                    names.follow(&hosts.keys().cloned().collect(), Instant::now());
                }
                Some(()) = OptionFuture::from(due) => {
                    for host in names.ask(Instant::now()) {
                        let answer = lookup(host.clone());
                        flights.push(async move { (host, answer.await) }.boxed());
                    }
                    continue;
                }
                Some((host, answer)) = flights.next() => {
                    names.answered(&host, answer, Instant::now(), rand::random());
                }
            }
            let now = names.addresses();
            if **told.borrow() != now {
                info!(?now, "host names of gateways are resolved");
                told.send_replace(Arc::new(now));
                write(&file, &names.to_remember());
            }
            say(&notices, &own, &hosts, &names);
            let problems = names.problems().map(|(host, why, _)| (host.clone(), why.to_owned()));
            *unresolved.0.lock() = problems.collect();
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// Names at each cluster whose gateways they are what does not resolve.
fn say(notices: &Notices, own: &ClusterId, hosts: &HostNames, names: &Names) {
    let mut problems: BTreeMap<ClusterId, Vec<Problem>> = BTreeMap::new();
    let mut concerned: BTreeSet<ClusterId> = BTreeSet::new();
    let of = |cluster: &ClusterId| if cluster.as_str().is_empty() { own.clone() } else { cluster.clone() };
    for (cluster, _) in hosts.values().flatten() {
        concerned.insert(of(cluster));
    }
    for (host, why, known) in names.problems() {
        for (cluster, network) in hosts.get(host).into_iter().flatten() {
            let cluster = of(cluster);
            let problem = problem(&cluster, network, host, why, known);
            problems.entry(cluster).or_default().push(problem);
        }
    }
    let told_before = notices.all().into_iter().filter(|p| p.field.starts_with(FIELD)).map(|p| p.cluster);
    concerned.extend(told_before.map(|cluster| ClusterId::from(&*cluster)));
    for cluster in concerned {
        notices.set(&cluster, TOPIC, problems.remove(&cluster).unwrap_or_default());
    }
}

const FIELD: &str = "gateway of network ";

fn problem(cluster: &ClusterId, network: &NetworkId, host: &str, why: &str, known: bool) -> Problem {
    let effect = if known { "its last addresses stay in use" } else { "what lies behind it is not served" };
    Problem::of_object(
        &cluster.0,
        None,
        format!("{FIELD}{network}"),
        if known { Severity::Warning } else { Severity::Error },
        format!("host name {host} does not resolve ({why}); {effect}"),
        "mend its DNS record or the control plane's name servers; it is asked for again by itself",
    )
}

/// Nothing, if there is nothing that can be read: names are asked for anyway.
fn read(file: &Path) -> Addresses {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Addresses::new(),
        Err(error) => {
            warn!(file = %file.display(), %error, "what names of gateways meant cannot be read");
            return Addresses::new();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        warn!(file = %file.display(), %error, "what names of gateways meant is damaged; they are asked for again");
        Addresses::new()
    })
}

/// Some hundred bytes, and only when a name means something else than before.
fn write(file: &Path, addresses: &Addresses) {
    let text = serde_json::to_vec_pretty(addresses).map_err(std::io::Error::other);
    if let Err(error) = text.and_then(|text| files::write_private(file, &text)) {
        warn!(file = %file.display(), %error, "what names of gateways mean is not kept over a restart");
    }
}

#[cfg(test)]
mod tests;
