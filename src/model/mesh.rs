//! Mesh-wide settings: ConfigMap `istio` in the root namespace, keys `mesh` and `meshNetworks`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    destination_rule::{ConnectionPool, LocalityLb, OutlierDetection},
    gateway::host_within,
    name::NetworkId,
    selector::LabelSelector,
    service::ExportTo,
};

/// Istio's MeshConfig, reduced to what is used; defaults are Istio's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// Trust domain of every identity.
    pub trust_domain: Arc<str>,
    /// Accepted beside it.
    pub trust_domain_aliases: Vec<Arc<str>>,
    /// Where mesh-wide policies live.
    pub root_namespace: Arc<str>,
    /// `outboundTrafficPolicy.mode` is REGISTRY_ONLY: what is not in the registry is refused.
    pub registry_only: bool,
    /// Mutual TLS wherever the server's side accepts it.
    pub auto_mtls: bool,
    /// TCP connect timeout of every cluster.
    pub connect_timeout: Duration,
    /// For sniffed ports; zero waits for the client's first bytes for ever.
    pub protocol_detection_timeout: Duration,
    /// Where services without `exportTo` are visible.
    pub default_service_export_to: ExportTo,
    /// Where destination rules without `exportTo` are visible.
    pub default_rule_export_to: ExportTo,
    /// Mesh-wide locality settings; a DestinationRule's own win. `None`: turned off.
    pub locality_lb: Option<LocalityLb>,
    /// `defaultTrafficPolicy`: fills what destination rules leave open.
    pub connection_pool: Option<ConnectionPool>,
    /// As above.
    pub outlier_detection: Option<OutlierDetection>,
    /// `defaultHttpRetryPolicy`.
    pub http_retries: Option<HttpRetryPolicy>,
    /// `serviceSettings`: hosts (may start with `*.`) and whether they are local to each cluster.
    pub cluster_local: Vec<(Arc<str>, bool)>,
    /// Port of `virtualOutbound`.
    pub outbound_port: u16,
    /// Port of `virtualInbound`.
    pub inbound_port: u16,
    /// `accessLogFile`; none: no access log.
    pub access_log_file: Option<Arc<str>>,
    /// `accessLogFormat`; none: Istio's default.
    pub access_log_format: Option<Arc<str>>,
    /// `accessLogEncoding: JSON`.
    pub access_log_json: bool,
    /// `h2UpgradePolicy: UPGRADE`.
    pub h2_upgrade: bool,
    /// `discoverySelectors`: namespaces that one of them matches are read; without any, all are.
    pub discovery_selectors: Vec<LabelSelector>,
    /// `meshNetworks`.
    pub networks: BTreeMap<NetworkId, Network>,
}

/// A network of `meshNetworks`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// Clusters whose endpoints are in it (`fromRegistry`).
    pub registries: Vec<Arc<str>>,
    /// Gateways by address and port.
    pub gateways: Vec<(Arc<str>, u16)>,
}

/// Istio's HTTPRetry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRetryPolicy {
    /// Retries after the first try; 0 turns retries off.
    pub attempts: u32,
    /// Envoy's `retry_on` list; none: the default.
    pub retry_on: Option<Arc<str>>,
    /// Timeout of each try.
    pub per_try_timeout: Option<Duration>,
}

// === impl MeshConfig ===

impl MeshConfig {
    /// Whether a service stays within each cluster. The most specific of the settings decides; Istio's defaults are the API server,
    /// what is in `kube-system` and the control plane itself. `domain` is the suffix of services' hosts.
    pub fn is_cluster_local(&self, host: &str, domain: &str) -> bool {
        let defaults = [
            format!("*.kube-system.svc.{domain}"),
            format!("kubernetes.default.svc.{domain}"),
            format!("istiod.{}.svc.{domain}", self.root_namespace),
        ];
        let settings = self.cluster_local.iter().map(|(pattern, local)| (pattern.as_ref(), *local));
        let explicit =
            settings.filter(|(p, _)| host_within(host, p)).max_by_key(|(p, local)| (p.len(), *local));
        match explicit {
            Some((_, local)) => local,
            None => defaults.iter().any(|pattern| host_within(host, pattern)),
        }
    }

    /// Whether access logs show metadata of endpoints.
    pub fn logs_endpoint_metadata(&self) -> bool {
        self.access_log_format.as_deref().is_some_and(|format| format.contains("UPSTREAM_METADATA"))
    }
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".into(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".into(),
            registry_only: false,
            auto_mtls: true,
            connect_timeout: Duration::from_secs(10),
            protocol_detection_timeout: Duration::ZERO,
            default_service_export_to: ExportTo::Public,
            default_rule_export_to: ExportTo::Public,
            locality_lb: Some(LocalityLb::default()),
            connection_pool: None,
            outlier_detection: None,
            http_retries: None,
            cluster_local: Vec::new(),
            outbound_port: 15001,
            inbound_port: 15006,
            access_log_file: None,
            access_log_format: None,
            access_log_json: false,
            h2_upgrade: false,
            discovery_selectors: Vec::new(),
            networks: BTreeMap::new(),
        }
    }
}
