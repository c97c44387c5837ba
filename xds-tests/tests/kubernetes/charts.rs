//! The charts and examples of `deploy/`, rendered by Helm and taken by a real API server; and whether what the charts allow is
//! what the control plane needs.

mod roles;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::process::Command;
use xds_tests::kubernetes::charts::{Helm, Release, Said, said};
use xds_tests::kubernetes::{Binaries, Cluster, Settings, binaries, chart_test, crds, objects, secret_file};
use xds_tests::landbridge;

/// The examples with charts in them.
const EXAMPLES: [&str; 3] =
    ["deploy/examples/multi-primary", "deploy/examples/primary-remote", "deploy/examples/external"];

/// An API server with what a cluster has before the charts come.
async fn cluster(binaries: &Binaries, folder: &Path) -> Result<(Cluster, Kubectl)> {
    let cluster = Cluster::start(binaries, Settings::new("east", folder.join("east"))).await?;
    let kubeconfig = folder.join("kubeconfig");
    secret_file(&kubeconfig, &cluster.kubeconfig(cluster.admin())?)?;
    let kubectl = Kubectl { binary: binaries.kubectl.clone(), kubeconfig };
    kubectl.run(&["apply", "-f", "-"], NAMESPACES).await?;
    kubectl.run(&["apply", "-f", "deploy/charts/landbridge/crds"], "").await?;
    kubectl.run(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"], "").await?;
    cluster.define([&SERVICE_MONITOR]).await?;
    Ok((cluster, kubectl))
}

/// Pods that are not as restricted as they could be are warned of.
const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata:
  name: istio-system
  labels: {topology.istio.io/network: network1, pod-security.kubernetes.io/warn: restricted, pod-security.kubernetes.io/enforce: restricted}
---
apiVersion: v1
kind: Namespace
metadata: {name: production}
";

const SERVICE_MONITOR: crds::Kind = crds::Kind {
    group: "monitoring.coreos.com",
    kind: "ServiceMonitor",
    plural: "servicemonitors",
    short: &[],
    versions: &["v1"],
};

/// kubectl, as people use it.
struct Kubectl {
    binary: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// In the project's folder; its stdout, if it succeeds without a warning.
    async fn run(&self, args: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args).current_dir(binaries::repository());
        let Said { success, out, err } = said(command, input).await?;
        ensure!(success, "kubectl {args:?}: {err}");
        ensure!(!err.contains("Warning"), "kubectl {args:?} warns: {err}");
        Ok(out)
    }

    /// What the API server would make of manifests: all checks and admission, nothing stored.
    async fn dry_run(&self, manifests: &str) -> Result<()> {
        self.run(&["apply", "--dry-run=server", "--validate=strict", "-f", "-"], manifests).await.map(drop)
    }
}

/// A file of an example.
enum Example {
    ControlPlane(String),
    Gateway(String),
    Operator(String),
    Manifests(String),
}

/// All of them: whatever is added is tested.
fn examples() -> Result<Vec<Example>> {
    let root = binaries::repository();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = EXAMPLES.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let relative = path.strip_prefix(&root)?.display().to_string();
            let text = std::fs::read_to_string(&path)?;
            found.push(match name {
                "README.md" => continue,
                "values.yaml" => Example::ControlPlane(relative),
                "eastwest.yaml" => Example::Gateway(relative),
                _ if text.contains("kind: IstioOperator") => Example::Operator(relative),
                _ if text.contains("apiVersion: ") => Example::Manifests(relative),
                _ => bail!("{relative} is neither values nor manifests: nothing tests it"),
            });
        }
    }
    Ok(found)
}

#[test]
fn all_that_is_in_deploy_is_taken_by_an_api_server() {
    let name = "charts::all_that_is_in_deploy_is_taken_by_an_api_server";
    chart_test(name, async |binaries, helm, folder| {
        let (_cluster, kubectl) = cluster(binaries, &folder).await?;
        let mut counts = [0; 4];
        for example in examples()? {
            match &example {
                Example::ControlPlane(file) => {
                    counts[0] += 1;
                    check(helm, &kubectl, &Release::control_plane(&[file])).await?;
                }
                Example::Gateway(file) => {
                    counts[1] += 1;
                    check(helm, &kubectl, &Release::gateway(&[file])).await?;
                }
                Example::Operator(file) => {
                    counts[2] += 1;
                    converted(helm, &kubectl, file, &folder).await?;
                }
                Example::Manifests(file) => {
                    counts[3] += 1;
                    let text = std::fs::read_to_string(binaries::repository().join(file))?;
                    kubectl.dry_run(&text).await.with_context(|| file.clone())?;
                }
            }
        }
        ensure!(counts.iter().all(|count| *count > 0), "{counts:?}");

        check(helm, &kubectl, &Release::control_plane(&[])).await?;
        let much = [
            "serviceMonitor.enabled=true",
            "serviceMonitor.labels.release=prometheus",
            "pilot.autoscaleEnabled=false",
            "pilot.replicaCount=3",
            "pilot.env.LANDBRIDGE_MAX_STREAMS=100",
            "pilot.env.LANDBRIDGE_FAILOVER_BY_DEFAULT=false",
            "pilot.extraContainerArgs={--leds-above=10}",
            "pilot.nodeSelector.disk=ssd",
            "pilot.volumes[0].name=more,pilot.volumes[0].emptyDir.medium=Memory",
            "pilot.volumeMounts[0].name=more,pilot.volumeMounts[0].mountPath=/more",
            "pilot.tolerations[0].key=a,pilot.tolerations[0].operator=Exists",
            "global.imagePullSecrets={hub}",
            "global.logging.level=all:debug",
            "global.logAsJson=true",
            "global.configValidation=false",
            "global.priorityClassName=system-cluster-critical",
            "global.meshNetworks.network2.endpoints[0].fromRegistry=cluster2",
        ];
        let all = much.iter().fold(Release::control_plane(&[]), |release, set| release.with(set));
        check(helm, &kubectl, &all).await?;
        let kept = [
            "persistence.enabled=true",
            "persistence.storageClass=ssd",
            "persistence.accessModes={ReadWriteOncePod}",
        ];
        let kept = kept.iter().fold(Release::control_plane(&[]), |release, set| release.with(set));
        check(helm, &kubectl, &kept).await?;
        check(helm, &kubectl, &Release::control_plane(&[]).with("pilot.memory.targetAverageUtilization=80"))
            .await?;
        for address in ["gateway.example.com", "2001:db8::1"] {
            let remote = format!("istiodRemote.enabled=true,global.remotePilotAddress={address}");
            check(helm, &kubectl, &Release::control_plane(&[]).with(&remote)).await?;
        }
        let gateway = Release::gateway(&[])
            .with("networkGateway=network1")
            .with("autoscaling.enabled=false")
            .with("podDisruptionBudget.minAvailable=1")
            .with("service.loadBalancerSourceRanges={192.0.2.0/24}")
            .with("service.externalTrafficPolicy=Local")
            .with("labels.team=a")
            .with("drainSeconds=0");
        check(helm, &kubectl, &gateway).await
    });
}

/// Linted, rendered, and taken.
async fn check(helm: &Helm, kubectl: &Kubectl, release: &Release<'_>) -> Result<()> {
    let mut lint = vec!["lint", "--strict", release.chart, "--namespace", "istio-system"];
    lint.extend(&release.args()[4..]);
    let Said { success, out, err } = helm.run(lint).await?;
    ensure!(success, "helm lint {release:?}: {out}{err}");
    let rendered = helm.template(release).await?;
    let kinds: Vec<Value> = objects::parse(&rendered)?.into_iter().map(|o| o["kind"].clone()).collect();
    ensure!(kinds.iter().any(|kind| kind == "Service"), "{release:?}: {kinds:?}");
    kubectl.dry_run(&rendered).await.with_context(|| format!("{release:?}"))?;
    for object in objects::parse(&rendered)? {
        let makes_pods = object["kind"] == "Deployment" || object["kind"] == "StatefulSet";
        if makes_pods && object["metadata"]["namespace"] == "istio-system" {
            // A Deployment is only warned of; a pod of it would be refused.
            let mut spec = object["spec"]["template"]["spec"].clone();
            for claim in object["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
                let name = &claim["metadata"]["name"];
                let volume = json!({ "name": name, "persistentVolumeClaim": { "claimName": name } });
                match spec["volumes"].as_array_mut() {
                    Some(volumes) => volumes.push(volume),
                    None => spec["volumes"] = json!([volume]),
                }
            }
            let pod = json!({ "apiVersion": "v1", "kind": "Pod", "spec": spec,
                "metadata": { "name": "one", "namespace": "istio-system" } });
            kubectl.dry_run(&pod.to_string()).await.with_context(|| format!("a pod of {release:?}"))?;
        }
    }
    Ok(())
}

/// An IstioOperator's values install, and mean the same as those of the example beside it.
async fn converted(helm: &Helm, kubectl: &Kubectl, file: &str, folder: &Path) -> Result<()> {
    let landbridge = landbridge::find()?;
    let path = binaries::repository().join(file);
    let convert = async |more: &[&str]| -> Result<String> {
        let mut args = vec!["convert-operator", path.to_str().context("a path is text")?];
        args.extend(more);
        let values = landbridge::command(&landbridge, args).await?;
        let into = folder.join(format!("values{}.yaml", more.len()));
        std::fs::write(&into, values)?;
        Ok(into.display().to_string())
    };
    let (plane, gateway) = (convert(&[]).await?, convert(&["--gateway", "istio-eastwestgateway"]).await?);
    let (plane, gateway) = (Release::control_plane(&[&plane]), Release::gateway(&[&gateway]));
    check(helm, kubectl, &plane).await?;
    check(helm, kubectl, &gateway).await?;
    let beside = file.rsplit_once('/').map(|(folder, _)| folder).unwrap_or_default();
    let [plane_beside, gateway_beside] =
        ["values", "eastwest"].map(|name| format!("{beside}/cluster1/{name}.yaml"));
    ensure!(helm.objects(&plane).await? == helm.objects(&Release::control_plane(&[&plane_beside])).await?);
    ensure!(helm.objects(&gateway).await? == helm.objects(&Release::gateway(&[&gateway_beside])).await?);
    Ok(())
}

#[test]
fn mistakes_are_refused_by_name() {
    chart_test("charts::mistakes_are_refused_by_name", async |binaries, helm, folder| {
        let plane = |set| Release::control_plane(&[]).with(set);
        let gateway = |set| Release::gateway(&[]).with("networkGateway=network1").with(set);
        for (release, words) in [
            (plane("global.meshId=a"), ["meshId", "/global"]),
            (plane("autoscaleMin=2"), ["autoscaleMin", ""]),
            (plane("pilot.autoscaleMin=two"), ["/pilot/autoscaleMin", "integer"]),
            (plane("pilot.env.PILOT_ENABLE_STATUS=true"), ["PILOT_ENABLE_STATUS", "/pilot/env"]),
            (plane("pilot.traceSampling=1"), ["traceSampling", "/pilot"]),
            (plane("global.multiCluster.clusterName=a=b"), ["/global/multiCluster/clusterName", ""]),
            (plane("global.configValidation=sometimes"), ["/global/configValidation", "boolean"]),
            (plane("global.logging.level=ads:debug"), ["/global/logging/level", ""]),
            (plane("revision=canary"), ["revision", ""]),
            (plane("istiodRemote.enabled=true"), ["global.remotePilotAddress", ""]),
            (plane("global.remotePilotAddress=192.0.2.1"), ["istiodRemote.enabled", ""]),
            (plane("global.configCluster=true"), ["global.configCluster", "istiodRemote.enabled"]),
            (plane("persistence.size=much"), ["/persistence/size", ""]),
            (plane("pilot.autoscaleMin=9"), ["pilot.autoscaleMin 9", "pilot.autoscaleMax 5"]),
            (gateway("networkGatewy=a"), ["networkGatewy", ""]),
            (gateway("service.ports[0].port=0"), ["/service/ports/0", ""]),
            (gateway("env.ISTIO_META_ROUTER_MODE=sni-dnat"), ["ISTIO_META_ROUTER_MODE", "/env"]),
            (Release::gateway(&[]), ["networkGateway", "name the network"]),
        ] {
            let Err(error) = helm.template(&release).await else { bail!("{release:?} renders") };
            let error = format!("{error:#}");
            let (_, reason) = error.split_once("}: ").unwrap_or(("", &error));
            ensure!(
                words.iter().all(|word| reason.contains(word)),
                "{release:?} without {words:?}: {reason}"
            );
        }
        let elsewhere = ["template", "istiod", "deploy/charts/landbridge", "--namespace", "mesh"];
        let Said { success, err, .. } = helm.run(elsewhere).await?;
        ensure!(!success && err.contains("--namespace istio-system"), "{err}");

        // What only the cluster knows: the namespace is labelled network1.
        let (_cluster, kubectl) = cluster(binaries, &folder).await?;
        let kubeconfig = kubectl.kubeconfig.to_str().context("a path is text")?;
        for (set, refused) in [("global.network=network1", false), ("global.network=network2", true)] {
            let mut args = vec!["install", "--dry-run=server", "--kubeconfig", kubeconfig];
            let release = plane(set);
            args.extend(release.args());
            let Said { success, out, err } = helm.run(args).await?;
            ensure!(success != refused, "{set}: {out}{err}");
            if refused {
                for word in ["network2", "network1", "kubectl label namespace istio-system"] {
                    ensure!(err.contains(word), "{err}");
                }
            }
        }
        Ok(())
    });
}
