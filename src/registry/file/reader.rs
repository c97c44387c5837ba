//! Looks at a directory and says what has changed since the last look.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use xxhash_rust::xxh3::xxh3_128;

use super::{
    contents::Contents,
    listing::{self, Listing, Stamp},
    parse::{self, Parsed},
    source::FileSource,
};
use crate::{
    model::{Change, change::ClusterState},
    registry::{SourceStatus, convert::Finding},
};

/// File systems keep times in ticks of a few milliseconds: a file that was read within such a tick of its last
/// change may have changed again and look the same.
const TICK: Duration = Duration::from_millis(50);

/// What is known about a directory.
pub struct Reader {
    source: FileSource,
    status: SourceStatus,
    contents: Contents,
    files: BTreeMap<PathBuf, Known>,
    /// Files that may still be in the hands of an editor, and when what they lack is believed to be gone.
    unsettled: BTreeMap<PathBuf, Instant>,
    /// The root that last held files.
    root: Option<(u64, u64)>,
    empty_since: Option<Instant>,
    last_whole: SystemTime,
    sent_state: Option<ClusterState>,
}

/// A file that was read.
struct Known {
    stamp: Stamp,
    hash: u128,
    /// It looked like this since then.
    since: Instant,
    /// It may change without looking different.
    racy: bool,
    /// What it does not say is not believed yet.
    doubtful: bool,
    /// It is not there any more, since then.
    missing_since: Option<Instant>,
}

/// The result of a look.
#[derive(Default)]
pub struct Look {
    /// To be sent, in this order.
    pub changes: Vec<Change>,
    /// Look at the whole directory again then, even without an event.
    pub again: Option<Duration>,
    /// Files found changed.
    pub changed_files: u64,
    /// The root that was looked at; none if it could not be.
    pub root: Option<(u64, u64)>,
}

impl Look {
    fn again_in(&mut self, wait: Duration) {
        self.again = Some(self.again.map_or(wait, |other| other.min(wait)));
    }
}

impl Reader {
    pub fn new(source: FileSource, status: SourceStatus) -> Self {
        Self {
            source,
            status,
            contents: Contents::default(),
            files: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            root: None,
            empty_since: None,
            last_whole: SystemTime::now(),
            sent_state: None,
        }
    }

    /// Looks at the directory. Files in `touched` are read even if they look as before; those `in_writing` wait.
    pub fn look(&mut self, touched: &BTreeSet<PathBuf>, in_writing: &BTreeSet<PathBuf>) -> Look {
        let mut look = Look::default();
        match listing::list(&self.source.dir) {
            Ok(listing) => {
                look.root = Some(listing.root);
                match self.suspicion(&listing, &mut look) {
                    Some(reason) => self.stale(&reason, &mut look),
                    None => self.read(&listing, touched, in_writing, &mut look),
                }
            }
            Err(reason) => {
                look.again_in(self.source.timing.retry);
                self.stale(&reason, &mut look);
            }
        }
        look
    }

    /// Looks at these files only: what a change costs does not grow with the directory. None if that would not do, because
    /// something else is not as it was when all of it was looked at.
    pub fn look_at(&mut self, touched: &BTreeSet<PathBuf>) -> Option<Look> {
        let root = listing::root(&self.source.dir).filter(|root| self.root == Some(*root))?;
        if touched.is_empty() || self.sent_state != Some(ClusterState::Synced) || self.empty_since.is_some() {
            return None;
        }
        let mut files = Vec::with_capacity(touched.len());
        for full in touched {
            // A file that is new to a directory that was looked through is as good as a known one.
            let path = full.strip_prefix(&self.source.dir).ok()?;
            let known = self.files.contains_key(path) || self.holds_files(path.parent()?);
            files.push((path, full, listing::file(full).filter(|_| known)?));
        }
        let mut look = Look { root: Some(root), ..Look::default() };
        for (path, full, stamp) in files {
            self.read_file(path, full, stamp, true, &mut look);
        }
        look.changes.extend(self.contents.take_changes());
        Some(look)
    }

    /// When the next file is to be looked at again without an event.
    pub fn settles(&self) -> Option<Instant> {
        self.unsettled.values().min().copied()
    }

    /// Files that are to be looked at again by now.
    pub fn settled(&mut self) -> impl Iterator<Item = PathBuf> {
        let now = Instant::now();
        self.unsettled.extract_if(.., move |_, at| *at <= now).map(|(path, _)| path)
    }

    /// Whether files directly in this directory, below the root, are known.
    fn holds_files(&self, directory: &Path) -> bool {
        let below = self
            .files
            .range::<Path, _>((Bound::Included(directory), Bound::Unbounded))
            .take_while(|(path, _)| path.starts_with(directory));
        let mut direct = below.filter(|(path, _)| path.parent() == Some(directory));
        direct.next().is_some()
    }

    /// Says in the status what there is and what is wrong. [`Self::look`] has done so; after [`Self::look_at`] it can wait until
    /// the changes are on their way, because words for people take longer than the changes.
    pub fn tell(&self) {
        let (objects, not_read) = self.contents.counts();
        self.status.set_counts(objects, not_read);
        self.status.set_problems(self.contents.problems(&self.source.cluster.0, &self.source.dir));
    }

    /// Why an empty root is not believed to be empty.
    fn suspicion(&mut self, listing: &Listing, look: &mut Look) -> Option<String> {
        let empty = listing.files.is_empty() && listing.unknown.is_empty();
        if !empty || self.contents.is_empty() {
            self.empty_since = None;
            self.root = Some(listing.root);
            return None;
        }
        let dir = self.source.dir.display();
        if self.root != Some(listing.root) {
            look.again_in(self.source.timing.retry);
            return Some(format!(
                "{dir} is empty and not the directory that was read before: is a volume missing?"
            ));
        }
        let grace = self.source.timing.empty_grace;
        let elapsed = self.empty_since.get_or_insert_with(Instant::now).elapsed();
        if elapsed >= grace {
            return None;
        }
        look.again_in(grace - elapsed);
        Some(format!("{dir} is suddenly empty; believed after {} s", grace.as_secs_f32()))
    }

    fn read(
        &mut self,
        listing: &Listing,
        touched: &BTreeSet<PathBuf>,
        in_writing: &BTreeSet<PathBuf>,
        look: &mut Look,
    ) {
        for (path, stamp) in &listing.files {
            let full = self.source.dir.join(path);
            if !in_writing.contains(&full) {
                self.read_file(path, &full, *stamp, touched.contains(&full), look);
            }
        }
        let gone: Vec<_> =
            self.files.keys().filter(|path| !listing.files.contains_key(*path)).cloned().collect();
        for path in gone.iter().filter(|path| !listing.is_unknown(path)) {
            self.miss_file(path, look);
        }
        for (path, reason) in &listing.unknown {
            if self.files.contains_key(path) {
                self.unreadable(path, reason);
            }
        }
        look.changes.extend(self.contents.take_changes());
        match listing.unknown.iter().next() {
            Some((path, reason)) => {
                let reason = format!("{} cannot be read: {reason}", self.source.dir.join(path).display());
                look.again_in(self.source.timing.retry);
                self.stale(&reason, look);
            }
            None => self.synced(look),
        }
        self.tell();
    }

    fn read_file(&mut self, path: &Path, full: &Path, stamp: Stamp, touched: bool, look: &mut Look) {
        let settle = self.source.timing.settle;
        let before = self.files.get(path);
        if let Some(known) = before
            && known.stamp == stamp
            && !(touched || known.racy || known.doubtful || known.missing_since.is_some())
        {
            return;
        }
        let bytes = match listing::read(full) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return look.again_in(Duration::ZERO);
            }
            Err(error) => {
                look.again_in(self.source.timing.retry);
                return self.unreadable(path, &error.to_string());
            }
        };
        let hash = xxh3_128(&bytes);
        let same = before.is_some_and(|known| known.hash == hash);
        let since = before.filter(|_| same).map_or_else(Instant::now, |known| known.since);
        let racy = stamp.age().is_none_or(|age| age < TICK);
        let settled = since.elapsed() >= settle;
        if same && before.is_some_and(|known| !known.doubtful && known.missing_since.is_none()) {
            self.files.insert(
                path.to_owned(),
                Known { stamp, hash, since, racy, doubtful: false, missing_since: None },
            );
            return;
        }
        look.changed_files += u64::from(!same);
        let parsed =
            parse::parse(&self.source.cluster, &self.source.settings, &bytes, self.contents.parsed(path));
        let doubtful = !settled && self.contents.would_lose(path, &parsed);
        match doubtful {
            true => drop(self.unsettled.insert(full.to_owned(), since + settle)),
            false => drop(self.unsettled.remove(full)),
        }
        self.files.insert(path.to_owned(), Known { stamp, hash, since, racy, doubtful, missing_since: None });
        self.contents.set(path, parsed, doubtful);
    }

    /// A file that is not there is gone once it has been missing for a while: some editors move a file away before
    /// they write the new one.
    fn miss_file(&mut self, path: &Path, look: &mut Look) {
        let Some(known) = self.files.get_mut(path) else { return };
        let since = *known.missing_since.get_or_insert_with(Instant::now);
        let settle = self.source.timing.settle;
        if since.elapsed() < settle {
            look.again_in(settle - since.elapsed());
            return;
        }
        self.files.remove(path);
        self.contents.remove(path);
        look.changed_files += 1;
    }

    /// Keeps what the file held, and says why.
    fn unreadable(&mut self, path: &Path, reason: &str) {
        let remedy = "make the file readable, or remove it; its objects stay until then";
        let finding = Finding::new("", format!("cannot be read: {reason}"), remedy);
        self.contents.set(path, Parsed::unknown(finding), true);
        if let Some(known) = self.files.get_mut(path) {
            known.doubtful = true;
        }
    }

    fn synced(&mut self, look: &mut Look) {
        self.last_whole = SystemTime::now();
        self.status.read_whole(self.last_whole);
        self.state(ClusterState::Synced, look);
    }

    fn stale(&mut self, reason: &str, look: &mut Look) {
        let since = match &self.sent_state {
            Some(ClusterState::Stale { since, .. }) => *since,
            _ => self.last_whole,
        };
        self.state(ClusterState::Stale { since, reason: Arc::from(reason) }, look);
    }

    /// Says what the cluster's state is, if it is news, after all changes.
    fn state(&mut self, state: ClusterState, look: &mut Look) {
        if self.sent_state.as_ref() != Some(&state) {
            self.status.set_state(state.clone());
            look.changes.push(Change::Cluster(self.source.cluster.clone(), state.clone()));
            self.sent_state = Some(state);
        }
    }
}
