//! What a resource makes a proxy ask for: the names that it needs of other types.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{Fields, Malformed, Value, read::text};
use crate::expect::Type;

const HTTP_CONNECTION_MANAGER: &str =
    "/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// What a proxy needs next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Names of other types, each once.
    pub names: Vec<(Type, String)>,
    /// A route configuration whose virtual hosts come one by one.
    pub virtual_hosts: bool,
    /// Where an assignment's collections come from, as a hash of all that it says about that. Envoy takes a collection with
    /// another source for another one, of which it has nothing.
    pub source: Option<u64>,
}

impl Links {
    fn need(&mut self, kind: Type, name: &str) {
        if !name.is_empty() && !self.names.iter().any(|(k, n)| *k == kind && n == name) {
            self.names.push((kind, name.to_owned()));
        }
    }
}

/// The links of a resource that was sent as this type.
pub fn links(kind: Type, body: &[u8]) -> Result<Links, Malformed> {
    let mut links = Links::default();
    match kind {
        Type::Cluster => cluster(body, &mut links)?,
        Type::Listener => listener(body, &mut links)?,
        Type::Endpoint => assignment(body, &mut links)?,
        Type::Route => links.virtual_hosts = Fields(body).bytes(9)?.is_some(),
        Type::VirtualHost | Type::LbEndpoint | Type::Secret => {}
    }
    Ok(links)
}

/// `Cluster`: `eds_cluster_config.service_name`, or its own name, if its type is EDS; secrets of its transport sockets.
fn cluster(body: &[u8], links: &mut Links) -> Result<(), Malformed> {
    const EDS: u64 = 3;
    let (mut kind, mut name, mut service) = (0, "", "");
    for field in Fields(body) {
        match field? {
            (1, Value::Bytes(bytes)) => name = text(bytes)?,
            (2, Value::Varint(value)) => kind = value,
            (3, Value::Bytes(bytes)) => service = Fields(bytes).text(2)?,
            (24, Value::Bytes(bytes)) => transport_socket(bytes, links)?,
            (43, Value::Bytes(bytes)) => {
                if let Some(socket) = Fields(bytes).bytes(3)? {
                    transport_socket(socket, links)?;
                }
            }
            _ => {}
        }
    }
    if kind == EDS {
        links.need(Type::Endpoint, if service.is_empty() { name } else { service });
    }
    Ok(())
}

/// `Listener`: the routes and secrets of its filter chains.
fn listener(body: &[u8], links: &mut Links) -> Result<(), Malformed> {
    Fields(body).each_bytes(|field, chain| {
        if !matches!(field, 3 | 25) {
            return Ok(());
        }
        Fields(chain).each_bytes(|field, bytes| match field {
            3 => filter(bytes, links),
            6 => transport_socket(bytes, links),
            _ => Ok(()),
        })
    })
}

/// `Filter`: the name of a connection manager's route configuration.
fn filter(body: &[u8], links: &mut Links) -> Result<(), Malformed> {
    let Some(any) = Fields(body).bytes(4)? else { return Ok(()) };
    if !Fields(any).text(1)?.ends_with(HTTP_CONNECTION_MANAGER) {
        return Ok(());
    }
    let manager = Fields(any).bytes(2)?.unwrap_or_default();
    if let Some(rds) = Fields(manager).bytes(3)? {
        links.need(Type::Route, Fields(rds).text(2)?);
    }
    Ok(())
}

/// `ClusterLoadAssignment`: the collections of its localities.
fn assignment(body: &[u8], links: &mut Links) -> Result<(), Malformed> {
    let mut sources = BTreeSet::new();
    for field in Fields(body) {
        if let (2, Value::Bytes(locality)) = field?
            && let Some(config) = Fields(locality).bytes(8)?
        {
            links.need(Type::LbEndpoint, Fields(config).text(2)?);
            sources.insert(Fields(config).bytes(1)?.unwrap_or_default());
        }
    }
    links.source =
        (!sources.is_empty()).then(|| sources.into_iter().fold(0, |seed, s| xxh3_64_with_seed(s, seed)));
    Ok(())
}

/// What an assignment says, but for where its collections come from: proxies may be told the same in several ways.
pub fn meaning(body: &[u8]) -> Result<u64, Malformed> {
    let mut said = String::new();
    for field in Fields(body) {
        match field? {
            (2, Value::Bytes(locality)) => {
                for field in Fields(locality) {
                    match field? {
                        (8, Value::Bytes(config)) => said.push_str(Fields(config).text(2)?),
                        other => said.push_str(&format!("{other:?}")),
                    }
                }
            }
            other => said.push_str(&format!("{other:?}")),
        }
    }
    Ok(xxh3_64(said.as_bytes()))
}

/// `TransportSocket` with a TLS context: the secrets that it takes from ADS. Others come from an agent or a file.
fn transport_socket(body: &[u8], links: &mut Links) -> Result<(), Malformed> {
    let Some(any) = Fields(body).bytes(3)? else { return Ok(()) };
    if !Fields(any).text(1)?.ends_with("TlsContext") {
        return Ok(());
    }
    let context = Fields(any).bytes(2)?.unwrap_or_default();
    let Some(common) = Fields(context).bytes(1)? else { return Ok(()) };
    Fields(common).each_bytes(|field, bytes| {
        match field {
            6 | 7 => secret(bytes, links)?,
            8 => {
                if let Some(config) = Fields(bytes).bytes(2)? {
                    secret(config, links)?;
                }
            }
            _ => {}
        }
        Ok(())
    })
}

/// `SdsSecretConfig`.
fn secret(config: &[u8], links: &mut Links) -> Result<(), Malformed> {
    const ADS: u64 = 3;
    let source = Fields(config).bytes(2)?.unwrap_or_default();
    if Fields(source).bytes(ADS)?.is_some() {
        links.need(Type::Secret, Fields(config).text(1)?);
    }
    Ok(())
}
