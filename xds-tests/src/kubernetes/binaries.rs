//! Where `scripts/kubernetes.sh` put the API server and kubectl.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest;

/// The Go module that builds them, and the files that its build is named after.
const MODULE: &str = "xds-tests/kubernetes";
const SOURCES: [&str; 4] = ["go.mod", "go.sum", "kube-apiserver/main.go", "kubectl/main.go"];

/// A real API server with etcd inside, and the kubectl of the same release.
#[derive(Clone, Debug)]
pub struct Binaries {
    pub apiserver: PathBuf,
    pub kubectl: PathBuf,
}

impl Binaries {
    /// Those that were built from the module as it is now in `repository`.
    pub fn find(repository: &Path) -> Result<Self> {
        let mut sources = digest::Context::new(&digest::SHA256);
        for name in SOURCES {
            let path = repository.join(MODULE).join(name);
            sources.update(&std::fs::read(&path).with_context(|| format!("read {}", path.display()))?);
        }
        let hash = sources.finish().as_ref()[..8].iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}"); // writing to a String does not fail
            text
        });
        let home = repository.join(format!(".deps/kubernetes-{hash}"));
        let found = Self { apiserver: home.join("kube-apiserver"), kubectl: home.join("kubectl") };
        for binary in [&found.apiserver, &found.kubectl] {
            if !binary.is_file() {
                bail!("no Kubernetes API server at {}: run `make setup` (it needs Go)", binary.display());
            }
        }
        Ok(found)
    }
}

/// The project's folder.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the project").to_owned()
}
