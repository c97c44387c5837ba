//! A process inside a namespace: started, watched, ended by its own pid and never by name.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use crate::netns::Ns;

/// What this process has in memory.
pub fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("Linux says VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// A running process. Dropping it kills it.
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command` inside `ns`; its output is appended to the file `log`.
    pub fn start(ns: &Ns, name: &str, command: Command, log: &Path) -> Result<Self> {
        Self::start_at(Some(ns), name, command, log)
    }

    /// Starts `command` inside `ns`, or where this process is; its output is appended to the file `log`.
    pub fn start_at(ns: Option<&Ns>, name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let output = log_file(log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // A Ctrl-C on the terminal is for us alone: we end our children in good order.
            .process_group(0)
            .kill_on_drop(true);
        let runtime = tokio::runtime::Handle::current();
        let spawned = match ns {
            None => command.spawn(),
            Some(ns) => ns.enter(|| {
                let _in_runtime = runtime.enter(); // tokio watches the child from there
                command.spawn()
            })?,
        };
        let child = spawned.with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), child })
    }

    /// None once it has ended and was waited for.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Asks it to end (SIGTERM) and insists after `grace` (SIGKILL).
    pub async fn stop(&mut self, grace: Duration) -> Result<()> {
        self.signal(Signal::TERM);
        match timeout(grace, self.child.wait()).await {
            Ok(ended) => ended.map(drop).with_context(|| format!("wait for {}", self.name)),
            Err(_) => self.kill().await,
        }
    }

    /// Waits until it has ended by itself.
    pub async fn finish(&mut self, within: Duration) -> Result<ExitStatus> {
        let ended = timeout(within, self.child.wait()).await;
        let ended = ended.with_context(|| format!("{} still runs after {within:?}", self.name))?;
        ended.with_context(|| format!("wait for {}", self.name))
    }

    /// Ends it at once (SIGKILL), as a crash would.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// [`Process::kill`] without waiting for the end; for a `Drop`.
    pub fn kill_now(&self) {
        self.signal(Signal::KILL);
    }

    /// Holds it still (SIGSTOP): its connections stay up and silent, as those of a machine that hangs.
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`Process::suspend`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends it a signal that it knows what to do with.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, signal); // it may have ended by itself a moment ago
        }
    }

    /// Its exit status if it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until `ready` says true, asking again every 20 ms. Fails with the end of the log when the process ends
    /// first or `within` is over.
    pub async fn await_ready(
        &mut self,
        within: Duration,
        mut ready: impl AsyncFnMut() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            if ready().await {
                return Ok(());
            }
            let why = match self.ended() {
                Some(status) => format!("ended ({status}) before it was ready"),
                None if Instant::now() > deadline => format!("not ready after {within:?}"),
                None => {
                    sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            bail!("{} {why}; end of {}:\n{}", self.name, self.log.display(), tail(&self.log, 15));
        }
    }

    /// Lets it live on after this process; for `make demo KEEP=1`.
    pub fn leave_running(self) {
        // kill_on_drop acts in Drop, so there must be none.
        std::mem::forget(self);
    }
}

/// Comes back when somebody asks this process to end (Ctrl-C, SIGTERM), with the word for it.
pub async fn interrupted() -> Result<&'static str> {
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = int.recv() => Ok("interrupted"),
        _ = term.recv() => Ok("terminated"),
    }
}

/// Opened for everybody to write: Envoy's access log re-opens /dev/stdout as uid 1337, and a log file that it may not
/// open costs it the whole listener.
fn log_file(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open log file {}", path.display()))?;
    file.set_permissions(std::fs::Permissions::from_mode(0o666))?;
    Ok(file)
}

/// The last `lines` lines of a file, for an error message.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
