//! The Huffman code of HPACK (RFC 7541, appendix B), decoding only.
//!
//! The code is canonical: codes of one length are consecutive and in the order of their symbols, and shorter codes come before
//! longer ones. So the lengths alone define it.

use std::sync::LazyLock;

/// Bits of the code of each octet, and of the end-of-string symbol.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

const SHORTEST: usize = 5;
const LONGEST: usize = 30;
const END_OF_STRING: u16 = 256;

/// Codes of one length.
#[derive(Clone, Copy, Default)]
struct Length {
    /// The first code.
    first: u32,
    /// How many there are.
    count: u32,
    /// Where their symbols begin in `Code::symbols`.
    at: u32,
}

struct Code {
    lengths: [Length; LONGEST + 1],
    symbols: Vec<u16>,
}

static CODE: LazyLock<Code> = LazyLock::new(|| {
    let mut lengths = [Length::default(); LONGEST + 1];
    let mut symbols = Vec::with_capacity(LENGTHS.len());
    let mut next = 0;
    for (bits, length) in lengths.iter_mut().enumerate().skip(SHORTEST) {
        let of_this_length = (0_u16..).zip(LENGTHS).filter(|(_, l)| usize::from(*l) == bits);
        *length = Length { first: next, count: 0, at: symbols.len() as u32 };
        symbols.extend(of_this_length.map(|(symbol, _)| symbol));
        length.count = symbols.len() as u32 - length.at;
        next = (next + length.count) << 1;
    }
    Code { lengths, symbols }
});

/// The octets that `encoded` stands for. `None` if it is not a valid encoding: a code that does not exist, the end-of-string
/// symbol, or padding that is not the beginning of it or is longer than seven bits.
pub fn decode(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(encoded.len() * 8 / SHORTEST);
    let (mut code, mut bits) = (0_u32, 0_usize);
    for byte in encoded {
        for shift in (0..8).rev() {
            code = code << 1 | u32::from(byte >> shift & 1);
            bits += 1;
            let length = CODE.lengths.get(bits)?;
            let offset = code.wrapping_sub(length.first);
            if offset < length.count {
                let symbol = CODE.symbols[(length.at + offset) as usize];
                if symbol == END_OF_STRING {
                    return None;
                }
                out.push(symbol as u8);
                (code, bits) = (0, 0);
            }
        }
    }
    (bits < 8 && code == (1 << bits) - 1).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::{CODE, LENGTHS, LONGEST, decode};

    #[test]
    fn the_code_is_complete() {
        let kraft: u64 = LENGTHS.iter().map(|l| 1_u64 << (LONGEST - usize::from(*l))).sum();
        assert_eq!(kraft, 1 << LONGEST, "no code is missing and none is the beginning of another");
        assert_eq!(CODE.symbols.len(), 257);
        let last = CODE.lengths[LONGEST];
        assert_eq!(last.first + last.count - 1, (1 << 30) - 1, "the end-of-string symbol is all ones");
    }

    #[test]
    fn examples_of_the_specification() {
        // RFC 7541, C.4.1, C.4.2, C.6.1.
        let cases: &[(&[u8], &str)] = &[
            (b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", "www.example.com"),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x64\x02", "302"),
            (
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            (b"", ""),
        ];
        for (encoded, text) in cases {
            assert_eq!(decode(encoded).as_deref(), Some(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn wrong_padding_and_the_end_symbol_are_refused() {
        assert_eq!(decode(b"\x18"), None, "padding of zeros");
        assert_eq!(decode(b"\xff"), None, "eight bits of padding");
        assert_eq!(decode(b"\xff\xff\xff\xff"), None, "end of string");
    }
}
