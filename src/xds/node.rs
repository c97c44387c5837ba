//! Reads a node message: who connects, and what it can do.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use landbridge_proto::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use thiserror::Error;

use crate::{
    model::{
        locality::Locality,
        name::{ClusterId, Labels, NetworkId},
        node::{Extensions, Interception, Proxy, ProxyKind, SecretSource, VirtualHosts},
    },
    text::shorten,
};

/// The largest node message: Envoy lists over a thousand extensions in it (about 100 kB).
const MAX_NODE_BYTES: usize = 1 << 20;
/// The longest id, name or address list.
const MAX_TEXT_BYTES: usize = 4096;
/// How many addresses, labels or networks one proxy may have.
const MAX_ITEMS: usize = 1024;

/// The first Envoy that takes virtual hosts over ADS; those before refuse the route configuration.
const FIRST_WITH_VHDS: (u32, u32) = (1, 38);
/// The first Envoy that survives a changed assignment whose endpoints are resources of their own (envoy#43667).
const FIRST_WITH_LEDS: (u32, u32) = (1, 38);

/// Why a node is refused. The text goes to the proxy, which logs it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NodeError {
    /// Nobody.
    #[error("the first request has no node with an id; send `node.id` as TYPE~IP~POD.NAMESPACE~DOMAIN")]
    Missing,
    /// Not four parts, and not a plain id.
    #[error(
        "the node id {0:?} has {1} parts between `~`; send TYPE~IP~POD.NAMESPACE~DOMAIN, or an id without `~`"
    )]
    Parts(String, usize),
    /// A kind that is not served.
    #[error("the node id begins with {0:?}; proxies of type `sidecar` and `router` are served here")]
    Kind(String),
    /// Nowhere.
    #[error(
        "no IP address for node {0:?}: put it into the second part of the id or, as a comma-separated list, into the \
         metadata INSTANCE_IPS"
    )]
    Address(String),
    /// From no namespace.
    #[error("no namespace for node {0:?}: send the metadata NAMESPACE")]
    Namespace(String),
    /// A value without meaning.
    #[error("the metadata {key} of the node is {value:?}; {expected}")]
    Metadata {
        /// Its key.
        key: &'static str,
        /// Its value, shortened.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// More than anybody needs.
    #[error("{what} of the node is too large: {size}, the limit is {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large it is.
        size: usize,
        /// How large it may be.
        limit: usize,
    },
}

/// The proxy that a node message describes.
pub fn proxy(node: Option<&Node>) -> Result<Proxy, NodeError> {
    let node = node.filter(|n| !n.id.is_empty()).ok_or(NodeError::Missing)?;
    bound("the message", node.encoded_len(), MAX_NODE_BYTES)?;
    bound("the id", node.id.len(), MAX_TEXT_BYTES)?;
    let metadata = Metadata(node.metadata.as_ref());
    let id = Id::parse(&node.id)?;

    let namespace = metadata
        .text("NAMESPACE")?
        .or_else(|| id.namespace())
        .ok_or_else(|| NodeError::Namespace(shorten(&node.id)))?;
    let labels = metadata.labels("LABELS")?;
    Ok(Proxy {
        id: id.proxy.into(),
        node_id: node.id.as_str().into(),
        kind: id.kind,
        ips: addresses(&metadata, &id).ok_or_else(|| NodeError::Address(shorten(&node.id)))?,
        name: match metadata.text("NAME")? {
            Some(name) => name,
            None => id.proxy.strip_suffix(&format!(".{namespace}")).unwrap_or(id.proxy).into(),
        },
        service_account: metadata.text("SERVICE_ACCOUNT")?,
        cluster: ClusterId(metadata.text("CLUSTER_ID")?.unwrap_or_default()),
        network: NetworkId(metadata.text("NETWORK")?.unwrap_or_default()),
        locality: locality(node, &labels),
        labels,
        node: metadata.text("NODE_NAME")?,
        requested_networks: networks(&metadata)?,
        interception: interception(&metadata)?,
        extensions: extensions(node),
        secrets: if metadata.has("ISTIO_VERSION") && metadata.has("PROXY_CONFIG") {
            SecretSource::Agent
        } else {
            SecretSource::Ads
        },
        virtual_hosts: VirtualHosts::default(),
        one_by_one_above: None,
        dns_domain: match id.domain {
            "" => format!("{namespace}.svc.cluster.local").into(),
            domain => domain.into(),
        },
        istio_version: metadata.text("ISTIO_VERSION")?,
        user_agent: user_agent(node),
        namespace,
    })
}

/// How a proxy on a Delta stream takes virtual hosts: as its metadata ENABLE_VHDS says; else, where that is the default
/// (`offered`), one by one if its version can take them over the same stream.
pub fn virtual_hosts(node: Option<&Node>, offered: bool) -> Result<VirtualHosts, NodeError> {
    let one_by_one = one_by_one(node, "ENABLE_VHDS", offered, FIRST_WITH_VHDS)?;
    Ok(if one_by_one { VirtualHosts::OneByOne } else { VirtualHosts::Together })
}

/// Whether a proxy on a Delta stream takes endpoints one by one: as its metadata ENABLE_LEDS says; else, where that is the
/// default (`offered`), if its version does.
pub fn endpoints_one_by_one(node: Option<&Node>, offered: bool) -> Result<bool, NodeError> {
    one_by_one(node, "ENABLE_LEDS", offered, FIRST_WITH_LEDS)
}

fn one_by_one(
    node: Option<&Node>,
    key: &'static str,
    offered: bool,
    first: (u32, u32),
) -> Result<bool, NodeError> {
    let metadata = Metadata(node.and_then(|n| n.metadata.as_ref()));
    match metadata.text(key)?.as_deref() {
        None => Ok(offered && node.and_then(envoy_version).is_some_and(|version| version >= first)),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => {
            let expected = "send true or false";
            Err(NodeError::Metadata { key, value: shorten(other), expected })
        }
    }
}

/// Major and minor version of an Envoy.
fn envoy_version(node: &Node) -> Option<(u32, u32)> {
    match node.user_agent_version_type.as_ref()? {
        UserAgentVersionType::UserAgentBuildVersion(build) if node.user_agent_name == "envoy" => {
            build.version.as_ref().map(|v| (v.major_number, v.minor_number))
        }
        _ => None,
    }
}

struct Id<'a> {
    kind: ProxyKind,
    ip: &'a str,
    proxy: &'a str,
    domain: &'a str,
}

impl<'a> Id<'a> {
    fn parse(id: &'a str) -> Result<Self, NodeError> {
        let parts: Vec<&str> = id.split('~').collect();
        match *parts.as_slice() {
            // A plain Envoy: its metadata has to say the rest.
            [name] => Ok(Self { kind: ProxyKind::Sidecar, ip: "", proxy: name, domain: "" }),
            [kind, ip, proxy, domain] => {
                let kind = match kind {
                    "sidecar" => ProxyKind::Sidecar,
                    "router" => ProxyKind::Router,
                    other => return Err(NodeError::Kind(shorten(other))),
                };
                Ok(Self { kind, ip, proxy, domain })
            }
            _ => Err(NodeError::Parts(shorten(id), parts.len())),
        }
    }

    /// As istiod: the first label of the DNS domain; else what follows the pod's name.
    fn namespace(&self) -> Option<Arc<str>> {
        let of_domain = self.domain.split_once('.').map(|(first, _)| first);
        let of_proxy = self.proxy.rsplit_once('.').map(|(_, last)| last);
        of_domain.filter(|n| !n.is_empty()).or(of_proxy).filter(|n| !n.is_empty()).map(Into::into)
    }
}

/// INSTANCE_IPS if all of them are addresses, else the one in the id.
fn addresses(metadata: &Metadata<'_>, id: &Id<'_>) -> Option<Vec<IpAddr>> {
    let listed = metadata.text("INSTANCE_IPS").ok().flatten().and_then(|list| {
        let ips: Result<Vec<IpAddr>, _> =
            list.split(',').map(str::trim).filter(|ip| !ip.is_empty()).map(str::parse).collect();
        ips.ok().filter(|ips| !ips.is_empty() && ips.len() <= MAX_ITEMS)
    });
    listed.or_else(|| id.ip.parse().ok().map(|ip| vec![ip]))
}

/// The locality label of a workload (dots for slashes, as label values have none) is stronger than the node's.
fn locality(node: &Node, labels: &Labels) -> Locality {
    let labelled = ["topology.istio.io/locality", "istio-locality"]
        .iter()
        .filter_map(|key| labels.get(*key))
        .find(|value| !value.is_empty());
    if let Some(Ok(locality)) = labelled.map(|value| value.replace('.', "/").parse()) {
        return locality;
    }
    node.locality.as_ref().map(|l| Locality::new(&l.region, &l.zone, &l.sub_zone)).unwrap_or_default()
}

fn networks(metadata: &Metadata<'_>) -> Result<Option<BTreeSet<NetworkId>>, NodeError> {
    let Some(list) = metadata.text("REQUESTED_NETWORK_VIEW")? else { return Ok(None) };
    let networks: BTreeSet<NetworkId> = list.split(',').map(|n| NetworkId::from(n.trim())).collect();
    bound("REQUESTED_NETWORK_VIEW", networks.len(), MAX_ITEMS)?;
    Ok(Some(networks))
}

fn interception(metadata: &Metadata<'_>) -> Result<Interception, NodeError> {
    match metadata.text("INTERCEPTION_MODE")?.as_deref() {
        None | Some("REDIRECT") => Ok(Interception::Redirect),
        Some("TPROXY") => Ok(Interception::Tproxy),
        Some("NONE") => Ok(Interception::None),
        Some(other) => Err(NodeError::Metadata {
            key: "INTERCEPTION_MODE",
            value: shorten(other),
            expected: "send REDIRECT, TPROXY or NONE",
        }),
    }
}

fn extensions(node: &Node) -> Extensions {
    let has = |name: &str| node.extensions.iter().any(|e| e.name == name && !e.disabled);
    Extensions {
        alpn: has("istio.alpn"),
        metadata_exchange: has("istio.metadata_exchange") && has("envoy.filters.http.peer_metadata"),
        stats: has("istio.stats"),
    }
}

fn user_agent(node: &Node) -> Option<Arc<str>> {
    let version = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(text)) => text.clone(),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => match &build.version {
            Some(v) => format!("{}.{}.{}", v.major_number, v.minor_number, v.patch),
            None => String::new(),
        },
        None => String::new(),
    };
    let text = format!("{} {version}", node.user_agent_name);
    Some(shorten(text.trim())).filter(|t| !t.is_empty()).map(Into::into)
}

/// Node metadata: strings, where Istio's agent also writes numbers and booleans.
struct Metadata<'a>(Option<&'a Struct>);

impl<'a> Metadata<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0?.fields.get(key)
    }

    fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// None if it is missing or empty.
    fn text(&self, key: &'static str) -> Result<Option<Arc<str>>, NodeError> {
        match self.get(key).and_then(|v| v.kind.as_ref()) {
            None | Some(Kind::NullValue(_)) => Ok(None),
            Some(kind) => {
                let text = scalar(kind).ok_or(NodeError::Metadata {
                    key,
                    value: "an object or a list".to_owned(),
                    expected: "send a string",
                })?;
                bound(key, text.len(), MAX_TEXT_BYTES)?;
                Ok(Some(text).filter(|t| !t.is_empty()).map(Into::into))
            }
        }
    }

    fn labels(&self, key: &'static str) -> Result<Labels, NodeError> {
        match self.get(key).and_then(|v| v.kind.as_ref()) {
            None | Some(Kind::NullValue(_)) => Ok(Labels::new()),
            Some(Kind::StructValue(Struct { fields })) => {
                bound(key, fields.len(), MAX_ITEMS)?;
                let pairs = fields.iter().filter_map(|(name, value)| {
                    Some((name.as_str().into(), scalar(value.kind.as_ref()?)?.into()))
                });
                Ok(pairs.collect())
            }
            Some(other) => Err(NodeError::Metadata {
                key,
                value: scalar(other).map_or_else(|| "a list".to_owned(), |t| shorten(&t)),
                expected: "send an object of strings",
            }),
        }
    }
}

fn scalar(kind: &Kind) -> Option<String> {
    match kind {
        Kind::StringValue(text) => Some(text.clone()),
        Kind::NumberValue(number) => Some(number.to_string()),
        Kind::BoolValue(flag) => Some(flag.to_string()),
        Kind::NullValue(_) => Some(String::new()),
        Kind::StructValue(_) | Kind::ListValue(_) => None,
    }
}

fn bound(what: &'static str, size: usize, limit: usize) -> Result<(), NodeError> {
    if size > limit { Err(NodeError::TooLarge { what, size, limit }) } else { Ok(()) }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
