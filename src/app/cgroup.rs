//! How much memory the system gives this process.

use std::{fs, path::Path};

/// The limit of the process's control group, or of one above it, in bytes. None: there is none, or nothing says so.
pub fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    limit(&groups, Path::new("/sys/fs/cgroup"))
}

/// `groups`: lines of `id:controllers:path`. In a container, paths may be those of the host, which are not mounted: then
/// the root of what is mounted is the container's own.
fn limit(groups: &str, mounted: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (root, file) = match controllers {
            "" => (mounted.to_owned(), "memory.max"),
            names if names.split(',').any(|name| name == "memory") => {
                (mounted.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let own = root.join(path.trim_start_matches('/'));
        own.ancestors().take_while(|group| group.starts_with(&root)).filter_map(|g| read(&g.join(file))).min()
    });
    limits.min()
}

/// `max`, or a number that no machine has, means no limit.
fn read(file: &Path) -> Option<u64> {
    let bytes: u64 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (bytes < 1 << 50).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_on_the_way_up_counts() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        assert_eq!(limit("0::/pod/app", dir.path()), None);
        put("pod/app/memory.max", "max\n");
        put("pod/memory.max", "1000000\n");
        assert_eq!(limit("0::/pod/app", dir.path()), Some(1_000_000));
        put("memory.max", "2000000\n");
        assert_eq!(limit("0::/on/the/host", dir.path()), Some(2_000_000));
        put("memory/pod/memory.limit_in_bytes", "500\n");
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit("3:cpu:/pod\n4:memory:/pod\nnonsense", dir.path()), Some(500));
    }
}
