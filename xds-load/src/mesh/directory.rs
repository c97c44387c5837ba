//! The directories of a mesh: one per cluster, below one root, with the spec beside them.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{
    api::{self, Api},
    change::Write,
    spec::{Spec, SpecError},
    world::{Mesh, cluster_name},
};

/// The spec's file in the root: says what the directories hold, and that they are ours to write to.
const SPEC: &str = "spec.yaml";

/// Directories on disk, and API servers that hold the same, if there are any.
#[derive(Clone, Debug)]
pub struct Directories {
    root: PathBuf,
    /// Of cluster i the i-th.
    apis: Vec<Api>,
}

/// Why a mesh could not be written or read.
#[derive(Debug, Error)]
pub enum Error {
    /// The file system said no.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory has other things in it.
    #[error("{path} is not empty and holds no mesh ({SPEC} is missing); name a new directory", path = .0.display())]
    NotOurs(PathBuf),
    /// The spec cannot be read.
    #[error("{path} is no spec of a mesh: {reason}", path = .path.display())]
    Spec {
        /// Its file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The API server does not hold what the files say.
    #[error(transparent)]
    Api(#[from] api::Error),
    /// A change that is one of directories only.
    #[error("{} is in an API server: it cannot be moved away like a directory", cluster_name(*.0))]
    NotMovable(usize),
    /// The spec makes no sense.
    #[error(transparent)]
    Mesh(#[from] SpecError),
}

/// How much was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    /// Files of the mesh.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were not as they should be, and were written or removed.
    pub changed: usize,
}

impl Directories {
    /// Below `root`, which may come into being later.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), apis: Vec::new() }
    }

    /// Each change of a file goes to the cluster's API server, too. It has to hold what the files say now, or they have to be new.
    pub fn with_apis(self, apis: Vec<Api>) -> Self {
        Self { apis, ..self }
    }

    /// The directory of a cluster.
    pub fn cluster(&self, cluster: usize) -> PathBuf {
        self.root.join(cluster_name(cluster))
    }

    /// Makes the directories hold this mesh and nothing else. Files that are right already are left alone, so that a control
    /// plane that reads them sees what differs only.
    pub fn write(&self, mesh: &Mesh) -> Result<Written, Error> {
        self.claim(mesh.spec())?;
        let mut written = Written::default();
        for cluster in 0..mesh.spec().clusters {
            self.move_directory(cluster, false)?;
            let dir = self.cluster(cluster);
            let mut strangers = BTreeSet::new();
            files_below(&dir, &mut strangers)?;
            for (path, text) in mesh.files(cluster) {
                let path = dir.join(path);
                let known = strangers.remove(&path);
                written.files += 1;
                written.bytes += text.len() as u64;
                if !known || fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                    self.put(cluster, &path, &text)?;
                    written.changed += 1;
                }
            }
            for path in strangers {
                self.remove(cluster, &path)?;
                written.changed += 1;
            }
        }
        Ok(written)
    }

    /// Reads the spec that [`Directories::write`] left.
    pub fn spec(&self) -> Result<Spec, Error> {
        read_spec(&self.root.join(SPEC))
    }

    /// Does what a change says. Each file is replaced as a whole: nobody reads half of one.
    pub fn apply(&self, writes: &[Write]) -> Result<(), Error> {
        for write in writes {
            match write {
                Write::Put { cluster, path, text } => {
                    self.put(*cluster, &self.cluster(*cluster).join(path), text)?;
                }
                Write::Remove { cluster, path } => {
                    self.remove(*cluster, &self.cluster(*cluster).join(path))?;
                }
                Write::Directory { cluster, .. } if self.apis.get(*cluster).is_some() => {
                    return Err(Error::NotMovable(*cluster));
                }
                Write::Directory { cluster, away } => self.move_directory(*cluster, *away)?,
            }
        }
        Ok(())
    }

    fn put(&self, cluster: usize, path: &Path, text: &str) -> Result<(), Error> {
        self.tell(cluster, path, text)?;
        replace(path, text)
    }

    fn remove(&self, cluster: usize, path: &Path) -> Result<(), Error> {
        self.tell(cluster, path, "")?;
        remove(path)
    }

    /// The API server first: what it has not taken is written by the next attempt.
    fn tell(&self, cluster: usize, path: &Path, text: &str) -> Result<(), Error> {
        let Some(api) = self.apis.get(cluster) else { return Ok(()) };
        let before = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            before => before.map_err(at(path))?,
        };
        Ok(api.change(&before, text)?)
    }

    fn move_directory(&self, cluster: usize, away: bool) -> Result<(), Error> {
        let (home, elsewhere) =
            (self.cluster(cluster), self.root.join(format!(".{}", cluster_name(cluster))));
        let (from, to) = if away { (home, elsewhere) } else { (elsewhere, home) };
        if !from.exists() {
            return Ok(());
        }
        fs::rename(&from, to).map_err(at(&from))
    }

    fn claim(&self, spec: &Spec) -> Result<(), Error> {
        let file = self.root.join(SPEC);
        let used = fs::read_dir(&self.root).is_ok_and(|mut entries| entries.next().is_some());
        if used && !file.exists() {
            return Err(Error::NotOurs(self.root.clone()));
        }
        let text = serde_saphyr::to_string(spec)
            .map_err(|e| Error::Spec { path: file.clone(), reason: e.to_string() })?;
        replace(&file, &text)
    }
}

/// Reads a spec from a YAML file.
pub fn read_spec(path: &Path) -> Result<Spec, Error> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    let spec: Spec = serde_saphyr::from_str(&text)
        .map_err(|e| Error::Spec { path: path.to_owned(), reason: e.to_string() })?;
    spec.check()?;
    Ok(spec)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    |source| Error::Io { path, source }
}

/// Writes beside the file, under a name that readers pass over, and moves it there.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or(OsStr::new("new")));
    let beside = path.with_file_name(name);
    let written = fs::write(&beside, text).or_else(|error| match (error.kind(), path.parent()) {
        (io::ErrorKind::NotFound, Some(parent)) => {
            fs::create_dir_all(parent)?;
            fs::write(&beside, text)
        }
        _ => Err(error),
    });
    written.and_then(|()| fs::rename(&beside, path)).map_err(at(path))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn files_below(dir: &Path, files: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(at(dir))?,
    };
    for entry in entries {
        let entry = entry.map_err(at(dir))?;
        if entry.file_type().map_err(at(dir))?.is_dir() {
            files_below(&entry.path(), files)?;
        } else {
            files.insert(entry.path());
        }
    }
    Ok(())
}
