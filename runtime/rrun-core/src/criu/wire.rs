//! As much of protobuf's encoding as criu's requests and answers need: numbers, texts, messages (protobuf.dev, Encoding).

/// A message in the making.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Message(Vec<u8>);

/// A field's value as it lies on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Number(u64),
    /// A text, or a message.
    Bytes(&'a [u8]),
}

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

impl Message {
    pub fn number(&mut self, field: u32, value: u64) {
        self.key(field, VARINT);
        self.varint(value);
    }

    /// An int32: a negative one takes ten bytes.
    pub fn int(&mut self, field: u32, value: i32) {
        self.number(field, i64::from(value).cast_unsigned());
    }

    /// Left out where it is false, which is what every reader takes it for then.
    pub fn flag(&mut self, field: u32, value: bool) {
        if value {
            self.number(field, 1);
        }
    }

    pub fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, LENGTH);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub fn message(&mut self, field: u32, value: &Message) {
        self.bytes(field, &value.0);
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn key(&mut self, field: u32, kind: u64) {
        self.varint(u64::from(field) << 3 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// All fields of a message, in order; None: it is none.
pub fn fields(mut rest: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let field = u32::try_from(key >> 3).ok().filter(|field| *field > 0)?;
        let value = match key & 7 {
            VARINT => Value::Number(varint(&mut rest)?),
            LENGTH => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                Value::Bytes(take(&mut rest, length)?)
            }
            FIXED_64 => Value::Bytes(take(&mut rest, 8)?),
            FIXED_32 => Value::Bytes(take(&mut rest, 4)?),
            _ => return None,
        };
        found.push((field, value));
    }
    Some(found)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = *take(rest, 1)? else { return None };
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_texts_and_messages_are_encoded_as_the_specification_shows() {
        // The examples of protobuf.dev: 150 in field 1, "testing" in field 2, the first in field 3.
        let mut first = Message::default();
        first.number(1, 150);
        assert_eq!(first.clone().into_bytes(), [0x08, 0x96, 0x01]);
        let mut text = Message::default();
        text.bytes(2, b"testing");
        assert_eq!(text.into_bytes(), b"\x12\x07testing");
        let mut outer = Message::default();
        outer.message(3, &first);
        assert_eq!(outer.into_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let mut negative = Message::default();
        negative.int(1, -2);
        assert_eq!(negative.into_bytes(), [0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        let mut flags = Message::default();
        flags.flag(1, false);
        flags.flag(50, true);
        assert_eq!(flags.into_bytes(), [0x90, 0x03, 0x01]);
    }

    #[test]
    fn what_was_encoded_is_read_again() {
        let mut message = Message::default();
        for (n, value) in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX].into_iter().enumerate() {
            message.number(n as u32 + 1, value);
        }
        message.bytes(100, b"");
        message.bytes(536_870_911, b"last");
        let bytes = message.into_bytes();
        let found = fields(&bytes).unwrap();
        assert_eq!(found[7], (8, Value::Number(u64::MAX)));
        assert_eq!(found[5], (6, Value::Number(16_384)));
        assert_eq!(found[8..], [(100, Value::Bytes(b"")), (536_870_911, Value::Bytes(b"last"))]);
        // Every cut is noticed, unless it is between two fields.
        let whole: Vec<usize> = (0..bytes.len()).filter(|n| fields(&bytes[..*n]).is_some()).collect();
        assert_eq!(whole.len(), found.len());
    }

    #[test]
    fn garbage_is_no_message() {
        for garbage in
            [&b"\x00"[..], b"\x07", b"\x08", b"\x0a\x05abc", b"\x0b", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", b"criu: error"]
        {
            assert_eq!(fields(garbage), None, "{garbage:?}");
        }
        assert_eq!(fields(b"\x0d\x01\x02\x03\x04"), Some(vec![(1, Value::Bytes(&[1, 2, 3, 4]))]));
    }
}
