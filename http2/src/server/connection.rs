//! Moves bytes between a socket and a connection's state.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Request;
use http_body::Body;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{
    Answer, Error, Incoming, Settings,
    core::Core,
    error::Violation,
    reader::Reader,
    ready::{End, Handle, Ready},
};
use crate::{
    alarm::Alarm,
    fetch,
    scratch::{self, SCRATCH_BYTES},
};

/// How often a connection looks for more to do before it lets others have their turn. A call that has used up its budget
/// wakes itself until then.
const TURNS: usize = 8;

/// A connection, and all calls on it. To be polled until it is done; dropped, it ends them.
pub struct Connection<IO, S, B> {
    io: IO,
    settings: Settings,
    reader: Reader,
    core: Core<S, B>,
    ready: Arc<Ready>,
    /// Calls to be polled.
    woken: Vec<u32>,
    /// What TLS has taken and may not have written.
    unflushed: bool,
    /// The client was told why, and the connection ends when it is written.
    failed: Option<Violation>,
    heard: Instant,
    /// The client was asked whether it is there, and has said nothing since; or it is told why the connection ends.
    asked: bool,
    alarm: Alarm,
    end: End,
    /// When it ends at the latest, once it was asked to.
    grace: Alarm,
}

impl<IO, S, B> Connection<IO, S, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Fn(Request<Incoming>) -> Answer<B> + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    /// A connection over `io`. Within a runtime of tokio with time.
    pub fn new(io: IO, settings: Settings, service: S) -> Self {
        Self::with_handle(io, settings, service, Handle::default())
    }

    /// The same, that somebody may ask to end.
    pub fn with_handle(io: IO, settings: Settings, service: S, handle: Handle) -> Self {
        let ready = handle.ready();
        Self {
            io,
            settings,
            reader: Reader::default(),
            core: Core::new(settings, service, ready.clone()),
            ready,
            woken: Vec::new(),
            unflushed: false,
            failed: None,
            heard: Instant::now(),
            asked: false,
            alarm: Alarm::new(Instant::now() + settings.keepalive_interval),
            end: End::Far,
            grace: Alarm::default(),
        }
    }

    /// One read. Ready: there may be more.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Read, Error>> {
        let Self { io, reader, core, failed, .. } = self;
        let read = ready!(scratch::poll_read(io, cx, |bytes| match bytes {
            [] => Read::End,
            _ if failed.is_some() => Read::Unheard,
            _ => Read::Heard(reader.read(bytes, |header, payload| core.frame(header, payload))),
        }))?;
        if let Read::Heard(outcome) = &read {
            (self.heard, self.asked) = (Instant::now(), false);
            if let Err(violation) = outcome {
                self.core.fail(*violation);
                self.failed = Some(*violation);
                // For so long it may take to be told.
                self.asked = true;
                self.alarm.set(self.heard + self.settings.keepalive_timeout);
            }
        }
        Poll::Ready(Ok(read))
    }

    /// Polls the calls that were woken or have room again.
    fn poll_calls(&mut self) {
        self.ready.take(&mut self.woken);
        self.core.send_queued(&mut self.woken);
        for stream in self.woken.drain(..) {
            self.core.poll_call(stream);
        }
    }

    /// Ready: everything is with the system.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.unflushed |= !self.core.out.is_empty();
        ready!(self.core.out.poll_write(&mut self.io, cx))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Looks whether the client is there.
    fn poll_alive(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        while self.alarm.poll(cx).is_ready() {
            if self.asked {
                return Poll::Ready(Error::Silent);
            }
            let mut next = self.heard + self.settings.keepalive_interval;
            if next <= Instant::now() {
                self.core.ping();
                self.asked = true;
                next = Instant::now() + self.settings.keepalive_timeout;
            }
            self.alarm.set(next);
        }
        Poll::Pending
    }

    /// Ready: somebody wants it to end now.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = self.ready.work();
        if end == End::Asked && self.end == End::Far {
            self.core.leave();
            self.grace.set(Instant::now() + self.settings.grace);
        }
        self.end = end;
        if end == End::Now { Poll::Ready(()) } else { self.grace.poll(cx) }
    }

    /// How it ends, if it ends now.
    fn outcome(&self) -> Result<(), Error> {
        self.failed.map_or(Ok(()), |violation| Err(violation.into()))
    }

    /// A client that lets answers to its pings pile up is not read before it reads.
    fn is_backlogged(&self) -> bool {
        self.core.out.len() > 2 * self.settings.output + SCRATCH_BYTES
    }
}

enum Read {
    /// These bytes were frames, or a violation.
    Heard(Result<(), Violation>),
    /// The connection has failed: whatever the client says.
    Unheard,
    End,
}

impl<IO, S, B> Future for Connection<IO, S, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Fn(Request<Incoming>) -> Answer<B> + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = &mut *self;
        fetch(this);
        this.core.fetch();
        if this.poll_end(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(gone) = this.poll_alive(cx) {
            return Poll::Ready(Err(gone));
        }
        for _ in 0..TURNS {
            let backlogged = this.is_backlogged();
            let read = if backlogged { Poll::Pending } else { this.poll_read(cx)? };
            if matches!(read, Poll::Ready(Read::End)) {
                return Poll::Ready(this.outcome());
            }
            this.poll_calls();
            let written = this.poll_write(cx)?;
            if written.is_ready() && this.core.is_over() {
                ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
                return Poll::Ready(this.outcome());
            }
            let again = read.is_ready()
                || (backlogged && !this.is_backlogged())
                || this.core.can_send()
                || (written.is_ready() && !this.core.out.is_empty());
            if !again && this.ready.rest(cx.waker(), this.end) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
