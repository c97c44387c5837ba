//! Kubernetes objects, reduced to what is read. Unset and default are the same here.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

pub use super::slice::{EndpointSlice, SliceEndpoint, SlicePort, SliceRows};
use super::{
    name::Labels,
    port::{TargetPort, Transport},
};

/// What every object carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Empty for objects without one (Namespace, Node).
    pub namespace: Arc<str>,
    /// The object's name.
    pub name: Arc<str>,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// `creationTimestamp` in seconds since 1970; 0 when the object has none (files). Istio breaks conflicts by
    /// age, then by name.
    pub created: i64,
}

/// A Namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespace {
    /// Labels are read: `topology.istio.io/network`.
    pub meta: Meta,
}

/// A ServiceAccount. Its existence is shown; nothing is decided by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceAccount {
    /// Name and namespace.
    pub meta: Meta,
}

/// A Node, for its locality labels and external addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// Labels are read: region, zone, subzone, hostname.
    pub meta: Meta,
    /// Addresses of type ExternalIP.
    pub external_ips: Vec<IpAddr>,
}

/// How a Service is reached from outside its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// Only inside.
    #[default]
    ClusterIp,
    /// On a port of every node.
    NodePort,
    /// Through the cloud's load balancer.
    LoadBalancer,
    /// An alias of a DNS name; has no endpoints of its own.
    ExternalName(Arc<str>),
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Labels and annotations are read.
    pub meta: Meta,
    /// `spec.type`.
    pub kind: ServiceType,
    /// `spec.clusterIPs`; empty for headless services and aliases.
    pub cluster_ips: Vec<IpAddr>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// `spec.ports`, in their order.
    pub ports: Vec<ServicePort>,
    /// `spec.selector`; empty selects nothing.
    pub selector: Labels,
    /// `internalTrafficPolicy: Local`: only endpoints of the caller's node.
    pub node_local: bool,
    /// `spec.externalIPs` and `status.loadBalancer.ingress`: IP addresses or host names.
    pub external_addresses: Vec<Arc<str>>,
    /// `publishNotReadyAddresses`.
    pub publish_not_ready: bool,
}

/// One entry of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Empty when there is only one port.
    pub name: Arc<str>,
    /// The service's port.
    pub number: u16,
    /// TCP or UDP (SCTP is dropped when read).
    pub transport: Transport,
    /// `appProtocol`.
    pub app_protocol: Option<Arc<str>>,
    /// The pod's port.
    pub target: TargetPort,
    /// `nodePort`, 0 when there is none.
    pub node_port: u16,
}

/// A Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Labels are read.
    pub meta: Meta,
    /// `status.podIPs`.
    pub ips: Vec<IpAddr>,
    /// `spec.serviceAccountName`, "default" when unset.
    pub service_account: Arc<str>,
    /// `spec.nodeName`.
    pub node: Option<Arc<str>>,
    /// Container ports that have a name, for named target ports.
    pub named_ports: Vec<(Arc<str>, u16)>,
    /// The workload that owns the pod (Deployment's name without hash), for telemetry; the pod's name if unknown.
    pub workload: Arc<str>,
    /// Phase Succeeded or Failed: it will never serve again.
    pub finished: bool,
}
