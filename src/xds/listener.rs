//! Accepts connections, with or without TLS, and ends them in an orderly way.

use std::{
    fmt::Display,
    future::Future,
    io,
    net::SocketAddr,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures::FutureExt;
use lean_http2::server::Incoming;
use rand::Rng;
use rustls::{ServerConfig, server::Acceptor};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{Interval, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    auth::Peer,
    connections::{Connections, Open},
    overload::Overload,
};
use crate::{authn::PeerCertificate, grpc::Router};

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
    /// For how long a client may read nothing while something waits for it.
    pub send_timeout: Duration,
    /// How often connections are asked to go elsewhere while there are too many streams.
    pub shed_interval: Duration,
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
            send_timeout: Duration::from_secs(60),
            shed_interval: Duration::from_secs(10),
            max_streams: 100_000,
        }
    }
}

/// Serves `router` on `listener` until `shutdown`; then stops accepting, sends GOAWAY, and returns when all
/// connections ended or the grace is over. Each connection is a task of its own.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    settings: ConnectionSettings,
    overload: Arc<Overload>,
    shutdown: CancellationToken,
) {
    let tls = tls.map(with_alpn);
    let connections = Arc::new(Connections::default());
    let tasks = TaskTracker::new();
    // All connections are looked at each time.
    let shortest = settings.max_age.into_iter().fold(settings.send_timeout, Duration::min);
    let mut look = ticks((shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(15)));
    let mut shed = ticks(settings.shed_interval);
    let mut keys = 0..;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            _ = look.tick() => {
                connections.close_old(Instant::now());
                let cut = connections.cut_stalled(settings.send_timeout);
                if cut > 0 {
                    let seconds = settings.send_timeout.as_secs();
                    warn!(connections = cut, seconds, "cut connections whose clients read nothing for so long");
                }
                continue;
            }
            _ = shed.tick() => {
                let count = connections.shed(overload.shed(connections.len()));
                if count > 0 {
                    overload.was_shed(count);
                    info!(connections = count, "too many streams: asked some to connect elsewhere");
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match (accepted, keys.next()) {
            (Ok((socket, address)), Some(key)) => {
                let (router, overload, open) =
                    (router.clone(), overload.clone(), connections.open(key, age(settings.max_age)));
                let accepted = Accepted { address, settings, router, overload, open };
                // Frames are small and somebody waits for each.
                let _ = socket.set_nodelay(true);
                match tls.clone() {
                    None => tasks.spawn(accepted.serve(socket, None)),
                    Some(tls) => tasks.spawn(accepted.accept(socket, tls, tasks.clone())),
                };
            }
            // Out of file descriptors, or the client was gone before we looked: neither is a reason to stop.
            (Err(error), _) => {
                warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
            }
            (_, None) => {}
        }
    }
    drop(listener);
    connections.close();
    tasks.close();
    if timeout(settings.grace, tasks.wait()).await.is_err() {
        warn!(connections = connections.len(), "connections did not end in time and are cut");
        connections.abort();
        tasks.wait().await;
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
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

struct Accepted {
    address: SocketAddr,
    settings: ConnectionSettings,
    router: Router,
    overload: Arc<Overload>,
    open: Open,
}

impl Accepted {
    /// Served by another task, which is smaller and lives long.
    async fn accept(self, socket: TcpStream, tls: Arc<ServerConfig>, tasks: TaskTracker) {
        match self.handshake(socket, tls).await {
            Ok(Some((stream, certificate))) => drop(tasks.spawn(self.serve(stream, Some(certificate)))),
            Ok(None) => {}
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &dyn Display) {
        debug!(peer = %self.address, %error, "a connection ended with an error");
    }

    /// None: the server ends.
    async fn handshake(&self, socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Option<Secured>> {
        let handshake = timeout(self.settings.handshake, self.secure(socket, config));
        let stream = tokio::select! {
            () = self.open.connection.handle.leaving() => return Ok(None),
            stream = handshake => stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??,
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = PeerCertificate::new(certificates.unwrap_or_default());
        Ok(Some((stream, certificate)))
    }

    /// What takes long waits for its turn; what the client takes long for does not.
    async fn secure(
        &self,
        socket: TcpStream,
        config: Arc<ServerConfig>,
    ) -> io::Result<Box<TlsStream<TcpStream>>> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
        let turn = self.overload.handshake().await;
        let mut accept = hello.into_stream(config);
        let answered = futures::poll!(&mut accept);
        drop(turn);
        let done = match answered {
            Poll::Ready(done) => done,
            Poll::Pending => accept.await,
        };
        // Moved around, it would make each future on its way larger by itself.
        done.map(Box::new)
    }

    /// `certificate`: the client's, or that it has none; on an encrypted connection.
    fn serve(
        self,
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        certificate: Option<PeerCertificate>,
    ) -> impl Future<Output = ()> + Send {
        let peer = Peer {
            address: self.address,
            tls: certificate.is_some(),
            certificate: certificate.unwrap_or_default(),
            connection: self.open.connection.clone(),
        };
        let (router, settings, handle) =
            (self.router.clone(), self.settings, self.open.connection.handle.clone());
        let service = move |mut request: http::Request<Incoming>| {
            // For services beside xDS, which do not know this module.
            request.extensions_mut().insert(peer.certificate.clone());
            request.extensions_mut().insert(peer.address);
            request.extensions_mut().insert(peer.clone());
            router.call(request)
        };
        let http2 = lean_http2::server::Settings {
            streams: settings.max_streams,
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            output: SEND_BUFFER,
            keepalive_interval: settings.keepalive_interval,
            keepalive_timeout: settings.keepalive_timeout,
            grace: settings.grace,
        };
        let connection = lean_http2::server::Connection::with_handle(io, http2, service, handle);
        connection.map(move |done| done.unwrap_or_else(|error| self.failed(&error)))
    }
}

/// What is kept of a stream for a client that does not read: this, and at most one chunk more. Most of it is shared.
const SEND_BUFFER: usize = 64 * 1024;
/// What a client may send before we have read it, on a stream and in all. A proxy's largest request, the names of a
/// thousand clusters, is half of this.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;

/// An encrypted connection, and the client's certificates.
type Secured = (Box<TlsStream<TcpStream>>, PeerCertificate);

/// When a connection that begins now has to end.
fn age(max: Option<Duration>) -> Option<Instant> {
    max.map(|max| Instant::now() + max.mul_f64(rand::rng().random_range(0.9..1.1)))
}
