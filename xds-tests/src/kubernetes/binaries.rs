//! Where `scripts/go-build.sh` put the API server, kubectl and Helm.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest;

/// A Go module of this crate, and the files that its build is named after.
struct Module {
    name: &'static str,
    folder: &'static str,
    sources: &'static [&'static str],
}

const KUBERNETES: Module = Module {
    name: "kubernetes",
    folder: "xds-tests/kubernetes",
    sources: &["go.mod", "go.sum", "kube-apiserver/main.go", "kubectl/main.go"],
};
const HELM: Module = Module { name: "helm", folder: "xds-tests/helm", sources: &["go.mod", "go.sum"] };

/// A real API server with etcd inside, and the kubectl of the same release.
#[derive(Clone, Debug)]
pub struct Binaries {
    pub apiserver: PathBuf,
    pub kubectl: PathBuf,
}

impl Binaries {
    /// Those that were built from the module as it is now in `repository`.
    pub fn find(repository: &Path) -> Result<Self> {
        let program = |name| KUBERNETES.program(repository, name);
        Ok(Self { apiserver: program("kube-apiserver")?, kubectl: program("kubectl")? })
    }
}

/// Helm, as it was built from the module as it is now in `repository`.
pub fn helm(repository: &Path) -> Result<PathBuf> {
    HELM.program(repository, "helm")
}

impl Module {
    fn program(&self, repository: &Path, name: &str) -> Result<PathBuf> {
        let mut sources = digest::Context::new(&digest::SHA256);
        for source in self.sources {
            let path = repository.join(self.folder).join(source);
            sources.update(&std::fs::read(&path).with_context(|| format!("read {}", path.display()))?);
        }
        let hash = sources.finish().as_ref()[..8].iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}"); // writing to a String does not fail
            text
        });
        let program = repository.join(format!(".deps/{}-{hash}", self.name)).join(name);
        if !program.is_file() {
            bail!("there is no {name} at {}: run `make setup` (it needs Go)", program.display());
        }
        Ok(program)
    }
}

/// The project's folder.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the project").to_owned()
}
