//! Small makers of messages that many resources share.

use std::{net::IpAddr, time::Duration};

use landbridge_proto::{
    envoy::config::core::v3::{
        Address, AggregatedConfigSource, ApiVersion, ConfigSource, Metadata, SocketAddress, address,
        config_source, socket_address,
    },
    wire::{field_len, put_field},
};
use prost::Message;
use prost_types::{Any, ListValue, Struct, Value, value::Kind};

use super::name;

/// Packs a message; `type_name` is its full name.
pub fn any(type_name: &str, message: &impl Message) -> Any {
    Any { type_url: ["type.googleapis.com/", type_name].concat(), value: message.encode_to_vec() }
}

/// Encodes a message with further ones, encoded already, in its repeated field of this number, before its own there.
pub fn with_messages<'a>(
    message: &impl Message,
    number: u32,
    further: impl Iterator<Item = &'a [u8]> + Clone,
) -> Vec<u8> {
    let len: usize = further.clone().map(|bytes| field_len(bytes.len())).sum();
    let mut out = Vec::with_capacity(len + message.encoded_len());
    further.for_each(|bytes| put_field(&mut out, number, bytes));
    out.extend(message.encode_to_vec());
    out
}

/// A duration; more than Envoy's ten thousand years is not expressible and is cut.
pub fn duration(d: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX).min(315_576_000_000),
        nanos: d.subsec_nanos() as i32,
    }
}

/// Whole seconds.
pub fn seconds(s: i64) -> prost_types::Duration {
    prost_types::Duration { seconds: s, nanos: 0 }
}

/// "No limit" or "at once": an explicit zero.
pub fn zero() -> prost_types::Duration {
    seconds(0)
}

/// A TCP address and port.
pub fn address(ip: &str, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: ip.to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}

/// A TCP address and port.
pub fn ip_address(ip: IpAddr, port: u16) -> Address {
    address(&name::ip(ip), port)
}

/// "Over the stream that this came by." Waiting has no limit: a control plane that is slow must not make a proxy serve
/// with holes.
pub fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        initial_fetch_timeout: Some(zero()),
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..Default::default()
    }
}

/// A JSON-like object.
pub fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect() }
}

/// A JSON-like string.
pub fn string(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

/// A JSON-like nested object.
pub fn nested(fields: Struct) -> Value {
    Value { kind: Some(Kind::StructValue(fields)) }
}

/// A JSON-like boolean.
pub fn boolean(b: bool) -> Value {
    Value { kind: Some(Kind::BoolValue(b)) }
}

/// A JSON-like list.
pub fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values })) }
}

/// Metadata by filter name.
pub fn metadata<'a>(filters: impl IntoIterator<Item = (&'a str, Struct)>) -> Metadata {
    Metadata {
        filter_metadata: filters.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        ..Default::default()
    }
}

/// Configuration of one of Istio's own filters, whose messages Envoy does not know.
pub fn typed_struct(type_url: &str, value: Struct) -> Any {
    let message = landbridge_proto::udpa::r#type::v1::TypedStruct {
        type_url: format!("type.googleapis.com/{type_url}"),
        value: Some(value),
    };
    any("udpa.type.v1.TypedStruct", &message)
}
