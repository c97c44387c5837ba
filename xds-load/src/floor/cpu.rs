//! CPU time of the calling thread, from `/proc`.

use std::{fs, io, time::Duration};

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
        let before = of_this_thread();
        let began = Instant::now();
        let mut work = 0u64;
        while began.elapsed() < Duration::from_millis(300) {
            work = work.wrapping_mul(31).wrapping_add(7);
        }
        assert_ne!(work, 1);
        // The machine may be busy with others.
        assert!(of_this_thread() - before > Duration::from_millis(20));
    }
}
