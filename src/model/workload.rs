//! What the pods of one deployment share.

use std::sync::Arc;

use super::{
    locality::Locality,
    name::{ClusterId, Labels, NetworkId},
};

/// Label with the cluster.
pub const CLUSTER_LABEL: &str = "topology.istio.io/cluster";
/// Label that names a network: on pods, on the system namespace, on gateway Services.
pub const NETWORK_LABEL: &str = "topology.istio.io/network";
/// Label with the region.
pub const REGION_LABEL: &str = "topology.kubernetes.io/region";
/// Label with the zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Label with the subzone.
pub const SUBZONE_LABEL: &str = "topology.istio.io/subzone";
/// Label with the node: the only one of these that pods of one workload do not share.
pub const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// What endpoints of the same deployment in the same place share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The cluster that it runs in.
    pub cluster: ClusterId,
    /// Its network; empty if unknown.
    pub network: NetworkId,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Region, zone, subzone.
    pub locality: Locality,
    /// The pods' own labels.
    pub labels: Labels,
    /// `spiffe://TD/ns/NS/sa/SA`; none when the pod is unknown.
    pub identity: Option<Arc<str>>,
    /// Label `security.istio.io/tlsMode` is `istio`: a proxy in front of it accepts mutual TLS.
    pub accepts_mtls: bool,
    /// Each endpoint's relative share of requests; at least 1.
    pub weight: u32,
    /// The owning workload, for telemetry; none when the pod is unknown.
    pub name: Option<Arc<str>>,
    /// Istio's `workload;namespace;canonical name;canonical revision;cluster`; none when the pod is unknown.
    pub telemetry: Option<Arc<str>>,
}

impl Workload {
    /// A label, of the pods or of their place: Istio adds the latter, so that subsets and `failoverPriority` can select by
    /// it. [`HOSTNAME_LABEL`] is the endpoint's own.
    pub fn label(&self, name: &str) -> Option<&Arc<str>> {
        let place = match name {
            CLUSTER_LABEL => Some(&self.cluster.0),
            NETWORK_LABEL => Some(&self.network.0),
            REGION_LABEL => Some(&self.locality.region),
            ZONE_LABEL => Some(&self.locality.zone),
            SUBZONE_LABEL => Some(&self.locality.subzone),
            _ => None,
        };
        place.filter(|value| !value.is_empty()).or_else(|| self.labels.get(name))
    }

    /// All of its labels as a map.
    pub fn all_labels(&self) -> Labels {
        with_topology(&self.labels, &self.cluster, &self.network, &self.locality)
    }

    /// Istio's text for telemetry, where revision `latest` is left out.
    pub fn telemetry_text(&self, name: &str) -> String {
        let label = |names: [&str; 3]| names.into_iter().find_map(|n| self.label(n)).map(|v| &**v);
        let canonical = label(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
        let revision = label(["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
        format!(
            "{name};{};{};{};{}",
            self.namespace,
            canonical.unwrap_or(name),
            revision.filter(|r| *r != "latest").unwrap_or_default(),
            self.cluster,
        )
    }
}

/// Labels with those of the place added.
pub fn with_topology(
    labels: &Labels,
    cluster: &ClusterId,
    network: &NetworkId,
    locality: &Locality,
) -> Labels {
    let mut labels = labels.clone();
    let place = [
        (CLUSTER_LABEL, &cluster.0),
        (NETWORK_LABEL, &network.0),
        (REGION_LABEL, &locality.region),
        (ZONE_LABEL, &locality.zone),
        (SUBZONE_LABEL, &locality.subzone),
    ];
    let known = place.into_iter().filter(|(_, value)| !value.is_empty());
    labels.extend(known.map(|(name, value)| (name.into(), value.clone())));
    labels
}
