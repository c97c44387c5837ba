//! Frames of HTTP/2 (RFC 9113): the header of each, and the few that are written.

use std::mem;

/// Bytes of a frame header.
pub const HEADER_BYTES: usize = 9;
/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest window (RFC 9113, 6.9.1).
pub const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Windows before anybody says otherwise.
pub const DEFAULT_WINDOW: u32 = 65_535;
/// The largest payload before anybody says otherwise, and the smallest limit that a peer may have.
pub const DEFAULT_FRAME_BYTES: u32 = 16_384;
/// The largest limit for payloads.
pub const MAX_FRAME_BYTES: u32 = (1 << 24) - 1;

/// Types of frames.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags, by the types that have them.
pub mod flag {
    /// DATA, HEADERS
    pub const END_STREAM: u8 = 1;
    /// SETTINGS, PING
    pub const ACK: u8 = 1;
    /// HEADERS, CONTINUATION
    pub const END_HEADERS: u8 = 4;
    /// DATA, HEADERS
    pub const PADDED: u8 = 8;
    /// HEADERS
    pub const PRIORITY: u8 = 32;
}

/// Settings that are sent or heeded.
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// The first nine bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub length: u32,
    pub kind: u8,
    pub flags: u8,
    /// 0 is the connection.
    pub stream: u32,
}

impl Header {
    pub fn read(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & MAX_WINDOW,
        }
    }

    /// `length` has to be at most [`MAX_FRAME_BYTES`].
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.length.to_be_bytes()[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }

    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Preface, settings, and the connection's window: all that a client says before its first request.
pub fn write_hello(out: &mut Vec<u8>) {
    let settings = [
        (setting::ENABLE_PUSH, 0),
        (setting::INITIAL_WINDOW_SIZE, MAX_WINDOW),
        (setting::MAX_FRAME_SIZE, MAX_FRAME_BYTES),
    ];
    out.extend_from_slice(PREFACE);
    Header { length: 6 * settings.len() as u32, kind: kind::SETTINGS, flags: 0, stream: 0 }.write(out);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
    write_word(out, kind::WINDOW_UPDATE, 0, MAX_WINDOW - DEFAULT_WINDOW);
}

/// A frame of one 32-bit word: WINDOW_UPDATE and RST_STREAM.
pub fn write_word(out: &mut Vec<u8>, kind: u8, stream: u32, word: u32) {
    Header { length: 4, kind, flags: 0, stream }.write(out);
    out.extend_from_slice(&word.to_be_bytes());
}

/// A header block, in as many frames as the peer's limit needs. `last`: nothing follows on this stream.
pub fn write_headers(out: &mut Vec<u8>, stream: u32, block: &[u8], limit: u32, last: bool) {
    let mut kind = kind::HEADERS;
    let mut first = if last { flag::END_STREAM } else { 0 };
    let mut rest = block;
    loop {
        let (part, after) = rest.split_at(rest.len().min(limit as usize));
        let flags = mem::take(&mut first) | if after.is_empty() { flag::END_HEADERS } else { 0 };
        Header { length: part.len() as u32, kind, flags, stream }.write(out);
        out.extend_from_slice(part);
        if after.is_empty() {
            return;
        }
        (kind, rest) = (kind::CONTINUATION, after);
    }
}

/// The part of a HEADERS payload that is the block: without padding and priority. `None` if they do not fit into it.
pub fn header_block(header: Header, payload: &[u8]) -> Option<&[u8]> {
    let content = unpadded(header, payload)?;
    if header.has(flag::PRIORITY) { content.get(5..) } else { Some(content) }
}

/// A payload of DATA or HEADERS without its padding. `None` if that does not fit into it.
pub fn unpadded(header: Header, payload: &[u8]) -> Option<&[u8]> {
    if !header.has(flag::PADDED) {
        return Some(payload);
    }
    let (padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(*padding))?)
}

/// The name of an error code (RFC 9113, 7).
pub fn reason(code: u32) -> String {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.get(code as usize).map_or_else(|| format!("error {code}"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Header, flag, header_block, kind, write_headers};

    #[test]
    fn headers_read_back_without_the_reserved_bit() {
        let header = Header { length: 0x01_02_03, kind: kind::DATA, flags: flag::PADDED, stream: 7 };
        let mut out = Vec::new();
        header.write(&mut out);
        out[5] |= 0x80;
        assert_eq!(Header::read(out.as_slice().try_into().unwrap()), header);
    }

    #[test]
    fn a_long_block_is_continued() {
        let mut out = Vec::new();
        write_headers(&mut out, 1, b"abcde", 2, true);
        assert_eq!(out, b"\0\0\x02\x01\x01\0\0\0\x01ab\0\0\x02\x09\0\0\0\0\x01cd\0\0\x01\x09\x04\0\0\0\x01e");
    }

    #[test]
    fn padding_and_priority_are_cut_off() {
        type Case = (u8, &'static [u8], Option<&'static [u8]>);
        let cases: &[Case] = &[
            (0, b"block", Some(b"block")),
            (flag::PADDED, b"\x02block..", Some(b"block")),
            (flag::PADDED | flag::PRIORITY, b"\x01prio!block.", Some(b"block")),
            (flag::PADDED, b"\x09block", None),
            (flag::PADDED, b"", None),
            (flag::PRIORITY, b"prio", None),
        ];
        for (flags, payload, block) in cases {
            let header =
                Header { length: payload.len() as u32, kind: kind::HEADERS, flags: *flags, stream: 1 };
            assert_eq!(header_block(header, payload), *block, "{flags}");
        }
    }
}
