//! Who may read the debug pages.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{ConnectInfo, Request},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};

/// Lets callers from this machine (a `kubectl port-forward` arrives as one, and `istioctl` depends on that) through to
/// the pages; everybody else is refused, because the pages show the whole mesh.
pub async fn only_loopback(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    match peer {
        Some(peer) if is_loopback(peer) => next.run(request).await,
        _ => {
            let from = peer.map_or_else(|| "an unknown address".to_owned(), |peer| peer.to_string());
            (
                StatusCode::FORBIDDEN,
                format!(
                    "The debug pages answer callers from this machine only, and this request came from {from}.\n\
                     Use `kubectl port-forward`, or call 127.0.0.1 on the machine itself. Callers that prove who \
                     they are with a service-account token (header `Authorization: Bearer`) are not admitted yet.\n\
                     /metrics, /ready and /version are open to everybody.\n"
                ),
            )
                .into_response()
        }
    }
}

/// Dual-stack sockets show IPv4 callers as IPv6.
fn is_loopback(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}
