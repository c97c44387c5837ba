//! What a cluster's node writes for Services: EndpointSlices, addresses of load balancers, and names.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::node::{MANAGER, Running, Work, node_name};
use super::pod::{self, list, text};

impl Work {
    pub(super) async fn write_services(&mut self, services: &[Value]) -> Result<()> {
        for service in services {
            let selector = service["spec"]["selector"].as_object().cloned().unwrap_or_default();
            let (namespace, name) =
                (text(&service["metadata"]["namespace"])?, text(&service["metadata"]["name"])?);
            if selector.is_empty() {
                continue;
            }
            let selected = |pod: &&Running| {
                let labels = &pod.object["metadata"]["labels"];
                pod.object["metadata"]["namespace"] == namespace
                    && selector.iter().all(|(key, value)| labels[key] == *value)
            };
            let pods: Vec<&Running> = self.running.iter().filter(selected).collect();
            let slice = self.slice(service, &pods)?;
            let slices: Api<EndpointSlice> = Api::namespaced(self.settings.machine.client.clone(), namespace);
            let id = format!("slice {namespace}/{name}");
            if self.written.get(&id) != Some(&slice) {
                let params = PatchParams::apply(MANAGER).force();
                slices.patch(&format!("{name}-1"), &params, &Patch::Apply(&slice)).await?;
                self.written.insert(id, slice);
            }
            let id = format!("balancer {namespace}/{name}");
            if service["spec"]["type"] == "LoadBalancer" && !self.written.contains_key(&id) {
                let services: Api<Service> = Api::namespaced(self.settings.machine.client.clone(), namespace);
                let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": self.settings.external }] } } });
                services.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
                self.written.insert(id, status);
            }
        }
        Ok(())
    }

    fn slice(&self, service: &Value, pods: &[&Running]) -> Result<Value> {
        let name = text(&service["metadata"]["name"])?;
        let any = pods.first().map_or(&Value::Null, |pod| &pod.object);
        let ports = list(&service["spec"]["ports"]).iter().filter_map(|port| {
            let number = pod::port_of(any, &port["targetPort"])?;
            Some(json!({ "name": port["name"], "port": number, "protocol": port["protocol"] }))
        });
        let endpoints = pods.iter().filter(|pod| pod.processes.is_some()).map(|pod| {
            let ready = pod.ready && !pod.leaving;
            json!({
                "addresses": [pod.slot.ip],
                "conditions": { "ready": ready, "serving": pod.ready, "terminating": pod.leaving },
                "nodeName": node_name(&self.settings.machine),
                "zone": self.settings.place.get("topology.kubernetes.io/zone"),
                "targetRef": { "kind": "Pod", "namespace": pod.object["metadata"]["namespace"], "name": pod.object["metadata"]["name"] },
            })
        });
        Ok(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": format!("{name}-1"), "labels": {
                "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            }},
            "ports": ports.collect::<Vec<_>>(), "endpoints": endpoints.collect::<Vec<_>>(),
        }))
    }

    /// Nobody forwards what is sent to a Service's address here. Sidecars do not need it; the control plane's name has to
    /// lead to an endpoint.
    pub(super) fn write_hosts(&self, services: &[Value], istiod: Option<&str>) -> Result<()> {
        let mut hosts = "127.0.0.1 localhost\n".to_owned();
        for service in services {
            let (namespace, name) =
                (text(&service["metadata"]["namespace"])?, text(&service["metadata"]["name"])?);
            let at = match (namespace, name) {
                ("istio-system", "istiod") => istiod.map(str::to_owned),
                _ => service["spec"]["clusterIP"].as_str().map(str::to_owned),
            };
            if let Some(at) = at {
                writeln!(hosts, "{at} {name}.{namespace}.svc.cluster.local {name}.{namespace}.svc")?;
            }
        }
        let path = self.settings.machine.hosts();
        if std::fs::read_to_string(&path).ok().as_deref() != Some(&hosts) {
            // In place: pods have this very file.
            std::fs::write(&path, hosts).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}
