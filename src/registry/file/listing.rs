//! Which files a directory holds, and how they look from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use super::parse::MAX_BYTES;

/// Deepest directory below the root.
const MAX_DEPTH: usize = 32;

/// A directory as it is now.
#[derive(Debug, Default)]
pub struct Listing {
    /// YAML and JSON files, by path below the root.
    pub files: BTreeMap<PathBuf, Stamp>,
    /// Places below the root that could not be looked at, and why. What is in them is unknown.
    pub unknown: BTreeMap<PathBuf, String>,
    /// The root's device and inode: another directory under the same name has others.
    pub root: (u64, u64),
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Listing {
    /// Whether the path, or a directory above it, could not be looked at.
    pub fn is_unknown(&self, path: &Path) -> bool {
        path.ancestors().any(|above| self.unknown.contains_key(above))
    }
}

/// Looks through `root`. Fails when the root itself cannot be read, with the reason.
pub fn list(root: &Path) -> Result<Listing, String> {
    let metadata = fs::metadata(root).map_err(|e| format!("{} cannot be read: {e}", root.display()))?;
    if !metadata.is_dir() {
        return Err(format!("{} is not a directory", root.display()));
    }
    let mut listing = Listing { root: identity(&metadata), ..Listing::default() };
    let mut visited = BTreeSet::from([listing.root]);
    walk(root, Path::new(""), 0, &mut visited, &mut listing)
        .map_err(|e| format!("{} cannot be read: {e}", root.display()))?;
    Ok(listing)
}

/// Looks at the root alone; none if it is no directory now.
pub fn root(root: &Path) -> Option<(u64, u64)> {
    fs::metadata(root).ok().filter(fs::Metadata::is_dir).map(|metadata| identity(&metadata))
}

/// Looks at one file; none if it is not there, or not one that would be read.
pub fn file(path: &Path) -> Option<Stamp> {
    let readable = path.file_name().is_some_and(|name| is_manifest(name) && !is_ignored(name));
    fs::metadata(path).ok().filter(|metadata| readable && metadata.is_file()).map(|metadata| stamp(&metadata))
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn walk(
    root: &Path,
    below: &Path,
    depth: usize,
    visited: &mut BTreeSet<(u64, u64)>,
    listing: &mut Listing,
) -> io::Result<()> {
    // Sorted, so that of two links to one directory always the same one is followed.
    let mut names = fs::read_dir(root.join(below))?
        .map(|entry| entry.map(|e| e.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    for name in names.into_iter().filter(|name| !is_ignored(name)) {
        let path = below.join(&name);
        let full = root.join(&path);
        // Links are followed: Kubernetes mounts files as links through `..data`.
        let metadata = match fs::metadata(&full) {
            Ok(metadata) => metadata,
            // It went away since its directory was read.
            Err(_) if fs::symlink_metadata(&full).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) => {
                continue;
            }
            Err(error) => {
                if is_manifest(&name) {
                    listing.unknown.insert(path, error.to_string());
                }
                continue;
            }
        };
        if metadata.is_dir() {
            if depth < MAX_DEPTH && visited.insert(identity(&metadata)) {
                walk(root, &path, depth + 1, visited, listing)
                    .unwrap_or_else(|error| drop(listing.unknown.insert(path, error.to_string())));
            }
        } else if metadata.is_file() && is_manifest(&name) {
            listing.files.insert(path, stamp(&metadata));
        }
    }
    Ok(())
}

fn stamp(metadata: &fs::Metadata) -> Stamp {
    Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}

/// Editors' and tools' temporary names: dotfiles, backups, swap files, vim's probe.
pub fn is_ignored(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b".") || name.starts_with(b"#") || name.ends_with(b"~") || name == b"4913"
}

/// Whether a file of this name is read.
pub fn is_manifest(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    extension.is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e.eq_ignore_ascii_case(known)))
}

/// Reads a file, up to one byte more than is allowed, so that the parser sees that it is too large.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let size = file.metadata()?.len().min(MAX_BYTES) as usize;
    // One byte more, to see the end at the first reading.
    let mut bytes = Vec::with_capacity(size + 1);
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Stamp {
    /// Time since the file's last change, by the clock; none when that lies in the future.
    pub fn age(&self) -> Option<std::time::Duration> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
        let (seconds, nanos) = self.changed.max(self.modified);
        let at = std::time::Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
        now.checked_sub(at)
    }
}
