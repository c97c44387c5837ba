//! The files of a mesh: certificate authorities, manifests, and the edits that a user would make to them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Mesh, Tools};
use crate::landbridge::{self, Settings};
use crate::topology::CLOUDS;

/// The file of the example that says which backends are ready.
const ENDPOINTS: &str = "backend-endpoints.yaml";

impl Mesh {
    /// The directory of manifests that stands for a cluster.
    pub fn config_dir(&self, cloud: &str) -> PathBuf {
        config_dir(&self.folder, cloud)
    }

    pub fn ca_dir(&self, cloud: &str) -> PathBuf {
        ca_dir(&self.folder, cloud)
    }

    /// Adds or replaces a manifest of a cluster.
    pub fn apply(&self, cloud: &str, file: &str, manifest: &str) -> Result<()> {
        replace_file(&self.config_dir(cloud).join(file), manifest)
    }

    /// Takes all backends of a cloud out of its EndpointSlice.
    pub fn withdraw_backends(&self, cloud: &str) -> Result<()> {
        let manifest = self.example(cloud)?;
        let (head, _) =
            manifest.split_once("\nendpoints:").context("the example's EndpointSlice has endpoints")?;
        self.apply(cloud, ENDPOINTS, &format!("{head}\nendpoints: []\n"))
    }

    /// Takes the last backend of a cloud out of its EndpointSlice.
    pub fn withdraw_one_backend(&self, cloud: &str) -> Result<()> {
        let manifest = self.example(cloud)?;
        let (head, _) =
            manifest.rsplit_once("\n- addresses:").context("the example's EndpointSlice has endpoints")?;
        self.apply(cloud, ENDPOINTS, &format!("{head}\n"))
    }

    /// Puts them back.
    pub fn restore_backends(&self, cloud: &str) -> Result<()> {
        self.apply(cloud, ENDPOINTS, &self.example(cloud)?)
    }

    fn example(&self, cloud: &str) -> Result<String> {
        let path = example_dir(&self.tools.repository).join(cloud).join(ENDPOINTS);
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Gives a cloud a new intermediate CA of the same root: a directory beside the one in use, then the two change
    /// places in one step, so that nobody sees a certificate without its key.
    pub async fn rotate_intermediate(&self, cloud: &str) -> Result<()> {
        let (old, new) = (self.ca_dir(cloud), self.folder.join(cloud).join("cacerts.new"));
        intermediate(&self.tools.landbridge, &self.folder, cloud, &new).await?;
        renameat_with(CWD, &new, CWD, &old, RenameFlags::EXCHANGE).context("exchange the CA directories")?;
        std::fs::remove_dir_all(&new).context("remove the old CA directory")
    }
}

/// Makes the folder anew: the root, an intermediate per cloud, copies of the example's manifests.
pub async fn lay_out(tools: &Tools, folder: &Path) -> Result<()> {
    for name in ["pods", "logs"] {
        renew(&folder.join(name))?;
    }
    let root = folder.join("root-ca");
    renew(&root)?;
    landbridge::command(&tools.landbridge, args(["ca", "root", "--force", "--out"], [&root])).await?;
    for cloud in CLOUDS {
        renew(&folder.join(cloud))?;
        for name in ["state", "cacerts", "manifests"] {
            renew(&folder.join(cloud).join(name))?;
        }
        intermediate(&tools.landbridge, folder, cloud, &ca_dir(folder, cloud)).await?;
        let example = example_dir(&tools.repository).join(cloud);
        for entry in std::fs::read_dir(&example).with_context(|| format!("read {}", example.display()))? {
            let file = entry?.path();
            let name = file.file_name().context("a file of a directory has a name")?;
            std::fs::copy(&file, config_dir(folder, cloud).join(name))?;
        }
    }
    Ok(())
}

async fn intermediate(binary: &Path, folder: &Path, cloud: &str, out: &Path) -> Result<()> {
    let root = folder.join("root-ca");
    let command = args(["ca", "intermediate", "--force", "--cluster", cloud, "--root"], [&root])
        .into_iter()
        .chain(args(["--out"], [out]));
    landbridge::command(binary, command).await.map(drop)
}

/// How the control plane of a cloud is started: each reads both clusters.
pub fn server_settings(tools: &Tools, folder: &Path, cloud: &str) -> Settings {
    Settings {
        binary: tools.landbridge.clone(),
        cluster: cloud.to_owned(),
        files: CLOUDS.map(|cluster| (cluster.to_owned(), config_dir(folder, cluster))).to_vec(),
        kubernetes: Vec::new(),
        state_dir: folder.join(cloud).join("state"),
        ca_dir: ca_dir(folder, cloud),
        more: Vec::new(),
        log: folder.join("logs").join(format!("{cloud}-landbridge.log")),
    }
}

/// Writes a file beside the one meant and renames it: a reader sees the old text or the new one, never half of it.
pub fn replace_file(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_added_extension("part");
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("write {}", path.display()))
}

fn config_dir(folder: &Path, cloud: &str) -> PathBuf {
    folder.join(cloud).join("manifests")
}

fn ca_dir(folder: &Path, cloud: &str) -> PathBuf {
    folder.join(cloud).join("cacerts")
}

fn example_dir(repository: &Path) -> PathBuf {
    repository.join("deploy/examples/two-clouds")
}

fn renew(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))
}

fn args<const N: usize, const M: usize>(
    words: [&str; N],
    paths: [impl AsRef<std::ffi::OsStr>; M],
) -> Vec<OsString> {
    words
        .into_iter()
        .map(OsString::from)
        .chain(paths.into_iter().map(|path| path.as_ref().to_owned()))
        .collect()
}
