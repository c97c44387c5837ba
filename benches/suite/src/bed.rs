//! A test bed: a generated mesh, a server that reads it, and the load tool against it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    process::{Ports, Process, Server, Settings},
    scenarios::Setting,
};

/// A mebibyte, in bytes.
pub const MIB: f64 = 1_048_576.0;

/// The service account of the clients in generated meshes.
const CLIENT: &str = "client";

/// A mesh in a directory of its own, which goes when this is dropped.
pub struct Bed {
    directory: tempfile::TempDir,
    tool: PathBuf,
    landbridge: PathBuf,
    files: Vec<String>,
}

/// What the load tool measured, by name.
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// A metric that has to be there.
    pub fn get(&self, name: &str) -> Result<f64> {
        self.0.get(name).copied().with_context(|| format!("xds-load has not measured {name}"))
    }
}

impl Bed {
    /// Generates the mesh of this spec (fields as in `xds-load mesh generate --spec`).
    pub fn new(setting: &Setting, spec: Value) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("landbridge-bench-").tempdir()?;
        let file = directory.path().join("mesh.yaml");
        fs::write(&file, spec.to_string())?;
        let tool = setting.binary("xds-load")?;
        let mut generate = Command::new(&tool);
        generate
            .args(["mesh", "generate", "--spec"])
            .arg(&file)
            .arg("--out")
            .arg(directory.path().join("mesh"));
        let written: Value = serde_json::from_str(&output(&mut generate)?)?;
        let files = written["files"].as_array().context("xds-load did not say which files it wrote")?;
        let files = files.iter().filter_map(|f| f.as_str().map(str::to_owned)).collect();
        Ok(Self { directory, tool, landbridge: setting.binary("landbridge")?, files })
    }

    /// Where the mesh is.
    pub fn mesh(&self) -> PathBuf {
        self.directory.path().join("mesh")
    }

    /// A path beside it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// How its servers are started; `name` keeps the states of several apart.
    fn settings<'a>(&'a self, state: &'a Path, flags: &'a [&'a str]) -> Settings<'a> {
        Settings { binary: &self.landbridge, files: &self.files, state, flags }
    }

    /// A landbridge that reads the mesh.
    pub fn server(&self, flags: &[&str]) -> Result<Server> {
        self.server_at("state", Ports::free()?, flags)
    }

    /// A landbridge with keys of its own at these ports.
    pub fn server_at(&self, state: &str, ports: Ports, flags: &[&str]) -> Result<Server> {
        Server::start(&self.settings(&self.path(state), flags), ports)
    }

    /// A server that is started again whenever it ends, at the same ports.
    pub fn supervised(&self, ports: Ports, flags: &[&str]) -> Result<Server> {
        Server::start_supervised(&self.settings(&self.path("state"), flags), ports)
    }

    /// What a load scenario needs for so many proxies of the mesh at the server's plaintext port.
    pub fn plaintext(&self, server: &Server, proxies: usize) -> Value {
        json!({
            "server": server.plaintext.to_string(),
            "serverPid": server.process.pid(),
            "mesh": self.mesh(),
            "proxies": proxies,
        })
    }

    /// The load assignments of a generated mesh's first services, for `ask.subscribe`.
    pub fn assignments(&self, services: usize, namespaces: usize) -> Result<String> {
        let cluster =
            |i: usize| format!("outbound|80||service-{i}.namespace-{}.svc.cluster.local\n", i % namespaces);
        let path = self.path("assignments");
        fs::write(&path, (0..services).map(cluster).collect::<String>())?;
        Ok(format!("eds:@{}", path.display()))
    }

    /// What a load scenario needs to reach the server's TLS port: a token of `namespace`, which all its proxies have to be in.
    pub fn over_tls(&self, server: &Server, namespace: &str) -> Result<Value> {
        let state = self.path("state");
        let token = self.path("token");
        let mut command = Command::new(&self.landbridge);
        command.arg("token").arg("--state-dir").arg(&state);
        command.args(["--namespace", namespace, "--service-account", CLIENT]);
        fs::write(&token, output(&mut command)?)?;
        Ok(
            json!({ "server": server.tls.to_string(), "tls": {}, "token": token, "nodes": { "namespaces": [namespace], "serviceAccount": CLIENT } }),
        )
    }

    /// Runs a load scenario (fields as in `xds-load run FILE`); fails if a client ends with anything wrong.
    pub fn load(&self, scenario: Value) -> Result<Metrics> {
        let (file, report) = (self.path("scenario.yaml"), self.path("load.json"));
        fs::write(&file, scenario.to_string())?;
        let mut command = Command::new(&self.tool);
        command.arg("run").arg(&file).arg("--json").arg(&report).stdout(Stdio::null());
        let output = command.stdin(Stdio::null()).output().context("start xds-load")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let text =
            fs::read_to_string(&report).with_context(|| format!("xds-load left no report:\n{said}"))?;
        let report: Value = serde_json::from_str(&text)?;
        if !output.status.success() {
            bail!("xds-load found: {:#}\n{said}", report["problems"]);
        }
        let metrics = report["metrics"].as_array().into_iter().flatten();
        let named = metrics.filter_map(|m| Some((m["name"].as_str()?.to_owned(), m["value"].as_f64()?)));
        Ok(Metrics(named.collect()))
    }

    /// The raw server that the same clients are served by, with these flags.
    pub fn floor(&self, flags: &[&str]) -> Result<(Process, String)> {
        let log = self.path("floor.log");
        let _ = fs::remove_file(&log);
        let mut command = Command::new(&self.tool);
        command.args(["floor", "serve", "--listen", "127.0.0.1:0"]).args(flags);
        let mut process = Process::start(command, &log)?;
        let mut address = None;
        process.wait_until(std::time::Duration::from_secs(10), "listening", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let line = text.lines().next().and_then(|line| serde_json::from_str::<Value>(line).ok());
            address = line.and_then(|line| line["listening"].as_str().map(str::to_owned));
            address.is_some()
        })?;
        Ok((process, address.context("the floor did not say where it listens")?))
    }

    /// Runs a one-shot command of landbridge.
    pub fn landbridge(&self, args: &[&str]) -> Result<()> {
        output(Command::new(&self.landbridge).args(args)).map(drop)
    }

    /// Runs the load tool with these arguments; returns the JSON that it prints.
    pub fn tool(&self, args: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&output(Command::new(&self.tool).args(args))?)?)
    }
}

/// Puts the fields of `more` into `into`, objects within objects too.
pub fn merged(mut into: Value, more: Value) -> Value {
    fn merge(into: &mut Value, more: Value) {
        match (into, more) {
            (Value::Object(into), Value::Object(more)) => {
                for (key, value) in more {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, more) => *into = more,
        }
    }
    merge(&mut into, more);
    into
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?} failed:\n{said}\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout).context("output that is not UTF-8")
}
