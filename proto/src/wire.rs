//! Protobuf's wire format where fields are bytes already: a message is made by putting them one behind the other. Field
//! numbers are below 16 here, so that a key is a byte.

use prost::{
    bytes::BufMut,
    encoding::{WireType, encode_varint, encoded_len_varint},
};

/// How long a field with so many bytes in it is.
pub fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// Appends what comes before the bytes of a field.
pub fn put_head(out: &mut impl BufMut, number: u32, len: usize) {
    out.put_u8((number << 3 | WireType::LengthDelimited as u32) as u8);
    match len {
        // Most are this short.
        0..0x80 => out.put_u8(len as u8),
        0x80..0x4000 => out.put_slice(&[len as u8 | 0x80, (len >> 7) as u8]),
        _ => encode_varint(len as u64, out),
    }
}

/// Appends a field with these bytes in it.
pub fn put_field(out: &mut impl BufMut, number: u32, bytes: &[u8]) {
    put_head(out, number, bytes.len());
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_field_is_what_prost_has() {
        for len in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 0x20_0000] {
            let any = prost_types::Any { value: vec![7; len], ..Default::default() };
            let mut out = Vec::new();
            put_field(&mut out, 2, &any.value);
            assert_eq!(out.len(), field_len(len));
            // prost leaves an empty field out.
            assert_eq!(out, if len == 0 { vec![0x12, 0] } else { any.encode_to_vec() });
        }
    }
}
