//! Accepts connections, with or without TLS, and ends them in an orderly way.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rand::Rng;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tower::Service;
use tracing::{debug, warn};

use super::auth::Peer;
use crate::authn::PeerCertificates;

/// How connections are treated.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionSettings {
    /// After about this time (10 % more or less) a connection is ended with GOAWAY, so that proxies spread over the
    /// replicas again. None: never.
    pub max_age: Option<Duration>,
    /// How long a connection has for its end, by age or at shutdown.
    pub grace: Duration,
    /// How long a client has for its TLS handshake.
    pub handshake: Duration,
    /// After this time without a byte a ping is sent.
    pub keepalive_interval: Duration,
    /// For how long its answer is waited for.
    pub keepalive_timeout: Duration,
    /// Streams at once on one connection.
    pub max_streams: u32,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            max_age: None,
            grace: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_streams: 100_000,
        }
    }
}

/// Serves `routes` on `listener` until `shutdown`; then stops accepting, sends GOAWAY, and returns when all
/// connections ended or the grace is over. Each connection is a task of its own.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    routes: Routes,
    settings: ConnectionSettings,
    shutdown: CancellationToken,
) {
    let tls = tls.map(|config| TlsAcceptor::from(with_alpn(config)));
    let routes = routes.prepare();
    let (connections, abort) = (TaskTracker::new(), CancellationToken::new());
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, address)) => {
                let connection = Connection {
                    address,
                    settings,
                    routes: routes.clone(),
                    closing: shutdown.child_token(),
                    abort: abort.child_token(),
                };
                connections.spawn(connection.accept(socket, tls.clone()));
            }
            // Out of file descriptors, or the client was gone before we looked: neither is a reason to stop.
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if timeout(settings.grace, connections.wait()).await.is_err() {
        warn!(connections = connections.len(), "connections did not end in time and are cut");
        abort.cancel();
        connections.wait().await;
    }
}

/// gRPC clients other than Envoy insist on ALPN.
fn with_alpn(config: Arc<ServerConfig>) -> Arc<ServerConfig> {
    if !config.alpn_protocols.is_empty() {
        return config;
    }
    let mut config = (*config).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

struct Connection {
    address: SocketAddr,
    settings: ConnectionSettings,
    routes: Routes,
    closing: CancellationToken,
    abort: CancellationToken,
}

impl Connection {
    async fn accept(self, socket: TcpStream, tls: Option<TlsAcceptor>) {
        let address = self.address;
        // Frames are small and somebody waits for each.
        let _ = socket.set_nodelay(true);
        let result = match tls {
            None => self.serve(socket, None).await,
            Some(acceptor) => self.handshake(socket, acceptor).await,
        };
        if let Err(error) = result {
            debug!(peer = %address, %error, "a connection ended with an error");
        }
    }

    async fn handshake(self, socket: TcpStream, acceptor: TlsAcceptor) -> io::Result<()> {
        let handshake = timeout(self.settings.handshake, acceptor.accept(socket));
        let stream = tokio::select! {
            () = self.closing.cancelled() => return Ok(()),
            stream = handshake => stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??,
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let chain = certificates.unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
        self.serve(stream, Some(chain)).await
    }

    /// `chain`: the client's certificates, on an encrypted connection.
    async fn serve(
        self,
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        chain: Option<Vec<rustls_pki_types::CertificateDer<'static>>>,
    ) -> io::Result<()> {
        let Self { address, settings, routes, closing, abort } = self;
        let peer = Peer {
            address,
            tls: chain.is_some(),
            certificates: chain.unwrap_or_default().into(),
            closing: closing.clone(),
            abort: abort.clone(),
        };
        let certificates = PeerCertificates(peer.certificates.clone());
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            // For services beside xDS, which do not know this module.
            request.extensions_mut().insert(certificates.clone());
            routes.clone().call(request)
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(settings.keepalive_interval)
            .keep_alive_timeout(settings.keepalive_timeout)
            .max_concurrent_streams(settings.max_streams)
            .serve_connection(TokioIo::new(io), service);
        let mut connection = pin!(connection);
        let mut end = age(settings.max_age).map(|age| Instant::now() + age);
        let mut ending = false;
        loop {
            tokio::select! {
                biased;
                done = connection.as_mut() => return done.map_err(io::Error::other),
                () = abort.cancelled() => return Ok(()),
                () = closing.cancelled(), if !ending => {
                    ending = true;
                    end = Some(Instant::now() + settings.grace);
                    connection.as_mut().graceful_shutdown();
                }
                () = until(end) => {
                    if ending {
                        return Ok(());
                    }
                    closing.cancel();
                }
            }
        }
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

fn age(max: Option<Duration>) -> Option<Duration> {
    max.map(|max| max.mul_f64(rand::rng().random_range(0.9..1.1)))
}
