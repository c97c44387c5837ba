//! `/debug/config_dump` and `/debug/edsz`: what is published for one proxy, as Envoy's own dump shows what it has.
//!
//! The two can be compared: names of fields are those of the protobuf files, as on Envoy's admin port. Secrets are not
//! part of it at all, for they are not part of snapshots.

use std::sync::LazyLock;

use axum::extract::State;
use landbridge_proto::DESCRIPTORS;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Value, json};

use super::{
    AdminState,
    answer::{self, Answer, Asked, Refusal},
    proxies,
};
use crate::snapshot::{Encoded, ResourceType, Resources, Snapshot};

/// Every message that a resource can hold, also inside an `Any`.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(DESCRIPTORS).expect("the descriptors were made by our own build")
});

/// An `envoy.admin.v3.ConfigDump`; `?types=clusters,listeners` narrows, `?include_eds` adds load assignments.
pub async fn config_dump(State(admin): State<AdminState>, params: Asked) -> Answer {
    let found = proxies::find(&admin, &params).await?;
    let wanted: Option<Vec<ResourceType>> = params.types.as_deref().map(parse_types).transpose()?;
    let is_wanted = |kind: ResourceType| match &wanted {
        Some(kinds) => kinds.contains(&kind),
        None => kind != ResourceType::Endpoint || params.include_eds.is_some(),
    };
    answer::json(&params, &dump(&found.snapshot, is_wanted))
}

/// The load assignments of one proxy, in the same form.
pub async fn edsz(State(admin): State<AdminState>, params: Asked) -> Answer {
    let found = proxies::find(&admin, &params).await?;
    answer::json(&params, &dump(&found.snapshot, |kind| kind == ResourceType::Endpoint))
}

fn parse_types(list: &str) -> Result<Vec<ResourceType>, Refusal> {
    list.split(',')
        .filter(|t| !t.is_empty())
        .map(|name| match name.to_ascii_lowercase().as_str() {
            "clusters" | "cluster" | "cds" => Ok(ResourceType::Cluster),
            "endpoints" | "endpoint" | "eds" | "leds" => Ok(ResourceType::Endpoint),
            "listeners" | "listener" | "lds" => Ok(ResourceType::Listener),
            "routes" | "route" | "rds" | "vhds" => Ok(ResourceType::Route),
            _ => Err(Refusal::bad(format!(
                "`{name}` is not a type of this dump: use clusters, endpoints, listeners or routes, separated by commas\n"
            ))),
        })
        .collect()
}

/// The sections in Envoy's order.
pub fn dump(snapshot: &Snapshot, is_wanted: impl Fn(ResourceType) -> bool) -> Value {
    let order = [ResourceType::Cluster, ResourceType::Endpoint, ResourceType::Listener, ResourceType::Route];
    let sections = order.into_iter().filter(|kind| is_wanted(*kind));
    json!({ "configs": sections.map(|kind| section(kind, snapshot)).collect::<Vec<_>>() })
}

fn section(kind: ResourceType, snapshot: &Snapshot) -> Value {
    let version = snapshot.epoch.to_string();
    let resources = snapshot.get(kind);
    match kind {
        ResourceType::Cluster => json!({
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "version_info": version,
            "dynamic_active_clusters": entries(resources, "cluster"),
        }),
        // As in Envoy's dump, an assignment is shown with the endpoints that came on their own.
        ResourceType::Endpoint | ResourceType::LbEndpoint => json!({
            "@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
            "dynamic_endpoint_configs": with_endpoints(entries(&snapshot.endpoints, "endpoint_config"), snapshot),
        }),
        ResourceType::Listener => {
            let listeners = sorted(resources).into_iter().map(|encoded| {
                json!({
                    "name": *encoded.name,
                    "active_state": { "version_info": encoded.version.to_string(), "listener": message(encoded) },
                })
            });
            json!({
                "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
                "version_info": version,
                "dynamic_listeners": listeners.collect::<Vec<_>>(),
            })
        }
        // Envoy's dump, too, shows a route configuration with the virtual hosts that came on their own.
        ResourceType::Route | ResourceType::VirtualHost => json!({
            "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
            "dynamic_route_configs": with_hosts(entries(resources, "route_config"), snapshot),
        }),
    }
}

fn with_hosts(mut routes: Vec<Value>, snapshot: &Snapshot) -> Vec<Value> {
    for (encoded, entry) in sorted(&snapshot.routes).into_iter().zip(&mut routes) {
        let Some(prefix) = &encoded.waits_for else { continue };
        let hosts = snapshot.virtual_hosts.with_prefix(prefix).map(|host| {
            let mut host = message(host);
            if let Value::Object(fields) = &mut host {
                fields.remove("@type");
            }
            host
        });
        if let Value::Array(all) = &mut entry["route_config"]["virtual_hosts"] {
            all.extend(hosts);
        }
    }
    routes
}

fn with_endpoints(mut assignments: Vec<Value>, snapshot: &Snapshot) -> Vec<Value> {
    for group in
        assignments.iter_mut().filter_map(|a| a["endpoint_config"]["endpoints"].as_array_mut()).flatten()
    {
        let name = &group["leds_cluster_locality_config"]["leds_collection_name"];
        let Some(prefix) = name.as_str().and_then(|name| name.strip_suffix('*')) else { continue };
        let endpoints = snapshot.lb_endpoints.with_prefix(prefix).map(|endpoint| {
            let mut endpoint = message(endpoint);
            if let Value::Object(fields) = &mut endpoint {
                fields.remove("@type");
            }
            endpoint
        });
        group["lb_endpoints"] = endpoints.collect();
    }
    assignments
}

fn entries(resources: &Resources, field: &str) -> Vec<Value> {
    let entry = |encoded: &Encoded| {
        let mut entry = serde_json::Map::new();
        entry.insert("version_info".to_owned(), encoded.version.to_string().into());
        entry.insert(field.to_owned(), message(encoded));
        Value::Object(entry)
    };
    sorted(resources).into_iter().map(entry).collect()
}

/// By name over all layers.
fn sorted(resources: &Resources) -> Vec<&Encoded> {
    let mut all: Vec<_> = resources.iter().map(AsRef::as_ref).collect();
    all.sort_by_key(|encoded| encoded.name.clone());
    all
}

/// The resource as JSON, with its type in `@type`. One that cannot be shown says why and hides nothing else.
fn message(encoded: &Encoded) -> Value {
    any_json(&encoded.any()).unwrap_or_else(|reason| {
        json!({ "@type": "type.googleapis.com/google.protobuf.Empty", "name": *encoded.name, "not_shown": reason })
    })
}

fn any_json(any: &[u8]) -> Result<Value, String> {
    let descriptor = POOL.get_message_by_name("google.protobuf.Any").ok_or("no descriptor of Any")?;
    let any = DynamicMessage::decode(descriptor, any).map_err(|e| e.to_string())?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    any.serialize_with_options(serde_json::value::Serializer, &options).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use landbridge_proto::envoy::config::{cluster::v3::Cluster, route::v3::RouteConfiguration};
    use prost::Message;

    use super::*;

    fn set(kind: ResourceType, items: &[(&str, Vec<u8>)]) -> Resources {
        let encoded = |(name, bytes): &(&str, Vec<u8>)| {
            let encoded = Encoded::new(Arc::from(*name), kind.type_url(), bytes, None, Arc::new([]));
            (Arc::from(*name), Arc::new(encoded))
        };
        Resources::new(vec![items.iter().map(encoded).collect()])
    }

    #[test]
    fn a_dump_is_envoys_own_message() {
        let cluster = |name: &str| Cluster { name: name.to_owned(), ..Default::default() }.encode_to_vec();
        let mut snapshot = Snapshot::empty();
        snapshot.epoch = 7;
        snapshot.clusters = set(ResourceType::Cluster, &[("b", cluster("b")), ("a", cluster("a"))]);
        let route = RouteConfiguration { name: "80".to_owned(), ..Default::default() };
        snapshot.routes = set(ResourceType::Route, &[("80", route.encode_to_vec())]);

        let dump = dump(&snapshot, |kind| kind != ResourceType::Endpoint);
        let clusters = &dump["configs"][0]["dynamic_active_clusters"];
        assert_eq!(clusters[0]["cluster"]["name"], "a");
        assert_eq!(clusters[1]["cluster"]["@type"], ResourceType::Cluster.type_url());

        // Whoever reads Envoy's dump can read ours: nothing in it is unknown to the message.
        let descriptor = POOL.get_message_by_name("envoy.admin.v3.ConfigDump").expect("part of the build");
        let read = DynamicMessage::deserialize(descriptor, &dump).expect("a ConfigDump");
        let configs = read.get_field_by_name("configs").expect("a field of ConfigDump");
        assert_eq!(configs.as_list().map(<[_]>::len), Some(3));
    }

    #[test]
    fn a_resource_that_cannot_be_read_hides_nothing_else() {
        let mut snapshot = Snapshot::empty();
        let good = Cluster { name: "good".to_owned(), ..Default::default() }.encode_to_vec();
        snapshot.clusters = set(ResourceType::Cluster, &[("bad", vec![0xff]), ("good", good)]);
        let dump = dump(&snapshot, |kind| kind == ResourceType::Cluster);
        let clusters = &dump["configs"][0]["dynamic_active_clusters"];
        assert_eq!(
            (&clusters[0]["cluster"]["name"], &clusters[1]["cluster"]["name"]),
            (&"bad".into(), &"good".into())
        );
        assert!(clusters[0]["cluster"]["not_shown"].is_string());
    }
}
