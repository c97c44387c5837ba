//! Writes protobuf. What is empty is left out, as proto3 has it.

/// A message that grows.
#[derive(Clone, Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A number, unless it is 0.
    pub fn number(&mut self, field: u64, value: u64) -> &mut Self {
        if value != 0 {
            self.varint(field << 3);
            self.varint(value);
        }
        self
    }

    /// A string, unless it is empty.
    pub fn text(&mut self, field: u64, value: &str) -> &mut Self {
        if value.is_empty() { self } else { self.item(field, value.as_bytes()) }
    }

    /// Bytes that are there even if they are empty: an item of a list, or a message.
    pub fn item(&mut self, field: u64, value: &[u8]) -> &mut Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// A message.
    pub fn message(&mut self, field: u64, fill: impl FnOnce(&mut Writer)) -> &mut Self {
        let mut inner = Writer::default();
        fill(&mut inner);
        self.item(field, &inner.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Fields, Writer};

    #[test]
    fn what_is_written_reads_back() {
        let mut writer = Writer::default();
        writer.number(1, 300).number(2, 0).text(3, "").text(4, "x").item(5, b"").message(6, |m| {
            m.text(1, "inner");
        });
        assert_eq!(writer.0, b"\x08\xac\x02\x22\x01x\x2a\x00\x32\x07\x0a\x05inner");
        let inner = Fields(&writer.0).bytes(6).unwrap().unwrap();
        assert_eq!(Fields(inner).text(1), Ok("inner"));
    }
}
