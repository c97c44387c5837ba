//! One probe: a TLS handshake with a workload behind a gateway.
//!
//! A gateway that forwards by SNI (AUTO_PASSTHROUGH) has no certificate of its own: whoever it forwards to answers the
//! handshake. So a probe asks for a service that has endpoints there, with the SNI and the ALPN of a sidecar's client
//! (Envoy closes the connection without a word for an SNI or a protocol that no filter chain has). It asks for ports
//! with HTTP only: a sidecar opens a connection to the application for each one to a TCP port, and some applications lock
//! out clients who say nothing.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::health::{Outcome, TIMEOUT};
use crate::ca::client_cert::MeshClient;

/// What sidecars offer to sidecars.
pub const ALPN: &[u8] = b"istio";

/// Probes a gateway, within [`TIMEOUT`]. Without an SNI it only has to take the connection.
pub async fn probe(client: &MeshClient, gateway: SocketAddr, sni: Option<&str>) -> (Outcome, Duration) {
    let begun = Instant::now();
    let mut connected = None;
    let outcome = timeout(TIMEOUT, async {
        let stream = match TcpStream::connect(gateway).await {
            Ok(stream) => stream,
            Err(error) => return Outcome::Silent(format!("no connection: {error}")),
        };
        connected = Some(begun.elapsed());
        let Some(sni) = sni else { return Outcome::Connected };
        match handshake(client, stream, sni).await {
            Ok(()) => Outcome::Through,
            Err(why) => Outcome::NoWay(why),
        }
    })
    .await
    .unwrap_or_else(|_| match connected {
        None => Outcome::Silent(format!("no connection within {TIMEOUT:?}")),
        Some(_) => Outcome::NoWay(format!("takes connections, but nobody answered within {TIMEOUT:?}")),
    });
    let took = match &outcome {
        // How long it waited afterwards says nothing.
        Outcome::NoWay(_) | Outcome::Connected => connected.unwrap_or_default(),
        Outcome::Through | Outcome::Silent(_) => begun.elapsed(),
    };
    (outcome, took)
}

async fn handshake(client: &MeshClient, stream: TcpStream, sni: &str) -> Result<(), String> {
    let name = ServerName::try_from(sni.to_owned()).map_err(|error| format!("{sni} is no SNI: {error}"))?;
    let config = client.config().map_err(|error| format!("no certificate to probe with: {error}"))?;
    match TlsConnector::from(config).connect(name, stream).await {
        Ok(_) => Ok(()),
        Err(error) if closed(&error) => Err(format!(
            "takes connections and closes them when {sni} is asked for: it does not lead there, or nobody is there"
        )),
        Err(error) => Err(format!("who answers for {sni} is no workload of this mesh: {error}")),
    }
}

fn closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

#[cfg(test)]
mod tests;
