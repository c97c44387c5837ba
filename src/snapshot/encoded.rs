//! One resource as bytes, and its version.

use std::{fmt, str::FromStr, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use xxhash_rust::xxh3::xxh3_64;

use crate::model::ObjectKey;

/// What two resources of one name have in common if a client that has one need not get the other: a hash of the bytes,
/// or what [`Encoded::with_version`] was given. Equal over restarts and replicas. Sixteen hexadecimal digits on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Version {
    type Err = std::num::ParseIntError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(s, 16).map(Self)
    }
}

/// A resource, encoded once for all streams and both protocols.
pub struct Encoded {
    /// The resource's name.
    pub name: Arc<str>,
    /// Hash of its bytes, unless it was given.
    pub version: Version,
    /// An `envoy.service.discovery.v3.Resource`, whose `Any` stands at the end.
    bytes: Bytes,
    any_at: usize,
    /// For an EDS cluster: the load assignment that it waits for. A cluster that is sent again owes it on the same
    /// stream (`envoy.md` 8: Envoy re-warms it and, with Delta, does not ask).
    pub waits_for: Option<Arc<str>>,
    /// The objects that it was built from, for people who look at a rejected one.
    pub sources: Arc<[ObjectKey]>,
}

impl Encoded {
    /// Wraps the encoded message of type `type_url`.
    pub fn new(
        name: Arc<str>,
        type_url: &str,
        message: &[u8],
        waits_for: Option<Arc<str>>,
        sources: Arc<[ObjectKey]>,
    ) -> Self {
        let version = Version(xxh3_64(message));
        Self::with_version(name, type_url, message, version, waits_for, sources)
    }

    /// As [`Self::new`], for bytes that another server cannot make again but can stand in for, such as private keys.
    pub fn with_version(
        name: Arc<str>,
        type_url: &str,
        message: &[u8],
        version: Version,
        waits_for: Option<Arc<str>>,
        sources: Arc<[ObjectKey]>,
    ) -> Self {
        let version_text = version.to_string();
        let any_len = field_len(1, type_url.len()) + field_len(2, message.len());
        let mut bytes = BytesMut::with_capacity(
            field_len(1, version_text.len()) + field_len(3, name.len()) + field_len(2, any_len),
        );
        put_field(&mut bytes, 1, version_text.as_bytes());
        put_field(&mut bytes, 3, name.as_bytes());
        encode_key(2, WireType::LengthDelimited, &mut bytes);
        encode_varint(any_len as u64, &mut bytes);
        let any_at = bytes.len();
        put_field(&mut bytes, 1, type_url.as_bytes());
        put_field(&mut bytes, 2, message);
        Self { name, version, bytes: bytes.freeze(), any_at, waits_for, sources }
    }

    /// The encoded `Resource` of a Delta response.
    pub fn resource(&self) -> Bytes {
        self.bytes.clone()
    }

    /// The encoded `google.protobuf.Any` of a state-of-the-world response: a part of the same memory.
    pub fn any(&self) -> Bytes {
        self.bytes.slice(self.any_at..)
    }
}

impl PartialEq for Encoded {
    /// By name and version, which stands for the bytes.
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version && self.name == other.name
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

fn field_len(_tag: u32, len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

fn put_field(out: &mut BytesMut, tag: u32, value: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.put_slice(value);
}

#[cfg(test)]
mod tests {
    use landbridge_proto::envoy::{config::cluster::v3::Cluster, service::discovery::v3::Resource};
    use prost::Message;

    use super::*;

    #[test]
    fn both_protocols_read_the_same_memory() {
        let url = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
        let cluster = Cluster { name: "c".into(), alt_stat_name: "x".repeat(300), ..Default::default() };
        let encoded = Encoded::new("c".into(), url, &cluster.encode_to_vec(), None, Arc::new([]));

        let resource = Resource::decode(encoded.resource()).expect("a Resource");
        assert_eq!((resource.name.as_str(), resource.version), ("c", encoded.version.to_string()));
        let any = prost_types::Any::decode(encoded.any()).expect("an Any");
        assert_eq!(any.type_url, url);
        assert_eq!(Some(any.clone()), resource.resource);
        assert_eq!(Cluster::decode(any.value.as_slice()).expect("a Cluster"), cluster);
        assert_eq!(encoded.version.to_string().parse(), Ok(encoded.version));
    }
}
