//! Requests of Delta streams, read where they lie.
//!
//! A proxy that connects asks for a thousand names, most of which are known: a text of its own for each would cost more than all
//! that is done with them. And for each push it sends an acknowledgement, with which Envoy repeats its node, of some thousand
//! extensions, where `set_node_on_first_message_only` is not set.

use std::{collections::HashMap, str};

use landbridge_proto::envoy::config::core::v3::Node;
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use thiserror::Error;

/// What an `envoy.service.discovery.v3.DeltaDiscoveryRequest` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeltaRequest<'a> {
    /// Who asks ([`Self::node`]), encoded. Counts on a stream's first request only.
    pub node: Option<&'a [u8]>,
    /// The node's id; empty if it is not there.
    pub node_id: &'a str,
    /// The type that it is about.
    pub type_url: &'a str,
    /// Names that the client asks for.
    pub subscribe: Vec<&'a str>,
    /// Names that it does not ask for any more.
    pub unsubscribe: Vec<&'a str>,
    /// What it has from another stream: versions by names.
    pub known: HashMap<&'a str, &'a str>,
    /// The nonce of the response that it accepts or refuses.
    pub nonce: &'a str,
    /// Why it refuses that, if it does.
    pub refusal: Option<&'a str>,
}

/// Why a request cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// It is no such message.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// It ends within a field.
    #[error("it ends within a field")]
    Cut,
    /// Protobuf allows strings in UTF-8 only.
    #[error("the field {0} of a DeltaDiscoveryRequest is not in UTF-8")]
    Text(&'static str),
}

impl<'a> DeltaRequest<'a> {
    /// Reads it. As protobuf asks for, fields that are not known here are passed over.
    pub fn read(request: &'a [u8]) -> Result<Self, RequestError> {
        let mut read = Self::default();
        each_field(request, |tag, value| {
            match tag {
                1 => {
                    read.node = Some(value);
                    read.node_id = inner_text(value, 1, "node.id")?;
                }
                2 => read.type_url = text(value, "type_url")?,
                3 => read.subscribe.push(text(value, "resource_names_subscribe")?),
                4 => read.unsubscribe.push(text(value, "resource_names_unsubscribe")?),
                5 => {
                    let part = |tag| inner_text(value, tag, "initial_resource_versions");
                    read.known.insert(part(1)?, part(2)?);
                }
                6 => read.nonce = text(value, "response_nonce")?,
                7 => read.refusal = Some(inner_text(value, 2, "error_detail.message")?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(read)
    }

    /// Who asks, if it says so.
    pub fn node(&self) -> Result<Option<Node>, DecodeError> {
        self.node.map(Node::decode).transpose()
    }

    /// Whether it may change what the client wants.
    pub fn resubscribes(&self) -> bool {
        !(self.subscribe.is_empty() && self.unsubscribe.is_empty())
    }
}

fn text<'a>(value: &'a [u8], field: &'static str) -> Result<&'a str, RequestError> {
    str::from_utf8(value).map_err(|_| RequestError::Text(field))
}

/// The text with this tag in a message within the request; empty if there is none.
fn inner_text<'a>(message: &'a [u8], tag: u32, field: &'static str) -> Result<&'a str, RequestError> {
    let mut found = "";
    each_field(message, |other, value| {
        if other == tag {
            found = text(value, field)?;
        }
        Ok(())
    })?;
    Ok(found)
}

/// Calls `each` with the tag and the bytes of each field that has a length, as all fields have that are of interest here.
fn each_field<'a>(
    mut message: &'a [u8],
    mut each: impl FnMut(u32, &'a [u8]) -> Result<(), RequestError>,
) -> Result<(), RequestError> {
    while !message.is_empty() {
        let (tag, wire_type) = decode_key(&mut message)?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, tag, &mut message, DecodeContext::default())?;
            continue;
        }
        let length = usize::try_from(decode_varint(&mut message)?).map_err(|_| RequestError::Cut)?;
        let (value, rest) = message.split_at_checked(length).ok_or(RequestError::Cut)?;
        message = rest;
        each(tag, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use landbridge_proto::{
        envoy::{
            config::core::v3::Locality,
            service::discovery::v3::{DeltaDiscoveryRequest, ResourceLocator},
        },
        google::rpc::Status,
    };

    use super::*;

    fn everything() -> DeltaDiscoveryRequest {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let locality = Some(Locality { zone: "a".into(), ..Default::default() });
        let locator = ResourceLocator { name: "l".into(), ..Default::default() };
        DeltaDiscoveryRequest {
            node: Some(Node {
                id: "sidecar~".repeat(30),
                cluster: "shop".into(),
                locality,
                ..Default::default()
            }),
            type_url: "type".into(),
            resource_names_subscribe: names(&["a", "b", ""]),
            resource_names_unsubscribe: names(&["c"]),
            initial_resource_versions: BTreeMap::from(
                [("d", "1"), ("e", ""), ("", "2")].map(|(name, version)| (name.into(), version.into())),
            ),
            response_nonce: "12".into(),
            error_detail: Some(Status { code: 13, message: "bad".into(), ..Default::default() }),
            resource_locators_subscribe: vec![locator],
            ..Default::default()
        }
    }

    /// What protobuf's own reader says.
    fn decoded(request: &DeltaDiscoveryRequest) -> DeltaRequest<'_> {
        DeltaRequest {
            node: None,
            node_id: request.node.as_ref().map_or("", |node| &node.id),
            type_url: &request.type_url,
            subscribe: request.resource_names_subscribe.iter().map(String::as_str).collect(),
            unsubscribe: request.resource_names_unsubscribe.iter().map(String::as_str).collect(),
            known: request
                .initial_resource_versions
                .iter()
                .map(|(name, version)| (&**name, &**version))
                .collect(),
            nonce: &request.response_nonce,
            refusal: request.error_detail.as_ref().map(|status| status.message.as_str()),
        }
    }

    #[test]
    fn it_is_read_as_protobuf_reads_it() {
        let all = everything();
        let cases = [
            DeltaDiscoveryRequest::default(),
            DeltaDiscoveryRequest { node: None, ..all.clone() },
            DeltaDiscoveryRequest { error_detail: Some(Status::default()), ..all.clone() },
            DeltaDiscoveryRequest { response_nonce: "1".into(), ..Default::default() },
            all,
        ];
        for request in cases {
            let bytes = request.encode_to_vec();
            let read = DeltaRequest::read(&bytes).expect("a request");
            assert_eq!(read.node(), Ok(request.node.clone()));
            assert_eq!(DeltaRequest { node: None, ..read }, decoded(&request));
        }
    }

    #[test]
    fn what_is_not_in_utf8_is_told() {
        let request =
            DeltaDiscoveryRequest { resource_names_subscribe: vec!["name".into()], ..Default::default() };
        let mut bytes = request.encode_to_vec();
        *bytes.last_mut().expect("a name") = 0xff;
        let error = DeltaRequest::read(&bytes).expect_err("not a text");
        assert_eq!(
            error.to_string(),
            "the field resource_names_subscribe of a DeltaDiscoveryRequest is not in UTF-8"
        );
    }

    /// Whatever a stranger sends: what protobuf's own reader takes is read alike. It merges a message that is there twice, of
    /// which the last counts here; so no request has a node beside what a wrong tag can make one of.
    #[test]
    fn what_is_cut_or_has_other_bytes_is_refused_or_read_alike() {
        let (mut alike, mut refused) = (0, 0);
        let mut compare =
            |bytes: &[u8]| match (DeltaRequest::read(bytes), DeltaDiscoveryRequest::decode(bytes)) {
                (Ok(read), Ok(request)) => {
                    assert_eq!(DeltaRequest { node: None, ..read }, decoded(&request));
                    alike += 1;
                }
                // Within messages nobody looks for more than one text, and a field of another kind counts as unknown.
                (Ok(_), Err(_)) => {}
                (Err(_), decoded) => {
                    assert!(decoded.is_err(), "{decoded:?}");
                    refused += 1;
                }
            };
        let all = everything();
        let node = DeltaDiscoveryRequest { node: all.node.clone(), ..Default::default() };
        for bytes in
            [DeltaDiscoveryRequest { node: None, ..all }, node].map(|request| request.encode_to_vec())
        {
            (0..bytes.len()).for_each(|end| compare(&bytes[..end]));
            for at in 0..bytes.len() {
                for byte in 0..=u8::MAX {
                    let mut other = bytes.clone();
                    other[at] = byte;
                    compare(&other);
                }
            }
        }
        assert!(alike > 1_000 && refused > 1_000, "{alike} {refused}");
    }
}
