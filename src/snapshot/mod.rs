//! What is published: resources that were encoded once, in persistent maps that share all that did not change.
//!
//! ```text
//! pipeline -- commit --> Feed (one per class of proxies) --> streams that see the change: diff(sent, current)
//! ```

mod attachment;
mod encoded;
mod feed;
mod interests;
mod resources;
mod set;

pub use attachment::{Attacher, Attachment, Closed, Command, Nack, StreamId};
pub use encoded::{Encoded, Version};
pub use feed::{Feed, Follower, Tether};
pub use interests::{Bits, Filter};
pub use resources::{Difference, Resources};
pub use set::ResourceSet;

use std::time::Instant;

/// The types that proxies get from snapshots. Secrets are not among them: they belong to identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// CDS
    Cluster,
    /// EDS
    Endpoint,
    /// LEDS: the endpoints of assignments that leave them out
    LbEndpoint,
    /// LDS
    Listener,
    /// RDS
    Route,
    /// VHDS: the hosts of route configurations that leave them out
    VirtualHost,
}

impl ResourceType {
    /// All, in the order in which additions are sent (Envoy warms a cluster before a listener may name it);
    /// removals go in reverse.
    pub const ALL: [Self; 6] =
        [Self::Cluster, Self::Endpoint, Self::LbEndpoint, Self::Listener, Self::Route, Self::VirtualHost];

    /// The type URL on the wire.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::LbEndpoint => "type.googleapis.com/envoy.config.endpoint.v3.LbEndpoint",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::VirtualHost => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
        }
    }

    /// The type with this URL.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.type_url() == url)
    }

    /// `cds`, `eds`, `leds`, `lds`, `rds`, `vhds`: as in metrics and logs.
    pub const fn short(self) -> &'static str {
        match self {
            Self::Cluster => "cds",
            Self::Endpoint => "eds",
            Self::LbEndpoint => "leds",
            Self::Listener => "lds",
            Self::Route => "rds",
            Self::VirtualHost => "vhds",
        }
    }

    /// Whether a request without names asks for everything (CDS, LDS and VHDS); the others are asked for by name.
    pub const fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener | Self::VirtualHost)
    }
}

/// Everything for one class of proxies, of one epoch: its types agree with each other.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts commits of the pipeline. Not part of any resource.
    pub epoch: u64,
    /// When it was committed.
    pub committed: Instant,
    /// When the oldest event of the batch behind it arrived, for propagation times.
    pub event: Instant,
    /// CDS
    pub clusters: Resources,
    /// EDS
    pub endpoints: Resources,
    /// LEDS
    pub lb_endpoints: Resources,
    /// LDS
    pub listeners: Resources,
    /// RDS
    pub routes: Resources,
    /// VHDS
    pub virtual_hosts: Resources,
}

impl Snapshot {
    /// The resources of a type.
    pub fn get(&self, kind: ResourceType) -> &Resources {
        match kind {
            ResourceType::Cluster => &self.clusters,
            ResourceType::Endpoint => &self.endpoints,
            ResourceType::LbEndpoint => &self.lb_endpoints,
            ResourceType::Listener => &self.listeners,
            ResourceType::Route => &self.routes,
            ResourceType::VirtualHost => &self.virtual_hosts,
        }
    }

    /// Nothing at all: what a stream has sent when it begins.
    pub fn empty() -> Self {
        let now = Instant::now();
        Self {
            epoch: 0,
            committed: now,
            event: now,
            clusters: Resources::default(),
            endpoints: Resources::default(),
            lb_endpoints: Resources::default(),
            listeners: Resources::default(),
            routes: Resources::default(),
            virtual_hosts: Resources::default(),
        }
    }
}
