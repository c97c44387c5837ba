//! Where figures were measured, and with what.

use std::{fmt, fs, process::Command};

use serde::{Deserialize, Serialize};

/// The machine, the code and the day.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Day and time, UTC.
    pub date: String,
    /// The processor's name.
    pub cpu: String,
    /// How many of them this process may use.
    pub cores: usize,
    /// In GiB.
    pub memory: f64,
    /// The kernel's release.
    pub kernel: String,
    /// The compiler.
    pub rustc: String,
    /// The commit, with `+` if there were changes on top.
    pub revision: String,
    /// The load average of the last minute when the run began: above 1 the figures are those of a busy machine.
    pub load: f64,
}

impl Machine {
    /// Reads it off.
    pub fn read() -> Self {
        let file = |path| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_default()
        };
        let kilobytes = field(&file("/proc/meminfo"), "MemTotal");
        let kilobytes: f64 = kilobytes.trim_end_matches(" kB").parse().unwrap_or_default();
        let now = time::UtcDateTime::now();
        let changed = !output("git", &["status", "--porcelain"]).is_empty();
        Self {
            date: format!("{} {:02}:{:02} UTC", now.date(), now.hour(), now.minute()),
            cpu: field(&file("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: (kilobytes / 1_048_576.0).round(),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            rustc: output("rustc", &["--version"]),
            revision: output("git", &["rev-parse", "--short", "HEAD"]) + if changed { "+" } else { "" },
            load: file("/proc/loadavg").split(' ').next().and_then(|l| l.parse().ok()).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, cpu, cores, memory, kernel, rustc, revision, load } = self;
        write!(
            f,
            "{date}, revision {revision}, {cores} cores of {cpu}, {memory} GiB, Linux {kernel}, {rustc}, load average \
             {load} at the start. Server and clients share the machine."
        )
    }
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}
