//! Header compression (RFC 7541): a decoder, and an encoder that never indexes.

use std::collections::VecDeque;

use crate::huffman;

/// The dynamic table that the peer may use: the protocol's default, as Envoy has it.
const TABLE_BYTES: usize = 4096;
/// What an entry costs beside its text (RFC 7541, 4.1).
const ENTRY_OVERHEAD: usize = 32;
/// The largest header list, decoded. Envoy takes 60 KiB by default.
const LIST_BYTES: usize = 64 << 10;

/// Appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Static indices of the pseudo-headers of a request.
const METHOD_POST: u8 = 3;
const SCHEME_HTTP: u8 = 6;
const SCHEME_HTTPS: u8 = 7;
/// And of a response.
const STATUS_200: u8 = 8;
const AUTHORITY: usize = 1;
const PATH: usize = 4;

/// Appends the header block of a gRPC request. Nothing enters the peer's dynamic table, so blocks need no common state.
pub fn encode_request(
    out: &mut Vec<u8>,
    secure: bool,
    authority: &str,
    path: &str,
    user_agent: &str,
    metadata: &[(String, String)],
) {
    out.push(0x80 | METHOD_POST);
    out.push(0x80 | if secure { SCHEME_HTTPS } else { SCHEME_HTTP });
    for (name, value) in [(PATH, path), (AUTHORITY, authority)] {
        encode_integer(out, 0, 4, name);
        encode_text(out, value.as_bytes());
    }
    let own = [("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", user_agent)];
    let given = metadata.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.into_iter().chain(given) {
        encode_field(out, name, value.as_bytes());
    }
}

/// Appends that the table is empty from now on (RFC 7541, 6.3). To be said at the beginning of a block.
pub fn encode_empty_table(out: &mut Vec<u8>) {
    out.push(0x20);
}

/// Appends the pseudo-header of a response.
pub fn encode_status(out: &mut Vec<u8>, status: u16) {
    match status {
        200 => out.push(0x80 | STATUS_200),
        _ => {
            encode_integer(out, 0, 4, usize::from(STATUS_200));
            encode_text(out, status.to_string().as_bytes());
        }
    }
}

/// Appends a header. Its name has to be in lower case.
pub fn encode_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    // A token must not enter any table.
    out.push(if name == "authorization" { 0x10 } else { 0 });
    encode_text(out, name.as_bytes());
    encode_text(out, value);
}

fn encode_text(out: &mut Vec<u8>, text: &[u8]) {
    encode_integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

/// An integer with a prefix of `bits` bits (RFC 7541, 5.1); `pattern` are the bits before it.
fn encode_integer(out: &mut Vec<u8>, pattern: u8, bits: u32, mut value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        return out.push(pattern | value as u8);
    }
    out.push(pattern | most as u8);
    value -= most;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A name and a value.
type Entry = (Box<[u8]>, Box<[u8]>);

/// Decodes the header blocks of one connection, which have to come in order.
#[derive(Debug)]
pub struct Decoder {
    /// The youngest first.
    entries: VecDeque<Entry>,
    bytes: usize,
    limit: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, limit: TABLE_BYTES }
    }
}

impl Decoder {
    /// Hands each header of a block to `each`. `None` if the block is not valid; the connection is of no use then, because the table
    /// is not known any more.
    pub fn decode(&mut self, block: &[u8], mut each: impl FnMut(&[u8], &[u8])) -> Option<()> {
        let mut input = Input(block);
        let mut listed = 0_usize;
        while let Some(first) = input.0.first().copied() {
            let (name, value, keep) = match first {
                0x80.. => {
                    let (name, value) = self.entry(input.integer(7)?)?;
                    (name.to_vec(), value.to_vec(), false)
                }
                0x40.. => (self.name(&mut input, 6)?, input.text()?, true),
                // Only at the beginning (RFC 7541, 4.2).
                0x20.. if listed == 0 => {
                    self.limit = Some(input.integer(5)?).filter(|limit| *limit <= TABLE_BYTES)?;
                    self.shrink(0);
                    continue;
                }
                0x20.. => return None,
                _ => (self.name(&mut input, 4)?, input.text()?, false),
            };
            listed += name.len() + value.len() + ENTRY_OVERHEAD;
            if listed > LIST_BYTES {
                return None;
            }
            each(&name, &value);
            if keep {
                self.insert(name, value);
            }
        }
        Some(())
    }

    fn name(&self, input: &mut Input<'_>, bits: u32) -> Option<Vec<u8>> {
        match input.integer(bits)? {
            0 => input.text(),
            index => self.entry(index).map(|(name, _)| name.to_vec()),
        }
    }

    fn entry(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let index = index.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value)) => Some((name.as_bytes(), value.as_bytes())),
            None => self.entries.get(index - STATIC.len()).map(|(name, value)| (&**name, &**value)),
        }
    }

    fn insert(&mut self, name: Vec<u8>, value: Vec<u8>) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        self.shrink(size);
        // An entry that is larger than the table empties it, and is no error.
        if size <= self.limit {
            self.bytes += size;
            self.entries.push_front((name.into(), value.into()));
        }
    }

    /// Evicts until `room` more bytes fit, or nothing is left.
    fn shrink(&mut self, room: usize) {
        while self.bytes + room > self.limit {
            let Some((name, value)) = self.entries.pop_back() else { return };
            self.bytes -= name.len() + value.len() + ENTRY_OVERHEAD;
        }
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn integer(&mut self, bits: u32) -> Option<usize> {
        let most = (1_usize << bits) - 1;
        let mut value = usize::from(self.byte()?) & most;
        if value < most {
            return Some(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        let huffman = self.0.first()? & 0x80 != 0;
        let length = self.integer(7)?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        if huffman { huffman::decode(text) } else { Some(text.to_vec()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Decoder, TABLE_BYTES, encode_integer, encode_request};

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Option<Vec<(String, String)>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut headers = Vec::new();
        decoder.decode(block, |name, value| headers.push((text(name), text(value)))).map(|()| headers)
    }

    fn headers(list: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn responses_of_the_specification_with_huffman_and_eviction() {
        // RFC 7541, C.6, with the table of 256 bytes that it assumes.
        let mut decoder = Decoder::default();
        assert_eq!(decoded(&mut decoder, b"\x3f\xe1\x01"), headers(&[]), "a table of 256 bytes");
        let first = b"\x48\x82\x64\x02\x58\x85\xae\xc3\x77\x1a\x4b\x61\x96\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\
            \x81\x66\xe0\x82\xa6\x2d\x1b\xff\x6e\x91\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3";
        let date = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
        let place = ("location", "https://www.example.com");
        assert_eq!(
            decoded(&mut decoder, first),
            headers(&[(":status", "302"), ("cache-control", "private"), date, place])
        );
        assert_eq!(decoder.bytes, 222);
        assert_eq!(
            decoded(&mut decoder, b"\x48\x83\x64\x0e\xff\xc1\xc0\xbf"),
            headers(&[(":status", "307"), ("cache-control", "private"), date, place])
        );
        assert_eq!(decoder.bytes, 222, "one entry was evicted for another of its size");
        let third = b"\x88\xc1\x61\x96\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x84\xa6\x2d\x1b\xff\
            \xc0\x5a\x83\x9b\xd9\xab\x77\xad\x94\xe7\x82\x1d\xd7\xf2\xe6\xc7\xb3\x35\xdf\xdf\xcd\x5b\x39\x60\xd5\xaf\x27\x08\x7f\
            \x36\x72\xc1\xab\x27\x0f\xb5\x29\x1f\x95\x87\x31\x60\x65\xc0\x03\xed\x4e\xe5\xb1\x06\x3d\x50\x07";
        let seen = decoded(&mut decoder, third).unwrap_or_default();
        assert_eq!(seen[2], ("date".into(), "Mon, 21 Oct 2013 20:13:22 GMT".into()));
        assert_eq!(seen[5].1, "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
        assert_eq!(decoder.bytes, 215);
    }

    #[test]
    fn what_is_not_allowed_is_refused() {
        let cases: &[(&[u8], &str)] = &[
            (b"\x80", "index 0"),
            (b"\xbe", "an entry of the dynamic table that is not there"),
            (b"\xff\xff\xff\xff\xff\xff\xff\x01", "an endless integer"),
            (b"\x3f\xe2\x1f", "a larger table than was offered"),
            (b"\x82\x20", "another table after the first header"),
            (b"\x00\x05abc", "a text that ends early"),
            (b"\x00", "nothing after the first byte"),
        ];
        for (block, what) in cases {
            assert_eq!(decoded(&mut Decoder::default(), block), None, "{what}");
        }
        let mut bomb = vec![0x40, 1, b'a', 0x7f, 0xe1, 0x1d];
        bomb.resize(6 + 3936, b'v');
        bomb.extend([0xbe; 100]);
        assert_eq!(decoded(&mut Decoder::default(), &bomb), None, "a small block of a large list");
    }

    #[test]
    fn a_request_reads_back_and_leaves_no_entry() {
        let mut block = Vec::new();
        let metadata = [("authorization".to_owned(), format!("Bearer {}", "x".repeat(2000)))];
        encode_request(&mut block, true, "istiod:15012", "/p", "test", &metadata);
        let mut decoder = Decoder::default();
        let seen = decoded(&mut decoder, &block).unwrap_or_default();
        assert_eq!(
            headers(&[
                (":method", "POST"),
                (":scheme", "https"),
                (":path", "/p"),
                (":authority", "istiod:15012")
            ]),
            Some(seen[..4].to_vec())
        );
        assert_eq!(seen.last(), metadata.first());
        assert!(decoder.entries.is_empty());
    }

    proptest! {
        #[test]
        fn integers_read_back(value in 0_usize..1 << 28, bits in 4_u32..8) {
            let mut out = Vec::new();
            encode_integer(&mut out, 0, bits, value);
            prop_assert_eq!(super::Input(&out).integer(bits), Some(value));
        }

        #[test]
        fn hostile_blocks_do_not_grow_the_table(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20)) {
            let mut decoder = Decoder::default();
            for block in blocks {
                let _ = decoder.decode(&block, |_, _| {});
                prop_assert!(decoder.bytes <= TABLE_BYTES);
                let sum: usize = decoder.entries.iter().map(|(n, v)| n.len() + v.len() + 32).sum();
                prop_assert_eq!(sum, decoder.bytes);
            }
        }
    }
}
