//! PEM (RFC 7468): DER in base64 between two lines that say what it is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::{memchr, memmem};

use crate::text::printable;

/// The bytes in a line of 64 characters.
const LINE: usize = 48;
const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// One block of a text. What stands before, between and after blocks is commentary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// What it is, such as `CERTIFICATE`.
    pub label: &'a str,
    /// Lines such as `Proc-Type: 4,ENCRYPTED`, with which old formats begin. Empty otherwise.
    pub headers: &'a [u8],
    text: &'a [u8],
}

/// Why a text holds no PEM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// A first line that is cut short or is not UTF-8.
    #[error("the line `-----BEGIN` of block {0} is not complete")]
    Begin(usize),
    /// The block's last line is absent or says something else.
    #[error("the block `{0}` does not end with its line `-----END {0}-----`")]
    End(String),
    /// What is between the lines is not base64.
    #[error("the block `{label}` is not base64: {reason}")]
    Base64 {
        /// Which block.
        label: String,
        /// What the decoder says.
        reason: String,
    },
}

/// Finds all blocks of a text.
pub fn blocks(text: &[u8]) -> Result<Vec<Block<'_>>, PemError> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = split(rest, BEGIN) {
        let begin = || PemError::Begin(found.len() + 1);
        let (label, after) = split(after, DASHES).ok_or_else(begin)?;
        let label = std::str::from_utf8(label).map_err(|_| begin())?;
        let end = || PemError::End(printable(label));
        let (inner, after) = split(after, END).ok_or_else(end)?;
        rest = after
            .strip_prefix(label.as_bytes())
            .and_then(|rest| rest.strip_prefix(DASHES))
            .ok_or_else(end)?;
        let (headers, text) = split_headers(inner);
        found.push(Block { label, headers, text });
    }
    Ok(found)
}

/// A block with line ends `\n`, as everybody but Windows expects. Fills one allocation: whoever wipes the text wipes it all.
pub fn encode(label: &str, der: &[u8]) -> String {
    let mut text = String::with_capacity(encoded_len(label, der.len()));
    append(&mut text, label, der);
    text
}

/// Adds a block to a text.
pub fn append(text: &mut String, label: &str, der: &[u8]) {
    text.reserve(encoded_len(label, der.len()));
    let mut line = [0; LINE / 3 * 4];
    text.extend(["-----BEGIN ", label, "-----\n"]);
    for chunk in der.chunks(LINE) {
        let length = STANDARD.encode_slice(chunk, &mut line).expect("a line holds a chunk");
        text.push_str(std::str::from_utf8(&line[..length]).expect("base64 is ASCII"));
        text.push('\n');
    }
    text.extend(["-----END ", label, "-----\n"]);
}

/// The length of a block with so many bytes of DER.
pub const fn encoded_len(label: &str, der: usize) -> usize {
    let frame = BEGIN.len() + END.len() + 2 * (label.len() + DASHES.len() + 1);
    frame + der.div_ceil(3) * 4 + der.div_ceil(LINE)
}

// === impl Block ===

impl Block<'_> {
    /// The DER inside.
    pub fn decode(&self) -> Result<Vec<u8>, PemError> {
        let mut packed = Vec::with_capacity(self.text.len());
        self.text.split(u8::is_ascii_whitespace).for_each(|line| packed.extend_from_slice(line));
        STANDARD
            .decode(packed)
            .map_err(|error| PemError::Base64 { label: printable(self.label), reason: error.to_string() })
    }
}

/// What is before and after the first `mark`.
fn split<'a>(text: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = memmem::find(text, mark)?;
    Some((&text[..at], &text[at + mark.len()..]))
}

/// Headers end with an empty line. Base64 has no colon.
fn split_headers(inner: &[u8]) -> (&[u8], &[u8]) {
    if memchr(b':', inner).is_none() {
        return (&[], inner);
    }
    split(inner, b"\n\n").or_else(|| split(inner, b"\r\n\r\n")).unwrap_or((&[], inner))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(text: &str) -> Result<Vec<(String, Vec<u8>)>, PemError> {
        blocks(text.as_bytes())?.iter().map(|block| Ok((block.label.to_owned(), block.decode()?))).collect()
    }

    #[test]
    fn commentary_line_ends_and_headers_are_forgiven() {
        let certificate = "Subject: é\n-----BEGIN CERTIFICATE-----\r\nAAEC\r\n-----END CERTIFICATE-----\r\n";
        let key = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: X\n\nAA\nE=\n-----END RSA PRIVATE KEY-----";
        let text = format!("{certificate}\nthen{key}");
        let found = decoded(&text).unwrap();
        assert_eq!(found, [("CERTIFICATE".into(), vec![0, 1, 2]), ("RSA PRIVATE KEY".into(), vec![0, 1])]);
        let headers = blocks(text.as_bytes()).unwrap()[1].headers;
        assert_eq!(headers, b"\nProc-Type: 4,ENCRYPTED\nDEK-Info: X");
        assert_eq!(decoded("no block at all"), Ok(vec![]));
    }

    #[test]
    fn what_is_broken_says_how() {
        for (text, expected) in [
            ("-----BEGIN X", "`-----BEGIN` of block 1 is not complete"),
            ("-----BEGIN X-----\nAAAA\n", "`X` does not end with its line"),
            ("-----BEGIN X-----\nAAAA\n-----END Y-----\n", "`X` does not end with its line"),
            ("-----BEGIN X-----\nAAAA\n-----END X----\n", "`X` does not end with its line"),
            ("-----BEGIN X-----\nA!AA\n-----END X-----\n", "`X` is not base64"),
            ("-----BEGIN X-----\nAAA\n-----END X-----\n", "`X` is not base64"),
            ("-----BEGIN X-----\na: b\nAAAA\n-----END X-----\n", "`X` is not base64"),
        ] {
            let error = decoded(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_and_of_the_length_foretold(der in prop::collection::vec(any::<u8>(), 0..300)) {
            let text = encode("CERTIFICATE", &der);
            prop_assert_eq!((text.len(), text.capacity()), (encoded_len("CERTIFICATE", der.len()), text.len()));
            prop_assert!(text.lines().all(|line| line.len() <= 64));
            prop_assert_eq!(decoded(&text).unwrap(), [("CERTIFICATE".to_owned(), der)]);
        }

        #[test]
        fn garbage_never_panics(text in "(-----(BEGIN|END) |-----|A|[a-z]|:|\n|=|\\PC){0,40}") {
            let _ = decoded(&text);
        }
    }
}
