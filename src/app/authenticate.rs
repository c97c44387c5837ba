//! Authentication as the xDS server asks for it.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

use crate::{
    authn::{self, Authenticator},
    xds::{Authenticate, Peer},
};

/// By client certificate, by token, by the word of a trusted gateway.
pub struct ByCredentials(pub Arc<Authenticator>);

impl Authenticate for ByCredentials {
    fn authenticate<'a>(
        &'a self,
        headers: &'a http::HeaderMap,
        peer: &'a Peer,
    ) -> BoxFuture<'a, Result<authn::Peer, String>> {
        async move {
            let found = self.0.authenticate(&peer.certificate, Some(peer.address.ip()), headers).await;
            found.map_err(|error| error.to_string())
        }
        .boxed()
    }
}
