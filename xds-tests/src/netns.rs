//! Network namespaces: made with `ip`, entered by a thread, gone when dropped.
//!
//! A socket belongs to the namespace in which it was created and a child process to that of the thread that
//! started it. So nothing here needs `ip netns exec`: a short-lived thread enters the namespace, opens the
//! socket or starts the process, and hands it back.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub mod means;

/// A network namespace of the lab. Clones share it; the last one dropped deletes it.
#[derive(Clone)]
pub struct Ns(Arc<Inner>);

struct Inner {
    name: String,
    file: File,
    keep: std::sync::atomic::AtomicBool,
}

impl Ns {
    /// Makes a namespace with its loopback up. The name is seen in `ip netns list`.
    pub fn create(name: &str) -> Result<Self> {
        run("ip", &["netns", "add", name], None)?;
        let file =
            File::open(format!("/run/netns/{name}")).with_context(|| format!("open namespace {name}"))?;
        let ns = Self(Arc::new(Inner { name: name.to_owned(), file, keep: false.into() }));
        ns.ip("link set lo up\n")?;
        Ok(ns)
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Leaves the namespace behind when this process ends (`make demo KEEP=1`).
    pub fn keep(&self) {
        self.0.keep.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Runs lines of `ip` commands (without the leading `ip`) inside the namespace.
    pub fn ip(&self, lines: &str) -> Result<()> {
        run("ip", &["-n", self.name(), "-batch", "-"], Some(lines))
            .map(drop)
            .with_context(|| format!("in namespace {}", self.name()))
    }

    /// Loads iptables rules given in the format of `iptables-save`; other tables stay as they are.
    pub fn iptables(&self, rules: &str) -> Result<()> {
        self.enter(|| run("iptables-restore", &["--noflush", "-w"], Some(rules)))?
            .map(drop)
            .with_context(|| format!("in namespace {}", self.name()))
    }

    /// Sets kernel parameters of the namespace: `("net.ipv4.ip_forward", "1")`.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in settings {
                let path = format!("/proc/sys/{}", key.replace('.', "/"));
                std::fs::write(&path, value).with_context(|| format!("set {key}={value}"))?;
            }
            Ok(())
        })?
    }

    /// Runs a program inside the namespace to its end, and returns what it printed.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        self.enter(|| run(program, args, None))?.with_context(|| format!("in namespace {}", self.name()))
    }

    /// Runs `f` on a thread inside the namespace and waits for it.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.move_this_thread().map(|()| f()));
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace, for good. Only for threads that belong to the caller alone.
    pub fn move_this_thread(&self) -> Result<()> {
        move_into_link_name_space(self.0.file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter namespace {}", self.name()))
    }

    /// Connects from inside the namespace. For the caller's tokio runtime; `timeout` bounds the handshake.
    pub async fn connect(&self, to: SocketAddr, timeout: Duration) -> Result<tokio::net::TcpStream> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let ns = self.clone();
        std::thread::spawn(move || {
            let connected =
                ns.move_this_thread().and_then(|()| Ok(std::net::TcpStream::connect_timeout(&to, timeout)?));
            let _ = answer.send(connected); // nobody waits any more: the caller was cancelled
        });
        let stream = answered.await.context("connecting thread ended")??;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(tokio::net::TcpStream::from_std(stream)?)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.keep.load(std::sync::atomic::Ordering::Relaxed)
            && let Err(error) = run("ip", &["netns", "del", &self.name], None)
        {
            eprintln!("could not delete namespace {}: {error:#}", self.name);
        }
    }
}

/// Connects interface `a.1` of namespace `a.0` to the bridge `br0` of namespace `bridge`, with address `a.2`.
pub fn plug(bridge: &Ns, ns: &Ns, interface: &str, address: &str) -> Result<()> {
    // The bridge's end is named after the guest: unique within the bridge's namespace, and readable in `ip link`.
    // Interface names have 15 characters at most, and the guest's interesting part is its end.
    let name = ns.name();
    let port = name.get(name.len().saturating_sub(13)..).unwrap_or(name).trim_start_matches('-');
    bridge.ip(&format!(
        "link add {port} type veth peer name {interface} netns {name}\nlink set {port} master br0 up\n"
    ))?;
    ns.ip(&format!("addr add {address} dev {interface}\nlink set {interface} up\n"))
}

/// A namespace that holds nothing but the bridge `br0`.
pub fn bridge(name: &str) -> Result<Ns> {
    let ns = Ns::create(name)?;
    ns.ip("link add br0 type bridge\nlink set br0 up\n")?;
    // Where the kernel has bridge netfilter built in, packets between two ports of the bridge would pass the
    // FORWARD chain as well, which the routers close.
    if std::path::Path::new("/proc/sys/net/bridge").exists() {
        ns.sysctl(&[("net.bridge.bridge-nf-call-iptables", "0")])?;
    }
    Ok(ns)
}

/// Runs a command to its end and returns what it printed; its error output becomes the error.
pub(crate) fn run(program: &str, args: &[&str], stdin: Option<&str>) -> Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .env("PATH", search_path())
        .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program} (is it installed? `make setup` says what is missing)"))?;
    if let (Some(mut pipe), Some(text)) = (child.stdin.take(), stdin) {
        pipe.write_all(text.as_bytes()).with_context(|| format!("write to {program}"))?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("`{program} {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// PATH with the places where Debian keeps `ip` and `iptables`, which an ordinary user's PATH lacks.
fn search_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}
