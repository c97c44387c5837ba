//! Who is on the other end.

use std::{net::SocketAddr, sync::Arc};

use futures::future::BoxFuture;
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use crate::model::{identity::Spiffe, node::Proxy};

/// The connection that a request came on. Every handler finds it in the request's extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address of the other end.
    pub address: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The client's certificate chain as presented, leaf first; empty without one.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// Cancelled when the connection shall end: streams on it say good-bye.
    pub closing: CancellationToken,
    /// Cuts the connection.
    pub abort: CancellationToken,
}

/// Finds out who a client is.
pub trait Authenticate: Send + Sync + 'static {
    /// The identity that the request's credentials prove, or why they prove none. The text goes to the client.
    fn authenticate<'a>(
        &'a self,
        headers: &'a http::HeaderMap,
        peer: &'a Peer,
    ) -> BoxFuture<'a, Result<Spiffe, String>>;
}

/// Who may connect to a port.
#[derive(Clone)]
pub enum Access {
    /// Everybody, as nobody: no secrets, and no say in what is quarantined.
    Anonymous,
    /// Who proves an identity.
    Authenticated(Arc<dyn Authenticate>),
}

/// Whether a workload with this identity may call itself so (istiod's rule: the namespace and service account that the
/// node names must be the identity's; the trust domain is not compared).
pub fn may_be(identity: &Spiffe, proxy: &Proxy) -> Result<(), String> {
    let claims = [
        ("namespace", Some(&*proxy.namespace), identity.namespace(), "NAMESPACE"),
        ("service account", proxy.service_account.as_deref(), identity.service_account(), "SERVICE_ACCOUNT"),
    ];
    for (what, claimed, proved, key) in claims {
        if let Some(claimed) = claimed.filter(|c| !c.is_empty() && *c != proved) {
            return Err(format!(
                "the node says {what} {claimed:?} and its credentials prove {identity}; correct the node metadata \
                 {key} or connect with the credentials of that workload"
            ));
        }
    }
    Ok(())
}
