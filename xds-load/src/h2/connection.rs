//! Moves bytes between a socket and a session.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use lean_http2::scratch;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::{Error, Event, Status, StreamId, session::Session, tls::Tls};

/// For how long a connection, with its handshake, may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);
/// An output buffer that is larger than this is not kept.
const KEPT_BYTES: usize = 512;

/// Where to connect to, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server's address.
    pub address: SocketAddr,
    /// The `:authority` of requests, such as `istiod.istio-system.svc:15012`.
    pub authority: Arc<str>,
    /// Connect from this address. One address has about 28,000 ports; all of 127.0.0.0/8 is at hand on loopback.
    pub source: Option<IpAddr>,
    /// With TLS, if given.
    pub tls: Option<Tls>,
}

/// A connection and the calls on it.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    session: Session,
    authority: Arc<str>,
    /// What TLS has taken and may not have written.
    unflushed: bool,
    received: u64,
    sent: u64,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Connects, and says hello with the first call.
    pub async fn connect(target: &Target) -> Result<Self, Error> {
        let to = target.address;
        let io = timeout(PATIENCE, Io::connect(target))
            .await
            .map_err(|_| Error::Slow { to, seconds: PATIENCE.as_secs() })??;
        Ok(Self {
            io,
            session: Session::new(),
            authority: Arc::clone(&target.authority),
            unflushed: false,
            received: 0,
            sent: 0,
        })
    }

    /// Begins a call of the method `path` (`/package.Service/Method`). Nothing is written before [`Self::next`].
    pub fn open(&mut self, path: &str, metadata: &[(String, String)]) -> Result<StreamId, Error> {
        let secure = matches!(self.io, Io::Tls(_));
        self.session.open(secure, &self.authority, path, metadata)
    }

    /// Queues a message. Nothing is written before [`Self::next`]. If the stream has ended it is dropped.
    pub fn send(&mut self, stream: StreamId, message: &[u8]) {
        self.session.send(stream, message);
    }

    /// Says that no more messages come from here.
    pub fn finish(&mut self, stream: StreamId) {
        self.session.finish(stream);
    }

    /// Ends a call at once. No event of it comes any more, but for those that have already come.
    pub fn cancel(&mut self, stream: StreamId) {
        self.session.cancel(stream);
    }

    /// What happened next, on any stream. Writes what waits to be written. May be dropped and asked again: nothing is lost.
    pub async fn next(&mut self) -> Result<(StreamId, Event), Error> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// A unary call, with nothing else under way on this connection.
    pub async fn call(
        &mut self,
        path: &str,
        metadata: &[(String, String)],
        message: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let call = self.open(path, metadata)?;
        self.send(call, message);
        self.finish(call);
        let mut answer = None;
        loop {
            match self.next().await? {
                (id, Event::Message(message)) if id == call => answer = Some(message),
                (id, Event::Closed(status)) if id == call => {
                    return match answer {
                        Some(message) if status.code == 0 => Ok(message),
                        None if status.code == 0 => {
                            Err(Error::Status(Status::unknown("success, but without a message")))
                        }
                        _ => Err(Error::Status(status)),
                    };
                }
                _ => {}
            }
        }
    }

    /// Bytes read from the socket, without TLS's own.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes written to the socket, without TLS's own.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<(StreamId, Event), Error>> {
        loop {
            if let Some(event) = self.session.next_event() {
                return Poll::Ready(Ok(event));
            }
            self.write(cx)?;
            ready!(self.poll_read(cx))?;
        }
    }

    /// Writes what the socket takes.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let out = &mut self.session.out;
        let mut written = 0;
        while written < out.len() {
            match Pin::new(&mut self.io).poll_write(cx, &out[written..]) {
                Poll::Ready(Ok(0)) => return Err(Error::Closed),
                Poll::Ready(Ok(bytes)) => (written, self.unflushed) = (written + bytes, true),
                Poll::Ready(Err(error)) => return Err(Error::Io(error)),
                Poll::Pending => break,
            }
        }
        self.sent += written as u64;
        if written == out.len() && out.capacity() > KEPT_BYTES {
            *out = Vec::new();
        } else {
            out.drain(..written);
        }
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(flushed) => (flushed?, self.unflushed = false).0,
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self { io, session, received, .. } = self;
        let taken = ready!(scratch::poll_read(io, cx, |bytes| {
            *received += bytes.len() as u64;
            if bytes.is_empty() { Err(Error::Closed) } else { session.receive(bytes) }
        }))?;
        Poll::Ready(taken)
    }
}

impl Io {
    async fn connect(target: &Target) -> Result<Self, Error> {
        let to = target.address;
        let failed = |error| Error::Connect { to, error };
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
        if let Some(source) = target.source {
            socket.bind(SocketAddr::new(source, 0)).map_err(failed)?;
        }
        let stream = socket.connect(to).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        match &target.tls {
            None => Ok(Self::Plain(stream)),
            Some(tls) => match tls.connect(stream).await {
                Ok(stream) => Ok(Self::Tls(Box::new(stream))),
                Err(error) => Err(Error::Tls { to, error }),
            },
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
