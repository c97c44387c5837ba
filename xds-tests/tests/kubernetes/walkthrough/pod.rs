//! A pod of a manifest as the processes that it means here: what a kubelet and a container runtime do, as far as the
//! walk-through's pods need it. Volumes are folders, and the paths at which a pod has them are replaced in arguments and environment.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::Value;
use tokio::process::Command;
use xds_tests::app;
use xds_tests::envoy::Envoy;
use xds_tests::kubernetes::cluster::PORT;
use xds_tests::kubernetes::secret_file;
use xds_tests::mesh::Tools;
use xds_tests::netns::Ns;
use xds_tests::process::Process;
use xds_tests::{capture, topology};

/// How long a pod's program that has to end may run.
const INIT: Duration = Duration::from_secs(60);
const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// What all pods of a cluster have in common.
pub struct Machine {
    /// The cluster's name.
    pub cluster: String,
    pub client: Client,
    /// Where pods reach the API server, and the authority of its certificate.
    pub api_server: (IpAddr, String),
    /// Of files and logs.
    pub folder: PathBuf,
    pub tools: Tools,
}

/// A pod that is to run in a namespace of the lab.
pub struct Sandbox<'a> {
    /// As the API server has it.
    pub object: &'a Value,
    pub slot: &'a topology::Pod,
}

/// What a container's environment and arguments are made of.
struct Facts<'a> {
    object: &'a Value,
    ip: IpAddr,
    /// Paths in the pod, and where these are.
    mounts: Vec<(String, PathBuf)>,
}

impl Machine {
    /// The names that pods of this cluster can look up.
    pub fn hosts(&self) -> PathBuf {
        self.folder.join("hosts")
    }

    /// Starts everything of a pod; nothing if a ConfigMap that it mounts is not there yet.
    pub async fn start(&self, pod: &Sandbox<'_>) -> Result<Option<Vec<Process>>> {
        let name = text(&pod.object["metadata"]["name"])?;
        let folder = self.folder.join("pods").join(name);
        let spec = &pod.object["spec"];
        let mut volumes = BTreeMap::new();
        for volume in list(&spec["volumes"]) {
            let Some(path) = self.volume(pod.object, volume, &folder).await? else { return Ok(None) };
            volumes.insert(text(&volume["name"])?, path);
        }
        let containers = || list(&spec["initContainers"]).iter().chain(list(&spec["containers"]));
        let mut mounts = Vec::new();
        for mount in containers().flat_map(|container| list(&container["volumeMounts"])) {
            let path = volumes.get(text(&mount["name"])?).with_context(|| format!("no volume {mount}"))?;
            mounts.push((text(&mount["mountPath"])?.to_owned(), path.clone()));
        }
        let facts = Facts { object: pod.object, ip: pod.slot.ip.into(), mounts };
        let mut running = Vec::new();
        for container in containers() {
            let process = self.container(pod, container, &facts, &folder).await;
            running.extend(process.with_context(|| format!("pod {name}, container {}", container["name"]))?);
        }
        Ok(Some(running))
    }

    /// What a container is here is said by its image.
    async fn container(
        &self,
        pod: &Sandbox<'_>,
        container: &Value,
        facts: &Facts<'_>,
        folder: &Path,
    ) -> Result<Option<Process>> {
        let image = text(&container["image"])?;
        let args = list(&container["args"]).iter().map(|arg| Ok(facts.inside(text(arg)?)));
        let args = args.collect::<Result<Vec<_>>>()?;
        let verb = args.first().map(String::as_str).unwrap_or_default();
        let ns = &pod.slot.ns;
        let who = format!("{}/{}", self.cluster, text(&pod.object["metadata"]["name"])?);
        let log = folder.join(format!("{}.log", text(&container["name"])?));
        if image.contains("/landbridge:") {
            let mut command = self.in_pod(folder, pod.object).await?;
            command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
            command.env("KUBERNETES_SERVICE_HOST", self.api_server.0.to_string());
            command.env("KUBERNETES_SERVICE_PORT", PORT.to_string());
            command.envs(facts.environment(container)?).arg(&self.tools.landbridge).args(&args);
            let mut process = Process::start(ns, &who, command, &log)?;
            if verb == "serve" {
                return Ok(Some(process));
            }
            let status = process.finish(INIT).await?;
            ensure!(status.success(), "{args:?}: {status}, see {}", log.display());
            return Ok(None);
        }
        if image.contains("/envoy:") {
            let config =
                args.iter().skip_while(|arg| *arg != "--config-path").nth(1).context("--config-path")?;
            let command = self.in_pod(folder, pod.object).await?;
            let envoy = Envoy::start_by(command, &self.tools.envoy, ns, &who, config.as_ref(), &log)?;
            return Ok(Some(envoy.process));
        }
        match (image.split_once("agnhost").is_some(), verb) {
            (true, "netexec") => app::start(&self.tools.app, ns, &who, &folder.join("mode"), &log).map(Some),
            (true, "pause") => Ok(None),
            (false, "istio-iptables") => capture::install(ns).map(|()| None),
            _ => bail!("nobody here knows how to run {image} {args:?}"),
        }
    }

    /// The beginning of a command that sees a pod's names and its service account.
    async fn in_pod(&self, folder: &Path, object: &Value) -> Result<Command> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        if object["spec"]["automountServiceAccountToken"] == true {
            let account = folder.join("serviceaccount");
            std::fs::create_dir_all(&account)?;
            secret_file(&account.join("token"), &self.token(object, &[]).await?)?;
            secret_file(&account.join("ca.crt"), &self.api_server.1)?;
            secret_file(&account.join("namespace"), text(&object["metadata"]["namespace"])?)?;
            command.arg(
                "mount --bind \"$1\" /etc/hosts && mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io && \
                 cp -r \"$2\" /run/secrets/kubernetes.io/serviceaccount && shift 2 && exec \"$@\"",
            );
            command.arg("pod").arg(self.hosts()).arg(account);
        } else {
            command
                .arg("mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"")
                .arg("pod")
                .arg(self.hosts());
        }
        Ok(command)
    }

    /// Where a volume is; nothing if it is of a ConfigMap that is not there yet.
    async fn volume(&self, object: &Value, volume: &Value, folder: &Path) -> Result<Option<PathBuf>> {
        let path = match volume["persistentVolumeClaim"]["claimName"].as_str() {
            Some(claim) => self.folder.join("claims").join(claim),
            None => folder.join(text(&volume["name"])?),
        };
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        if let Some(name) = volume["configMap"]["name"].as_str() {
            let maps: Api<ConfigMap> =
                Api::namespaced(self.client.clone(), text(&object["metadata"]["namespace"])?);
            let Some(map) = maps.get_opt(name).await? else { return Ok(None) };
            for (key, value) in map.data.unwrap_or_default() {
                std::fs::write(path.join(key), value)?;
            }
        }
        for source in list(&volume["projected"]["sources"]) {
            let wanted = &source["serviceAccountToken"];
            let audience = text(&wanted["audience"])?;
            secret_file(&path.join(text(&wanted["path"])?), &self.token(object, &[audience]).await?)?;
        }
        Ok(Some(path))
    }

    /// A token of the pod's service account.
    async fn token(&self, object: &Value, audiences: &[&str]) -> Result<String> {
        let (namespace, account) =
            (text(&object["metadata"]["namespace"])?, text(&object["spec"]["serviceAccountName"])?);
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let spec = TokenRequestSpec {
            audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
            expiration_seconds: Some(TOKEN_LIFETIME.as_secs().try_into()?),
            bound_object_ref: None,
        };
        let request = TokenRequest { spec, ..Default::default() };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let answer = answer.with_context(|| format!("a token of {namespace}/{account}"))?;
        Ok(answer.status.context("a token request is answered in its status")?.token)
    }
}

impl Facts<'_> {
    /// A text with paths of the pod as it is outside of it.
    fn inside(&self, text: &str) -> String {
        let replace =
            |text: String, (from, to): &(String, PathBuf)| text.replace(from, &to.display().to_string());
        self.mounts.iter().fold(text.to_owned(), replace)
    }

    fn environment(&self, container: &Value) -> Result<Vec<(String, String)>> {
        list(&container["env"])
            .iter()
            .map(|item| Ok((text(&item["name"])?.to_owned(), self.value(item)?)))
            .collect()
    }

    fn value(&self, item: &Value) -> Result<String> {
        let Some(path) = item["valueFrom"]["fieldRef"]["fieldPath"].as_str() else {
            // An empty value is left out by the API server.
            return Ok(self.inside(item["value"].as_str().unwrap_or_default()));
        };
        let (metadata, spec) = (&self.object["metadata"], &self.object["spec"]);
        let value = match path {
            "metadata.name" => &metadata["name"],
            "metadata.namespace" => &metadata["namespace"],
            "spec.serviceAccountName" => &spec["serviceAccountName"],
            "spec.nodeName" => &spec["nodeName"],
            "status.podIPs" => return Ok(self.ip.to_string()),
            _ => {
                let label = path.strip_prefix("metadata.labels['").and_then(|rest| rest.strip_suffix("']"));
                let label = label.with_context(|| format!("no field {path} here"))?;
                return Ok(metadata["labels"][label].as_str().unwrap_or_default().to_owned());
            }
        };
        Ok(text(value)?.to_owned())
    }
}

/// Whether all probes of a pod are answered.
pub async fn is_ready(object: &Value, slot: &topology::Pod) -> bool {
    let spec = &object["spec"];
    for container in list(&spec["initContainers"]).iter().chain(list(&spec["containers"])) {
        let probe = &container["readinessProbe"]["httpGet"];
        let Some(path) = probe["path"].as_str() else { continue };
        let Some(port) = port_of(object, &probe["port"]) else { return false };
        if !answers(&slot.ns, (slot.ip, port).into(), path).await {
            return false;
        }
    }
    true
}

async fn answers(ns: &Ns, at: std::net::SocketAddr, path: &str) -> bool {
    let answer = xds_tests::http::fetch(ns, at, "probe", path, Duration::from_secs(1)).await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// A port by its number or its name.
pub fn port_of(object: &Value, port: &Value) -> Option<u16> {
    let Some(name) = port.as_str() else { return u16::try_from(port.as_u64()?).ok() };
    let spec = &object["spec"];
    let containers = list(&spec["initContainers"]).iter().chain(list(&spec["containers"]));
    let mut ports = containers.flat_map(|container| list(&container["ports"]));
    u16::try_from(ports.find(|port| port["name"] == name)?["containerPort"].as_u64()?).ok()
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("a text is missing: {value}"))
}
