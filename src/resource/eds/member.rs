//! Members of a load assignment, and the cohorts that they belong to.
//!
//! A cohort is what the endpoints of one slice and workload have in common, or a gateway. Whatever depends on nothing
//! else is decided and encoded once for a cohort: whether mutual TLS is spoken, whether and how it is reached, its
//! locality, priority and metadata. A member adds an address, a health and a weight.

use std::{net::IpAddr, sync::Arc};

use super::choose::Excluded;
use crate::model::{
    endpoint::{Endpoint, Health, NetworkGateway},
    locality::Locality,
    staleness::Treatment,
    workload::{
        CLUSTER_LABEL, HOSTNAME_LABEL, NETWORK_LABEL, REGION_LABEL, SUBZONE_LABEL, Workload, ZONE_LABEL,
    },
};

/// Address and port.
pub type Target = (IpAddr, u16);

/// What members have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Cohort<'a> {
    /// The one that they are grouped by.
    pub locality: &'a Locality,
    /// Mutual TLS is spoken to them.
    pub mtls: bool,
    /// What is done to them because their cluster is away. Of a gateway: to the one behind it to which least is done; it is
    /// deprioritised if it is dead.
    pub treatment: Treatment,
    /// What they stand for.
    pub origin: Origin<'a>,
}

/// What a member stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin<'a> {
    /// An endpoint of this workload, reached directly.
    Endpoint {
        /// The workload.
        workload: &'a Workload,
        /// The node, if something depends on it; then the cohort is that of a single endpoint.
        node: Option<&'a Arc<str>>,
    },
    /// All endpoints behind a gateway.
    Gateway {
        /// The gateway.
        gateway: &'a NetworkGateway,
        /// The ready endpoints behind it (shared with the network's other gateways).
        behind: Vec<Endpoint<'a>>,
    },
}

/// One member of a load assignment.
#[derive(Clone, Debug, PartialEq)]
pub struct Member<'a> {
    /// Where Envoy connects to.
    pub target: Target,
    /// At least 1.
    pub weight: u32,
    /// What Envoy is told; a gateway has none of its own and counts as healthy.
    pub health: Health,
    /// By its place in the list of cohorts.
    pub cohort: usize,
    /// None: a gateway.
    pub endpoint: Option<Endpoint<'a>>,
}

/// Members with their cohorts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members<'a> {
    /// What the members refer to.
    pub cohorts: Vec<Cohort<'a>>,
    /// Each of one cohort.
    pub list: Vec<Member<'a>>,
}

/// An endpoint that the client does not get.
pub type Exclusion<'a> = (Endpoint<'a>, Excluded);

/// Where exclusions are written down, if anybody wants to know them.
#[derive(Debug)]
pub struct Exclusions<'a>(Option<Vec<Exclusion<'a>>>);

impl Cohort<'_> {
    /// A label that a `failoverPriority` compares. Istio gives a gateway cluster and network only, so that one by region takes
    /// every gateway for far away; ours is somewhere.
    pub fn label(&self, name: &str) -> Option<&Arc<str>> {
        match &self.origin {
            Origin::Endpoint { workload, node } => match (name, node) {
                (HOSTNAME_LABEL, Some(node)) => Some(node),
                _ => workload.label(name),
            },
            Origin::Gateway { gateway, .. } => {
                let place = match name {
                    CLUSTER_LABEL => &gateway.cluster.0,
                    NETWORK_LABEL => &gateway.network.0,
                    REGION_LABEL => &self.locality.region,
                    ZONE_LABEL => &self.locality.zone,
                    SUBZONE_LABEL => &self.locality.subzone,
                    _ => return None,
                };
                Some(place).filter(|value| !value.is_empty())
            }
        }
    }
}

impl<'a> Exclusions<'a> {
    /// Written down.
    pub fn wanted() -> Self {
        Self(Some(Vec::new()))
    }

    /// Forgotten.
    pub fn unwanted() -> Self {
        Self(None)
    }

    /// An endpoint is excluded.
    pub fn add(&mut self, endpoint: Endpoint<'a>, reason: impl FnOnce() -> Excluded) {
        if let Some(list) = &mut self.0 {
            list.push((endpoint, reason()));
        }
    }

    /// An empty one, wanted or not as this one is: for what may turn out otherwise.
    pub fn beside(&self) -> Self {
        Self(self.0.as_ref().map(|_| Vec::new()))
    }

    /// Adds those of another.
    pub fn extend(&mut self, other: Self) {
        if let (Some(list), Some(more)) = (&mut self.0, other.0) {
            list.extend(more);
        }
    }

    /// By cluster, address and reason, each once: behind several gateways an endpoint is met several times.
    pub fn sorted(self) -> Vec<Exclusion<'a>> {
        let mut list = self.0.unwrap_or_default();
        let place = |e: Endpoint<'a>| (&e.workload().cluster, e.address(), e.port());
        list.sort_by(|a, b| place(a.0).cmp(&place(b.0)).then_with(|| a.1.cmp(&b.1)));
        list.dedup();
        list
    }
}
