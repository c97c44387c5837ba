//! Files that hold secrets, written so that nobody ever reads half of one or more than he may.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rand::Rng;

/// Writes `path` with mode 0600 by way of a temporary file in the same directory, so that a reader sees the old
/// content or the new one. Replaces a file that is there.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = write_temporary(path, content)?;
    fs::rename(&temporary, path).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Writes `path` with mode 0600 unless it exists: `Ok(false)` then, and the file is untouched.
///
/// Two processes may race: exactly one gets `Ok(true)`, and both find the same complete file afterwards.
pub fn create_private(path: &Path, content: &[u8]) -> io::Result<bool> {
    let temporary = write_temporary(path, content)?;
    // A hard link fails if the name is taken, where a rename would replace what another process just made.
    let linked = fs::hard_link(&temporary, path);
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a directory (and its parents) that only the owner may enter, unless it exists.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write_temporary(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let name =
        path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    let suffix: u64 = rand::rng().random();
    let temporary = path.with_file_name(format!(".{}.{suffix:016x}.tmp", name.to_string_lossy()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
    match written {
        Ok(()) => Ok(temporary),
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn private_files_are_private_and_leave_no_litter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!create_private(&path, b"three").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn of_many_that_create_at_once_one_wins_and_all_see_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let outcomes: Vec<(bool, Vec<u8>)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8u8)
                .map(|n| {
                    let path = &path;
                    scope.spawn(move || {
                        let won = create_private(path, &vec![n; 4096]).unwrap();
                        (won, fs::read(path).unwrap())
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|(won, _)| *won).count(), 1);
        assert!(outcomes.iter().all(|(_, seen)| *seen == outcomes[0].1));
    }
}
