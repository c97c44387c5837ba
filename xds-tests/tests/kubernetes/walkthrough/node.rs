//! What a cluster's controllers and its only node do, as far as the walk-through needs it: Deployments get pods, pods run in
//! namespaces of the lab, Services get EndpointSlices and load balancers, and names get addresses.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use xds_tests::process::Process;
use xds_tests::topology;

use super::pod::{self, Machine, Sandbox, text};

const TURN: Duration = Duration::from_millis(50);
pub(super) const MANAGER: &str = "node";

/// The node of a cluster, at work. Dropping it ends it and all that runs on it.
pub struct Node {
    work: Arc<Mutex<Work>>,
    turning: JoinHandle<()>,
}

/// How a node begins.
pub struct Settings {
    pub machine: Machine,
    /// Labels of the node, which pods get, too.
    pub place: BTreeMap<&'static str, String>,
    /// By the names of Deployments: where their pods can run.
    pub slots: BTreeMap<&'static str, Vec<topology::Pod>>,
    /// What load balancers of this cluster are reached by.
    pub external: Ipv4Addr,
}

pub(super) struct Work {
    pub(super) settings: Settings,
    pub(super) running: Vec<Running>,
    /// What was written last, by kind and name.
    pub(super) written: BTreeMap<String, Value>,
}

pub(super) struct Running {
    pub(super) deployment: String,
    pub(super) object: Value,
    pub(super) slot: topology::Pod,
    /// None until it could be started.
    pub(super) processes: Option<Vec<Process>>,
    pub(super) ready: bool,
    pub(super) leaving: bool,
}

impl Node {
    /// Registers the node and begins.
    pub async fn start(settings: Settings) -> Result<Self> {
        let name = node_name(&settings.machine);
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": settings.place } });
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(settings.machine.client.clone());
        nodes.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&node)).await?;
        let work = Work { settings, running: Vec::new(), written: BTreeMap::new() };
        work.write_hosts(&[], None)?;
        let work = Arc::new(Mutex::new(work));
        let shared = work.clone();
        let turning = tokio::spawn(async move {
            loop {
                let mut work = shared.lock().await;
                // Its API server may be away: the next turn tries again, and what a test waits for says what is missing.
                if let Err(error) = work.turn().await {
                    work.log(&format!("{error:#}"));
                }
                drop(work);
                sleep(TURN).await;
            }
        });
        Ok(Self { work, turning })
    }

    /// Ends all pods of a Deployment at once, without a word to the API server: their machine is gone.
    pub async fn kill(&self, deployment: &str) -> Result<()> {
        let mut work = self.work.lock().await;
        for pod in work.running.iter_mut().filter(|pod| pod.deployment.ends_with(&format!("/{deployment}"))) {
            let ended = pod.processes.iter_mut().flatten().map(Process::kill);
            futures::future::join_all(ended).await.into_iter().collect::<Result<()>>()?;
        }
        Ok(())
    }

    /// Ends everything at once.
    pub async fn destroy(&self) -> Result<()> {
        self.turning.abort();
        let mut work = self.work.lock().await;
        let all = work.running.iter_mut().flat_map(|pod| pod.processes.iter_mut().flatten());
        futures::future::join_all(all.map(Process::kill)).await.into_iter().collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.turning.abort();
    }
}

impl Work {
    async fn turn(&mut self) -> Result<()> {
        let client = self.settings.machine.client.clone();
        let deployments = Api::<Deployment>::all(client.clone()).list(&ListParams::default()).await?.items;
        let services = Api::<Service>::all(client.clone()).list(&ListParams::default()).await?.items;
        let services = services.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
        let deployments = deployments.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
        self.begin(&deployments).await?;
        let leaving = self.leave(&deployments).await?;
        self.run().await?;
        self.write_services(&services).await?;
        if leaving {
            self.remove().await?;
            self.write_services(&services).await?;
        }
        let slices: Api<EndpointSlice> = Api::namespaced(client, "istio-system");
        let slices = slices.list(&ListParams::default().labels("kubernetes.io/service-name=istiod")).await?;
        let istiod =
            slices.items.iter().flat_map(|slice| &slice.endpoints).find_map(|one| one.addresses.first());
        self.write_hosts(&services, istiod.map(String::as_str))?;
        for deployment in &deployments {
            self.write_status(deployment).await?;
        }
        Ok(())
    }

    /// Makes the pods that Deployments have too few of.
    async fn begin(&mut self, deployments: &[Value]) -> Result<()> {
        for deployment in deployments {
            let name = text(&deployment["metadata"]["name"])?;
            for slot in self.settings.slots.get(name).cloned().unwrap_or_default() {
                let taken = self.running.iter().any(|pod| pod.slot.ip == slot.ip);
                if !taken && self.of(deployment).count() < wanted(deployment) {
                    self.make(deployment, slot).await?;
                }
            }
        }
        Ok(())
    }

    async fn make(&mut self, deployment: &Value, slot: topology::Pod) -> Result<()> {
        let template = &deployment["spec"]["template"];
        let (namespace, name) =
            (text(&deployment["metadata"]["namespace"])?, text(&deployment["metadata"]["name"])?);
        let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"] });
        pod["metadata"]["generateName"] = json!(format!("{name}-"));
        pod["spec"]["nodeName"] = json!(node_name(&self.settings.machine));
        for (label, value) in &self.settings.place {
            pod["metadata"]["labels"][label] = json!(value);
        }
        let pods: Api<Pod> = Api::namespaced(self.settings.machine.client.clone(), namespace);
        let made = pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        let deployment = key(deployment)?;
        let object = serde_json::to_value(made)?;
        self.running.push(Running {
            deployment,
            object,
            slot,
            processes: None,
            ready: false,
            leaving: false,
        });
        Ok(())
    }

    /// Has the pods leave that Deployments have too many of; whether there are any.
    async fn leave(&mut self, deployments: &[Value]) -> Result<bool> {
        let wanted: BTreeMap<String, usize> = deployments
            .iter()
            .map(|deployment| Ok((key(deployment)?, wanted(deployment))))
            .collect::<Result<_>>()?;
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let mut any = false;
        for pod in &mut self.running {
            let count = seen.entry(&pod.deployment).or_default();
            *count += 1;
            if *count > wanted.get(&pod.deployment).copied().unwrap_or(0) {
                delete(&self.settings.machine, &pod.object, None).await?;
                (pod.leaving, any) = (true, true);
            }
        }
        Ok(any)
    }

    /// Ends those that leave.
    async fn remove(&mut self) -> Result<()> {
        let (leaving, staying) =
            std::mem::take(&mut self.running).into_iter().partition(|pod: &Running| pod.leaving);
        self.running = staying;
        for pod in leaving {
            let mut processes = pod.processes.unwrap_or_default();
            let ended = processes.iter_mut().map(|process| process.stop(Duration::from_secs(2)));
            futures::future::join_all(ended).await.into_iter().collect::<Result<()>>()?;
            delete(&self.settings.machine, &pod.object, Some(0)).await?;
        }
        Ok(())
    }

    /// Starts what can be started, starts again what ended, and sees who is ready.
    async fn run(&mut self) -> Result<()> {
        for i in 0..self.running.len() {
            let Running { object, slot, processes, ready, .. } = &mut self.running[i];
            let ended = processes.as_mut().is_some_and(|all| all.iter_mut().any(|one| one.ended().is_some()));
            if processes.is_none() || ended {
                *processes = None; // what still runs of it ends, too
                let sandbox = Sandbox { object, slot };
                *processes = self.settings.machine.start(&sandbox).await?;
            }
            let is_ready = processes.is_some() && pod::is_ready(object, slot).await;
            if is_ready != *ready {
                *ready = is_ready;
                write_pod(&self.settings.machine, object, slot, is_ready).await?;
            }
            if is_ready {
                self.write_exec(i)?;
            }
        }
        Ok(())
    }

    fn of(&self, deployment: &Value) -> impl Iterator<Item = &Running> {
        let key = key(deployment).unwrap_or_default();
        self.running.iter().filter(move |pod| pod.deployment == key)
    }

    async fn write_status(&mut self, deployment: &Value) -> Result<()> {
        let (namespace, name) =
            (text(&deployment["metadata"]["namespace"])?, text(&deployment["metadata"]["name"])?);
        let (all, ready) = (self.of(deployment).count(), self.of(deployment).filter(|pod| pod.ready).count());
        let status = json!({ "status": { "observedGeneration": deployment["metadata"]["generation"],
            "replicas": all, "updatedReplicas": all, "readyReplicas": ready, "availableReplicas": ready } });
        let id = format!("status {namespace}/{name}");
        if self.written.get(&id) != Some(&status) {
            let api: Api<Deployment> = Api::namespaced(self.settings.machine.client.clone(), namespace);
            api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
            self.written.insert(id, status);
        }
        Ok(())
    }

    /// A program that runs others in a pod, for `kubectl exec`.
    fn write_exec(&self, i: usize) -> Result<()> {
        let Running { deployment, slot, .. } = &self.running[i];
        let machine = &self.settings.machine;
        let path = machine.folder.join("exec").join(deployment);
        let script = format!(
            "#!/bin/sh\nexec nsenter --net=/run/netns/{} unshare --mount --propagation private \
             sh -c 'mount --bind {} /etc/hosts && exec \"$@\"' pod \"$@\"\n",
            slot.ns.name(),
            machine.hosts().display(),
        );
        if std::fs::read_to_string(&path).ok().as_ref() != Some(&script) {
            std::fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
            std::fs::write(&path, script)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    fn log(&mut self, line: &str) {
        let known = self.written.insert("problem".into(), json!(line));
        if known != Some(json!(line)) {
            eprintln!("node of {}: {line}", self.settings.machine.cluster);
        }
    }
}

async fn delete(machine: &Machine, object: &Value, grace: Option<u32>) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(machine.client.clone(), text(&object["metadata"]["namespace"])?);
    let params = DeleteParams { grace_period_seconds: grace, ..Default::default() };
    match pods.delete(text(&object["metadata"]["name"])?, &params).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop).context("delete a pod"),
    }
}

async fn write_pod(machine: &Machine, object: &Value, slot: &topology::Pod, ready: bool) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(machine.client.clone(), text(&object["metadata"]["namespace"])?);
    let status = json!({ "status": { "phase": "Running", "podIP": slot.ip, "podIPs": [{ "ip": slot.ip }],
        "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] } });
    let name = text(&object["metadata"]["name"])?;
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}

fn wanted(deployment: &Value) -> usize {
    deployment["spec"]["replicas"].as_u64().and_then(|count| count.try_into().ok()).unwrap_or(1)
}

fn key(object: &Value) -> Result<String> {
    Ok(format!("{}/{}", text(&object["metadata"]["namespace"])?, text(&object["metadata"]["name"])?))
}

pub(super) fn node_name(machine: &Machine) -> String {
    format!("{}-node-1", machine.cluster)
}
