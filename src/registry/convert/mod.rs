//! Kubernetes objects to model objects: one file per kind, each with a lean wire struct of the fields that are read.
//! Everything else in an object is passed over, as its API server has checked it or nobody reads it.

mod adopt;
mod check;
mod config_map;
mod connection_pool;
mod destination_rule;
mod endpoint_slice;
mod finding;
mod gateway;
mod label_selector;
mod load_balancer;
mod mcs;
mod mesh_config;
mod mesh_networks;
mod meta;
mod namespace;
mod node;
mod outlier_detection;
mod peer_authentication;
mod pod;
mod remote_secret;
mod service;
mod service_account;
mod strings;
#[cfg(test)]
mod tests;

pub mod watched;
mod wire;

use std::sync::Arc;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

pub use self::finding::{Finding, Invalid, Result, Warnings};
use self::strings::Strings;
use crate::model::{ClusterId, Kind, Object, ObjectKey, mcs::Api};

/// What a conversion needs to know beside the object.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Suffix of service names: `--domain`, Istio's default `cluster.local`.
    pub domain: Arc<str>,
    /// The namespace of ConfigMap `istio`.
    pub root_namespace: Arc<str>,
    /// `--failover-by-default`: outlier detection is there even where no rule asks for it.
    pub failover_by_default: bool,
    /// ServiceExports and ServiceImports of API servers are read.
    pub mcs: bool,
    /// Where these are.
    pub mcs_api: Api,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            failover_by_default: true,
            mcs: false,
            mcs_api: Api::default(),
        }
    }
}

/// What became of one Kubernetes object.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Apply the object, and say the warnings.
    Object(ObjectKey, Object, Warnings),
    /// Keep the last good version of the object, if its identity could be read; say why.
    Invalid(Option<ObjectKey>, Invalid),
    /// Pass over an object that means nothing here; say why, if there is something to say.
    Skipped(ObjectKey, Warnings),
    /// Pass over a kind that is not read (`apiVersion/kind`), and count it.
    NotRead(String),
    /// Convert each item: a `List`.
    Items(Vec<Value>),
}

/// Converts one document.
pub fn convert(cluster: &ClusterId, settings: &Settings, value: Value) -> Outcome {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if kind.is_empty() || api_version.is_empty() {
        let field = if kind.is_empty() { "kind" } else { "apiVersion" };
        return Outcome::Invalid(None, missing(field));
    }
    if kind == "List" || (kind.ends_with("List") && value.get("items").is_some_and(Value::is_array)) {
        return Outcome::Items(items(value, &api_version, &kind));
    }
    let kind = match recognise(&settings.mcs_api, &api_version, &kind) {
        Recognised::Read(kind) => kind,
        Recognised::Other => return Outcome::NotRead(format!("{api_version}/{kind}")),
        Recognised::Mistake(invalid) => return Outcome::Invalid(None, invalid),
    };
    let key = match identity(cluster, kind, &value) {
        Ok(key) => key,
        Err(invalid) => return Outcome::Invalid(None, invalid),
    };
    if kind == Kind::MeshConfig && (&*key.name != "istio" || key.namespace != settings.root_namespace) {
        return Outcome::NotRead(format!("{api_version}/ConfigMap"));
    }
    if kind == Kind::RemoteSecret && !remote_secret::is_remote_secret(&value) {
        return Outcome::NotRead(format!("{api_version}/Secret"));
    }
    let mut warnings = Warnings::new();
    match object(&key, settings, value, &mut warnings) {
        Ok(Some(object)) => Outcome::Object(key, object, warnings),
        Ok(None) => Outcome::Skipped(key, warnings),
        Err(invalid) => Outcome::Invalid(Some(key), invalid),
    }
}

/// `Ok(None)` passes over the object.
fn object(
    key: &ObjectKey,
    settings: &Settings,
    value: Value,
    warnings: &mut Warnings,
) -> Result<Option<Object>> {
    Ok(Some(match key.kind {
        Kind::Namespace => Object::Namespace(Arc::new(namespace::convert(key, typed(value)?))),
        Kind::Node => Object::Node(Arc::new(node::convert(key, typed(value)?)?)),
        Kind::ServiceAccount => {
            Object::ServiceAccount(Arc::new(service_account::convert(key, typed(value)?)))
        }
        Kind::Service => Object::Service(Arc::new(service::convert(key, typed(value)?, warnings)?)),
        Kind::Pod => Object::Pod(Arc::new(pod::convert(key, borrowed(&value)?, &mut Strings::default())?)),
        Kind::EndpointSlice => {
            let wire = borrowed(&value)?;
            match endpoint_slice::convert(key, wire, &mut Strings::default(), warnings)? {
                Some(slice) => Object::EndpointSlice(Arc::new(slice)),
                None => return Ok(None),
            }
        }
        Kind::MeshConfig => Object::MeshConfig(Arc::new(config_map::convert(typed(value)?, warnings)?)),
        Kind::Gateway => Object::Gateway(Arc::new(gateway::convert(key, typed(value)?, warnings)?)),
        Kind::DestinationRule => Object::DestinationRule(Arc::new(destination_rule::convert(
            key,
            typed(value)?,
            settings,
            warnings,
        )?)),
        Kind::PeerAuthentication => {
            Object::PeerAuthentication(Arc::new(peer_authentication::convert(key, typed(value)?, warnings)?))
        }
        Kind::ServiceExport => Object::ServiceExport(Arc::new(mcs::export(key, typed(value)?))),
        Kind::ServiceImport => Object::ServiceImport(Arc::new(mcs::import(key, typed(value)?)?)),
        Kind::RemoteSecret => {
            match remote_secret::convert(key, typed(value)?, &settings.root_namespace, warnings)? {
                Some(secret) => Object::RemoteSecret(Arc::new(secret)),
                None => return Ok(None),
            }
        }
    }))
}

enum Recognised {
    Read(Kind),
    Other,
    Mistake(Invalid),
}

/// The kinds that are read, by API group, with the versions of their one shape; without those of multi-cluster services.
const KINDS: &[(&str, &[&str], &str, Kind)] = &[
    ("", &["v1"], "Namespace", Kind::Namespace),
    ("", &["v1"], "Node", Kind::Node),
    ("", &["v1"], "ServiceAccount", Kind::ServiceAccount),
    ("", &["v1"], "Service", Kind::Service),
    ("", &["v1"], "Pod", Kind::Pod),
    ("", &["v1"], "ConfigMap", Kind::MeshConfig),
    ("", &["v1"], "Secret", Kind::RemoteSecret),
    ("discovery.k8s.io", &["v1"], "EndpointSlice", Kind::EndpointSlice),
    ("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], "Gateway", Kind::Gateway),
    ("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], "DestinationRule", Kind::DestinationRule),
    ("security.istio.io", &["v1", "v1beta1"], "PeerAuthentication", Kind::PeerAuthentication),
];

fn recognise(mcs: &Api, api_version: &str, kind: &str) -> Recognised {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let of_mcs = [&*mcs.version];
    let of_mcs = [
        (&*mcs.group, &of_mcs[..], "ServiceExport", Kind::ServiceExport),
        (&*mcs.group, &of_mcs[..], "ServiceImport", Kind::ServiceImport),
    ];
    let mut kinds = KINDS.iter().chain(&of_mcs);
    let known = kinds.find(|(g, _, k, _)| *g == group && k.eq_ignore_ascii_case(kind));
    let Some((_, versions, name, read)) = known else { return Recognised::Other };
    if *name != kind {
        let reason = format!("{kind:?} is spelled differently");
        return Recognised::Mistake(Invalid::new("kind", reason, format!("write {name}")));
    }
    if !versions.contains(&version) {
        let group = if group.is_empty() { String::new() } else { format!("{group}/") };
        let reason = format!("{name} has no version {version:?} here");
        return Recognised::Mistake(Invalid::new(
            "apiVersion",
            reason,
            format!("write {group}{}", versions[0]),
        ));
    }
    Recognised::Read(*read)
}

fn identity(cluster: &ClusterId, kind: Kind, value: &Value) -> Result<ObjectKey> {
    let field = |name: &str| value.get("metadata").and_then(|m| m.get(name)).and_then(Value::as_str);
    key(cluster, kind, field("namespace"), field("name"), &mut Strings::default())
}

/// An object's identity by what its metadata says.
fn key(
    cluster: &ClusterId,
    kind: Kind,
    namespace: Option<&str>,
    name: Option<&str>,
    strings: &mut Strings,
) -> Result<ObjectKey> {
    let name = name.ok_or_else(|| missing("metadata.name"))?;
    check::dns_name("metadata.name", name)?;
    let namespace = match kind {
        Kind::Namespace | Kind::Node => "",
        // kubectl puts an object without a namespace there.
        _ => namespace.unwrap_or("default"),
    };
    if !namespace.is_empty() {
        check::dns_name("metadata.namespace", namespace)?;
    }
    Ok(ObjectKey { cluster: cluster.clone(), kind, namespace: strings.get(namespace), name: name.into() })
}

/// The items of a list; those of a typed list (`ServiceList`) need not repeat what they are.
fn items(value: Value, api_version: &str, kind: &str) -> Vec<Value> {
    let Value::Object(mut list) = value else { return Vec::new() };
    let Some(Value::Array(mut items)) = list.remove("items") else { return Vec::new() };
    let item_kind = kind.strip_suffix("List").unwrap_or_default();
    if !item_kind.is_empty() {
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            item.entry("apiVersion").or_insert_with(|| api_version.into());
            item.entry("kind").or_insert_with(|| item_kind.into());
        }
    }
    items
}

fn missing(field: &str) -> Invalid {
    Invalid::new(field, "is missing", format!("add {field}, and check the indentation"))
}

/// Reads a wire struct; an error names the field.
fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(at_path)
}

/// The same for one that borrows.
fn borrowed<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(at_path)
}

fn at_path(error: serde_path_to_error::Error<serde_json::Error>) -> Invalid {
    let path = error.path().to_string();
    let field = if path == "." { String::new() } else { path };
    Invalid::new(field, error.into_inner().to_string(), "correct the field, and check the indentation")
}
