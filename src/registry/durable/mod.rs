//! Durable snapshots of clusters: what was known of each when it was last seen whole, on disk. A control plane that starts
//! while an API server is away serves what it last knew of that cluster; when the API server answers, its first lists are
//! compared with it, and only what they do not have goes.
//!
//! ```text
//! kube::View: objects in force --copies of pointers--> encode, checksum, rename --> DIR/CLUSTER.snapshot
//!      ^------------------------------- check, decode --------------------------------- at start
//! ```
//!
//! Secrets are not in it: neither private keys nor kubeconfigs are written to disk. A file's modification time is the last
//! time at which its content was known to hold; what is in it did not change meanwhile. Nothing here is needed to run:
//! what cannot be read or written is said, and everything else goes on.
//!
//! Directories of YAML have no snapshots: they are on disk already.

pub(super) mod format;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use thiserror::Error;

use self::format::{Header, decode, decode_header, encode};
pub use self::format::{Item, Unusable};
use super::{Problem, Severity};
use crate::{files, model::ClusterId, workers::Workers};

/// Snapshots that are read or written at a time: they take memory, and others want the disk, too.
const AT_ONCE: usize = 2;
const SUFFIX: &str = ".snapshot";
/// A name of a file may have 255 bytes; the suffix and that of a temporary file are among them.
const LONGEST_NAME: usize = 180;

/// The directory with the snapshots of all clusters.
#[derive(Clone, Debug)]
pub struct Snapshots {
    dir: Arc<Path>,
    control_plane: ClusterId,
    workers: Workers,
}

/// The place of one cluster's snapshot. Clones are the same place.
#[derive(Clone, Debug)]
pub struct Slot {
    path: Arc<Path>,
    control_plane: ClusterId,
    cluster: ClusterId,
    joined: bool,
    any_server: bool,
    workers: Workers,
    /// Which state was written last: of two writers the one with the newer state wins, whoever comes first.
    written: Arc<Mutex<u64>>,
}

/// What was last known of a cluster.
#[derive(Debug)]
pub struct Snapshot {
    /// When it was known to hold.
    pub as_of: SystemTime,
    /// The objects that were in force.
    pub items: Vec<Item>,
}

/// Why a snapshot was not read or written.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// What the system says.
    #[error("cannot be {0}: {1}")]
    Io(&'static str, io::Error),
    /// What is there is not served.
    #[error("is not served: {0}")]
    Unusable(#[from] Unusable),
    /// A bug.
    #[error("was given up halfway")]
    GivenUp,
}

// === impl Snapshots ===

impl Snapshots {
    /// In this directory, which is made. `control_plane`: the cluster that the control plane belongs to.
    pub fn open(dir: &Path, control_plane: ClusterId) -> io::Result<Self> {
        files::create_private_dir(dir)?;
        // What a process left that was killed while it wrote.
        for entry in fs::read_dir(dir)?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') && name.ends_with(".tmp") && name.contains(SUFFIX) {
                fs::remove_file(entry.path())?;
            }
        }
        let workers = Workers::default();
        for _ in 0..AT_ONCE {
            workers.add("snapshots")?;
        }
        Ok(Self { dir: dir.into(), control_plane, workers })
    }

    /// The place of a cluster's snapshot. `joined`: by a remote secret.
    pub fn slot(&self, cluster: &ClusterId, joined: bool) -> Slot {
        Slot {
            path: self.dir.join(file_name(cluster)).into(),
            control_plane: self.control_plane.clone(),
            cluster: cluster.clone(),
            joined,
            any_server: false,
            workers: self.workers.clone(),
            written: Arc::default(),
        }
    }

    /// The clusters of which there is something, and that remote secrets had named.
    pub fn joined(&self) -> Vec<ClusterId> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let header = |path: &Path| {
            let header = decode_header(path).ok()?;
            let is_its_own = path.file_name().is_some_and(|name| *name == *file_name(&header.cluster));
            let is_ours = header.joined && header.control_plane == self.control_plane;
            (is_its_own && is_ours).then_some(header.cluster)
        };
        entries.filter_map(|entry| header(&entry.path())).collect()
    }
}

/// The cluster's name with everything escaped that a file system may take for something else.
fn file_name(cluster: &ClusterId) -> String {
    let mut name = String::new();
    for byte in cluster.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(byte.into()),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if name.len() > LONGEST_NAME {
        let hash = xxhash_rust::xxh3::xxh3_64(cluster.as_str().as_bytes());
        name.truncate(LONGEST_NAME);
        name.push_str(&format!("%{hash:016x}"));
    }
    name + SUFFIX
}

// === impl Slot ===

impl Slot {
    /// The same place, whose snapshot is in force already: it does not matter at which address it was taken.
    pub fn of_any_server(self) -> Self {
        Self { any_server: true, ..self }
    }

    /// What is there; none if nothing is. `server`: the address at which the cluster is read, if that is known.
    pub async fn load(&self, server: Option<&str>) -> Result<Option<Snapshot>, SnapshotError> {
        let (slot, server) = (self.clone(), server.map(str::to_owned));
        self.in_turn(move || slot.read(server.as_deref())).await
    }

    /// Writes what is known now. `state` numbers what is known; what is older than what was written is not.
    pub async fn save(&self, server: &str, state: u64, items: Vec<Item>) -> Result<(), SnapshotError> {
        let (slot, server) = (self.clone(), Arc::from(server));
        self.in_turn(move || slot.write(server, state, &items)).await
    }

    /// Notes that what was written still holds.
    pub async fn confirm(&self) -> Result<(), SnapshotError> {
        let path = self.path.clone();
        let touch = move || fs::File::options().write(true).open(path)?.set_modified(SystemTime::now());
        self.in_turn(move || touch().map_err(|error| SnapshotError::Io("kept", error))).await
    }

    /// The cluster is taken away: what was known of it is not to come back.
    pub async fn remove(&self) -> Result<(), SnapshotError> {
        let slot = self.clone();
        let remove = move || {
            let mut written = slot.written.lock();
            *written = u64::MAX;
            match fs::remove_file(&slot.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(SnapshotError::Io("removed", error))
                }
                _ => Ok(()),
            }
        };
        self.in_turn(remove).await
    }

    /// What to say about an error.
    pub fn problem(&self, error: &SnapshotError) -> Problem {
        Problem {
            cluster: self.cluster.0.clone(),
            file: Some(self.path.to_string_lossy().into()),
            line: None,
            object: None,
            field: String::new(),
            severity: Severity::Warning,
            reason: format!("the durable snapshot of the cluster {error}"),
            remedy: error.remedy().to_owned(),
        }
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        self.workers.run(work).await.unwrap_or(Err(SnapshotError::GivenUp))
    }

    fn read(&self, server: Option<&str>) -> Result<Option<Snapshot>, SnapshotError> {
        let unreadable = |error| SnapshotError::Io("read", error);
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let modified = fs::metadata(&self.path).and_then(|m| m.modified()).map_err(unreadable)?;
        let (header, items) = decode(&bytes)?;
        header.check(&self.control_plane, &self.cluster, server.filter(|_| !self.any_server))?;
        // Never younger than now, nor older than its content.
        let taken = SystemTime::UNIX_EPOCH + Duration::from_secs(header.taken);
        let as_of = modified.max(taken).min(SystemTime::now());
        Ok(Some(Snapshot { as_of, items }))
    }

    fn write(&self, server: Arc<str>, state: u64, items: &[Item]) -> Result<(), SnapshotError> {
        let mut written = self.written.lock();
        if *written > state {
            return Ok(());
        }
        let taken = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_secs());
        let header = Header {
            control_plane: self.control_plane.clone(),
            cluster: self.cluster.clone(),
            server,
            joined: self.joined,
            taken,
            objects: items.len(),
        };
        let bytes = encode(&header, items)?;
        files::write_private(&self.path, &bytes).map_err(|error| SnapshotError::Io("written", error))?;
        *written = state;
        Ok(())
    }
}

// === impl SnapshotError ===

impl SnapshotError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Io("read", _) => "let landbridge read it, or remove it",
            Self::Io(..) => "give landbridge a --state-dir that it can write to, with room",
            Self::Unusable(unusable) => unusable.remedy(),
            Self::GivenUp => "report this",
        }
    }
}
