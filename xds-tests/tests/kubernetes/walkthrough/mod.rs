//! What the examples' READMEs say, typed: two API servers, the charts installed by Helm, the manifests as they are, stock Envoys.
//!
//! ```text
//! desk (a shell: kubectl, helm, landbridge) --> API servers of cluster1 and cluster2
//!                                                   ^
//! node (stands for controllers, kubelet and load balancer of a cluster): Deployments -> pod -> processes in namespaces
//! ```

mod desk;
mod external;
mod multi_primary;
mod node;
mod pod;
mod primary_remote;
mod services;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{Duration, Instant, sleep};
use xds_tests::envoy;
use xds_tests::kubernetes::{
    Binaries, Cluster, Place, Settings, binaries, charts, cluster_lab_test, kubeconfig,
};
use xds_tests::load::{Load, Sample, Target};
use xds_tests::mesh::Tools;
use xds_tests::netns::{Ns, means};
use xds_tests::topology::{
    API_SERVER, CLOUDS, GATEWAY, LANDBRIDGE, Topology, api_server_address, gateway_address,
};

use desk::Desk;
use node::Node;
use pod::Machine;

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(120);
/// The service that everything is about.
const BACKEND: &str = "backend.production.svc.cluster.local";
const RATE: u32 = 100;

/// The clusters, each with its cloud of the lab, and the region that its node is in.
const CLUSTERS: [(&str, &str, &str); 2] =
    [("cluster1", CLOUDS[0], "us-east-1"), ("cluster2", CLOUDS[1], "us-central1")];
const PODS: [(&str, &str, u8); 5] = [
    (CLOUDS[0], "frontend", 10),
    (CLOUDS[0], "backend-a", 11),
    (CLOUDS[0], "backend-b", 12),
    (CLOUDS[1], "backend-a", 11),
    (CLOUDS[1], "backend-b", 12),
];

/// Two clusters and somebody who works on them.
struct Walk {
    // What runs goes before the servers that it talks to, and these before the network.
    nodes: [Option<Node>; 2],
    clusters: [Cluster; 2],
    topology: Topology,
    desk: Desk,
    folder: PathBuf,
    tools: Tools,
}

/// Runs `body` with two empty clusters and a person in front of example `example`.
fn walk_test(name: &str, example: &str, body: impl AsyncFnOnce(&mut Walk) -> Result<()>) {
    let repository = binaries::repository();
    if let Err(error) = envoy::find(&repository) {
        return means::skip(name, &format!("{error:#}"));
    }
    if let Err(error) = charts::Helm::find(&repository.join("target/helm")) {
        return means::skip(name, &format!("{error:#}"));
    }
    cluster_lab_test(name, async |binaries, folder| {
        let mut walk = Walk::begin(binaries, &folder, example).await?;
        body(&mut walk).await
    });
}

impl Walk {
    async fn begin(binaries: &Binaries, folder: &Path, example: &str) -> Result<Self> {
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| format!("empty {}", folder.display()))?;
        }
        let tools = Tools::find(env!("CARGO_BIN_EXE_demo").into())?;
        let mut topology = Topology::build(&format!("lw{}", std::process::id()), &PODS)?;
        for cloud in CLOUDS {
            topology.add_api_server(cloud)?;
        }
        let desk = topology.add_desk()?;
        let [one, two] = CLUSTERS.map(|(name, cloud, _)| {
            let pod = topology.pod(cloud, API_SERVER.0);
            async move {
                let pod = pod?;
                let addresses = vec![pod.ip.into(), api_server_address(cloud).into()];
                let place = Place::Namespace(pod.ns, addresses);
                Cluster::start(
                    binaries,
                    Settings { place, ..Settings::new(name, folder.join(name).join("apiserver")) },
                )
                .await
            }
        });
        let (one, two) = tokio::try_join!(one, two)?;
        let clusters = [one, two];
        let contexts = clusters.iter().zip(CLUSTERS).map(|(cluster, (_, cloud, _))| {
            cluster.context_at(api_server_address(cloud).into(), cluster.admin())
        });
        let contexts = kubeconfig::kubeconfig(&contexts.collect::<Result<Vec<_>>>()?)?;
        let desk = Desk::new(desk, folder, binaries, &contexts, example)?;
        let mut walk =
            Self { nodes: [None, None], clusters, topology, desk, folder: folder.to_owned(), tools };
        for i in 0..2 {
            walk.nodes[i] = Some(walk.node(i).await?);
        }
        Ok(walk)
    }

    /// Has a cluster's node begin.
    async fn node(&self, i: usize) -> Result<Node> {
        let (name, cloud, region) = CLUSTERS[i];
        let cluster = &self.clusters[i];
        let api_server = self.topology.pod(cloud, API_SERVER.0)?.ip;
        let machine = Machine {
            cluster: name.to_owned(),
            client: cluster.client().clone(),
            api_server: (api_server.into(), cluster.authority().certificate()),
            folder: self.folder.join(name),
            tools: self.tools.clone(),
        };
        let zone = format!("{region}-a");
        let place =
            [("topology.kubernetes.io/region", region.to_owned()), ("topology.kubernetes.io/zone", zone)];
        let pods = |names: &[&str]| -> Vec<_> {
            names.iter().filter_map(|pod| self.topology.pod(cloud, pod).ok()).collect()
        };
        let slots = [
            ("istiod", pods(&[LANDBRIDGE.0])),
            ("istio-eastwestgateway", pods(&[GATEWAY.0])),
            ("backend", pods(&["backend-a", "backend-b"])),
            ("frontend", pods(&["frontend"])),
        ];
        let external = gateway_address(cloud);
        Node::start(node::Settings { machine, place: place.into(), slots: slots.into(), external }).await
    }

    /// Types a script again and again until what it prints is as it should be.
    async fn until(&self, what: &str, script: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.desk.types(script).await;
            if let Ok(said) = &said
                && holds(said)
            {
                return Ok(said.clone());
            }
            if Instant::now() > deadline {
                bail!("{what}: {said:?}");
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until the node has all pods of a Deployment ready.
    async fn rolled_out(&self, cluster: &str, namespace: &str, deployment: &str) -> Result<()> {
        let script = format!(
            "kubectl --context {cluster} -n {namespace} rollout status --timeout 120s deployment/{deployment}"
        );
        self.desk.types(&script).await.map(drop)
    }

    /// Waits until the Deployments of the examples' application are up in a cluster.
    async fn application_rolled_out(&self, cluster: &str, deployments: &[&str]) -> Result<()> {
        for deployment in deployments {
            self.rolled_out(cluster, "production", deployment).await?;
        }
        Ok(())
    }

    /// Scales a cluster's backends to one and back to two; both times a proxy comes to know as many `members` of a cluster of its.
    async fn scaled_and_known(&self, cluster: &str, proxy: &Proxy, members: &str) -> Result<()> {
        for replicas in [1, 2] {
            self.scale_backend(cluster, replicas).await?;
            let deadline = Instant::now() + PATIENCE;
            while proxy.members(members).await? != replicas {
                ensure!(Instant::now() < deadline, "{replicas} backends of {cluster} are not known");
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    async fn scale_backend(&self, cluster: &str, replicas: u64) -> Result<()> {
        let script = format!(
            "kubectl --context {cluster} -n production scale deployment/backend --replicas {replicas}"
        );
        self.desk.types(&script).await.map(drop)
    }

    /// A steady load from the frontend.
    async fn load(&self) -> Result<Load> {
        let address =
            "kubectl --context cluster1 -n production get service backend -o jsonpath='{.spec.clusterIP}'";
        let address: std::net::Ipv4Addr = self.desk.types(address).await?.trim().parse()?;
        let frontend = self.topology.pod(CLOUDS[0], "frontend")?;
        Load::start(&frontend.ns, Target { to: (address, 80).into(), host: BACKEND.to_owned() }, RATE)
    }

    /// Section 6 of the README for two control planes: five calls, the backends scaled away, five calls, and back.
    async fn exercise(&self) -> Result<()> {
        let load = self.load().await?;
        settled(&load, "cluster1").await?;
        let answers = self.desk.follows_in("../multi-primary", "6. ", &[]).await?;
        let by: Vec<&str> =
            answers.lines().filter(|line| line.contains(" src=")).filter_map(|line| line.get(..8)).collect();
        ensure!(by.len() == 15, "{answers}");
        ensure!(by[..5] == ["cluster1"; 5] && by[5..10] == ["cluster2"; 5], "{answers}");
        settled(&load, "cluster1").await?;
        let samples = load.finish();
        ensure!(
            samples.iter().any(|sample| answered_from(sample, "cluster2")),
            "the other cluster never answered"
        );
        none_failed(&samples)
    }

    /// The proxy in a pod of the lab.
    fn proxy(&self, cloud: &str, pod: &str) -> Result<Proxy> {
        Ok(Proxy(self.topology.pod(cloud, pod)?.ns))
    }
}

/// A proxy, by its admin interface.
struct Proxy(Ns);

impl Proxy {
    async fn page(&self, path: &str) -> Result<String> {
        xds_tests::http::page(&self.0, envoy::ADMIN, path).await
    }

    /// How many endpoints it knows of a service.
    async fn members(&self, cluster: &str) -> Result<u64> {
        let clusters: serde_json::Value = serde_json::from_str(&self.page("/clusters?format=json").await?)?;
        let all = clusters["cluster_statuses"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|one| one["name"] == cluster);
        Ok(found.and_then(|one| one["host_statuses"].as_array()).map_or(0, |hosts| hosts.len() as u64))
    }
}

/// The script that runs a command in the pod of a cluster's control plane.
fn in_istiod(cluster: &str, command: &str) -> String {
    format!("kubectl --context {cluster} -n istio-system exec deployment/istiod -- {command}")
}

/// Waits until a load is answered from one cluster only.
async fn settled(load: &Load, cluster: &str) -> Result<()> {
    ensure!(
        load.settled(50, PATIENCE, |sample| answered_from(sample, cluster)).await,
        "{cluster} does not answer, or not alone"
    );
    Ok(())
}

fn answered_from(sample: &Sample, cluster: &str) -> bool {
    !sample.failed() && sample.by.starts_with(cluster)
}

fn none_failed(samples: &[Sample]) -> Result<()> {
    let failed = Vec::from_iter(samples.iter().filter(|sample| sample.failed()));
    ensure!(failed.is_empty(), "{} of {} failed, the first: {:?}", failed.len(), samples.len(), failed[0]);
    println!("0 of {} requests failed", samples.len());
    Ok(())
}
