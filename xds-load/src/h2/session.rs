//! The client's side of one HTTP/2 connection as a pure type: bytes in, events and bytes out.

use std::collections::VecDeque;

use lean_http2::{
    frame::{
        self, DEFAULT_FRAME_BYTES, DEFAULT_WINDOW, HEADER_BYTES, Header, MAX_WINDOW, flag, kind, setting,
    },
    hpack,
};

use super::{
    Error, Event, StreamId,
    grpc::{self, Status},
    stream::Stream,
};

const USER_AGENT: &str = concat!("xds-load/", env!("CARGO_PKG_VERSION"));

/// How much is taken before the peer's windows are opened again.
const REPLENISH: u32 = 1 << 30;
/// The largest payload that is kept before it is handled. DATA is not kept at all.
const MAX_KEPT_BYTES: u32 = 64 << 10;

/// Where the input stands within a frame.
#[derive(Debug)]
enum Reading {
    /// Within the first nine bytes.
    Header { bytes: [u8; HEADER_BYTES], have: u8 },
    /// Within the payload of a DATA frame. `padding` is not known before the first byte of a padded frame.
    Data { header: Header, left: u32, padding: Option<u32> },
    /// Within another payload, which is handled when it is complete.
    Payload { header: Header, payload: Vec<u8> },
}

const BEGINNING: Reading = Reading::Header { bytes: [0; HEADER_BYTES], have: 0 };

/// The state of a connection.
#[derive(Debug)]
pub struct Session {
    reading: Reading,
    /// A header block that is not complete: the HEADERS frame and what came so far.
    block: Option<(Header, Vec<u8>)>,
    hpack: hpack::Decoder,
    streams: Vec<Stream>,
    next_id: u32,
    send_window: i64,
    peer_window: u32,
    peer_frame: u32,
    /// Taken since the connection's window was last opened.
    taken: u32,
    /// The last stream that the peer will serve, once it has said so.
    last_served: Option<u32>,
    /// What waits to be written to the socket.
    pub out: Vec<u8>,
    events: VecDeque<(StreamId, Event)>,
}

impl Session {
    /// A connection that has its hello to say.
    pub fn new() -> Self {
        let mut out = Vec::new();
        frame::write_hello(&mut out);
        Self {
            reading: BEGINNING,
            block: None,
            hpack: hpack::Decoder::default(),
            streams: Vec::with_capacity(1),
            next_id: 1,
            send_window: i64::from(DEFAULT_WINDOW),
            peer_window: DEFAULT_WINDOW,
            peer_frame: DEFAULT_FRAME_BYTES,
            taken: 0,
            last_served: None,
            out,
            events: VecDeque::new(),
        }
    }

    /// Begins a call.
    pub fn open(
        &mut self,
        secure: bool,
        authority: &str,
        path: &str,
        metadata: &[(String, String)],
    ) -> Result<StreamId, Error> {
        if self.last_served.is_some() || self.next_id > MAX_WINDOW {
            return Err(Error::NoMoreStreams);
        }
        let id = self.next_id;
        self.next_id += 2;
        let mut block = Vec::with_capacity(128);
        hpack::encode_request(&mut block, secure, authority, path, USER_AGENT, metadata);
        frame::write_headers(&mut self.out, id, &block, self.peer_frame, false);
        self.streams.push(Stream::new(id, self.peer_window));
        Ok(StreamId(id))
    }

    /// Queues a message. A stream that has ended swallows it: its end is, or was, an event.
    pub fn send(&mut self, id: StreamId, message: &[u8]) {
        if let Some(at) = self.position(id.0) {
            grpc::write_message(&mut self.streams[at].pending, message);
            self.pump(at);
        }
    }

    /// Says that no more messages come.
    pub fn finish(&mut self, id: StreamId) {
        if let Some(at) = self.position(id.0) {
            self.streams[at].finishing = true;
            self.pump(at);
        }
    }

    /// Ends a call without waiting for its answer.
    pub fn cancel(&mut self, id: StreamId) {
        const CANCEL: u32 = 8;
        if let Some(at) = self.position(id.0) {
            self.streams.swap_remove(at);
            frame::write_word(&mut self.out, kind::RST_STREAM, id.0, CANCEL);
        }
    }

    /// What happened next.
    pub fn next_event(&mut self) -> Option<(StreamId, Event)> {
        let event = self.events.pop_front();
        if event.is_none() && self.events.capacity() > 8 {
            self.events = VecDeque::new();
        }
        event
    }

    /// Takes bytes of the peer, cut anywhere. After an error the connection is of no use.
    pub fn receive(&mut self, mut input: &[u8]) -> Result<(), Error> {
        while !input.is_empty() {
            match &mut self.reading {
                Reading::Header { bytes, have } => {
                    let at = usize::from(*have);
                    let (part, rest) = input.split_at(input.len().min(HEADER_BYTES - at));
                    bytes[at..at + part.len()].copy_from_slice(part);
                    *have += part.len() as u8;
                    input = rest;
                    if usize::from(*have) == HEADER_BYTES {
                        let header = Header::read(bytes);
                        self.reading = BEGINNING;
                        self.begin(header, &mut input)?;
                    }
                }
                Reading::Payload { header, payload } => {
                    let wanted = header.length as usize - payload.len();
                    let (part, rest) = input.split_at(input.len().min(wanted));
                    payload.extend_from_slice(part);
                    input = rest;
                    if part.len() == wanted {
                        let (header, payload) = (*header, std::mem::take(payload));
                        self.reading = BEGINNING;
                        self.handle(header, &payload)?;
                    }
                }
                Reading::Data { .. } => self.data(&mut input)?,
            }
        }
        Ok(())
    }

    /// A frame begins. If it is here as a whole, it is handled where it lies.
    fn begin(&mut self, header: Header, input: &mut &[u8]) -> Result<(), Error> {
        if self.block.is_some() != (header.kind == kind::CONTINUATION) {
            return Err(Error::Protocol("a header block is interrupted, or continued without a beginning"));
        }
        if header.kind == kind::DATA {
            let padding = if header.has(flag::PADDED) { None } else { Some(0) };
            if header.length == 0 && padding.is_none() {
                return Err(Error::Protocol("a padded frame without the length of its padding"));
            }
            self.take(header)?;
            self.reading = Reading::Data { header, left: header.length, padding };
            return self.data(input);
        }
        if header.length > MAX_KEPT_BYTES {
            return Err(Error::Protocol("a frame that is no DATA is larger than 64 KiB"));
        }
        match input.split_at_checked(header.length as usize) {
            Some((payload, rest)) => {
                *input = rest;
                self.handle(header, payload)
            }
            None => {
                self.reading = Reading::Payload { header, payload: Vec::new() };
                Ok(())
            }
        }
    }

    /// Counts a DATA frame against the windows, and opens them again in time.
    fn take(&mut self, header: Header) -> Result<(), Error> {
        if header.stream == 0 || header.stream >= self.next_id {
            return Err(Error::Protocol("DATA on a stream that was never opened"));
        }
        self.taken += header.length;
        if self.taken >= REPLENISH {
            frame::write_word(&mut self.out, kind::WINDOW_UPDATE, 0, self.taken);
            self.taken = 0;
        }
        if let Some(at) = self.position(header.stream) {
            let stream = &mut self.streams[at];
            stream.taken += header.length;
            if stream.taken >= REPLENISH {
                frame::write_word(&mut self.out, kind::WINDOW_UPDATE, stream.id, stream.taken);
                stream.taken = 0;
            }
        }
        Ok(())
    }

    /// Takes what is here of a DATA frame's payload.
    fn data(&mut self, input: &mut &[u8]) -> Result<(), Error> {
        let Reading::Data { header, left, padding } = &mut self.reading else { return Ok(()) };
        if padding.is_none() {
            let Some((first, rest)) = input.split_first() else { return Ok(()) };
            (*left, *input) = (*left - 1, rest);
            if u32::from(*first) > *left {
                return Err(Error::Protocol("padding that is longer than its frame"));
            }
            *padding = Some(u32::from(*first));
        }
        let padding = padding.unwrap_or_default();
        let (part, rest) = input.split_at(input.len().min(*left as usize));
        let content = part.len().min((*left - padding.min(*left)) as usize);
        (*left, *input) = (*left - part.len() as u32, rest);
        let (header, done) = (*header, *left == 0);
        if done {
            self.reading = BEGINNING;
        }
        // A stream that is not known any more was cancelled by us: the rest of it is on its way.
        let Some(at) = self.position(header.stream) else { return Ok(()) };
        let (stream, events) = (&mut self.streams[at], &mut self.events);
        let id = StreamId(stream.id);
        // The body of a response that is no gRPC is of no interest; its status is.
        if stream.answer.is_refused() {
            return if done && header.has(flag::END_STREAM) { self.end(at) } else { Ok(()) };
        }
        stream
            .assembler
            .push(&part[..content], |m| events.push_back((id, Event::Message(m))))
            .map_err(Error::Message)?;
        if done && header.has(flag::END_STREAM) { self.end(at) } else { Ok(()) }
    }

    /// Handles a complete frame other than DATA.
    fn handle(&mut self, header: Header, payload: &[u8]) -> Result<(), Error> {
        match header.kind {
            kind::HEADERS => {
                let part = frame::header_block(header, payload)
                    .ok_or(Error::Protocol("padding or priority that is longer than its frame"))?;
                if header.has(flag::END_HEADERS) {
                    return self.headers(header, part);
                }
                self.block = Some((header, part.to_vec()));
            }
            kind::CONTINUATION => {
                let Some((first, mut block)) = self.block.take() else { return Ok(()) };
                block.extend_from_slice(payload);
                if first.stream != header.stream || block.len() > MAX_KEPT_BYTES as usize {
                    return Err(Error::Protocol(
                        "a header block is continued elsewhere, or is larger than 64 KiB",
                    ));
                }
                if header.has(flag::END_HEADERS) {
                    return self.headers(first, &block);
                }
                self.block = Some((first, block));
            }
            kind::RST_STREAM => {
                let code = word(payload)?;
                if let Some(at) = self.position(header.stream) {
                    let stream = self.streams.swap_remove(at);
                    let status =
                        Status::unavailable(format!("the server reset the stream: {}", frame::reason(code)));
                    self.events.push_back((StreamId(stream.id), Event::Closed(status)));
                }
            }
            kind::SETTINGS if !header.has(flag::ACK) => self.settings(payload)?,
            kind::PING if !header.has(flag::ACK) => {
                if payload.len() != 8 {
                    return Err(Error::Protocol("a PING that has not eight bytes"));
                }
                Header { length: 8, kind: kind::PING, flags: flag::ACK, stream: 0 }.write(&mut self.out);
                self.out.extend_from_slice(payload);
            }
            kind::GOAWAY => self.go_away(payload)?,
            kind::WINDOW_UPDATE => self.open_window(header.stream, word(payload)? & MAX_WINDOW)?,
            kind::PUSH_PROMISE => return Err(Error::Protocol("a pushed stream, which was forbidden")),
            // Acknowledgements, PRIORITY, and what the future brings.
            _ => {}
        }
        Ok(())
    }

    fn headers(&mut self, header: Header, block: &[u8]) -> Result<(), Error> {
        let at = self.position(header.stream);
        let answer = at.map(|at| &mut self.streams[at].answer);
        // Also a block that nobody waits for has to be decoded: it may change the table.
        let mut unheard = grpc::Answer::default();
        let answer = answer.unwrap_or(&mut unheard);
        if answer.is_interim() {
            *answer = grpc::Answer::default();
        }
        self.hpack
            .decode(block, |name, value| answer.note(name, value))
            .ok_or(Error::Protocol("a header block that cannot be decoded"))?;
        match at {
            Some(at) if header.has(flag::END_STREAM) => self.end(at),
            _ => Ok(()),
        }
    }

    /// The server has ended a stream.
    fn end(&mut self, at: usize) -> Result<(), Error> {
        let stream = self.streams.swap_remove(at);
        let mut status = stream.answer.status();
        if stream.assembler.in_the_middle() {
            status = Status::unknown(format!("the stream ended within a message, with status {status}"));
        }
        self.events.push_back((StreamId(stream.id), Event::Closed(status)));
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> Result<(), Error> {
        let (settings, []) = payload.as_chunks::<6>() else {
            return Err(Error::Protocol("SETTINGS that are not a multiple of six bytes"));
        };
        for [a, b, value @ ..] in settings {
            let value = u32::from_be_bytes(*value);
            match u16::from_be_bytes([*a, *b]) {
                setting::INITIAL_WINDOW_SIZE if value > MAX_WINDOW => {
                    return Err(Error::Protocol("a window that is larger than 2^31-1"));
                }
                setting::INITIAL_WINDOW_SIZE => {
                    let change = i64::from(value) - i64::from(self.peer_window);
                    self.peer_window = value;
                    self.streams.iter_mut().for_each(|stream| stream.send_window += change);
                }
                setting::MAX_FRAME_SIZE => {
                    self.peer_frame = value.clamp(DEFAULT_FRAME_BYTES, frame::MAX_FRAME_BYTES);
                }
                _ => {}
            }
        }
        Header { length: 0, kind: kind::SETTINGS, flags: flag::ACK, stream: 0 }.write(&mut self.out);
        (0..self.streams.len()).for_each(|at| self.pump(at));
        Ok(())
    }

    fn go_away(&mut self, payload: &[u8]) -> Result<(), Error> {
        let Some((last, rest)) = payload.split_at_checked(4) else {
            return Err(Error::Protocol("a GOAWAY that is too short"));
        };
        let Some((code, debug)) = rest.split_at_checked(4) else {
            return Err(Error::Protocol("a GOAWAY that is too short"));
        };
        let last = word(last)? & MAX_WINDOW;
        self.last_served = Some(last);
        let said = String::from_utf8_lossy(&debug[..debug.len().min(200)]).into_owned();
        let said = format!("the server sent GOAWAY: {} {said}", frame::reason(word(code)?));
        // Streams up to the last go on until they end.
        let (served, refused): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.streams).into_iter().partition(|stream| stream.id <= last);
        self.streams = served;
        self.events.extend(
            refused
                .into_iter()
                .map(|s| (StreamId(s.id), Event::Closed(Status::unavailable(said.trim_end())))),
        );
        Ok(())
    }

    fn open_window(&mut self, id: u32, by: u32) -> Result<(), Error> {
        let too_large = |window: i64| window > i64::from(MAX_WINDOW);
        if id == 0 {
            self.send_window += i64::from(by);
            if too_large(self.send_window) {
                return Err(Error::Protocol("a window that is larger than 2^31-1"));
            }
            (0..self.streams.len()).for_each(|at| self.pump(at));
        } else if let Some(at) = self.position(id) {
            self.streams[at].send_window += i64::from(by);
            if too_large(self.streams[at].send_window) {
                return Err(Error::Protocol("a window that is larger than 2^31-1"));
            }
            self.pump(at);
        }
        Ok(())
    }

    /// Writes of a stream what the windows allow.
    fn pump(&mut self, at: usize) {
        self.streams[at].write_to(&mut self.out, &mut self.send_window, self.peer_frame);
    }

    fn position(&self, id: u32) -> Option<usize> {
        self.streams.iter().position(|stream| stream.id == id)
    }
}

fn word(payload: &[u8]) -> Result<u32, Error> {
    payload
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| Error::Protocol("a frame of another length than four bytes"))
}
