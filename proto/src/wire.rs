//! Protobuf's wire format where fields are bytes already: a message is made by putting them one behind the other. Field
//! numbers are below 16 here, so that a key is a byte.

use prost::{
    bytes::BufMut,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};

/// How long a field with so many bytes in it is.
pub fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// Appends what comes before the bytes of a field.
pub fn put_head(out: &mut impl BufMut, number: u32, len: usize) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

/// Appends a field with these bytes in it.
pub fn put_field(out: &mut impl BufMut, number: u32, bytes: &[u8]) {
    put_head(out, number, bytes.len());
    out.put_slice(bytes);
}
