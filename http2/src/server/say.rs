//! What a server says, as bytes.

use http::{HeaderMap, StatusCode};

use super::Settings;
use crate::{
    frame::{self, DEFAULT_WINDOW, Header, kind, setting},
    hpack,
};

/// The largest header list that is taken; tokens stand in headers.
const LIST_BYTES: u32 = 64 << 10;

/// Settings, and the connection's window: all that a server says before its first answer.
pub fn hello(out: &mut Vec<u8>, settings: &Settings) {
    let said = [
        (setting::MAX_CONCURRENT_STREAMS, settings.streams),
        (setting::INITIAL_WINDOW_SIZE, settings.stream_window),
        (setting::MAX_HEADER_LIST_SIZE, LIST_BYTES),
    ];
    Header { length: 6 * said.len() as u32, kind: kind::SETTINGS, flags: 0, stream: 0 }.write(out);
    for (id, value) in said {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
    let more = settings.connection_window.saturating_sub(DEFAULT_WINDOW);
    if more > 0 {
        frame::write_word(out, kind::WINDOW_UPDATE, 0, more);
    }
}

/// A PING, or with the flag ACK the answer to one.
pub fn ping(out: &mut Vec<u8>, flags: u8, payload: &[u8; 8]) {
    Header { length: 8, kind: kind::PING, flags, stream: 0 }.write(out);
    out.extend_from_slice(payload);
}

/// That no stream beyond `last` is served.
pub fn go_away(out: &mut Vec<u8>, last: u32, code: u32, why: &str) {
    Header { length: 8 + why.len() as u32, kind: kind::GOAWAY, flags: 0, stream: 0 }.write(out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(why.as_bytes());
}

/// A block of headers, or of trailers if there is no status.
///
/// `empty_table`: the client's table got smaller. Nothing of ours is in it, but its decoder has to be told (RFC 7541, 4.2).
pub fn block(status: Option<StatusCode>, headers: &HeaderMap, empty_table: bool) -> Vec<u8> {
    let mut block = Vec::with_capacity(64);
    if empty_table {
        hpack::encode_empty_table(&mut block);
    }
    if let Some(status) = status {
        hpack::encode_status(&mut block, status.as_u16());
    }
    for (name, value) in headers {
        hpack::encode_field(&mut block, name.as_str(), value.as_bytes());
    }
    block
}
