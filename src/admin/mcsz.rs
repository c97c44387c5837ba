//! `/debug/mcsz`: what each cluster exports and imports by the Multi-Cluster Services API.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use axum::extract::State;
use serde::Serialize;

use super::{
    AdminState,
    answer::{Answer, Asked, Refusal, json},
};
use crate::{
    index::Index,
    model::{ClusterId, mcs::Mcs, service::Service},
};

/// A service that a cluster exports, or imports, or both. Names are istiod's, but for `ClusterSetVIPs`: istiod has one address.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    cluster: ClusterId,
    name: Arc<str>,
    namespace: Arc<str>,
    exported: bool,
    imported: bool,
    /// The first of them; empty without any.
    #[serde(rename = "ClusterSetVIP")]
    first_vip: String,
    /// The addresses that the import says, where the service has a host in the set.
    #[serde(rename = "ClusterSetVIPs")]
    vips: Vec<IpAddr>,
    /// Who gets this cluster's endpoints under which host; null unless it exports the service.
    discoverability: Option<BTreeMap<Arc<str>, &'static str>>,
}

/// All of them, by cluster, namespace and name; what is not in force is not there.
fn entries(index: &Index) -> Vec<Entry> {
    let mcs = index.options().mcs;
    let mut entries = Vec::new();
    for (cluster, objects) in &index.inputs().clusters {
        let exports = objects.exports.keys().filter(|_| mcs >= Mcs::Exports);
        let exports: BTreeSet<_> = exports.collect();
        let imports = objects.imports.keys().filter(|_| mcs >= Mcs::Hosts);
        let imports: BTreeSet<_> = imports.collect();
        for name in &exports | &imports {
            let (own, in_set) = index.hosts(name);
            let vips = in_set.and_then(|service| service.vips.get(cluster)).cloned().unwrap_or_default();
            // An export of what the cluster does not have is nothing.
            let hosts = [own, in_set].into_iter().flatten().filter(|_| objects.services.contains_key(name));
            let discoverability = hosts.map(|s| (s.key.host.clone(), discoverability(s, cluster))).collect();
            entries.push(Entry {
                cluster: cluster.clone(),
                name: name.1.clone(),
                namespace: name.0.clone(),
                exported: exports.contains(name),
                imported: imports.contains(name),
                first_vip: vips.first().map(ToString::to_string).unwrap_or_default(),
                vips,
                discoverability: exports.contains(name).then_some(discoverability),
            });
        }
    }
    entries
}

/// In istiod's words.
fn discoverability(service: &Service, cluster: &ClusterId) -> &'static str {
    match &service.exported_by {
        Some(clusters) if !clusters.contains(cluster) => "DiscoverableFromSameCluster",
        _ => "AlwaysDiscoverable",
    }
}

/// Every service that is exported or imported somewhere; `?namespace=` narrows.
pub async fn mcsz(State(admin): State<AdminState>, params: Asked) -> Answer {
    let entries = admin.inspector.ask(|state| entries(&state.index)).await;
    let mut entries = entries.ok_or_else(Refusal::no_pipeline)?;
    entries.retain(|e| params.namespace.as_ref().is_none_or(|wanted| **wanted == *e.namespace));
    json(&params, &entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        index::Options,
        model::{
            Change, Object, ObjectKey,
            kubernetes::{Meta, Service as Definition},
            mcs::{ServiceExport, ServiceImport},
        },
    };

    /// `east` has the service, exports it and has another import; `west` imports it, and exports what it does not have.
    fn index(mcs: Mcs) -> Index {
        let options = Options {
            config_cluster: "east".into(),
            failover_by_default: true,
            domain: "cluster.local".into(),
            mcs,
        };
        let mut index = Index::new(options);
        let meta = |name: &str| Meta { namespace: "shop".into(), name: name.into(), ..Meta::default() };
        let cluster_ips = vec![[10, 0, 0, 1].into()];
        let service = Definition { meta: meta("cart"), cluster_ips, ..Definition::default() };
        let export = |name| Object::ServiceExport(Arc::new(ServiceExport { meta: meta(name) }));
        let import = |name, ips| Object::ServiceImport(Arc::new(ServiceImport { meta: meta(name), ips }));
        let ips = vec![[10, 9, 0, 1].into(), [10, 9, 0, 2].into()];
        let objects = [
            ("east", "cart", Object::Service(Arc::new(service))),
            ("east", "cart", export("cart")),
            ("east", "list", import("list", Vec::new())),
            ("west", "cart", import("cart", ips)),
            ("west", "list", export("list")),
        ];
        index.update(objects.map(|(cluster, name, object)| {
            let key = ObjectKey {
                cluster: cluster.into(),
                kind: object.kind(),
                namespace: "shop".into(),
                name: name.into(),
            };
            Change::Upsert(key, object)
        }));
        index
    }

    /// An entry as `cluster/name`, whether it is exported and imported, its addresses, and who gets what.
    fn line(entry: &Entry) -> String {
        let flag = |is: bool, word: &'static str| if is { word } else { "" };
        let hosts = entry.discoverability.iter().flatten();
        let hosts: Vec<_> = hosts.map(|(host, policy)| format!(" {host}={policy}")).collect();
        format!(
            "{}/{}{}{} {:?}{}",
            entry.cluster,
            entry.name,
            flag(entry.exported, " exported"),
            flag(entry.imported, " imported"),
            entry.vips,
            hosts.concat()
        )
    }

    #[test]
    fn what_is_in_force_is_shown() {
        const OWN: &str = "cart.shop.svc.cluster.local";
        const SET: &str = "cart.shop.svc.clusterset.local";
        let (all, same) = ("AlwaysDiscoverable", "DiscoverableFromSameCluster");
        let with_hosts = |own: &str| {
            vec![
                format!("east/cart exported [] {OWN}={own} {SET}={all}"),
                "east/list imported []".to_owned(),
                "west/cart imported [10.9.0.1, 10.9.0.2]".to_owned(),
                "west/list exported []".to_owned(),
            ]
        };
        for (mcs, expected) in [
            (Mcs::Off, Vec::new()),
            (
                Mcs::Exports,
                vec![format!("east/cart exported [] {OWN}={all}"), "west/list exported []".to_owned()],
            ),
            (Mcs::Hosts, with_hosts(all)),
            (Mcs::ClusterLocal, with_hosts(same)),
        ] {
            let shown: Vec<_> = entries(&index(mcs)).iter().map(line).collect();
            assert_eq!(shown, expected, "{mcs:?}");
        }
    }

    #[test]
    fn names_are_those_of_istiod() {
        let entries = entries(&index(Mcs::Hosts));
        let expected = serde_json::json!({
            "Cluster": "west", "Name": "cart", "Namespace": "shop", "Exported": false, "Imported": true,
            "ClusterSetVIP": "10.9.0.1", "ClusterSetVIPs": ["10.9.0.1", "10.9.0.2"], "Discoverability": null,
        });
        assert_eq!(serde_json::to_value(&entries[2]).ok(), Some(expected));
    }
}
