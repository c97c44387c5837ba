//! One service from its definitions in all clusters.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Delta, Index, inputs::NamespacedName};
use crate::model::{
    ClusterId, Kind, ObjectKey,
    kubernetes::{Service as Definition, ServiceType},
    mesh::MeshConfig,
    port::Protocol,
    service::{ExportTo, Port, Resolution, Service, ServiceKey},
};

const EXPORT_TO: &str = "networking.istio.io/exportTo";
const CANONICAL_ACCOUNTS: &str = "alpha.istio.io/canonical-serviceaccounts";
const KUBERNETES_ACCOUNTS: &str = "alpha.istio.io/kubernetes-serviceaccounts";

impl Index {
    /// The host of a Kubernetes service.
    pub fn service_key(&self, (namespace, name): &NamespacedName) -> ServiceKey {
        ServiceKey {
            host: [name, ".", namespace, ".svc.", &self.options.domain].concat().into(),
            namespace: namespace.clone(),
        }
    }

    /// Merges a service again and records what that changes.
    pub(super) fn update_service(&mut self, name: &NamespacedName, delta: &mut Delta) {
        let key = self.service_key(name);
        let definitions: Vec<_> = self
            .inputs
            .clusters
            .iter()
            .filter_map(|(id, cluster)| Some((id, cluster.services.get(name)?)))
            .collect();
        let mut new = merge(&key, &definitions, &self.mesh, &self.options.domain);
        if let Some(service) = &mut new {
            service.exported_by = self.exported_by(name, false);
        }
        // Inbound sides depend on selectors and target ports, which the merged service does not show.
        delta.proxies.namespaces.insert(key.namespace.clone());
        self.update_import(name, new.as_ref(), delta);
        self.replace_service(&key, new.map(Arc::new), delta);
    }

    /// Puts a service into force, and records what that changes.
    pub(super) fn replace_service(&mut self, key: &ServiceKey, new: Option<Arc<Service>>, delta: &mut Delta) {
        let old = self.services.get(key).cloned();
        if old == new {
            return;
        }
        self.rename(key, delta, |index| {
            index.counts.service(old.as_deref(), -1);
            index.counts.service(new.as_deref(), 1);
            for (service, present) in [(&old, false), (&new, true)] {
                if let Some(Resolution::Alias(target)) = service.as_ref().map(|s| &s.resolution) {
                    index.names.set_alias(target, key, present);
                }
            }
            match new.clone() {
                Some(new) => drop(index.services.insert(key.clone(), new)),
                None => drop(index.services.remove(key)),
            }
        });
        self.count_ports(old.as_ref(), false, delta);
        self.count_ports(new.as_ref(), true, delta);
        // An alias is a further domain of its target's routes, whatever ports it lists itself.
        for service in [&old, &new].into_iter().flatten() {
            if let Resolution::Alias(target) = &service.resolution {
                let targets = self.with_host(target).filter_map(|key| self.services.get(key));
                delta.ports.extend(targets.flat_map(|s| &s.ports).map(|p| p.number));
            }
        }
        delta.services.insert(key.clone());
    }
}

/// Ports are the union, and the oldest definition wins a port that several define; everything else is the oldest's.
/// Without ages (files), the first cluster by name counts as the oldest, so that every replica decides alike.
fn merge(
    key: &ServiceKey,
    definitions: &[(&ClusterId, &Arc<Definition>)],
    mesh: &MeshConfig,
    domain: &str,
) -> Option<Service> {
    let mut by_age = definitions.to_vec();
    by_age.sort_by_key(|(id, d)| (d.meta.created, (*id).clone()));
    let (first_cluster, first) = *by_age.first()?;

    let mut ports: BTreeMap<u16, Port> = BTreeMap::new();
    let mut conflicts = Vec::new();
    for (id, definition) in &by_age {
        for port in &definition.ports {
            let protocol =
                Protocol::select(port.transport, port.app_protocol.as_deref(), &port.name, port.number);
            let port = Port { name: port.name.clone(), number: port.number, protocol };
            match ports.get(&port.number) {
                None => drop(ports.insert(port.number, port)),
                Some(existing) if *existing == port => {}
                Some(existing) => conflicts.push(
                    format!(
                        "port {}: {id} says {:?} ({:?}), {first_cluster} or an older definition says {:?} ({:?}); the older one holds",
                        port.number, port.name, port.protocol, existing.name, existing.protocol
                    )
                    .into(),
                ),
            }
        }
        let kind = |d: &Definition| (d.headless, external_name(d).cloned());
        let export_to = |d: &Definition| d.meta.annotations.get(EXPORT_TO).cloned();
        let differences = [
            ("the service's type", kind(definition) != kind(first)),
            ("its internalTrafficPolicy", definition.node_local != first.node_local),
            ("who sees it (exportTo)", export_to(definition) != export_to(first)),
        ];
        for (what, _) in differences.iter().filter(|(_, differs)| *differs) {
            let words =
                format!("{id} and {first_cluster} disagree on {what}; {first_cluster}, the oldest, holds");
            conflicts.push(words.into());
        }
    }

    let vips: BTreeMap<ClusterId, Vec<IpAddr>> = by_age
        .iter()
        .filter(|(_, d)| !d.cluster_ips.is_empty())
        .map(|(id, d)| ((*id).clone(), d.cluster_ips.clone()))
        .collect();
    let annotation = |name: &str| first.meta.annotations.get(name).map(|v| v.as_ref()).unwrap_or_default();
    let resolution = match external_name(first) {
        Some(target) => Resolution::Alias(target.clone()),
        None if first.headless => Resolution::Passthrough,
        None => Resolution::ClientSide,
    };
    Some(Service {
        name: first.meta.name.clone(),
        ports: ports.into_values().collect(),
        resolution,
        vips,
        node_local: first.node_local,
        cluster_local: mesh.is_cluster_local(&key.host, domain),
        exported_by: None,
        export_to: ExportTo::parse(
            annotation(EXPORT_TO).split(','),
            &key.namespace,
            &mesh.default_service_export_to,
        ),
        labels: first.meta.labels.clone(),
        created: first.meta.created,
        extra_identities: extra_identities(&by_age, mesh),
        sources: by_age.iter().map(|(id, d)| object_key(id, d)).collect(),
        conflicts,
        key: key.clone(),
    })
}

fn external_name(definition: &Definition) -> Option<&Arc<str>> {
    match &definition.kind {
        ServiceType::ExternalName(target) => Some(target),
        _ => None,
    }
}

fn object_key(cluster: &ClusterId, definition: &Definition) -> ObjectKey {
    ObjectKey {
        cluster: cluster.clone(),
        kind: Kind::Service,
        namespace: definition.meta.namespace.clone(),
        name: definition.meta.name.clone(),
    }
}

/// Istio's annotations with further identities that may serve the service.
fn extra_identities(definitions: &[(&ClusterId, &Arc<Definition>)], mesh: &MeshConfig) -> BTreeSet<Arc<str>> {
    let mut found = BTreeSet::new();
    for (_, definition) in definitions {
        let list = |name: &str| {
            let text = definition.meta.annotations.get(name).map(|v| v.as_ref()).unwrap_or_default();
            text.split(',').map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        for account in list(CANONICAL_ACCOUNTS) {
            found
                .insert(if account.contains("://") { account } else { format!("spiffe://{account}") }.into());
        }
        for account in list(KUBERNETES_ACCOUNTS) {
            let namespace = &definition.meta.namespace;
            found.insert(format!("spiffe://{}/ns/{namespace}/sa/{account}", mesh.trust_domain).into());
        }
    }
    found
}
