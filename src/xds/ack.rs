//! Acknowledgements, read where they lie.
//!
//! For each push a proxy sends one. It says nothing but which response it accepts, and to decode it like other requests takes
//! three times as long as to do what it says; where Envoy repeats its node with each (it does without
//! `set_node_on_first_message_only`), ten times.

use std::str;

use prost::decode_length_delimiter;

/// A Delta request that only accepts a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The node's id, if it is there. The rest of the node counts on a stream's first request only.
    pub node_id: &'a str,
    /// The type of the response.
    pub type_url: &'a str,
    /// The nonce of the response.
    pub nonce: &'a str,
}

/// The fields that it may have, in `envoy.service.discovery.v3.DeltaDiscoveryRequest`.
const NODE: u8 = 1;
const TYPE_URL: u8 = 2;
const NONCE: u8 = 6;
/// In `envoy.config.core.v3.Node`.
const ID: u8 = 1;

impl<'a> Ack<'a> {
    /// None: it says more than that, or cannot be read; decoding it tells.
    pub fn read(request: &'a [u8]) -> Option<Self> {
        let mut ack = Self { node_id: "", type_url: "", nonce: "" };
        each_field(request, |tag, value| {
            match tag {
                NODE => each_field(value, |tag, value| {
                    if tag == ID {
                        ack.node_id = str::from_utf8(value).ok()?;
                    }
                    Some(())
                })?,
                TYPE_URL => ack.type_url = str::from_utf8(value).ok()?,
                NONCE => ack.nonce = str::from_utf8(value).ok()?,
                _ => return None,
            }
            Some(())
        })?;
        (!ack.nonce.is_empty()).then_some(ack)
    }
}

/// None: it is no message of such fields as have a length and a tag below 16, or `each` says so.
fn each_field<'a>(mut message: &'a [u8], mut each: impl FnMut(u8, &'a [u8]) -> Option<()>) -> Option<()> {
    while let Some((key, rest)) = message.split_first() {
        message = rest;
        let length = decode_length_delimiter(&mut message).ok()?;
        let (value, rest) = message.split_at_checked(length)?;
        message = rest;
        // A key is the tag and three bits for the kind of value.
        match (key >> 3, key & 7) {
            (tag @ 1..16, 2) => each(tag, value)?,
            _ => return None,
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use landbridge_proto::envoy::{
        config::core::v3::{Locality, Node},
        service::discovery::v3::DeltaDiscoveryRequest as Request,
    };
    use prost::Message;

    use super::*;

    fn ack() -> Request {
        Request { type_url: "type".into(), response_nonce: "12".into(), ..Default::default() }
    }

    fn node() -> Node {
        let locality = Some(Locality { zone: "a".into(), ..Default::default() });
        Node { id: "sidecar~".repeat(30), cluster: "shop".into(), locality, ..Default::default() }
    }

    #[test]
    fn what_only_accepts_is_read() {
        let bytes = ack().encode_to_vec();
        assert_eq!(Ack::read(&bytes), Some(Ack { node_id: "", type_url: "type", nonce: "12" }));
        let with_node = Request { node: Some(node()), ..ack() }.encode_to_vec();
        let read = Ack::read(&with_node).expect("an acknowledgement with its node");
        assert_eq!((read.node_id, read.type_url, read.nonce), (node().id.as_str(), "type", "12"));
    }

    #[test]
    fn what_says_more_is_left_to_be_decoded() {
        let one = || vec!["a".to_owned()];
        let cases = [
            Request { response_nonce: String::new(), ..ack() },
            Request { resource_names_subscribe: one(), ..ack() },
            Request { resource_names_unsubscribe: one(), ..ack() },
            Request { initial_resource_versions: BTreeMap::from([("a".into(), "1".into())]), ..ack() },
            Request { error_detail: Some(Default::default()), ..ack() },
        ];
        for request in cases {
            assert_eq!(Ack::read(&request.encode_to_vec()), None, "{request:?}");
        }
    }

    #[test]
    fn what_is_cut_or_has_other_bytes_is_none_or_is_decoded_the_same() {
        let bytes = Request { node: Some(node()), ..ack() }.encode_to_vec();
        let agree = |bytes: &[u8]| {
            let Some(read) = Ack::read(bytes) else { return };
            // In the node nobody looks for more than the id.
            if let Ok(decoded) = Request::decode(bytes) {
                let id = decoded.node.as_ref().map_or("", |node| &node.id);
                let said = (id, decoded.type_url.as_str(), decoded.response_nonce.as_str());
                assert_eq!(said, (read.node_id, read.type_url, read.nonce));
                assert!(decoded.error_detail.is_none() && decoded.resource_names_subscribe.is_empty());
            }
        };
        (0..bytes.len()).for_each(|end| agree(&bytes[..end]));
        for at in 0..bytes.len() {
            for byte in 0..=u8::MAX {
                let mut other = bytes.clone();
                other[at] = byte;
                agree(&other);
            }
        }
    }
}
