//! What an update changed, in terms of what has to be built again.

use std::{collections::BTreeSet, sync::Arc};

use crate::model::{ClusterId, service::ServiceKey};

/// What an update changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Mesh-wide settings, networks: build all of it again.
    pub everything: bool,
    /// Definition, policy or identities changed: clusters and assignments.
    pub services: BTreeSet<ServiceKey>,
    /// Endpoints changed: assignments.
    pub endpoints: BTreeSet<ServiceKey>,
    /// A service on these ports came, went or changed: what all services of a port share.
    pub ports: BTreeSet<u16>,
    /// Called by other names or addresses than before, because of other services or of endpoints: listeners and virtual
    /// hosts.
    pub names: BTreeSet<ServiceKey>,
    /// Which proxies may belong to other views now.
    pub proxies: AffectedProxies,
}

/// Which proxies may belong to other views now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AffectedProxies {
    /// Every one.
    pub all: bool,
    /// Those in these namespaces.
    pub namespaces: BTreeSet<Arc<str>>,
    /// Those beside these pods: cluster, namespace, name.
    pub pods: BTreeSet<(ClusterId, Arc<str>, Arc<str>)>,
}

impl Delta {
    /// Whether nothing has to be done.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
