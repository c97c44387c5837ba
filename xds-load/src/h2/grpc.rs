//! What gRPC adds to HTTP/2: messages with a length before each, and a status at the end.

use std::fmt;

/// The largest message that is taken. Envoy has no limit; istiod's full pushes have been seen at tens of megabytes.
const MAX_MESSAGE_BYTES: usize = 256 << 20;
/// What is set aside for a message before its bytes are there, whatever its length claims.
const FIRST_BYTES: usize = 64 << 10;
const PREFIX_BYTES: usize = 5;

/// Puts messages together from pieces of DATA. Between messages it holds no memory.
#[derive(Debug, Default)]
pub struct Assembler {
    prefix: [u8; PREFIX_BYTES],
    have: u8,
    body: Vec<u8>,
}

/// Why a message cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The compression flag is set, and no compression was offered.
    Compressed,
    /// It is larger than any message should be.
    TooLarge(usize),
}

impl Assembler {
    /// Takes a piece; returns the messages that it completes.
    pub fn push(&mut self, mut piece: &[u8], mut complete: impl FnMut(Vec<u8>)) -> Result<(), Unreadable> {
        while !piece.is_empty() {
            let have = usize::from(self.have);
            if have < PREFIX_BYTES {
                let (head, rest) = piece.split_at(piece.len().min(PREFIX_BYTES - have));
                self.prefix[have..have + head.len()].copy_from_slice(head);
                self.have += head.len() as u8;
                piece = rest;
                if usize::from(self.have) < PREFIX_BYTES {
                    return Ok(());
                }
            }
            let [compressed, length @ ..] = self.prefix;
            let length = u32::from_be_bytes(length) as usize;
            if compressed != 0 {
                return Err(Unreadable::Compressed);
            }
            if length > MAX_MESSAGE_BYTES {
                return Err(Unreadable::TooLarge(length));
            }
            let (part, rest) = piece.split_at(piece.len().min(length - self.body.len()));
            if self.body.capacity() == 0 {
                self.body.reserve_exact(length.min(FIRST_BYTES));
            }
            self.body.extend_from_slice(part);
            piece = rest;
            if self.body.len() == length {
                self.have = 0;
                complete(std::mem::take(&mut self.body));
            }
        }
        Ok(())
    }

    /// Whether a message has begun and not ended.
    pub fn in_the_middle(&self) -> bool {
        self.have > 0
    }
}

/// Appends a message with its length before it.
pub fn write_message(out: &mut Vec<u8>, message: &[u8]) {
    out.push(0);
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The gRPC code; 0 is success.
    pub code: u32,
    /// What the server says of it, or what was seen if it said nothing.
    pub message: String,
}

const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl Status {
    /// UNKNOWN, with what was seen.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// UNAVAILABLE, with what was seen.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { code: 14, message: message.into() }
    }

    /// The code's name; `?` for a code that gRPC does not have.
    pub fn name(&self) -> &'static str {
        NAMES.get(self.code as usize).unwrap_or(&"?")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.code)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

/// The headers and trailers of a response that matter, as they are read.
#[derive(Debug, Default)]
pub struct Answer {
    http: Option<u32>,
    code: Option<u32>,
    message: Option<String>,
}

impl Answer {
    /// Notes one header.
    pub fn note(&mut self, name: &[u8], value: &[u8]) {
        let number = || std::str::from_utf8(value).ok()?.parse().ok();
        match name {
            b":status" => self.http = number(),
            b"grpc-status" => self.code = Some(number().unwrap_or(u32::MAX)),
            b"grpc-message" => self.message = Some(percent_decode(value)),
            _ => {}
        }
    }

    /// An informational response (1xx): the real one is still to come.
    pub fn is_interim(&self) -> bool {
        self.http.is_some_and(|status| (100..200).contains(&status))
    }

    /// A response without `grpc-status` that is not even a success of HTTP: its body is no gRPC.
    pub fn is_refused(&self) -> bool {
        self.http.is_some_and(|status| status != 200)
    }

    /// The status at the end of the stream.
    pub fn status(&self) -> Status {
        match (self.code, self.http) {
            (Some(code), _) => Status { code, message: self.message.clone().unwrap_or_default() },
            (None, Some(http)) if http != 200 => {
                // As gRPC maps them (its http-grpc-status-mapping document).
                let code = match http {
                    400 => 13,
                    401 => 16,
                    403 => 7,
                    404 => 12,
                    429 | 502..=504 => 14,
                    _ => 2,
                };
                Status { code, message: format!("the server answered HTTP {http} without a gRPC status") }
            }
            _ => Status::unknown("the stream ended without a gRPC status"),
        }
    }
}

fn percent_decode(value: &[u8]) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, after)) = rest.split_first() {
        let byte = (*first == b'%')
            .then(|| std::str::from_utf8(after.get(..2)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Answer, Assembler, Unreadable, percent_decode, write_message};

    proptest! {
        #[test]
        fn messages_survive_any_cut(messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..8), cut in 1_usize..9) {
            let mut wire = Vec::new();
            messages.iter().for_each(|m| write_message(&mut wire, m));
            let (mut assembler, mut seen) = (Assembler::default(), Vec::new());
            for piece in wire.chunks(cut) {
                assembler.push(piece, |m| seen.push(m)).unwrap();
            }
            prop_assert!(!assembler.in_the_middle());
            prop_assert_eq!(assembler.body.capacity(), 0);
            prop_assert_eq!(seen, messages);
        }
    }

    #[test]
    fn a_length_alone_reserves_little_and_too_much_is_refused() {
        let mut assembler = Assembler::default();
        assembler.push(b"\0\x0f\xff\xff\xffx", |_| unreachable!()).unwrap();
        assert!(assembler.in_the_middle() && assembler.body.capacity() <= super::FIRST_BYTES);
        let refused = Assembler::default().push(b"\0\xff\xff\xff\xff", |_| unreachable!());
        assert_eq!(refused, Err(Unreadable::TooLarge(u32::MAX as usize)));
        assert_eq!(Assembler::default().push(b"\x01\0\0\0\x01x", |_| ()), Err(Unreadable::Compressed));
    }

    #[test]
    fn statuses_come_from_trailers_or_else_from_http() {
        type Headers = &'static [(&'static str, &'static str)];
        let cases: &[(Headers, u32, &str)] = &[
            (&[(":status", "200"), ("grpc-status", "0")], 0, ""),
            (&[("grpc-status", "8"), ("grpc-message", "try%20later%")], 8, "try later%"),
            (&[(":status", "503")], 14, "the server answered HTTP 503 without a gRPC status"),
            (&[(":status", "200")], 2, "the stream ended without a gRPC status"),
            (&[("grpc-status", "x")], u32::MAX, ""),
        ];
        for (headers, code, message) in cases {
            let mut answer = Answer::default();
            headers.iter().for_each(|(n, v)| answer.note(n.as_bytes(), v.as_bytes()));
            let status = answer.status();
            assert_eq!((status.code, status.message.as_str()), (*code, *message));
        }
        assert_eq!(percent_decode(b"%E2%82%ac%zz"), "\u{20ac}%zz");
    }
}
