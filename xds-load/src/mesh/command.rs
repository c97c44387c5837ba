//! `xds-load mesh`.

use std::{path::PathBuf, time::Instant};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Mesh, Spec,
    api::Api,
    churn::{Churn, Script},
    directory::{Directories, read_spec},
};

/// Makes meshes as YAML directories, and changes them.
#[derive(Clone, Debug, Subcommand)]
pub enum MeshCommand {
    /// Writes a mesh: one directory per cluster, which a control plane can read. Prints its size as JSON.
    Generate(Generate),
    /// Changes a mesh that `generate` wrote, after it was put back to how it was written. Prints what was done as JSON.
    Churn {
        /// Where it is.
        #[arg(long)]
        dir: PathBuf,
        /// HOST:PORT of a `kubectl proxy` (one for each cluster, separated by commas): its API server changes as the files do.
        #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
        api: Vec<Api>,
        /// What changes.
        #[command(subcommand)]
        script: Script,
    },
}

/// Where to, and what. Flags win against the spec.
#[derive(Clone, Debug, Args)]
pub struct Generate {
    /// A YAML file that says what the mesh looks like; all fields have defaults.
    #[arg(long)]
    spec: Option<PathBuf>,
    /// Where to: a new directory, or one with a mesh, which becomes the new one.
    #[arg(long)]
    out: PathBuf,
    /// HOST:PORT of a `kubectl proxy` (one for each cluster, separated by commas): the mesh is applied there, too.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    api: Vec<Api>,
    /// Another mesh of the same size.
    #[arg(long)]
    seed: Option<u64>,
    /// Clusters, each with a directory.
    #[arg(long)]
    clusters: Option<usize>,
    /// Networks.
    #[arg(long)]
    networks: Option<usize>,
    /// Namespaces.
    #[arg(long)]
    namespaces: Option<usize>,
    /// Services.
    #[arg(long)]
    services: Option<usize>,
    /// Pods of each service.
    #[arg(long)]
    endpoints: Option<usize>,
}

impl MeshCommand {
    /// Does it.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Generate(generate) => generate.run(),
            Self::Churn { dir, api, script } => churn(dir, api, script).await,
        }
    }
}

impl Generate {
    fn run(self) -> anyhow::Result<()> {
        let Self { spec, out, api, seed, clusters, networks, namespaces, services, endpoints } = self;
        let mut spec = spec.map_or_else(|| Ok(Spec::default()), |path| read_spec(&path))?;
        let said = [
            (&mut spec.clusters, clusters),
            (&mut spec.networks, networks),
            (&mut spec.namespaces, namespaces),
            (&mut spec.services, services),
            (&mut spec.endpoints, endpoints),
        ];
        for (field, said) in said {
            *field = said.unwrap_or(*field);
        }
        spec.seed = seed.unwrap_or(spec.seed);
        let began = Instant::now();
        let mesh = Mesh::generate(spec)?;
        let generated = began.elapsed();
        let written = Directories::new(&out).with_apis(api).write(&mesh)?;
        let summary = json!({
            "services": mesh.services().count(),
            "endpoints": mesh.endpoints(),
            "written": written,
            "generateSeconds": generated.as_secs_f64(),
            "seconds": began.elapsed().as_secs_f64(),
            "files": mesh.directories(&out).map(|(c, d)| format!("{c}={}", d.display())).collect::<Vec<_>>(),
        });
        println!("{summary:#}");
        Ok(())
    }
}

async fn churn(dir: PathBuf, apis: Vec<Api>, script: Script) -> anyhow::Result<()> {
    let directories = Directories::new(&dir).with_apis(apis);
    let spec = directories.spec().context("no mesh to change: `xds-load mesh generate` makes one")?;
    let mesh = Mesh::generate(spec)?;
    directories.write(&mesh)?;
    let mut churn = Churn::new(mesh, script, directories);
    let mut expectations = 0;
    while churn.next(|expected| expectations += expected.len()).await? {}
    println!("{:#}", json!({ "done": churn.totals(), "expectations": expectations }));
    Ok(())
}
