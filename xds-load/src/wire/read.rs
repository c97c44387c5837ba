//! Reads protobuf field by field, without copying.

/// Bytes that are no protobuf message, or not the one that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes that are not the protobuf message that should be there")]
pub struct Malformed;

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, a boolean or an enum.
    Varint(u64),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
    /// Eight or four bytes; none of the fields that are read has them.
    Fixed,
}

/// The fields of a message, in the order in which they lie.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            // Groups are older than anything that Envoy has.
            _ => return Err(Malformed),
        };
        Ok((key >> 3, value))
    }

    /// Hands `each` the fields that hold bytes.
    pub fn each_bytes(
        self,
        mut each: impl FnMut(u64, &'a [u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        for field in self {
            if let (number, Value::Bytes(bytes)) = field? {
                each(number, bytes)?;
            }
        }
        Ok(())
    }

    /// The last field of this number that holds bytes: of a field that is not repeated, the one that counts.
    pub fn bytes(self, number: u64) -> Result<Option<&'a [u8]>, Malformed> {
        let mut found = None;
        self.each_bytes(|n, bytes| {
            if n == number {
                found = Some(bytes);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// A string; empty, if it is not there.
    pub fn text(self, number: u64) -> Result<&'a str, Malformed> {
        text(self.bytes(number)?.unwrap_or_default())
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// UTF-8.
pub fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Fields, Malformed, Value};

    #[test]
    fn fields_of_all_kinds_are_read() {
        let message = b"\x08\x96\x01\x12\x02hi\x1912345678\x251234\xfa\x01\x00";
        let fields: Vec<_> = Fields(message).collect();
        let expected = [
            Ok((1, Value::Varint(150))),
            Ok((2, Value::Bytes(b"hi"))),
            Ok((3, Value::Fixed)),
            Ok((4, Value::Fixed)),
            Ok((31, Value::Bytes(b""))),
        ];
        assert_eq!(fields, expected);
        assert_eq!(Fields(b"\x0a\x01a\x0a\x01b").text(1), Ok("b"), "the last one counts");
    }

    #[test]
    fn what_is_cut_off_or_no_text_is_said() {
        for message in [
            &b"\x0a\x05abc"[..],
            b"\x08",
            b"\x0a",
            b"\x0b",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(Fields(message).bytes(1), Err(Malformed), "{message:?}");
        }
        assert_eq!(Fields(b"\x0a\x01\xff").text(1), Err(Malformed));
    }

    proptest! {
        #[test]
        fn hostile_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Fields(&bytes).count() <= bytes.len());
        }
    }
}
