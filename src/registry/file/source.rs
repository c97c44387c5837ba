//! The source itself: a thread that watches, looks and sends.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use notify::RecommendedWatcher;
use thiserror::Error;
use tokio::sync::{mpsc as changes, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    reader::{Look, Reader},
    watch::{Gatherer, Signal, watch},
};
use crate::{
    model::{Batch, ClusterId},
    registry::{Discovery, RemoteSecrets, Settings, SourceStatus},
};

/// A directory of YAML that describes a cluster.
#[derive(Clone, Debug)]
pub struct FileSource {
    /// The cluster that the objects are of.
    pub cluster: ClusterId,
    /// The directory; may come into being later.
    pub dir: PathBuf,
    /// How objects are converted.
    pub settings: Settings,
    /// How long things are waited for.
    pub timing: Timing,
    /// In the config cluster: told which namespaces are read of clusters with API servers. Files are all read.
    pub discovery: Option<Discovery>,
    /// In the config cluster: where the clusters go that its remote secrets name.
    pub remote_secrets: Option<RemoteSecrets>,
}

/// How long things are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// After an event, until nothing more comes.
    pub quiet: Duration,
    /// But no longer than this after the first.
    pub quiet_at_most: Duration,
    /// How long a file has to be as it is before what is missing in it is believed to be gone.
    pub settle: Duration,
    /// How long a file is left to a writer that has not closed it.
    pub writer_patience: Duration,
    /// Between looks without an event, to repair what events missed.
    pub rescan: Duration,
    /// Between looks at what cannot be read.
    pub retry: Duration,
    /// How long a root that held objects has to be empty before that is believed.
    pub empty_grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(5),
            quiet_at_most: Duration::from_millis(50),
            settle: Duration::from_millis(20),
            writer_patience: Duration::from_millis(500),
            rescan: Duration::from_secs(30),
            retry: Duration::from_millis(500),
            empty_grace: Duration::from_secs(10),
        }
    }
}

/// Why a source ended by itself.
#[derive(Debug, Error)]
pub enum SourceError {
    /// No thread could be started.
    #[error("no thread for the files of cluster {cluster}: {source}; raise the limit of processes")]
    Thread {
        /// The cluster.
        cluster: ClusterId,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread panicked: a bug. What was known stays in force.
    #[error("the reader of cluster {0}'s files ended unexpectedly; restart landbridge and report this")]
    Ended(ClusterId),
}

impl FileSource {
    /// A source with default settings.
    pub fn new(cluster: ClusterId, dir: impl Into<PathBuf>) -> Self {
        Self {
            cluster,
            dir: dir.into(),
            settings: Settings::default(),
            timing: Timing::default(),
            discovery: None,
            remote_secrets: None,
        }
    }

    /// Reads the directory, sends all of it and `Synced`, then whatever changes, until `shutdown` or until nobody
    /// receives. Reading blocks (a hanging network volume: for long), so it has a thread of its own, which ends with
    /// this future.
    pub async fn run(
        self,
        changes: changes::Sender<Batch>,
        status: SourceStatus,
        shutdown: CancellationToken,
    ) -> Result<(), SourceError> {
        let cluster = self.cluster.clone();
        let (signals, received) = mpsc::channel();
        let (ended, mut end) = oneshot::channel();
        let stop = StopOnDrop(signals.clone());
        thread::Builder::new()
            .name(format!("files {cluster}"))
            .spawn(move || {
                read_and_send(self, &changes, status, signals, received);
                // Nobody waits any more after a shutdown.
                let _ = ended.send(());
            })
            .map_err(|source| SourceError::Thread { cluster: cluster.clone(), source })?;
        tokio::select! {
            result = &mut end => result.map_err(|_| SourceError::Ended(cluster)),
            () = shutdown.cancelled() => {
                drop(stop);
                // A reader that hangs in a dead volume must not hold up the shutdown.
                let _ = tokio::time::timeout(Duration::from_secs(1), end).await;
                Ok(())
            }
        }
    }
}

/// Ends the thread when the future is dropped.
struct StopOnDrop(mpsc::Sender<Signal>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(Signal::Stop);
    }
}

fn read_and_send(
    source: FileSource,
    changes: &changes::Sender<Batch>,
    status: SourceStatus,
    signals: mpsc::Sender<Signal>,
    received: mpsc::Receiver<Signal>,
) {
    let (timing, discovery) = (source.timing, source.discovery.clone());
    let remote_secrets = source.remote_secrets.clone();
    let mut watching = Watching { source: source.clone(), signals, current: None, replaced: false };
    let mut gatherer = Gatherer::new(received, timing);
    let mut reader = Reader::new(source, status.clone());
    let mut touched = BTreeSet::new();
    let mut by_rescan = false;
    let mut named_only = false;
    let mut seen = Instant::now();
    let mut looked = seen;
    loop {
        let renewed = watching.renew();
        let (in_writing, writers_wait) = gatherer.being_written();
        // Nothing but these files is to be looked at: no earlier look asked for another one, and where events never pause the
        // last one at everything is not too long ago.
        let quick = named_only && !renewed && in_writing.is_empty() && looked.elapsed() < timing.rescan;
        let quick = quick.then(|| reader.look_at(&touched)).flatten();
        let untold = quick.is_some();
        let mut look = quick.unwrap_or_else(|| {
            looked = Instant::now();
            reader.look(&touched, &in_writing)
        });
        if by_rescan && !renewed && look.changed_files > 0 {
            status.repaired(look.changed_files);
        }
        watching.check(&look);
        if let Some(discovery) = &discovery {
            discovery.observe(&look.changes);
            discovery.settle();
        }
        RemoteSecrets::divert(remote_secrets.as_ref(), &mut look.changes);
        remote_secrets.iter().for_each(RemoteSecrets::settle_whole);
        let batch = Batch { changes: look.changes, seen };
        if !batch.changes.is_empty() && changes.blocking_send(batch).is_err() {
            return;
        }
        if untold {
            reader.tell();
        }
        let whole = [look.again, writers_wait, watching.retry()].into_iter().flatten().min();
        let mut deadline = Instant::now() + whole.unwrap_or(timing.rescan).min(timing.rescan);
        deadline = reader.settles().map_or(deadline, |settles| settles.min(deadline));
        let gathered = gatherer.next(deadline);
        if gathered.stop {
            return;
        }
        seen = gathered.since.unwrap_or_else(Instant::now);
        touched = gathered.touched;
        touched.extend(reader.settled());
        let nothing_named = touched.is_empty();
        by_rescan = !gathered.any && whole.is_none() && nothing_named;
        named_only = !gathered.unnamed && whole.is_none() && !nothing_named;
        // What waits for its writer keeps being looked at.
        touched.extend(in_writing);
    }
}

/// The watch on the root, which is another one whenever the root is.
struct Watching {
    source: FileSource,
    signals: mpsc::Sender<Signal>,
    current: Option<Watched>,
    /// The root is another one since the last look.
    replaced: bool,
}

struct Watched {
    _watcher: RecommendedWatcher,
    root: Option<(u64, u64)>,
}

impl Watching {
    /// Starts watching if nothing is watched, before the look that reads what was missed.
    fn renew(&mut self) -> bool {
        self.replaced = false;
        if self.current.is_some() || !self.source.dir.is_dir() {
            return false;
        }
        match watch(&self.source.dir, self.signals.clone()) {
            Ok(watcher) => self.current = Some(Watched { _watcher: watcher, root: None }),
            Err(error) => {
                let (cluster, dir) = (&self.source.cluster, self.source.dir.display());
                tracing::warn!(%cluster, %dir, %error, "cannot watch the directory; looking at it again and again \
                    (raise fs.inotify.max_user_watches and max_user_instances)");
            }
        }
        true
    }

    /// Drops a watch on a root that is gone or was replaced.
    fn check(&mut self, look: &Look) {
        if let Some(watched) = &mut self.current {
            match (watched.root, look.root) {
                (None, Some(root)) => watched.root = Some(root),
                (Some(before), Some(now)) if before == now => {}
                (_, now) => {
                    self.replaced = now.is_some();
                    self.current = None;
                }
            }
        }
    }

    /// Without a watch, looking again is all there is.
    fn retry(&self) -> Option<Duration> {
        let wait = if self.replaced { Duration::ZERO } else { self.source.timing.retry };
        self.current.is_none().then_some(wait)
    }
}
