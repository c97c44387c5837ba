//! The requests of a subscription, in either protocol.

use super::{
    held::Subscription,
    proxy::Protocol,
    world::{NameId, World},
};
use crate::wire::{
    self,
    discovery::{self, Common, Response},
};

/// What a subscription has more and less than before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names<'a> {
    pub gained: &'a [NameId],
    pub lost: &'a [NameId],
}

/// A request that is no acknowledgement: the first one on a stream has all names, further ones in Delta only what is new.
pub fn request(
    subscription: &mut Subscription,
    protocol: Protocol,
    node: Option<&[u8]>,
    names: Names<'_>,
    world: &World,
) -> Vec<u8> {
    let type_url = wire::type_url(subscription.kind);
    let text = |name: &NameId| &*world.of_name(*name).text;
    let common = Common { node, type_url, nonce: "", refused: None };
    let request = match protocol {
        Protocol::Sotw => {
            // With the last nonce, as Envoy has it: to the server it looks like an acknowledgement with other names.
            let common = Common { nonce: subscription.nonce(), ..common };
            discovery::sotw_request(common, subscription.version(), subscription.names(world))
        }
        Protocol::Delta if subscription.begun => {
            let (gained, lost) = (names.gained.iter().map(text), names.lost.iter().map(text));
            discovery::delta_request(common, gained, lost, [].into_iter())
        }
        Protocol::Delta => {
            let versions = subscription.versions(world);
            discovery::delta_request(common, subscription.names(world), [].into_iter(), versions)
        }
    };
    subscription.begun = true;
    request
}

/// Acknowledges a response, or says why it is refused.
pub fn acknowledgement(
    subscription: &mut Subscription,
    protocol: Protocol,
    response: &Response<'_>,
    refused: Option<&str>,
    world: &World,
) -> Vec<u8> {
    let common = Common { node: None, type_url: response.type_url, nonce: response.nonce, refused };
    match protocol {
        Protocol::Delta => discovery::delta_request(common, [].into_iter(), [].into_iter(), [].into_iter()),
        Protocol::Sotw => {
            subscription.note(response, refused.is_none());
            discovery::sotw_request(common, subscription.version(), subscription.names(world))
        }
    }
}
