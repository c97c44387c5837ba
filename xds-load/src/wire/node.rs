//! `Node`: who a proxy says it is.

use std::collections::BTreeMap;

use super::Writer;

/// A value of the node's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// A string.
    Text(String),
    /// An object.
    Struct(BTreeMap<String, Metadata>),
}

impl From<&str> for Metadata {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `sidecar~IP~POD.NAMESPACE~DOMAIN`.
    pub id: String,
    /// The service that the proxy belongs to.
    pub cluster: String,
    /// What else a control plane is told.
    pub metadata: BTreeMap<String, Metadata>,
    /// Region, zone and sub-zone.
    pub locality: [String; 3],
}

impl Node {
    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut node = Writer::default();
        node.text(1, &self.id).text(2, &self.cluster);
        node.message(3, |metadata| fields(metadata, &self.metadata));
        if self.locality.iter().any(|part| !part.is_empty()) {
            node.message(4, |locality| {
                (1..).zip(&self.locality).for_each(|(field, part)| _ = locality.text(field, part));
            });
        }
        // A control plane may give newer Envoys more, such as virtual hosts one by one: this is the one that is imitated.
        node.text(6, "envoy").message(8, |build| {
            build.message(1, |version| _ = version.number(1, 1).number(2, 40));
        });
        node.0
    }
}

/// `google.protobuf.Struct`
fn fields(message: &mut Writer, fields: &BTreeMap<String, Metadata>) {
    for (key, value) in fields {
        message.message(1, |entry| {
            entry.text(1, key).message(2, |v| match value {
                Metadata::Text(text) => _ = v.item(3, text.as_bytes()),
                Metadata::Struct(inner) => _ = v.message(5, |m| self::fields(m, inner)),
            });
        });
    }
}
