//! The floor's side of HTTP/2 and of ADS, on bytes alone: as little as its clients need. It trusts them: a client that breaks the
//! rules is cut off, and what it says of no consequence here is passed over.

use std::collections::BTreeSet;

use lean_http2::{
    frame::{self, HEADER_BYTES, Header, flag, kind, setting},
    hpack,
};

use super::frames::{Protocol, STREAM};
use crate::{h2::grpc::Assembler, wire::Fields};

/// What a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The first request for a type.
    Asked(Protocol, String),
    /// The response with this nonce was taken.
    Acknowledged(u64),
    /// The stream is over.
    Ended,
}

/// Why a client is cut off.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Refused(&'static str);

/// One connection.
#[derive(Debug)]
pub struct Wire {
    greeted: bool,
    /// The beginning of a frame.
    rest: Vec<u8>,
    protocol: Option<Protocol>,
    message: Assembler,
    asked: BTreeSet<String>,
    /// What may be sent on the connection, and on the stream.
    windows: [i64; 2],
    initial_window: i64,
    /// Answers that HTTP/2 itself asks for.
    pub out: Vec<u8>,
}

impl Default for Wire {
    fn default() -> Self {
        let window = i64::from(frame::DEFAULT_WINDOW);
        let mut out = Vec::new();
        Header { length: 6, kind: kind::SETTINGS, flags: 0, stream: 0 }.write(&mut out);
        out.extend_from_slice(&setting::INITIAL_WINDOW_SIZE.to_be_bytes());
        out.extend_from_slice(&frame::MAX_WINDOW.to_be_bytes());
        frame::write_word(&mut out, kind::WINDOW_UPDATE, 0, frame::MAX_WINDOW - frame::DEFAULT_WINDOW);
        Self {
            greeted: false,
            rest: Vec::new(),
            protocol: None,
            message: Assembler::default(),
            asked: BTreeSet::new(),
            windows: [window; 2],
            initial_window: window,
            out,
        }
    }
}

impl Wire {
    /// Takes bytes; tells what they say.
    pub fn receive(&mut self, input: &[u8], mut tell: impl FnMut(Heard)) -> Result<(), Refused> {
        let mut kept = std::mem::take(&mut self.rest);
        let mut input = match kept.is_empty() {
            true => input,
            false => {
                kept.extend_from_slice(input);
                &kept
            }
        };
        if !self.greeted {
            if input.len() < frame::PREFACE.len() {
                self.rest = input.to_vec();
                return Ok(());
            }
            input = input.strip_prefix(frame::PREFACE).ok_or(Refused("does not speak HTTP/2"))?;
            self.greeted = true;
        }
        while let Some((head, after)) = input.split_first_chunk::<HEADER_BYTES>() {
            let header = Header::read(head);
            let Some((payload, after)) = after.split_at_checked(header.length as usize) else { break };
            self.frame(header, payload, &mut tell)?;
            input = after;
        }
        self.rest = input.to_vec();
        Ok(())
    }

    /// How much of `bytes`, which are whole frames, may be sent now. Takes it from the windows.
    pub fn allowed(&mut self, frames: &[u8]) -> usize {
        let mut end = 0;
        while let Some(head) = frames.get(end..).and_then(|rest| rest.first_chunk()) {
            let length = Header::read(head).length;
            if self.windows.iter().any(|window| *window < i64::from(length)) {
                break;
            }
            self.windows = self.windows.map(|window| window - i64::from(length));
            end += HEADER_BYTES + length as usize;
        }
        end
    }

    fn frame(&mut self, header: Header, payload: &[u8], tell: &mut impl FnMut(Heard)) -> Result<(), Refused> {
        match header.kind {
            kind::HEADERS => {
                if header.stream != STREAM || self.protocol.is_some() {
                    return Err(Refused("opens more than the first stream of the connection"));
                }
                if !header.has(flag::END_HEADERS) {
                    return Err(Refused("has more headers than fit into a frame"));
                }
                let block = frame::header_block(header, payload).ok_or(Refused("has broken headers"))?;
                self.open(block)?;
            }
            kind::DATA => {
                let (mut requests, message) = (Vec::new(), &mut self.message);
                message.push(payload, |request| requests.push(request)).map_err(|_| Refused("compresses"))?;
                requests.iter().for_each(|request| self.request(request, tell));
                if header.has(flag::END_STREAM) {
                    tell(Heard::Ended);
                }
            }
            kind::SETTINGS if !header.has(flag::ACK) => {
                for setting in payload.chunks_exact(6) {
                    let [a, b, value @ ..] = setting else { continue };
                    if u16::from_be_bytes([*a, *b]) == setting::INITIAL_WINDOW_SIZE {
                        let value = value.try_into().map(u32::from_be_bytes).unwrap_or_default();
                        self.windows[1] += i64::from(value) - self.initial_window;
                        self.initial_window = value.into();
                    }
                }
                Header { length: 0, kind: kind::SETTINGS, flags: flag::ACK, stream: 0 }.write(&mut self.out);
            }
            kind::PING if !header.has(flag::ACK) => {
                Header { flags: flag::ACK, ..header }.write(&mut self.out);
                self.out.extend_from_slice(payload);
            }
            kind::WINDOW_UPDATE => {
                let grown = payload.try_into().map(u32::from_be_bytes).unwrap_or_default();
                self.windows[usize::from(header.stream != 0)] += i64::from(grown);
            }
            kind::RST_STREAM | kind::GOAWAY => tell(Heard::Ended),
            _ => {}
        }
        Ok(())
    }

    /// Accepts the stream.
    fn open(&mut self, block: &[u8]) -> Result<(), Refused> {
        let mut protocol = None;
        let decoded = hpack::Decoder::default().decode(block, |name, value| {
            if name == b":path" {
                protocol = if value.ends_with(b"/DeltaAggregatedResources") {
                    Some(Protocol::Delta)
                } else if value.ends_with(b"/StreamAggregatedResources") {
                    Some(Protocol::Sotw)
                } else {
                    None
                };
            }
        });
        decoded.ok_or(Refused("has broken headers"))?;
        self.protocol = Some(protocol.ok_or(Refused("calls something else than ADS"))?);
        // `:status: 200` of the static table; `content-type` (its 31st name) as a literal.
        let block = b"\x88\x0f\x10\x10application/grpc";
        frame::write_headers(&mut self.out, STREAM, block, frame::DEFAULT_FRAME_BYTES, false);
        Ok(())
    }

    fn request(&mut self, request: &[u8], tell: &mut impl FnMut(Heard)) {
        let Some(protocol) = self.protocol else { return };
        let (type_url, nonce) = match protocol {
            Protocol::Delta => (2, 6),
            Protocol::Sotw => (4, 5),
        };
        let nonce = Fields(request).text(nonce).unwrap_or_default();
        if !nonce.is_empty() {
            nonce.parse().into_iter().for_each(|number| tell(Heard::Acknowledged(number)));
        } else if let Ok(url) = Fields(request).text(type_url)
            && self.asked.insert(url.to_owned())
        {
            tell(Heard::Asked(protocol, url.to_owned()));
        }
    }
}
