//! Who is on the other end.

use std::{net::SocketAddr, sync::Arc};

use futures::future::BoxFuture;

use super::connections::Connection;
pub use crate::authn::Peer as Proven;
use crate::authn::PeerCertificate;

/// The connection that a request came on. Every handler finds it in the request's extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address of the other end.
    pub address: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The client's certificate, if it has shown one.
    pub certificate: PeerCertificate,
    /// How it is told to end.
    pub connection: Arc<Connection>,
}

/// Finds out who a client is.
pub trait Authenticate: Send + Sync + 'static {
    /// What the request's credentials prove, or why they prove nothing. The text goes to the client.
    fn authenticate<'a>(
        &'a self,
        headers: &'a http::HeaderMap,
        peer: &'a Peer,
    ) -> BoxFuture<'a, Result<Proven, String>>;
}

/// Who may connect to a port.
#[derive(Clone)]
pub enum Access {
    /// Everybody, as nobody: no secrets, and no say in what is quarantined.
    Anonymous,
    /// Who proves an identity.
    Authenticated(Arc<dyn Authenticate>),
}
