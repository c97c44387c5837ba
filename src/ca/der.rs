//! Writing DER (X.690): each element is its tag, its length and its content, and they nest.

/// ASN.1 tags as they stand in the first byte of an element.
pub mod tag {
    pub const BOOLEAN: u8 = 0x01;
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    pub const OBJECT_IDENTIFIER: u8 = 0x06;
    pub const UTF8_STRING: u8 = 0x0c;
    pub const UTC_TIME: u8 = 0x17;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const SEQUENCE: u8 = 0x30;
    pub const SET: u8 = 0x31;

    /// `[n]` around one plain value (`IMPLICIT`).
    pub const fn context(n: u8) -> u8 {
        0x80 | n
    }

    /// `[n]` around other elements (`EXPLICIT`, or a sequence).
    pub const fn context_constructed(n: u8) -> u8 {
        0xa0 | n
    }
}

/// Adds an element with this content.
pub fn write(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    let (bytes, count) = length(content.len());
    out.extend_from_slice(&bytes[..count]);
    out.extend_from_slice(content);
}

/// Adds an element whose content `inside` writes.
pub fn nest(out: &mut Vec<u8>, tag: u8, inside: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[tag, 0]);
    let start = out.len();
    inside(out);
    let end = out.len();
    let (bytes, count) = length(end - start);
    // Most elements are shorter than 128 bytes, and their length fits where room was left for it.
    out.resize(end + count - 1, 0);
    out.copy_within(start..end, start + count - 1);
    out[start - 1..][..count].copy_from_slice(&bytes[..count]);
}

/// Adds a bit string of whole bytes.
pub fn bits(out: &mut Vec<u8>, content: &[u8]) {
    nest(out, tag::BIT_STRING, |out| {
        // No bit of the last byte is unused.
        out.push(0);
        out.extend_from_slice(content);
    });
}

/// The shortest form, as DER demands, and how many bytes of it count.
fn length(n: usize) -> ([u8; 1 + size_of::<usize>()], usize) {
    let mut bytes = [0; 1 + size_of::<usize>()];
    let big_endian = n.to_be_bytes();
    if n < 0x80 {
        bytes[0] = big_endian[size_of::<usize>() - 1];
        return (bytes, 1);
    }
    let significant = &big_endian[n.leading_zeros() as usize / 8..];
    bytes[0] = 0x80 | significant.len() as u8;
    bytes[1..=significant.len()].copy_from_slice(significant);
    (bytes, 1 + significant.len())
}

#[cfg(test)]
mod tests {
    use x509_parser::der_parser::asn1_rs::{Any, FromDer};

    use super::*;

    #[test]
    fn lengths_take_their_shortest_form_and_nest() {
        for size in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let content = vec![7; size];
            let (mut plain, mut nested, mut twice) = (vec![9], vec![9], vec![9]);
            write(&mut plain, tag::OCTET_STRING, &content);
            nest(&mut nested, tag::OCTET_STRING, |out| out.extend_from_slice(&content));
            assert_eq!(plain, nested);
            let (rest, read) = Any::from_der(&plain[1..]).unwrap();
            assert_eq!((rest.len(), read.data), (0, &content[..]));
            nest(&mut twice, tag::SEQUENCE, |out| write(out, tag::OCTET_STRING, &content));
            let (rest, read) = Any::from_der(&twice[1..]).unwrap();
            assert_eq!((rest.len(), read.data), (0, &plain[1..]));
        }
    }
}
