//! The types that streams serve: those of snapshots, and secrets.

use crate::snapshot::ResourceType;

/// A type of resource on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// From the pipeline's snapshots.
    Snapshot(ResourceType),
    /// SDS, from the identity's own secrets.
    Secret,
}

use ResourceType::{Cluster, Endpoint, LbEndpoint, Listener, Route, VirtualHost};

/// The types of snapshots by their short names.
pub const CDS: Kind = Kind::Snapshot(Cluster);
pub const EDS: Kind = Kind::Snapshot(Endpoint);
pub const LEDS: Kind = Kind::Snapshot(LbEndpoint);
pub const LDS: Kind = Kind::Snapshot(Listener);
pub const RDS: Kind = Kind::Snapshot(Route);
#[cfg(test)]
pub const VHDS: Kind = Kind::Snapshot(VirtualHost);

impl Kind {
    /// All, in the order in which a stream sends them: what a cluster needs to warm up comes before the listeners and
    /// routes that name it. Endpoints of their own come after the assignments that they belong to, and virtual hosts after
    /// their route configurations: Envoy drops those that it has no place for.
    pub const ALL: [Self; 7] = [
        Self::Snapshot(Cluster),
        Self::Snapshot(Endpoint),
        Self::Snapshot(LbEndpoint),
        Self::Secret,
        Self::Snapshot(Listener),
        Self::Snapshot(Route),
        Self::Snapshot(VirtualHost),
    ];

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Self::Snapshot(Cluster) => 0,
            Self::Snapshot(Endpoint) => 1,
            Self::Snapshot(LbEndpoint) => 2,
            Self::Secret => 3,
            Self::Snapshot(Listener) => 4,
            Self::Snapshot(Route) => 5,
            Self::Snapshot(VirtualHost) => 6,
        }
    }

    /// The type URL on the wire.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Snapshot(kind) => kind.type_url(),
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        }
    }

    /// The type with this URL.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.type_url() == url)
    }

    /// `cds`, `eds`, `leds`, `lds`, `rds`, `vhds`, `sds`: as in metrics and logs.
    pub const fn short(self) -> &'static str {
        match self {
            Self::Snapshot(kind) => kind.short(),
            Self::Secret => "sds",
        }
    }

    /// Whether a first request without names asks for everything.
    pub const fn is_wildcard(self) -> bool {
        matches!(self, Self::Snapshot(kind) if kind.is_wildcard())
    }

    /// Whether a state-of-the-world response must hold the whole set. Envoy deletes clusters and listeners that are
    /// missing from one, and keeps assignments, routes and secrets.
    pub const fn is_complete(self) -> bool {
        self.is_wildcard()
    }

    /// Whether Envoy takes a response as a whole or not at all. Of the other types it applies what is good.
    pub const fn is_atomic(self) -> bool {
        self.whole().is_some()
    }

    /// The type that its resources are parts of, if they are: those that leave out their parts are followed by them.
    pub const fn whole(self) -> Option<Self> {
        match self {
            Self::Snapshot(LbEndpoint) => Some(Self::Snapshot(Endpoint)),
            Self::Snapshot(VirtualHost) => Some(Self::Snapshot(Route)),
            _ => None,
        }
    }

    /// Whether a response must not be split: a domain that moves from one virtual host to another is a conflict while only
    /// one of the two has arrived.
    pub const fn is_unlimited(self) -> bool {
        matches!(self, Self::Snapshot(VirtualHost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_url_and_index() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), index);
            assert_eq!(Kind::from_type_url(kind.type_url()), Some(kind));
        }
        assert_eq!(Kind::from_type_url("type.googleapis.com/istio.networking.nds.v1.NameTable"), None);
    }
}
