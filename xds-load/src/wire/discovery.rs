//! The envelopes: requests that are written and responses that are read, of both protocols.

use super::{Fields, Malformed, Writer, read::text};

/// The methods.
pub const DELTA_METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
pub const SOTW_METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// INVALID_ARGUMENT: what Envoy says when it refuses a resource.
const REFUSED: u64 = 3;

/// A request of either protocol, but for what only one of them has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Common<'a> {
    /// An encoded node, in the first request of a stream.
    pub node: Option<&'a [u8]>,
    /// The type.
    pub type_url: &'a str,
    /// The response that this acknowledges or refuses.
    pub nonce: &'a str,
    /// Why it is refused.
    pub refused: Option<&'a str>,
}

/// `DiscoveryRequest`. `version` is that of the last response that was not refused.
pub fn sotw_request<'a>(common: Common<'_>, version: &str, names: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut request = Writer::default();
    request.text(1, version);
    common.node.inspect(|node| _ = request.item(2, node));
    names.for_each(|name| _ = request.item(3, name.as_bytes()));
    request.text(4, common.type_url).text(5, common.nonce);
    common.refused.inspect(|why| _ = request.message(6, |status| refusal(status, why)));
    request.0
}

/// `DeltaDiscoveryRequest`.
pub fn delta_request<'a>(
    common: Common<'_>,
    subscribe: impl Iterator<Item = &'a str>,
    unsubscribe: impl Iterator<Item = &'a str>,
    versions: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<u8> {
    let mut request = Writer::default();
    common.node.inspect(|node| _ = request.item(1, node));
    request.text(2, common.type_url);
    subscribe.for_each(|name| _ = request.item(3, name.as_bytes()));
    unsubscribe.for_each(|name| _ = request.item(4, name.as_bytes()));
    versions
        .for_each(|(name, version)| _ = request.message(5, |entry| _ = entry.text(1, name).text(2, version)));
    request.text(6, common.nonce);
    common.refused.inspect(|why| _ = request.message(7, |status| refusal(status, why)));
    request.0
}

fn refusal(status: &mut Writer, why: &str) {
    status.number(1, REFUSED).text(2, why);
}

/// A response of either protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response<'a> {
    /// `version_info` or `system_version_info`.
    pub version: &'a str,
    /// The type.
    pub type_url: &'a str,
    /// To be sent back.
    pub nonce: &'a str,
    /// What is there.
    pub resources: Vec<Resource<'a>>,
    /// What is gone (Delta).
    pub removed: Vec<&'a str>,
}

/// A resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its own version (Delta).
    pub version: &'a str,
    /// The message. `None`: it is known not to exist.
    pub body: Option<&'a [u8]>,
}

/// `DiscoveryResponse`.
pub fn sotw_response(message: &[u8]) -> Result<Response<'_>, Malformed> {
    let mut response = Response::default();
    Fields(message).each_bytes(|field, bytes| {
        match field {
            1 => response.version = text(bytes)?,
            2 => response.resources.push(sotw_resource(bytes)?),
            4 => response.type_url = text(bytes)?,
            5 => response.nonce = text(bytes)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(response)
}

/// `DeltaDiscoveryResponse`.
pub fn delta_response(message: &[u8]) -> Result<Response<'_>, Malformed> {
    let mut response = Response::default();
    Fields(message).each_bytes(|field, bytes| {
        match field {
            1 => response.version = text(bytes)?,
            2 => response.resources.push(wrapped(bytes)?),
            4 => response.type_url = text(bytes)?,
            5 => response.nonce = text(bytes)?,
            6 => response.removed.push(text(bytes)?),
            8 => response.removed.push(Fields(bytes).text(1)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(response)
}

/// An `Any`, which may hold a `Resource` around the message proper.
fn sotw_resource(any: &[u8]) -> Result<Resource<'_>, Malformed> {
    let (mut url, mut body) = ("", &b""[..]);
    Fields(any).each_bytes(|field, bytes| {
        match field {
            1 => url = text(bytes)?,
            2 => body = bytes,
            _ => {}
        }
        Ok(())
    })?;
    if url.ends_with("/envoy.service.discovery.v3.Resource") {
        return wrapped(body);
    }
    // All types that are served have their name as the first field.
    Ok(Resource { name: Fields(body).text(1)?, version: "", body: Some(body) })
}

/// A `Resource`.
fn wrapped(message: &[u8]) -> Result<Resource<'_>, Malformed> {
    let mut resource = Resource { name: "", version: "", body: None };
    Fields(message).each_bytes(|field, bytes| {
        match field {
            1 => resource.version = text(bytes)?,
            // An Any of nothing is a message of which all fields have their default.
            2 => resource.body = Some(Fields(bytes).bytes(2)?.unwrap_or_default()),
            3 => resource.name = text(bytes)?,
            8 if resource.name.is_empty() => resource.name = Fields(bytes).text(1)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(resource)
}
