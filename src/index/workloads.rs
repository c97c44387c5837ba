//! The workload behind a proxy: what the registry knows of it, and the services that lead to it.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Index,
    endpoints::{locality_of, network_of},
    inputs::ClusterObjects,
    peers::WorkloadMtls,
};
use crate::model::{
    Labels, NetworkId,
    kubernetes::{Pod, ServicePort},
    locality::Locality,
    node::Proxy,
    port::{Protocol, TargetPort, Transport},
    service::ServiceKey,
    workload::{HOSTNAME_LABEL, with_topology},
};

/// What the registry says about a proxy's workload, with the proxy's own words where it says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadFacts {
    /// With topology labels.
    pub labels: Labels,
    /// Of its node, else the proxy's own.
    pub locality: Locality,
}

/// A service port that leads to a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The workload's port.
    pub port: u16,
    /// The service port.
    pub service_port: u16,
    /// The service.
    pub service: ServiceKey,
    /// Its short name.
    pub service_name: Arc<str>,
    /// What is spoken.
    pub protocol: Protocol,
}

impl Index {
    /// The pod beside a proxy, by name, else by address.
    fn pod(&self, proxy: &Proxy) -> Option<(&ClusterObjects, &Arc<Pod>)> {
        let cluster = self.inputs.clusters.get(&proxy.cluster)?;
        let pod = cluster.pod(&proxy.namespace, &proxy.name)?;
        Some((cluster, pod))
    }

    /// Labels and locality of a proxy's workload. The registry wins: labels of a pod change without its proxy knowing.
    pub fn workload_facts(&self, proxy: &Proxy) -> WorkloadFacts {
        let (labels, node, locality) = match self.pod(proxy) {
            Some((cluster, pod)) => {
                let found = locality_of(cluster, &pod.meta.labels, pod.node.as_ref());
                (&pod.meta.labels, pod.node.as_ref(), found.into_owned())
            }
            None => (&proxy.labels, None, Locality::default()),
        };
        let locality = if locality.is_empty() { proxy.locality.clone() } else { locality };
        let network = self.proxy_network(proxy);
        let node = node.or(proxy.node.as_ref());
        let mut labels = with_topology(labels, &proxy.cluster, &network, &locality);
        if let Some(node) = node.filter(|node| !node.is_empty()) {
            labels.insert(HOSTNAME_LABEL.into(), node.clone());
        }
        WorkloadFacts { labels, locality }
    }

    /// The network that a proxy says it is in (Istio takes its word), else what the registry says of its pod.
    pub fn proxy_network(&self, proxy: &Proxy) -> NetworkId {
        if !proxy.network.as_str().is_empty() {
            return proxy.network.clone();
        }
        match self.inputs.clusters.get(&proxy.cluster) {
            Some(cluster) => {
                let labels = self.pod(proxy).map_or(&proxy.labels, |(_, pod)| &pod.meta.labels);
                network_of(&proxy.cluster, cluster, labels, &self.mesh)
            }
            None => NetworkId::from(""),
        }
    }

    /// The services of the proxy's cluster and namespace that select its workload, by target port; the oldest service
    /// wins a port that several lead to.
    pub fn targets(&self, proxy: &Proxy) -> BTreeMap<u16, Target> {
        let Some(cluster) = self.inputs.clusters.get(&proxy.cluster) else { return BTreeMap::new() };
        let pod = self.pod(proxy).map(|(_, pod)| pod);
        let labels = pod.map_or(&proxy.labels, |p| &p.meta.labels);
        let mut services: Vec<_> = cluster.services_selecting(&proxy.namespace, labels).collect();
        services.sort_by_key(|s| (s.meta.created, s.meta.name.clone()));

        let mut targets = BTreeMap::new();
        for service in services {
            for port in service.ports.iter().filter(|p| p.transport == Transport::Tcp) {
                let Some(number) = target_port(port, pod) else { continue };
                targets.entry(number).or_insert_with(|| Target {
                    port: number,
                    service_port: port.number,
                    service: self.service_key(&(service.meta.namespace.clone(), service.meta.name.clone())),
                    service_name: service.meta.name.clone(),
                    protocol: Protocol::select(
                        port.transport,
                        port.app_protocol.as_deref(),
                        &port.name,
                        port.number,
                    ),
                });
            }
        }
        targets
    }

    /// What a proxy's workload accepts.
    pub fn proxy_mtls(&self, namespace: &str, labels: &Labels) -> WorkloadMtls {
        self.peers.workload(namespace, |name| labels.get(name))
    }
}

fn target_port(port: &ServicePort, pod: Option<&Arc<Pod>>) -> Option<u16> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => pod?.named_ports.iter().find(|(n, _)| n == name).map(|(_, number)| *number),
    }
}
