//! The two-cloud mesh with everything running in it: what the demo shows and the tests break.
//!
//! Certificates, tokens, bootstraps and configuration are made by the landbridge binary, as a user would make them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::app;
use crate::capture;
use crate::envoy::{self, Envoy};
use crate::kubernetes::Cluster;
use crate::landbridge::{self, SECURE_GRPC_PORT, Server, Settings};
use crate::load::Target;
use crate::process::Process;
use crate::topology::{CLOUDS, GATEWAY, LANDBRIDGE, Pod, Topology};

mod api_servers;
mod config;
mod workload;

pub use config::replace_file;
pub use workload::{Kind, Workload};

/// The service that everything is about, and its address in each cloud.
pub const SERVICE: &str = "backend.production.svc.cluster.local";
const BACKENDS: [&str; 2] = ["backend-a", "backend-b"];
/// How long a start may take: generous, for machines that do other things as well.
const START: Duration = Duration::from_secs(120);

/// The programs of the lab.
#[derive(Clone)]
pub struct Tools {
    pub envoy: PathBuf,
    pub landbridge: PathBuf,
    /// A program that has [`app::AppArgs`] as its subcommand `app`.
    pub app: PathBuf,
    /// The project's folder, for the example manifests.
    pub repository: PathBuf,
}

impl Tools {
    /// Finds them around the running program; `app` is the program with the application in it.
    pub fn find(app: PathBuf) -> Result<Self> {
        let repository =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this crate lies in the project")?;
        Ok(Self {
            envoy: envoy::find(repository)?,
            landbridge: landbridge::find()?,
            app,
            repository: repository.to_owned(),
        })
    }
}

/// A pod that runs something: a proxy, an application, or both.
struct Running {
    pod: Pod,
    workload: Workload,
    envoy: Option<Envoy>,
    app: Option<Process>,
}

/// Everything. Dropping it ends all processes and deletes all namespaces.
pub struct Mesh {
    // Processes go before the namespaces that they run in.
    running: BTreeMap<String, Running>,
    servers: BTreeMap<&'static str, Option<Server>>,
    settings: BTreeMap<&'static str, Settings>,
    clusters: BTreeMap<&'static str, Cluster>,
    pub topology: Topology,
    pub folder: PathBuf,
    tools: Tools,
}

impl Mesh {
    /// Lays out the files and the network; nothing runs yet. `folder` is emptied; `prefix` begins all namespaces'
    /// names; `extra` workloads are added to the example's.
    pub async fn prepare(tools: Tools, folder: &Path, prefix: &str, extra: Vec<Workload>) -> Result<Self> {
        let workloads: Vec<Workload> = workload::example().into_iter().chain(extra).collect();
        config::lay_out(&tools, folder).await?;
        let pods: Vec<_> = workloads
            .iter()
            .filter(|workload| workload.kind != Kind::Gateway) // every cloud has its gateway anyway
            .map(|workload| (workload.cloud, workload.pod.as_str(), workload.host))
            .collect();
        let topology = Topology::build(prefix, &pods)?;
        let mut running = BTreeMap::new();
        for workload in workloads {
            let pod = topology.pod(workload.cloud, &workload.pod)?;
            // A folder of its own: Envoy watches the one that its token lies in.
            let own = folder.join("pods").join(pod.id().replace('/', "-"));
            std::fs::create_dir_all(&own).with_context(|| format!("make {}", own.display()))?;
            running.insert(pod.id(), Running { pod, workload, envoy: None, app: None });
        }
        let settings = CLOUDS.map(|cloud| (cloud, config::server_settings(&tools, folder, cloud))).into();
        let servers = CLOUDS.map(|cloud| (cloud, None)).into();
        let clusters = BTreeMap::new();
        Ok(Self { running, servers, settings, clusters, topology, folder: folder.to_owned(), tools })
    }

    /// Prepares and starts everything; comes back when every proxy is ready.
    pub async fn up(tools: Tools, folder: &Path, prefix: &str, extra: Vec<Workload>) -> Result<Self> {
        let mut mesh = Self::prepare(tools, folder, prefix, extra).await?;
        mesh.start_control_planes().await?;
        mesh.start_workloads().await?;
        Ok(mesh)
    }

    /// Starts the control planes that do not run, and waits until they serve.
    pub async fn start_control_planes(&mut self) -> Result<()> {
        for (cloud, slot) in &mut self.servers {
            if slot.is_none() {
                *slot = Some(Server::start(&self.settings[cloud], &self.topology.pod(cloud, LANDBRIDGE.0)?)?);
            }
        }
        for server in self.servers.values_mut().flatten() {
            server.await_ready(START).await?;
        }
        Ok(())
    }

    /// With which further arguments control planes are started from now on.
    pub fn serve_with(&mut self, more: &[&str]) {
        for settings in self.settings.values_mut() {
            settings.more = more.iter().map(ToString::to_string).collect();
        }
    }

    /// Ends both control planes at once, as a crash would.
    pub async fn kill_control_planes(&mut self) -> Result<()> {
        for server in self.servers.values_mut() {
            if let Some(mut server) = server.take() {
                server.process.kill().await?;
            }
        }
        Ok(())
    }

    /// Ends one of them.
    pub async fn kill_control_plane(&mut self, cloud: &str) -> Result<()> {
        let server = self.servers.get_mut(cloud).and_then(Option::take);
        server.with_context(|| format!("no control plane runs in {cloud}"))?.process.kill().await
    }

    /// Starts applications and proxies of all pods, and waits for the proxies.
    pub async fn start_workloads(&mut self) -> Result<()> {
        let all: Vec<String> = self.running.keys().cloned().collect();
        self.start_pods(&all).await
    }

    /// Gives these pods (`east/client`) capture, token and bootstrap, starts them and waits for the proxies.
    pub async fn start_pods(&mut self, ids: &[String]) -> Result<()> {
        self.launch_pods(ids).await?;
        self.await_proxies(ids).await
    }

    /// As [`Mesh::start_pods`], without waiting: for proxies that must not get anywhere.
    pub async fn launch_pods(&mut self, ids: &[String]) -> Result<()> {
        for id in ids {
            let running = self.running.get(id).with_context(|| format!("no workload {id}"))?;
            if running.workload.kind == Kind::Sidecar {
                capture::install(&running.pod.ns)?;
            }
            self.write_bootstrap(id).await?;
        }
        self.launch(ids)
    }

    /// Starts what should run in these pods and does not.
    fn launch(&mut self, ids: &[String]) -> Result<()> {
        for id in ids {
            let files = self.pod_files(id);
            let running = self.running.get_mut(id).with_context(|| format!("no workload {id}"))?;
            let (ns, name) = (&running.pod.ns, files.name.as_str());
            if running.workload.app && running.app.is_none() {
                running.app = Some(app::start(&self.tools.app, ns, id, &files.mode, &files.app_log)?);
            }
            if running.workload.kind != Kind::Plain && running.envoy.is_none() {
                running.envoy =
                    Some(Envoy::start(&self.tools.envoy, ns, name, &files.bootstrap, &files.envoy_log)?);
            }
        }
        Ok(())
    }

    async fn await_proxies(&mut self, ids: &[String]) -> Result<()> {
        for id in ids {
            if let Some(envoy) = self.running.get_mut(id).and_then(|running| running.envoy.as_mut()) {
                envoy.await_ready(START).await?;
            }
        }
        Ok(())
    }

    /// Tells the backends of a cloud how to answer: `ok`, `500`, `hang`.
    pub fn backends_answer(&self, cloud: &str, mode: &str) -> Result<()> {
        for id in backends(cloud) {
            replace_file(&self.pod_files(&id).mode, mode)?;
        }
        Ok(())
    }

    /// Kills application and proxy of the cloud's backends, all at once, without a goodbye.
    pub async fn kill_backends(&mut self, cloud: &str) -> Result<()> {
        let mut ending = Vec::new();
        for id in backends(cloud) {
            let Some(running) = self.running.get_mut(&id) else { continue };
            ending.extend(running.app.take());
            ending.extend(running.envoy.take().map(|envoy| envoy.process));
        }
        let ended = futures::future::join_all(ending.iter_mut().map(Process::kill)).await;
        ended.into_iter().collect()
    }

    /// Kills the applications only: their proxies go on and find nobody behind them.
    pub async fn kill_backend_apps(&mut self, cloud: &str) -> Result<()> {
        for id in backends(cloud) {
            if let Some(mut app) = self.running.get_mut(&id).and_then(|running| running.app.take()) {
                app.kill().await?;
            }
        }
        Ok(())
    }

    /// Kills the proxy of a pod without a goodbye.
    pub async fn kill_proxy(&mut self, cloud: &str, pod: &str) -> Result<()> {
        let running = self.running.get_mut(&format!("{cloud}/{pod}"));
        let envoy = running.and_then(|running| running.envoy.take());
        envoy.with_context(|| format!("no proxy runs in {cloud}/{pod}"))?.process.kill().await
    }

    /// Starts what does not run in the cloud's backends, and waits for the proxies.
    pub async fn start_backends(&mut self, cloud: &str) -> Result<()> {
        self.launch(&backends(cloud))?;
        self.await_proxies(&backends(cloud)).await
    }

    /// Where the client's requests go.
    pub fn target(&self) -> Target {
        Target { to: SocketAddr::from(([10, 96, 0, 10], 80)), host: SERVICE.to_owned() }
    }

    pub fn envoy(&self, cloud: &str, pod: &str) -> Result<&Envoy> {
        let running = self.running.get(&format!("{cloud}/{pod}"));
        running
            .and_then(|running| running.envoy.as_ref())
            .with_context(|| format!("no proxy runs in {cloud}/{pod}"))
    }

    /// All running proxies with their pods' ids.
    pub fn envoys(&self) -> impl Iterator<Item = (&str, &Envoy)> {
        self.running.iter().filter_map(|(id, running)| Some((id.as_str(), running.envoy.as_ref()?)))
    }

    /// How often each proxy has taken each configuration (CDS, EDS, LDS, RDS, SDS) so far.
    pub async fn taken(&self) -> Result<BTreeMap<String, u64>> {
        let mut all = BTreeMap::new();
        for (id, envoy) in self.envoys() {
            for (name, times) in envoy.stats("update_success$").await? {
                all.insert(format!("{id} {name}"), times);
            }
        }
        Ok(all)
    }

    pub fn server(&self, cloud: &str) -> Result<&Server> {
        self.servers
            .get(cloud)
            .and_then(Option::as_ref)
            .with_context(|| format!("no control plane runs in {cloud}"))
    }

    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Process ids of everything that runs.
    pub fn pids(&self) -> Vec<u32> {
        let pods = self.running.values().flat_map(|running| {
            let envoy = running.envoy.as_ref().map(|envoy| &envoy.process);
            envoy.into_iter().chain(&running.app)
        });
        let servers = self.servers.values().flatten().map(|server| &server.process);
        let clusters = self.clusters.values().map(Cluster::process);
        pods.chain(servers).chain(clusters).filter_map(Process::pid).collect()
    }

    /// Ends everything in good order. (Dropping the mesh does it the short way.)
    pub async fn stop(mut self) -> Result<()> {
        let processes = self.running.values_mut().flat_map(|running| {
            let envoy = running.envoy.as_mut().map(|envoy| &mut envoy.process);
            envoy.into_iter().chain(&mut running.app)
        });
        let servers = self.servers.values_mut().flatten().map(|server| &mut server.process);
        let all = processes.chain(servers).map(|process| process.stop(Duration::from_secs(3)));
        futures::future::join_all(all).await.into_iter().collect()
    }

    /// Leaves everything running when this process ends.
    pub fn keep(self) {
        self.topology.keep();
        for running in self.running.into_values() {
            let envoy = running.envoy.map(|envoy| envoy.process);
            running.app.into_iter().chain(envoy).for_each(Process::leave_running);
        }
        for server in self.servers.into_values().flatten() {
            server.process.leave_running();
        }
        self.clusters.into_values().for_each(Cluster::leave_running);
    }

    /// Has landbridge mint the pod's token and print its bootstrap; writes both to the pod's files.
    async fn write_bootstrap(&self, id: &str) -> Result<()> {
        let running = &self.running[id];
        if running.workload.kind == Kind::Plain {
            return Ok(());
        }
        let (workload, pod, files) = (&running.workload, &running.pod, self.pod_files(id));
        let state = &self.settings[pod.cloud].state_dir;
        let token = landbridge::command(&self.tools.landbridge, workload.token_args(state)).await?;
        replace_file(&files.token, token.trim())?;
        let discovery = SocketAddr::from((self.topology.pod(pod.cloud, LANDBRIDGE.0)?.ip, SECURE_GRPC_PORT));
        let root = self.ca_dir(pod.cloud).join("root-cert.pem");
        let args = workload.bootstrap_args(pod, discovery, &root, &files.token);
        let bootstrap = landbridge::command(&self.tools.landbridge, args).await?;
        replace_file(&files.bootstrap, &bootstrap)
    }

    fn pod_files(&self, id: &str) -> PodFiles {
        let name = id.replace('/', "-");
        let own = self.folder.join("pods").join(&name);
        let logs = self.folder.join("logs");
        PodFiles {
            bootstrap: own.join("bootstrap.yaml"),
            token: own.join("token"),
            mode: own.join("mode"),
            envoy_log: logs.join(format!("{name}.envoy.log")),
            app_log: logs.join(format!("{name}.app.log")),
            name,
        }
    }
}

struct PodFiles {
    name: String,
    bootstrap: PathBuf,
    token: PathBuf,
    mode: PathBuf,
    envoy_log: PathBuf,
    app_log: PathBuf,
}

fn backends(cloud: &str) -> Vec<String> {
    BACKENDS.iter().map(|name| format!("{cloud}/{name}")).collect()
}

/// The gateways' and control planes' pod names, for those who look around.
pub const GATEWAY_POD: &str = GATEWAY.0;
pub const LANDBRIDGE_POD: &str = LANDBRIDGE.0;
