//! CPU and memory of a process, from `/proc`.

use std::{fs, time::Duration};

/// Ticks of a second in `/proc/PID/stat`, on every Linux that is in use.
const TICKS: u64 = 100;

/// What a process has used, and what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// To ten milliseconds, of all threads that ever ran.
    ticks: Duration,
    /// To nanoseconds, of the threads that run now.
    precise: Option<Duration>,
    /// Bytes in memory.
    pub rss: u64,
    /// The most that ever were.
    pub peak: u64,
}

/// Of a process; `None` if there is none, or it may not be looked at.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let memory = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? * 1024)
    };
    Some(Usage {
        ticks: ticks(&stat)?,
        precise: precise(pid),
        rss: memory("VmRSS:").unwrap_or(0),
        peak: memory("VmHWM:").unwrap_or(0),
    })
}

/// `utime` and `stime`: the 14th and 15th field; the second may have spaces and is in parentheses.
fn ticks(stat: &str) -> Option<Duration> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS))
}

/// The first number of each thread's `schedstat`.
fn precise(pid: u32) -> Option<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let stat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanos += stat.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanos))
}

impl Usage {
    /// CPU time of all threads that ever ran, to ten milliseconds.
    pub fn cpu(&self) -> Duration {
        self.ticks
    }

    /// CPU time since an earlier look.
    pub fn since(&self, before: &Self) -> Duration {
        let coarse = self.ticks.saturating_sub(before.ticks);
        let precise = self.precise.zip(before.precise).map(|(now, then)| now.saturating_sub(then));
        // If threads ended in between, what they had used is missing in the precise one.
        let slack = Duration::from_millis(30) + coarse / 20;
        precise.filter(|precise| precise.abs_diff(coarse) <= slack).unwrap_or(coarse)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Usage, ticks, usage};

    #[test]
    fn own_use_is_seen() {
        let before = usage(std::process::id()).unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(50) {
            std::hint::black_box(before);
        }
        let after = usage(std::process::id()).unwrap();
        assert!(after.since(&before) >= Duration::from_millis(5), "{:?}", after.since(&before));
        assert!(after.rss > 1 << 20 && after.peak >= after.rss);
        assert_eq!(usage(u32::MAX), None);
    }

    #[test]
    fn names_with_spaces_and_threads_that_ended_do_not_confuse() {
        assert_eq!(ticks("1 (a) b) S 1 1 1 0 -1 0 0 0 0 0 250 50 0"), Some(Duration::from_secs(3)));
        let of = |ticks, precise| Usage {
            ticks: Duration::from_millis(ticks),
            precise: Some(Duration::from_millis(precise)),
            ..Usage::default()
        };
        assert_eq!(of(1010, 1008).since(&of(1000, 1000)), Duration::from_millis(8));
        assert_eq!(of(2000, 500).since(&of(1000, 1000)), Duration::from_millis(1000));
    }
}
