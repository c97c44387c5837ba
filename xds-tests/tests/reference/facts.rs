//! Resources reduced to the facts that matter between control planes: names, ports, chains, filters, defaults.

use std::{collections::BTreeMap, sync::LazyLock};

use landbridge::snapshot::Encoded;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Value, json};

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(landbridge_proto::DESCRIPTORS).expect("our own descriptors"));

/// A resource with the field names of the .proto files, `Any` unpacked.
pub fn json(resource: &Encoded) -> Value {
    let any = prost_types::Any::decode(resource.any()).expect("an Any");
    let name = any.type_url.rsplit('/').next().expect("a name");
    let descriptor = POOL.get_message_by_name(name).expect("a known type");
    let message = DynamicMessage::decode(descriptor, any.value.as_slice()).expect("our own message");
    let options = SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).expect("JSON")
}

/// The facts of all resources of a type, by name.
pub fn all(kind: &str, resources: &BTreeMap<String, Value>) -> Value {
    let reduce = match kind {
        "cds" => cluster,
        "eds" => assignment,
        "lds" => listener,
        _ => routes,
    };
    Value::Object(resources.iter().map(|(name, value)| (name.clone(), reduce(value))).collect())
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// JSON writes 64-bit numbers as text.
fn number(value: &Value) -> Value {
    value.as_str().and_then(|text| text.parse::<i64>().ok()).map_or_else(|| value.clone(), Value::from)
}

fn names(value: &Value) -> Vec<Value> {
    list(value).iter().map(|item| item["name"].clone()).collect()
}

fn cluster(c: &Value) -> Value {
    let lb = &c["common_lb_config"];
    let matched = list(&c["transport_socket_matches"]);
    let socket = matched.first().map_or(&c["transport_socket"], |m| &m["transport_socket"]);
    let http =
        &c["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    json!({
        "type": c["type"], "lb_policy": c["lb_policy"], "alt_stat_name": c["alt_stat_name"],
        "connect_timeout": c["connect_timeout"], "circuit_breakers": c["circuit_breakers"],
        "outlier_detection": c["outlier_detection"],
        "panic_threshold": lb["healthy_panic_threshold"],
        "locality_weighted": !lb["locality_weighted_lb_config"].is_null(),
        "round_robin": c["round_robin_lb_config"],
        "eds": c["eds_cluster_config"]["service_name"], "filters": names(&c["filters"]),
        "sockets": names(&c["transport_socket_matches"]), "tls": tls(socket), "http": http,
        "bind": c["upstream_bind_config"]["source_address"]["address"],
        "cleanup_interval": c["cleanup_interval"], "metadata": c["metadata"]["filter_metadata"]["istio"],
    })
}

fn tls(socket: &Value) -> Value {
    let context = &socket["typed_config"];
    let common = &context["common_tls_context"];
    let combined = &common["combined_validation_context"];
    let default = &combined["default_validation_context"];
    // Ours are typed; the patterns must be the same.
    let typed = list(&default["match_typed_subject_alt_names"]);
    let sans: Vec<_> = match typed.is_empty() {
        true => list(&default["match_subject_alt_names"]),
        false => typed.iter().map(|m| m["matcher"].clone()).collect(),
    };
    if common.is_null() {
        return Value::Null;
    }
    json!({
        "sni": context["sni"], "alpn": common["alpn_protocols"], "sans": sans, "params": common["tls_params"],
        "certificate": common["tls_certificate_sds_secret_configs"],
        "root": combined["validation_context_sds_secret_config"],
        "client_certificate": context["require_client_certificate"],
    })
}

fn assignment(a: &Value) -> Value {
    let member = |m: &Value| {
        let socket = &m["endpoint"]["address"]["socket_address"];
        let metadata = &m["metadata"]["filter_metadata"];
        json!({
            "address": format!("{}:{}", socket["address"].as_str().unwrap_or_default(), socket["port_value"]),
            "weight": m["load_balancing_weight"], "health": m["health_status"],
            "tls": metadata["envoy.transport_socket_match"]["tlsMode"], "workload": metadata["istio"]["workload"],
        })
    };
    let group = |g: &Value| {
        let l = &g["locality"];
        let text = |part: &Value| part.as_str().unwrap_or_default().to_owned();
        json!({
            "locality": format!("{}/{}", text(&l["region"]), text(&l["zone"])),
            "priority": g["priority"].as_u64().unwrap_or(0), "weight": g["load_balancing_weight"],
            "members": list(&g["lb_endpoints"]).iter().map(member).collect::<Vec<_>>(),
        })
    };
    let mut groups: Vec<_> = list(&a["endpoints"]).iter().map(group).collect();
    groups.sort_by_key(|g| (g["priority"].as_u64(), g["locality"].to_string()));
    Value::Array(groups)
}

fn listener(l: &Value) -> Value {
    let chain = |c: &Value| {
        let filters = list(&c["filters"]);
        let last = filters.last().map(|f| f["typed_config"].clone()).unwrap_or_default();
        let hosts = &last["route_config"]["virtual_hosts"][0];
        let matches = &c["filter_chain_match"];
        json!({
            "name": c["name"], "match": if matches == &json!({}) { &Value::Null } else { matches },
            "filters": names(&c["filters"]),
            "http_filters": names(&last["http_filters"]), "cluster": last["cluster"],
            "routes": last["rds"]["route_config_name"], "stat_prefix": last["stat_prefix"],
            "inline": [last["route_config"]["name"], hosts["name"], hosts["routes"]],
            "forward_client_cert": last["forward_client_cert_details"],
            "server_name": last["server_name"], "tls": tls(&c["transport_socket"]),
        })
    };
    let default = &l["default_filter_chain"];
    let mut chains: Vec<_> = list(&l["filter_chains"]).iter().map(chain).collect();
    // Server names are exact and each is in one chain, so that the order of those chains means nothing.
    chains.sort_by_key(|c| c["match"]["server_names"][0].as_str().map(str::to_owned));
    json!({
        "address": l["address"]["socket_address"], "direction": l["traffic_direction"],
        "bind_to_port": l["bind_to_port"], "use_original_dst": l["use_original_dst"],
        "chains": chains,
        "default": if default.is_null() { Value::Null } else { chain(default) },
        "listener_filters": list(&l["listener_filters"]).iter()
            .map(|f| json!([f["name"], f["filter_disabled"]])).collect::<Vec<_>>(),
        "timeout": l["listener_filters_timeout"], "continue": l["continue_on_listener_filters_timeout"],
    })
}

fn routes(r: &Value) -> Value {
    let route = |r: &Value| {
        let action = &r["route"];
        let retry = &action["retry_policy"];
        json!({
            "name": r["name"], "match": r["match"], "cluster": action["cluster"], "timeout": action["timeout"],
            "operation": r["decorator"]["operation"], "retry_on": retry["retry_on"],
            "retries": retry["num_retries"], "predicates": names(&retry["retry_host_predicate"]),
            "attempts": number(&retry["host_selection_retry_max_attempts"]),
        })
    };
    let host = |h: &Value| {
        json!({
            "name": h["name"], "domains": h["domains"],
            "attempt_count": h["include_request_attempt_count"],
            "routes": list(&h["routes"]).iter().map(route).collect::<Vec<_>>(),
        })
    };
    json!({
        "hosts": list(&r["virtual_hosts"]).iter().map(host).collect::<Vec<_>>(),
        "ignore_port": r["ignore_port_in_host_matching"], "validate_clusters": r["validate_clusters"],
        "max_direct_response": r["max_direct_response_body_size_bytes"],
    })
}
