//! The programs under measurement, as processes, and what the kernel says that they used.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use xds_load::run::process::{Usage, usage};

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts it, with its output in `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("open {}", log.display()))?;
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { child, name, log: log.to_owned() })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `done`, as long as it runs.
    pub fn wait_until(&mut self, within: Duration, what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
        let end = Instant::now() + within;
        while !done() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} instead of {what}:\n{}", self.name, self.last_words());
            }
            ensure!(
                Instant::now() < end,
                "{} is not {what} after {within:?}:\n{}",
                self.name,
                self.last_words()
            );
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// What the kernel says.
    pub fn usage(&self) -> Result<Usage> {
        used(self.pid())
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

/// What the kernel says that a process has used.
fn used(pid: u32) -> Result<Usage> {
    usage(pid).with_context(|| format!("process {pid} is not there any more"))
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A landbridge on loopback.
#[derive(Debug)]
pub struct Server {
    /// The process, or the shell that starts it again.
    pub process: Process,
    /// xDS in plaintext.
    pub plaintext: SocketAddr,
    /// xDS and certificates over TLS.
    pub tls: SocketAddr,
    /// Where the shell writes the pid of the server that runs now.
    supervised: Option<PathBuf>,
}

/// How a landbridge is started.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// The binary.
    pub binary: &'a Path,
    /// `CLUSTER=DIR` for each cluster; the first one is its own.
    pub files: &'a [String],
    /// Where keys and logs go.
    pub state: &'a Path,
    /// Further flags.
    pub flags: &'a [&'a str],
}

/// The ports of a server, so that another one can take its place.
#[derive(Clone, Copy, Debug)]
pub struct Ports([SocketAddr; 5]);

impl Ports {
    /// Ports that are free now.
    pub fn free() -> Result<Self> {
        let listeners = (0..5).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
        let ports = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
        Ok(Self([ports[0], ports[1], ports[2], ports[3], ports[4]]))
    }
}

/// Starts its arguments again and again, and writes the pid to the file that is the first one.
const SUPERVISE: &str = r#"file=$1; shift; while :; do "$@" & echo $! >"$file"; wait $!; done"#;

impl Server {
    /// Starts it and waits until it is ready.
    pub fn start(settings: &Settings, ports: Ports) -> Result<Self> {
        Self::run(settings, ports, None)
    }

    /// The same, and starts it again whenever it ends.
    pub fn start_supervised(settings: &Settings, ports: Ports) -> Result<Self> {
        Self::run(settings, ports, Some(settings.state.join("pid")))
    }

    fn run(settings: &Settings, ports: Ports, supervised: Option<PathBuf>) -> Result<Self> {
        let [plaintext, tls, http, monitoring, https] = ports.0;
        let own =
            settings.files.first().and_then(|f| f.split_once('=')).context("a server without a cluster")?.0;
        let mut command = match &supervised {
            None => Command::new(settings.binary),
            Some(file) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", SUPERVISE, "supervise"]).arg(file).arg(settings.binary);
                shell
            }
        };
        command.args(["serve", "--cluster-id", own, "--dev-token-issuer", "--log-level", "warn"]);
        command.arg("--state-dir").arg(settings.state).args(settings.flags);
        for files in settings.files {
            command.args(["--files", files]);
        }
        let addresses = [
            ("--grpc-addr", plaintext),
            ("--secure-grpc-addr", tls),
            ("--http-addr", http),
            ("--monitoring-addr", monitoring),
            ("--https-addr", https),
        ];
        for (flag, address) in addresses {
            command.arg(flag).arg(address.to_string());
        }
        fs::create_dir_all(settings.state)?;
        let process = Process::start(command, &settings.state.join("landbridge.log"))?;
        let mut server = Self { process, plaintext, tls, supervised };
        server.process.wait_until(Duration::from_secs(60), "ready", || is_ready(http))?;
        Ok(server)
    }

    /// The pid of the server that runs now.
    pub fn current_pid(&self) -> Result<u32> {
        match &self.supervised {
            None => Ok(self.process.pid()),
            Some(file) => Ok(fs::read_to_string(file)?.trim().parse()?),
        }
    }

    /// What the server that runs now has used.
    pub fn current_usage(&self) -> Result<Usage> {
        used(self.current_pid()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let (Some(_), Ok(pid)) = (&self.supervised, self.current_pid()) {
            // The shell first, or it would start another one.
            let _ = self.process.child.kill();
            let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
            pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
    }
}

fn is_ready(address: SocketAddr) -> bool {
    let get = || -> Result<String> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    get().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
