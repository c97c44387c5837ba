//! A person at a terminal: kubectl, helm and landbridge in a shell that reaches both API servers, and the commands of the examples'
//! own READMEs.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use tokio::time::{Duration, timeout};
use xds_tests::kubernetes::charts::{Said, said};
use xds_tests::kubernetes::{Binaries, binaries, secret_file};
use xds_tests::netns::Ns;

/// Some commands wait for what does not come.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where commands are typed.
pub struct Desk {
    ns: Ns,
    folder: PathBuf,
    /// The example that is followed, a copy.
    pub example: PathBuf,
}

impl Desk {
    /// With the contexts of `kubeconfig`, in a copy of example `name`. `exec` is where nodes leave how to run something in a pod.
    pub fn new(ns: Ns, folder: &Path, binaries: &Binaries, kubeconfig: &str, name: &str) -> Result<Self> {
        let programs = folder.join("bin");
        fs::create_dir_all(&programs)?;
        secret_file(&folder.join("kubeconfig"), kubeconfig)?;
        let repository = binaries::repository();
        symlink(binaries::helm(&repository)?, programs.join("helm"))?;
        symlink(xds_tests::landbridge::find()?, programs.join("landbridge"))?;
        let kubectl = KUBECTL
            .replace("KUBECTL", &binaries.kubectl.display().to_string())
            .replace("CLUSTERS", &folder.display().to_string());
        fs::write(programs.join("kubectl"), kubectl)?;
        fs::set_permissions(programs.join("kubectl"), fs::Permissions::from_mode(0o755))?;
        copy(&repository.join("deploy"), &folder.join("deploy"))?;
        let example = folder.join("deploy/examples").join(name);
        Ok(Self { ns, folder: folder.to_owned(), example })
    }

    pub fn ns(&self) -> &Ns {
        &self.ns
    }

    /// Runs a script in the example's folder; what it prints, if every command of it succeeds.
    pub async fn types(&self, script: &str) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.ns.name()));
        let with_programs = format!("PATH='{}':$PATH\n{script}", self.folder.join("bin").display());
        command.args(["bash", "-euo", "pipefail", "-c", &with_programs]);
        command.env("KUBECONFIG", self.folder.join("kubeconfig"));
        for home in ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"] {
            command.env(home, self.folder.join("helm"));
        }
        command.current_dir(&self.example);
        let ended = timeout(PATIENCE, said(command, "")).await;
        let Said { success, out, err } =
            ended.with_context(|| format!("for {PATIENCE:?} typed:\n{script}"))??;
        ensure!(success, "typed:\n{script}\nsaid:\n{out}{err}");
        Ok(out)
    }

    /// Runs the commands of a section of the example's README; `known` are words in it that a person would replace.
    pub async fn follows(&self, section: &str, known: &[(&str, &str)]) -> Result<String> {
        self.follows_in(".", section, known).await
    }

    /// As [`Desk::follows`], of the README in another folder.
    pub async fn follows_in(&self, folder: &str, section: &str, known: &[(&str, &str)]) -> Result<String> {
        let readme = fs::read_to_string(self.example.join(folder).join("README.md"))?;
        let script = commands(&readme, section).with_context(|| format!("no commands under `{section}`"))?;
        let script = known.iter().fold(script, |script, (word, value)| script.replace(word, value));
        self.types(&script).await.with_context(|| section.to_owned())
    }
}

/// There is no kubelet to ask: `exec` runs in the pod's namespace. All else is kubectl.
const KUBECTL: &str = r#"#!/bin/bash
context= namespace=default pod=
args=("$@")
while (($#)); do
  case $1 in
    --context) context=$2; shift ;;
    -n | --namespace) namespace=$2; shift ;;
    --container) shift ;;
    exec) exec=1 ;;
    deployment/*) pod=${1#deployment/} ;;
    --) shift; break ;;
  esac
  shift
done
[[ -n ${exec:-} ]] || exec KUBECTL "${args[@]}"
exec "CLUSTERS/$context/exec/$namespace/$pod" "$@"
"#;

/// The commands of a section's console blocks, as a shell takes them.
fn commands(readme: &str, section: &str) -> Option<String> {
    let (_, rest) = readme.split_once(&format!("\n## {section}"))?;
    let text = rest.split("\n## ").next()?;
    let mut script = String::new();
    for block in text.split("```console\n").skip(1) {
        for line in block.split("```").next()?.lines() {
            // What follows a prompt is typed, anything else is an answer.
            if let Some(typed) = line.strip_prefix("$ ").or_else(|| line.strip_prefix("> ")) {
                script += typed;
                script.push('\n');
            }
        }
    }
    Some(script).filter(|script| !script.is_empty())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => fs::copy(entry.path(), target).map(drop)?,
        }
    }
    Ok(())
}
