//! What a namespace sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Index;
use crate::model::service::{ExportTo, Service};

/// Which services and rules a proxy sees: those that are visible everywhere, or those of one namespace that has
/// something of its own (a private service or rule, or one exported to it).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A namespace that sees exactly what every other one sees.
    Public,
    /// A namespace with exceptions.
    Namespace(Arc<str>),
}

impl Scope {
    /// The namespace by which `exportTo` is judged; none sees only what is public.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Public => None,
            Self::Namespace(ns) => Some(ns),
        }
    }
}

/// How many services there are of the kinds that make an attribute of a proxy matter.
#[derive(Debug, Default)]
pub struct Counts {
    /// `internalTrafficPolicy: Local`.
    pub node_local: i64,
    /// Defined by more than one cluster, or with endpoints in more than one locality (a service may count twice).
    pub spanning: i64,
    /// Visible to some namespaces only: how many per namespace.
    pub private: BTreeMap<Arc<str>, i64>,
    /// Which attributes matter may have changed since this was last taken.
    pub moved: bool,
}

/// Which attributes of a proxy matter at present. When this changes, every proxy's views are derived again.
#[derive(Debug, Default, PartialEq)]
pub struct Discriminators {
    /// Some policy orders endpoints by the client's locality.
    pub locality: bool,
    /// Some service is node-local.
    pub node: bool,
    /// Labels that some `failoverPriority` compares.
    pub labels: BTreeSet<Arc<str>>,
    /// Access logs show metadata of endpoints.
    pub endpoint_metadata: bool,
    private: BTreeSet<Arc<str>>,
}

impl Counts {
    /// Counts a service in (1) or out (-1).
    pub fn service(&mut self, service: Option<&Service>, by: i64) {
        let Some(service) = service else { return };
        let before = (self.node_local > 0, self.spanning > 0);
        self.node_local += if service.node_local { by } else { 0 };
        self.spanning += if service.sources.len() > 1 { by } else { 0 };
        self.moved |= before != (self.node_local > 0, self.spanning > 0);
        if let ExportTo::Namespaces(names) = &service.export_to {
            for name in names {
                let count = self.private.entry(name.clone()).or_default();
                self.moved |= *count == 0;
                *count += by;
                if *count == 0 {
                    self.private.remove(name);
                    self.moved = true;
                }
            }
        }
    }

    /// A service's endpoints come to be in several localities, or cease to.
    pub fn spans(&mut self, before: bool, after: bool) {
        let some = self.spanning > 0;
        self.spanning += i64::from(after) - i64::from(before);
        self.moved |= some != (self.spanning > 0);
    }
}

impl Index {
    /// What clients in a namespace see.
    pub fn scope(&self, namespace: &Arc<str>) -> Scope {
        if self.counts.private.contains_key(namespace) || self.rules.is_exception(namespace) {
            Scope::Namespace(namespace.clone())
        } else {
            Scope::Public
        }
    }

    /// Which attributes of a proxy matter since the last update.
    pub fn discriminators(&self) -> &Discriminators {
        &self.discriminators
    }

    pub(super) fn discriminate(&self) -> Discriminators {
        let mesh_locality = self.mesh.locality_lb.as_ref().filter(|l| l.enabled);
        let mesh_matters =
            mesh_locality.is_some_and(|l| !l.distribute.is_empty() || self.mesh.outlier_detection.is_some());
        let failover = self.options.failover_by_default && self.counts.spanning > 0;
        let mut labels = self.rules.failover_labels().clone();
        labels.extend(mesh_locality.into_iter().flat_map(super::rules::compared_labels));
        let private = self.counts.private.keys().cloned();
        Discriminators {
            locality: failover || mesh_matters || self.rules.locality_matters(),
            node: self.counts.node_local > 0,
            labels,
            endpoint_metadata: self.mesh.logs_endpoint_metadata(),
            private: private.chain(self.rules.exceptions().cloned()).collect(),
        }
    }
}
