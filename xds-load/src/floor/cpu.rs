//! CPU time of processes, from `/proc`.

use std::{fs, io, time::Duration};

/// What all living threads of a process have used, in nanoseconds where the kernel counts them. Threads that have ended are
/// missing: for servers, whose threads stay.
pub fn of_process(pid: u32) -> io::Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        match read(&thread?.path().join("schedstat").display().to_string()) {
            Ok(used) => total += used,
            // It ended since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

/// What this thread has used; zero where the kernel does not tell.
pub fn of_this_thread() -> Duration {
    read("/proc/thread-self/schedstat").unwrap_or_default()
}

fn read(path: &str) -> io::Result<Duration> {
    let text = fs::read_to_string(path)?;
    let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| io::Error::other(format!("{path} has no number")))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_is_counted() {
        let (before, thread) = (of_process(std::process::id()).unwrap(), of_this_thread());
        let began = Instant::now();
        let mut work = 0u64;
        while began.elapsed() < Duration::from_millis(300) {
            work = work.wrapping_mul(31).wrapping_add(7);
        }
        assert_ne!(work, 1);
        // The machine may be busy with others.
        assert!(of_this_thread() - thread > Duration::from_millis(20));
        assert!(of_process(std::process::id()).unwrap() > before);
    }
}
