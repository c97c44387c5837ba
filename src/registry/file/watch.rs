//! Events of the file system, gathered until it is worth looking.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};

use super::{listing::is_ignored, source::Timing};

/// What a source's thread is told.
#[derive(Debug)]
pub enum Signal {
    /// Something happened in the directory.
    Event(notify::Result<Event>),
    /// The end.
    Stop,
}

/// What happened since the last look.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Files that were named: they are read even if they look unchanged from outside.
    pub touched: BTreeSet<PathBuf>,
    /// Whether anything was worth a look.
    pub any: bool,
    /// Events were lost, or concern what was not named: a look at the named files is not enough.
    pub unnamed: bool,
    /// When the first event came.
    pub since: Option<Instant>,
    /// The source was told to stop.
    pub stop: bool,
}

/// Gathers signals.
#[derive(Debug)]
pub struct Gatherer {
    signals: Receiver<Signal>,
    timing: Timing,
    /// Files that a writer has begun and not closed, since when.
    open: BTreeMap<PathBuf, Instant>,
}

/// Watches a directory for as long as the returned watcher lives.
pub fn watch(root: &Path, signals: Sender<Signal>) -> notify::Result<RecommendedWatcher> {
    // Events name files by absolute paths, however the directory was named.
    let named = root.to_owned();
    let absolute = std::path::absolute(root).unwrap_or_else(|_| named.clone());
    let rename = move |path: &mut PathBuf| {
        if let Ok(below) = path.strip_prefix(&absolute) {
            *path = named.join(below);
        }
    };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let event = event.map(|mut event| {
            event.paths.iter_mut().for_each(&rename);
            event
        });
        // Nobody listens any more when the source has ended.
        let _ = signals.send(Signal::Event(event));
    })?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    // A root that is a link is replaced in its parent (git-sync and the like).
    if let (true, Some(parent)) = (root.is_symlink(), root.parent()) {
        watcher.watch(parent, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

impl Gatherer {
    pub fn new(signals: Receiver<Signal>, timing: Timing) -> Self {
        Self { signals, timing, open: BTreeMap::new() }
    }

    /// Waits for the first event, at most until `deadline`. A file that is whole (renamed into its place, or closed by its
    /// writer) is worth a look at once, with what else has come by then; otherwise for a short quiet, but not for long:
    /// what comes later is the next look.
    pub fn next(&mut self, deadline: Instant) -> Gathered {
        let mut gathered = Gathered::default();
        let mut until = deadline;
        let mut bound = None;
        loop {
            let now = Instant::now();
            match self.signals.recv_timeout(until.saturating_duration_since(now)) {
                Ok(Signal::Event(event)) => {
                    let whole = event.as_ref().is_ok_and(is_whole);
                    if self.note(event, &mut gathered) {
                        gathered.since.get_or_insert_with(Instant::now);
                        if whole && self.open.is_empty() {
                            self.drain(&mut gathered);
                            return gathered;
                        }
                        let bound = *bound.get_or_insert(Instant::now() + self.timing.quiet_at_most);
                        until = bound.min(Instant::now() + self.timing.quiet);
                    } else if bound.is_none() && Instant::now() >= deadline {
                        return gathered;
                    }
                }
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    gathered.stop = true;
                    return gathered;
                }
                Err(RecvTimeoutError::Timeout) => return gathered,
            }
        }
    }

    /// Takes what has come, without waiting.
    fn drain(&mut self, gathered: &mut Gathered) {
        while let Ok(signal) = self.signals.try_recv() {
            match signal {
                Signal::Event(event) => _ = self.note(event, gathered),
                Signal::Stop => gathered.stop = true,
            }
        }
    }

    /// Files that are being written now, and how long to wait before looking at them anyway. A file whose writer
    /// does not close it in time is read as it is.
    pub fn being_written(&mut self) -> (BTreeSet<PathBuf>, Option<Duration>) {
        let patience = self.timing.writer_patience;
        self.open.retain(|_, since| since.elapsed() < patience);
        let wait = self.open.values().map(|since| patience.saturating_sub(since.elapsed())).min();
        (self.open.keys().cloned().collect(), wait)
    }

    /// Takes in an event; false if it means nothing (also: reading a file is an event).
    fn note(&mut self, event: notify::Result<Event>, gathered: &mut Gathered) -> bool {
        let Ok(event) = event else {
            (gathered.any, gathered.unnamed) = (true, true);
            return true;
        };
        let closed = event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write));
        if matches!(event.kind, EventKind::Access(_)) && !closed {
            return false;
        }
        let paths: Vec<_> = event.paths.iter().filter(|path| is_relevant(path)).collect();
        if paths.is_empty() && !event.paths.is_empty() {
            return false;
        }
        gathered.unnamed |= paths.is_empty() || event.need_rescan();
        for path in paths {
            // Only inotify tells when a writer closes its file.
            let begun = matches!(event.kind, EventKind::Modify(ModifyKind::Data(_)));
            if begun && cfg!(target_os = "linux") {
                self.open.entry(path.clone()).or_insert_with(Instant::now);
            } else {
                self.open.remove(path);
            }
            gathered.touched.insert(path.clone());
        }
        gathered.any = true;
        true
    }
}

/// Whether the event's file is as its writer wants it.
fn is_whole(event: &Event) -> bool {
    matches!(
        event.kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both))
    )
}

/// Names that are never read say nothing, but for the links of Kubernetes mounts (`..data`).
fn is_relevant(path: &Path) -> bool {
    path.file_name().is_none_or(|name| !is_ignored(name) || name.as_encoded_bytes().starts_with(b".."))
}
