//! The state of a connection: frames and woken calls in, frames out.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use http::Request;
use http_body::Body;

use super::{
    Incoming, Settings,
    call::{Answer, Call, RequestHalf, Stage},
    error::{Violation, code, flow_control, frame_size, protocol},
    incoming::Inbox,
    output::Output,
    patience::Patience,
    reader::Blocks,
    ready::Ready,
    request::Head,
    say,
};
use crate::{
    fetch,
    frame::{self, DEFAULT_FRAME_BYTES, DEFAULT_WINDOW, Header, MAX_WINDOW, flag, kind, setting},
    hpack,
};

/// What says whether the client is there.
const ALIVE: [u8; 8] = *b"alive? \0";
/// What says that the client knows of our GOAWAY.
const LEAVING: [u8; 8] = *b"leaving\0";

/// What a connection is, but for its socket.
pub struct Core<S, B> {
    pub(super) settings: Settings,
    service: S,
    ready: Arc<Ready>,
    hpack: hpack::Decoder,
    blocks: Blocks,
    /// By the stream's id.
    pub(super) calls: Vec<(u32, Box<Call<B>>)>,
    /// The largest id of a stream that the client has opened.
    last: u32,
    /// Streams that were ended early.
    pub(super) ended_early: VecDeque<u32>,
    /// Calls with something to send that wait for the socket or the connection's window.
    pub(super) queue: VecDeque<u32>,
    /// What waits for the socket.
    pub(super) out: Output,
    /// What the client will take, on all streams.
    pub(super) window: i64,
    /// What it may send.
    pub(super) receive_window: u32,
    /// Read, and not given back to the window.
    pub(super) owed: u32,
    peer_window: u32,
    pub(super) peer_frame: u32,
    /// The next header block has to say that the table is empty.
    pub(super) empty_table: bool,
    leaving: Leaving,
    patience: Patience,
}

/// How far the end of the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// The client was asked to open no more streams, and may not have heard of it.
    Asked,
    /// No more streams are opened.
    Last,
}

impl<S, B> Core<S, B>
where
    S: Fn(Request<Incoming>) -> Answer<B>,
    B: Body<Data = Bytes> + Unpin,
{
    /// A connection that has its hello to say.
    pub fn new(settings: Settings, service: S, ready: Arc<Ready>) -> Self {
        let mut out = Output::default();
        out.write(|own| say::hello(own, &settings));
        Self {
            settings,
            service,
            ready,
            hpack: hpack::Decoder::default(),
            blocks: Blocks::default(),
            calls: Vec::with_capacity(1),
            last: 0,
            ended_early: VecDeque::new(),
            queue: VecDeque::new(),
            out,
            window: i64::from(DEFAULT_WINDOW),
            receive_window: settings.connection_window,
            owed: 0,
            peer_window: DEFAULT_WINDOW,
            peer_frame: DEFAULT_FRAME_BYTES,
            empty_table: false,
            leaving: Leaving::No,
            patience: Patience::new(),
        }
    }

    /// Asks for the memory of the call that is likely to be polled.
    pub fn fetch(&self) {
        fetch(&*self.ready);
        if let Some((_, call)) = self.calls.first() {
            fetch(&**call);
        }
    }

    /// Asks whether the client is there.
    pub fn ping(&mut self) {
        self.out.write(|own| say::ping(own, 0, &ALIVE));
    }

    /// Asks the client to open no more streams here, and wakes all calls. The connection is over when they have ended.
    pub fn leave(&mut self) {
        self.calls.iter().for_each(|(_, call)| call.waker.wake_by_ref());
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Asked;
            // Streams that are on their way are served: the client has not heard of it (RFC 9113, 6.8).
            self.out.write(|own| {
                say::go_away(own, MAX_WINDOW, code::NO_ERROR, "");
                say::ping(own, 0, &LEAVING);
            });
        }
    }

    /// Whether nothing more will happen here.
    pub fn is_over(&self) -> bool {
        self.leaving == Leaving::Last && self.calls.is_empty()
    }

    /// Ends everything, and says why.
    pub fn fail(&mut self, violation: Violation) {
        self.calls.clear();
        self.leaving = Leaving::Last;
        let last = self.last;
        self.out.write(|own| say::go_away(own, last, violation.code, violation.why));
    }

    /// Does what a frame says.
    pub fn frame(&mut self, header: Header, payload: &[u8]) -> Result<(), Violation> {
        self.blocks.check(header, header.kind == kind::CONTINUATION)?;
        match header.kind {
            kind::DATA => self.data(header, payload),
            kind::HEADERS => {
                let part = frame::header_block(header, payload);
                let part = part.ok_or(protocol("padding or priority is longer than its frame"))?;
                // Bytes 0 to 3 of a priority name another stream.
                let depends =
                    payload.get(usize::from(header.has(flag::PADDED))..).and_then(|p| p.first_chunk());
                if header.has(flag::PRIORITY) && depends.is_some_and(|on| names(*on, header.stream)) {
                    return Err(protocol("a stream depends on itself"));
                }
                if header.has(flag::END_HEADERS) {
                    return self.headers(header, part);
                }
                self.blocks.begin(header, part);
                Ok(())
            }
            kind::CONTINUATION => match self.blocks.add(payload, header.has(flag::END_HEADERS))? {
                Some((first, block)) => self.headers(first, &block),
                None => Ok(()),
            },
            kind::PRIORITY => match payload {
                _ if header.stream == 0 => Err(protocol("a PRIORITY of no stream")),
                [a, b, c, d, _] if names([*a, *b, *c, *d], header.stream) => {
                    Err(protocol("a stream depends on itself"))
                }
                [_, _, _, _, _] => self.patience.spend(),
                _ => Err(frame_size("a PRIORITY has not five bytes")),
            },
            kind::RST_STREAM => {
                word(payload)?;
                self.known(header.stream)?;
                self.remove(header.stream);
                self.patience.spend()
            }
            kind::SETTINGS => self.settings(header, payload),
            kind::PUSH_PROMISE => Err(protocol("a client cannot push")),
            kind::PING => self.pinged(header, payload),
            kind::GOAWAY if header.stream != 0 => Err(protocol("a GOAWAY of a stream")),
            kind::GOAWAY if payload.len() < 8 => Err(frame_size("a GOAWAY has less than eight bytes")),
            kind::GOAWAY => {
                // It will open no more streams.
                self.leaving = Leaving::Last;
                Ok(())
            }
            kind::WINDOW_UPDATE => self.open_window(header.stream, word(payload)? & MAX_WINDOW),
            // What the future brings is passed over (RFC 9113, 5.5).
            _ => self.patience.spend(),
        }
    }

    fn data(&mut self, header: Header, payload: &[u8]) -> Result<(), Violation> {
        self.known(header.stream)?;
        let content = frame::unpadded(header, payload).ok_or(protocol("padding is longer than its frame"))?;
        let end = header.has(flag::END_STREAM);
        if content.is_empty() && !end {
            self.patience.spend()?;
        }
        let left = self.receive_window.checked_sub(header.length);
        self.receive_window = left.ok_or(flow_control("more DATA than the connection's window allows"))?;
        let Some(at) = self.position(header.stream) else {
            self.owe(header.length);
            if !self.ended_early.contains(&header.stream) {
                self.out.word(kind::RST_STREAM, header.stream, code::STREAM_CLOSED);
                self.patience.spend()?;
            }
            return Ok(());
        };
        let request = &mut self.calls[at].1.request;
        let taken =
            request.data(content, header.length).and_then(|()| if end { request.end() } else { Ok(()) });
        let padding = header.length - content.len() as u32;
        request.owed += padding;
        self.owe(padding);
        if let Err(code) = taken {
            self.reset(at, code);
            return self.patience.spend();
        }
        Ok(())
    }

    fn headers(&mut self, header: Header, block: &[u8]) -> Result<(), Violation> {
        let mut head = Head::default();
        let broken = Violation { code: code::COMPRESSION, why: "a header block cannot be decoded" };
        self.hpack.decode(block, |name, value| head.field(name, value)).ok_or(broken)?;
        let stream = header.stream;
        if stream > self.last {
            if stream.is_multiple_of(2) {
                return Err(protocol("a client's streams have odd numbers"));
            }
            self.last = stream;
            return self.open(header, head);
        }
        self.known(stream)?;
        match self.position(stream) {
            Some(at) if self.calls[at].1.request.ended => {
                self.reset(at, code::STREAM_CLOSED);
                self.patience.spend()
            }
            Some(at) => {
                let trailers = header.has(flag::END_STREAM) && head.are_trailers();
                let ended = if trailers { self.calls[at].1.request.end() } else { Err(code::PROTOCOL) };
                if let Err(code) = ended {
                    self.reset(at, code);
                    return self.patience.spend();
                }
                Ok(())
            }
            None if self.ended_early.contains(&stream) => Ok(()),
            None => Err(Violation { code: code::STREAM_CLOSED, why: "HEADERS on a stream that has ended" }),
        }
    }

    /// A new stream.
    fn open(&mut self, header: Header, head: Head) -> Result<(), Violation> {
        let stream = header.stream;
        match self.call(header, head) {
            Ok(call) => {
                call.waker.wake_by_ref();
                self.calls.push((stream, Box::new(call)));
                Ok(())
            }
            Err(code) => {
                self.out.word(kind::RST_STREAM, stream, code);
                self.remember(stream);
                self.patience.spend()
            }
        }
    }

    /// The call that a request is for. An error is the code to reset its stream with.
    fn call(&self, header: Header, head: Head) -> Result<Call<B>, u32> {
        let full = self.calls.len() >= self.settings.streams as usize;
        if full || self.leaving == Leaving::Last {
            return Err(code::REFUSED_STREAM);
        }
        let (waker, lister) = self.ready.waker(header.stream);
        let (window, length) = (self.settings.stream_window, head.length());
        let inbox = Inbox::new(waker.clone(), window as usize / 2);
        let request = head.request(inbox.incoming()).ok_or(code::PROTOCOL)?;
        let mut half = RequestHalf::new(inbox, window, length);
        if header.has(flag::END_STREAM) {
            half.end()?;
        }
        Ok(Call {
            stage: Stage::Answering((self.service)(request)),
            waker,
            lister,
            chunk: Bytes::new(),
            window: i64::from(self.peer_window),
            queued: false,
            request: half,
        })
    }

    fn settings(&mut self, header: Header, payload: &[u8]) -> Result<(), Violation> {
        if header.stream != 0 {
            return Err(protocol("SETTINGS of a stream"));
        }
        if header.has(flag::ACK) {
            return if payload.is_empty() {
                Ok(())
            } else {
                Err(frame_size("SETTINGS are acknowledged with bytes"))
            };
        }
        self.patience.spend()?;
        let (settings, []) = payload.as_chunks::<6>() else {
            return Err(frame_size("SETTINGS are not a multiple of six bytes"));
        };
        for [a, b, value @ ..] in settings {
            let value = u32::from_be_bytes(*value);
            match u16::from_be_bytes([*a, *b]) {
                setting::HEADER_TABLE_SIZE => self.empty_table |= value < 4096,
                setting::ENABLE_PUSH if value > 1 => return Err(protocol("ENABLE_PUSH is neither 0 nor 1")),
                setting::INITIAL_WINDOW_SIZE if value > MAX_WINDOW => {
                    return Err(flow_control("a window is larger than 2^31-1"));
                }
                setting::INITIAL_WINDOW_SIZE => {
                    let change = i64::from(value) - i64::from(self.peer_window);
                    self.peer_window = value;
                    for at in 0..self.calls.len() {
                        self.calls[at].1.window += change;
                        if self.calls[at].1.window > i64::from(MAX_WINDOW) {
                            return Err(flow_control("a window is larger than 2^31-1"));
                        }
                        self.queue(at);
                    }
                }
                setting::MAX_FRAME_SIZE
                    if !(DEFAULT_FRAME_BYTES..=frame::MAX_FRAME_BYTES).contains(&value) =>
                {
                    return Err(protocol("MAX_FRAME_SIZE is not between 16,384 and 16,777,215"));
                }
                setting::MAX_FRAME_SIZE => self.peer_frame = value,
                _ => {}
            }
        }
        let ack = Header { length: 0, kind: kind::SETTINGS, flags: flag::ACK, stream: 0 };
        self.out.write(|own| ack.write(own));
        Ok(())
    }

    fn pinged(&mut self, header: Header, payload: &[u8]) -> Result<(), Violation> {
        if header.stream != 0 {
            return Err(protocol("a PING of a stream"));
        }
        let payload: &[u8; 8] = payload.try_into().map_err(|_| frame_size("a PING has not eight bytes"))?;
        if !header.has(flag::ACK) {
            self.out.write(|own| say::ping(own, flag::ACK, payload));
            return self.patience.spend();
        }
        if *payload == LEAVING && self.leaving == Leaving::Asked {
            self.leaving = Leaving::Last;
            let last = self.last;
            self.out.write(|own| say::go_away(own, last, code::NO_ERROR, ""));
        }
        Ok(())
    }

    fn open_window(&mut self, stream: u32, by: u32) -> Result<(), Violation> {
        let too_large = |window: i64| window > i64::from(MAX_WINDOW);
        if stream == 0 {
            if by == 0 {
                return Err(protocol("a window is opened by nothing"));
            }
            self.window += i64::from(by);
            return if too_large(self.window) {
                Err(flow_control("a window is larger than 2^31-1"))
            } else {
                Ok(())
            };
        }
        self.known(stream)?;
        let Some(at) = self.position(stream) else { return Ok(()) };
        self.calls[at].1.window += i64::from(by);
        let code = match by {
            0 => code::PROTOCOL,
            _ if too_large(self.calls[at].1.window) => code::FLOW_CONTROL,
            _ => {
                self.queue(at);
                return Ok(());
            }
        };
        self.reset(at, code);
        self.patience.spend()
    }

    /// Refuses streams that were never opened, and that of the connection.
    fn known(&self, stream: u32) -> Result<(), Violation> {
        if stream == 0 || stream > self.last || stream.is_multiple_of(2) {
            return Err(protocol("a frame of a stream that was never opened"));
        }
        Ok(())
    }
}

fn word(payload: &[u8]) -> Result<u32, Violation> {
    let bytes = payload.try_into().map_err(|_| frame_size("a frame has not four bytes"))?;
    Ok(u32::from_be_bytes(bytes))
}

/// Whether a priority names this stream.
fn names(on: [u8; 4], stream: u32) -> bool {
    u32::from_be_bytes(on) & MAX_WINDOW == stream
}
