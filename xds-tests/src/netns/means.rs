//! Whether and how namespaces can be made here: as root, or as an ordinary user inside a user namespace.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};

use super::{run, search_path};

/// Set for the process that was started again inside a user namespace.
const INSIDE: &str = "LANDBRIDGE_LAB_INSIDE";

/// How this process can have network namespaces.
pub enum Means {
    /// Go on: this process may make them.
    Here,
    /// Start again with [`inside_user_namespace`].
    UserNamespace,
    /// It cannot, for this reason; skip or give up.
    None(String),
}

/// Finds out by trying: a container's root may lack the capability, a kernel may forbid user namespaces.
pub fn means() -> Means {
    let probe = format!("lb{}-probe", std::process::id());
    let as_root = match rustix::process::geteuid().is_root() {
        true => run("ip", &["netns", "add", &probe], None)
            .and_then(|_| run("ip", &["netns", "del", &probe], None)),
        false => Err(anyhow::anyhow!("not root")),
    };
    let Err(root) = as_root else { return Means::Here };
    if in_user_namespace() {
        return Means::None(format!("inside a user namespace: {root:#}"));
    }
    match run("unshare", &[&UNSHARE[..], &["sh", "-c", "mount -t tmpfs tmpfs /run"]].concat(), None) {
        Ok(_) => Means::UserNamespace,
        Err(user) => Means::None(format!(
            "no network namespaces as this user ({root:#}) and none in a user namespace ({user:#}); \
             run as root, or install uidmap and give the user a range in /etc/subuid and /etc/subgid"
        )),
    }
}

/// `--map-auto` gives the namespace more ids than root's: the proxies run as uid 1337, which the capture rules match.
const UNSHARE: [&str; 4] = ["--map-root-user", "--map-auto", "--net", "--mount"];

/// The command that runs this program again, with `args`, as root of a user namespace of its own.
/// `/run` becomes a tmpfs there, because `ip netns` keeps its names in `/run/netns`.
pub fn inside_user_namespace(args: impl IntoIterator<Item = OsString>) -> Result<Command> {
    let mut command = Command::new("unshare");
    command
        .args(UNSHARE)
        .args(["sh", "-c", "mount -t tmpfs tmpfs /run && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().context("find this program's own file")?)
        .args(args)
        .env("PATH", search_path())
        .env(INSIDE, "1");
    Ok(command)
}

/// Whether this process was started again inside a user namespace of its own.
pub fn in_user_namespace() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// For a program's `main`, before it has threads: comes back where namespaces can be made, starting the program again
/// in a user namespace if need be (then it does not come back).
pub fn enter_or_explain() -> Result<()> {
    match means() {
        Means::Here => Ok(()),
        Means::None(why) => bail!("{why}"),
        Means::UserNamespace => Err(inside_user_namespace(std::env::args_os().skip(1))?.exec())
            .context("start again with unshare"),
    }
}

/// Runs the body of test `name` where namespaces can be made; where they cannot, says so loudly and skips it,
/// except in CI, where that is a failure.
pub fn lab_test(name: &str, body: impl FnOnce() -> Result<()>) {
    let _one = one_at_a_time();
    match means() {
        Means::Here => body().unwrap_or_else(|error| panic!("{name}: {error:#}")),
        Means::UserNamespace => {
            let args = [name, "--exact", "--nocapture"].map(OsString::from);
            let status = inside_user_namespace(args).and_then(|mut command| {
                command.stdin(Stdio::null()).status().context("start the test again with unshare")
            });
            assert!(status.is_ok_and(|status| status.success()), "{name}: failed inside the user namespace");
        }
        Means::None(why) => skip(name, &why),
    }
}

/// Held by a test that needs the machine for itself: some measure, and a machine has few cores.
pub fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner) // a test that failed holds up no other
}

/// Notes a skipped test on the terminal and for the summary of `make test`.
pub fn skip(name: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{name} must run in CI, and cannot: {why}");
    eprintln!("\n*** SKIPPED: {name}: {why}\n");
    if let Some(file) = std::env::var_os("LANDBRIDGE_SKIPPED_TESTS") {
        use std::io::Write as _;
        let line = format!("{name}: {why}\n");
        let noted = std::fs::OpenOptions::new().create(true).append(true).open(&file);
        if let Err(error) = noted.and_then(|mut file| file.write_all(line.as_bytes())) {
            eprintln!("could not note the skipped test in {}: {error}", file.to_string_lossy());
        }
    }
}
