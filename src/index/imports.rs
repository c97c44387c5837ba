//! Services under their names in the set of clusters: `NAME.NAMESPACE.svc.clusterset.local`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Delta, Index, inputs::NamespacedName};
use crate::model::{
    ClusterId,
    mcs::{CLUSTER_SET, Mcs},
    service::{Resolution, Service, ServiceKey},
};

/// Which host has whose endpoints.
#[derive(Debug, Default)]
pub struct Imported {
    services: BTreeMap<ServiceKey, ServiceKey>,
    hosts: BTreeMap<ServiceKey, ServiceKey>,
}

// === impl Imported ===

impl Imported {
    /// The service whose endpoints a host of the set has.
    pub fn service_of(&self, host: &ServiceKey) -> Option<&ServiceKey> {
        self.services.get(host)
    }

    /// The host of the set that a service has beside its own.
    pub fn host_of(&self, service: &ServiceKey) -> Option<&ServiceKey> {
        self.hosts.get(service)
    }

    fn set(&mut self, host: &ServiceKey, service: &ServiceKey, present: bool) {
        if present {
            self.services.insert(host.clone(), service.clone());
            self.hosts.insert(service.clone(), host.clone());
        } else {
            self.services.remove(host);
            self.hosts.remove(service);
        }
    }
}

// === impl Index ===

impl Index {
    /// A service under its own host, and under that of the set, where it has one.
    pub fn hosts(&self, name: &NamespacedName) -> (Option<&Arc<Service>>, Option<&Arc<Service>>) {
        let own = self.service_key(name);
        (self.service(&own), self.imported.host_of(&own).and_then(|key| self.service(key)))
    }

    /// The clusters that offer a service to others, under its own host or under that of the set. What a cluster exports
    /// without having the service is nothing yet (as istiod).
    pub(super) fn exported_by(&self, name: &NamespacedName, in_set: bool) -> Option<BTreeSet<ClusterId>> {
        if self.options.mcs < Mcs::Exports {
            return None;
        }
        if self.options.mcs == Mcs::ClusterLocal && !in_set {
            return Some(BTreeSet::new());
        }
        let clusters = self.inputs.clusters.iter();
        let exporting =
            clusters.filter(|(_, c)| c.exports.contains_key(name) && c.services.contains_key(name));
        Some(exporting.map(|(id, _)| id.clone()).collect())
    }

    /// Derives a service's host in the set again, and records what that changes. It is there while some cluster imports the
    /// service, and is everything that the service is but its addresses: those are what each cluster's import says.
    ///
    /// Only a service that has addresses of its own can have some of the set: a headless one is imported without any, and
    /// an alias cannot be exported.
    pub(super) fn update_import(
        &mut self,
        name: &NamespacedName,
        service: Option<&Service>,
        delta: &mut Delta,
    ) {
        if self.options.mcs < Mcs::Hosts {
            return;
        }
        let (namespace, short) = name;
        let key = ServiceKey {
            host: format!("{short}.{namespace}.svc.{CLUSTER_SET}").into(),
            namespace: namespace.clone(),
        };
        let vips: BTreeMap<ClusterId, Vec<IpAddr>> = self
            .inputs
            .clusters
            .iter()
            .filter_map(|(id, cluster)| Some((id, &cluster.imports.get(name)?.ips)))
            .filter(|(_, ips)| !ips.is_empty())
            .map(|(id, ips)| (id.clone(), ips.clone()))
            .collect();
        let service = service.filter(|s| s.resolution == Resolution::ClientSide && !vips.is_empty());
        self.imported.set(&key, &self.service_key(name), service.is_some());
        let new = service.map(|service| Service {
            vips,
            cluster_local: self.mesh.is_cluster_local(&key.host, &self.options.domain),
            exported_by: self.exported_by(name, true),
            key: key.clone(),
            ..service.clone()
        });
        self.replace_service(&key, new.map(Arc::new), delta);
    }
}
