//! One resource as bytes, and its version.

use std::{fmt, str::FromStr, sync::Arc};

use bytes::{Bytes, BytesMut};
use landbridge_proto::wire::{field_len, put_field, put_head};
use xxhash_rust::xxh3::xxh3_64;

use crate::model::ObjectKey;

/// What two resources of one name have in common if a client that has one need not get the other: a hash of the bytes,
/// or what [`Encoded::with_version`] was given. Equal over restarts and replicas. Sixteen hexadecimal digits on the wire, where
/// it is told ([`Encoded::part`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// That of an encoded message.
    pub fn of(message: &[u8]) -> Self {
        Self(xxh3_64(message))
    }

    /// The version of a resource's first or second spelling, which the lowest bit tells.
    #[must_use]
    pub fn spelt(self, second: bool) -> Self {
        Self(self.0 & !1 | u64::from(second))
    }

    /// Whether it is a second spelling's, if it is that of a resource with two.
    pub fn is_respelt(self) -> bool {
        self.0 & 1 == 1
    }
}

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
    /// The field `resources` of a Delta response. Its value is an `envoy.service.discovery.v3.Resource`, whose last field
    /// has the tag that `resources` has in a state-of-the-world response, and the value that it has there.
    bytes: Bytes,
    /// Where the `Resource`, its last field, and that field's `Any` begin.
    resource_at: usize,
    any_field_at: usize,
    any_at: usize,
    /// What Envoy waits for when it takes this, without asking for it.
    ///
    /// - For an EDS cluster: the load assignment. A cluster that is sent again owes it on the same stream (`envoy.md` 8:
    ///   Envoy re-warms it and, with Delta, does not ask).
    /// - For a route configuration whose virtual hosts are resources of their own, and an assignment whose endpoints are:
    ///   what their names begin with.
    pub waits_for: Option<Arc<str>>,
    /// The same in other words, with another version. Only for an assignment whose endpoints are resources of their own: a
    /// client that had it on another stream gets the spelling that it did not have (see [`Version::spelt`]).
    pub respelt: Option<Arc<Encoded>>,
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
        let version = Version::of(message);
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
        let told = version.to_string();
        Self { waits_for, ..Self::wrap(name, type_url, message, version, &told, sources) }
    }

    /// A part of another resource, asked for by collection. Its version is not told: Envoy has no use for it, because on a
    /// reconnect it says nothing of what it has of collections (`addResourceStateFromServer` is for names alone).
    pub fn part(name: Arc<str>, type_url: &str, message: &[u8], sources: Arc<[ObjectKey]>) -> Self {
        Self::wrap(name, type_url, message, Version::of(message), "", sources)
    }

    fn wrap(
        name: Arc<str>,
        type_url: &str,
        message: &[u8],
        version: Version,
        told: &str,
        sources: Arc<[ObjectKey]>,
    ) -> Self {
        let any_len = field_len(type_url.len()) + field_len(message.len());
        let told_len = if told.is_empty() { 0 } else { field_len(told.len()) };
        let resource_len = told_len + field_len(name.len()) + field_len(any_len);
        let mut bytes = BytesMut::with_capacity(field_len(resource_len));
        put_head(&mut bytes, RESOURCES, resource_len);
        let resource_at = bytes.len();
        if !told.is_empty() {
            put_field(&mut bytes, 1, told.as_bytes());
        }
        put_field(&mut bytes, 3, name.as_bytes());
        let any_field_at = bytes.len();
        put_head(&mut bytes, RESOURCES, any_len);
        let any_at = bytes.len();
        put_field(&mut bytes, 1, type_url.as_bytes());
        put_field(&mut bytes, 2, message);
        Self {
            name,
            version,
            bytes: bytes.freeze(),
            resource_at,
            any_field_at,
            any_at,
            waits_for: None,
            respelt: None,
            sources,
        }
    }

    /// A resource in two spellings, `[first, second]`, of which [`Self::respelt`] is the second.
    pub fn in_two_spellings(
        name: &Arc<str>,
        type_url: &str,
        messages: [&[u8]; 2],
        waits_for: Option<Arc<str>>,
        sources: Arc<[ObjectKey]>,
    ) -> Self {
        let version = Version::of(messages[0]);
        let [first, second] = [false, true].map(|second| {
            let (message, version) = (messages[usize::from(second)], version.spelt(second));
            Self::with_version(name.clone(), type_url, message, version, waits_for.clone(), sources.clone())
        });
        Self { respelt: Some(Arc::new(second)), ..first }
    }

    /// The encoded `Resource` of a Delta response.
    pub fn resource(&self) -> Bytes {
        self.bytes.slice(self.resource_at..)
    }

    /// The encoded `google.protobuf.Any` of a state-of-the-world response: a part of the same memory.
    pub fn any(&self) -> Bytes {
        self.bytes.slice(self.any_at..)
    }

    /// [`Self::resource`] as the field `resources`: a Delta response is made by appending fields.
    pub fn delta_field(&self) -> &[u8] {
        &self.bytes
    }

    /// [`Self::any`] as the field `resources`, for state-of-the-world responses.
    pub fn sotw_field(&self) -> &[u8] {
        &self.bytes[self.any_field_at..]
    }

    /// A part of this resource's memory as something that can be kept, without a copy.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }

    /// The bytes of [`Self::resource`].
    pub fn size(&self) -> usize {
        self.bytes.len() - self.resource_at
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

/// The tag of `resources` in both responses, and of `resource` in a `Resource`.
const RESOURCES: u32 = 2;

#[cfg(test)]
mod tests {
    use landbridge_proto::{
        envoy::{config::cluster::v3::Cluster, service::discovery::v3::Resource},
        landbridge::envelope::{DeltaDiscoveryResponse, DiscoveryResponse},
    };
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

        let delta = DeltaDiscoveryResponse::decode(encoded.delta_field()).expect("a response");
        assert_eq!(delta.resources, [encoded.resource()]);
        let sotw = DiscoveryResponse::decode(encoded.sotw_field()).expect("a response");
        assert_eq!(sotw.resources, [encoded.any()]);
        assert_eq!(encoded.share(encoded.sotw_field()), encoded.sotw_field());
        assert_eq!(encoded.size(), encoded.resource().len());
    }

    #[test]
    fn the_version_of_a_part_is_known_here_only() {
        let part = Encoded::part("p/1".into(), "t", b"x", Arc::new([]));
        let resource = Resource::decode(part.resource()).expect("a Resource");
        assert_eq!((resource.name.as_str(), resource.version.as_str()), ("p/1", ""));
        assert_eq!(part.version, Encoded::new("p/1".into(), "t", b"x", None, Arc::new([])).version);
        let any = prost_types::Any::decode(part.any()).expect("an Any");
        assert_eq!((any.type_url.as_str(), any.value.as_slice()), ("t", b"x".as_slice()));
    }
}
