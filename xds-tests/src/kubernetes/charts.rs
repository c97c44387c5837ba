//! The charts of `deploy/charts`, as Helm renders them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{binaries, objects};

/// Helm, with a home of its own: it sees nothing of the user's.
pub struct Helm {
    binary: PathBuf,
    home: PathBuf,
}

/// What a command said.
pub struct Said {
    pub success: bool,
    pub out: String,
    pub err: String,
}

impl Helm {
    pub fn find(home: &Path) -> Result<Self> {
        let binary = binaries::helm(&binaries::repository())?;
        std::fs::create_dir_all(home).with_context(|| format!("make {}", home.display()))?;
        Ok(Self { binary, home: home.to_owned() })
    }

    /// Runs `helm` in the project's folder.
    pub async fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Said> {
        let mut command = Command::new(&self.binary);
        for (name, folder) in
            [("HELM_CONFIG_HOME", "config"), ("HELM_CACHE_HOME", "cache"), ("HELM_DATA_HOME", "data")]
        {
            command.env(name, self.home.join(folder));
        }
        command.env_remove("KUBECONFIG").current_dir(binaries::repository()).args(args);
        said(command, "").await
    }

    /// The manifests of a release in istio-system, with the definitions of kinds.
    pub async fn template(&self, release: &Release<'_>) -> Result<String> {
        let mut args = vec!["template", "--include-crds"];
        args.extend(release.args());
        let Said { success, out, err } = self.run(args).await?;
        ensure!(success, "helm template {release:?}: {err}");
        Ok(out)
    }

    /// The objects of a release.
    pub async fn objects(&self, release: &Release<'_>) -> Result<Vec<Value>> {
        objects::parse(&self.template(release).await?)
    }
}

/// A release of a chart; paths are those of the project's folder.
#[derive(Debug)]
pub struct Release<'a> {
    pub name: &'a str,
    pub chart: &'a str,
    pub files: Vec<&'a str>,
    /// As of `--set`.
    pub set: Vec<&'a str>,
}

impl<'a> Release<'a> {
    /// Chart landbridge.
    pub fn control_plane(files: &[&'a str]) -> Self {
        Self { name: "istiod", chart: "deploy/charts/landbridge", files: files.to_vec(), set: Vec::new() }
    }

    /// Chart eastwest-gateway.
    pub fn gateway(files: &[&'a str]) -> Self {
        Self {
            name: "istio-eastwestgateway",
            chart: "deploy/charts/eastwest-gateway",
            files: files.to_vec(),
            set: Vec::new(),
        }
    }

    pub fn with(mut self, set: &'a str) -> Self {
        self.set.push(set);
        self
    }

    /// Name, chart, namespace and values, as Helm takes them.
    pub fn args(&self) -> Vec<&'a str> {
        let mut args = vec![self.name, self.chart, "--namespace", "istio-system"];
        args.extend(self.files.iter().flat_map(|file| ["--values", file]));
        args.extend(self.set.iter().flat_map(|set| ["--set", set]));
        args
    }
}

/// Runs a command to its end with `input` on its stdin.
pub async fn said(mut command: Command, input: &str) -> Result<Said> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let mut stdin = child.stdin.take().context("stdin is a pipe")?;
    let input = input.as_bytes().to_vec();
    let feed = async move {
        // A command that does not want its input ends by itself.
        let _ = stdin.write_all(&input).await;
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output?;
    let text = |bytes| match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => bail!("{command:?} does not print UTF-8"),
    };
    Ok(Said { success: output.status.success(), out: text(output.stdout)?, err: text(output.stderr)? })
}
