//! D-Bus messages as bytes (D-Bus Specification, "Type System" and "Message Protocol"): the part that talking to systemd needs.
//!
//! Only messages in this machine's own byte order: both ends of a local socket have it.

use crate::error::{Error, Result};

/// A value with its type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Text(String),
    /// An object's path.
    Path(String),
    /// The signature of an element, and the elements.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    #[cfg(test)]
    pub fn texts(texts: &[&str]) -> Value {
        Value::Array("s".into(), texts.iter().map(|t| Value::text(*t)).collect())
    }

    /// `(sv)`: how systemd takes a property.
    pub fn property(name: &str, value: Value) -> Value {
        Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value))])
    }

    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".into(),
            Value::Bool(_) => "b".into(),
            Value::I16(_) => "n".into(),
            Value::U16(_) => "q".into(),
            Value::I32(_) => "i".into(),
            Value::U32(_) => "u".into(),
            Value::I64(_) => "x".into(),
            Value::U64(_) => "t".into(),
            Value::Double(_) => "d".into(),
            Value::Text(_) => "s".into(),
            Value::Path(_) => "o".into(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(fields) => format!("({})", fields.iter().map(Value::signature).collect::<String>()),
            Value::Variant(_) => "v".into(),
        }
    }

    /// The text of a string or path, also inside a variant.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) | Value::Path(text) => Some(text),
            Value::Variant(inner) => inner.as_text(),
            _ => None,
        }
    }
}

/// What a message is for.
pub const METHOD_CALL: u8 = 1;
pub const METHOD_RETURN: u8 = 2;
pub const ERROR: u8 = 3;
pub const SIGNAL: u8 = 4;

/// The specification's limit for one message.
const MESSAGE_LIMIT: usize = 128 << 20;
/// Of the fixed part of a header.
pub const HEADER: usize = 16;

/// Header fields, with the specification's numbers.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A method to call.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    pub body: &'a [Value],
}

/// A message that came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    pub kind: u8,
    pub reply_serial: u32,
    pub member: String,
    pub error_name: String,
    pub body: Vec<Value>,
}

#[cfg(target_endian = "little")]
const ENDIAN: u8 = b'l';
#[cfg(target_endian = "big")]
const ENDIAN: u8 = b'B';

/// The bytes of a call.
pub fn encode(call: &Call<'_>, serial: u32) -> Vec<u8> {
    let fields = [
        (PATH, Value::Path(call.path.into())),
        (INTERFACE, Value::text(call.interface)),
        (MEMBER, Value::text(call.member)),
        (DESTINATION, Value::text(call.destination)),
    ];
    message(METHOD_CALL, serial, &fields, call.body)
}

/// What a stand-in for the other side says.
#[cfg(test)]
pub fn encode_as(kind: u8, member: &str, reply_to: u32, error: &str, body: &[Value]) -> Vec<u8> {
    let mut fields = vec![(REPLY_SERIAL, Value::U32(reply_to))];
    let texts = [(MEMBER, member), (ERROR_NAME, error)].into_iter().filter(|(_, text)| !text.is_empty());
    fields.extend(texts.map(|(code, text)| (code, Value::text(text))));
    message(kind, 1, &fields, body)
}

fn message(kind: u8, serial: u32, fields: &[(u8, Value)], values: &[Value]) -> Vec<u8> {
    let mut body = Writer::default();
    values.iter().for_each(|value| body.value(value));
    let signature: String = values.iter().map(Value::signature).collect();
    let mut header = Writer::default();
    header.bytes.extend([ENDIAN, kind, 0, 1]);
    header.u32(length(body.bytes.len()));
    header.u32(serial);
    header.array(8, |w| {
        fields.iter().for_each(|(code, value)| w.field(*code, value));
        if !signature.is_empty() {
            w.pad(8);
            w.bytes.push(SIGNATURE);
            w.signature("g");
            w.signature(&signature);
        }
    });
    header.pad(8);
    header.bytes.extend(body.bytes);
    header.bytes
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("what this program says is far below the limit of a message")
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.pad(bytes.len());
        self.bytes.extend(bytes);
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_ne_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(length(text.len()));
        self.bytes.extend(text.bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.bytes.push(u8::try_from(text.len()).expect("no value here has a signature of 256 bytes"));
        self.bytes.extend(text.bytes());
        self.bytes.push(0);
    }

    /// The length counts what comes after the padding to the first element.
    fn array(&mut self, alignment: usize, write: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        self.pad(alignment);
        let start = self.bytes.len();
        write(self);
        let bytes = length(self.bytes.len() - start).to_ne_bytes();
        self.bytes[length_at..length_at + 4].copy_from_slice(&bytes);
    }

    fn field(&mut self, code: u8, value: &Value) {
        self.pad(8);
        self.bytes.push(code);
        self.variant(value);
    }

    fn variant(&mut self, value: &Value) {
        self.signature(&value.signature());
        self.value(value);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(v) => self.bytes.push(*v),
            Value::Bool(v) => self.u32(u32::from(*v)),
            Value::I16(v) => self.put(&v.to_ne_bytes()),
            Value::U16(v) => self.put(&v.to_ne_bytes()),
            Value::I32(v) => self.put(&v.to_ne_bytes()),
            Value::U32(v) => self.u32(*v),
            Value::I64(v) => self.put(&v.to_ne_bytes()),
            Value::U64(v) => self.put(&v.to_ne_bytes()),
            Value::Double(v) => self.put(&v.to_ne_bytes()),
            Value::Text(text) | Value::Path(text) => self.text(text),
            Value::Array(element, values) => {
                self.array(alignment(element.as_bytes()), |w| values.iter().for_each(|v| w.value(v)));
            }
            Value::Struct(fields) => {
                self.pad(8);
                fields.iter().for_each(|v| self.value(v));
            }
            Value::Variant(inner) => self.variant(inner),
        }
    }
}

/// Of the type that a signature begins with.
fn alignment(signature: &[u8]) -> usize {
    match signature.first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

/// The length of the message that begins with this header.
pub fn message_length(header: &[u8; HEADER]) -> Result<usize> {
    if header[0] != ENDIAN || header[3] != 1 {
        return Err(garbled("not a message of this protocol and byte order"));
    }
    let number = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let length = (HEADER + number(12)).next_multiple_of(8) + number(4);
    if length > MESSAGE_LIMIT { Err(garbled("a message above the limit")) } else { Ok(length) }
}

/// A whole message.
pub fn decode(bytes: &[u8]) -> Result<Message> {
    let mut reader = Reader { bytes, at: 1, depth: 0 };
    let mut message = Message { kind: reader.take(1)?[0], ..Message::default() };
    reader.at = 12;
    let mut signature = String::new();
    let Value::Array(_, fields) = reader.value(&mut b"a(yv)".as_slice())? else { return Err(garbled("no header fields")) };
    for field in fields {
        let Value::Struct(pair) = field else { continue };
        let [Value::Byte(code), Value::Variant(value)] = pair.as_slice() else { continue };
        let text = || value.as_text().unwrap_or_default().to_owned();
        match (*code, value.as_ref()) {
            (MEMBER, _) => message.member = text(),
            (ERROR_NAME, _) => message.error_name = text(),
            (REPLY_SERIAL, Value::U32(serial)) => message.reply_serial = *serial,
            (SIGNATURE, _) => signature = text(),
            _ => {}
        }
    }
    reader.align(8)?;
    let mut rest = signature.as_bytes();
    while !rest.is_empty() {
        message.body.push(reader.value(&mut rest)?);
    }
    Ok(message)
}

fn garbled(why: &str) -> Error {
    Error::Systemd(format!("the bus sent what cannot be understood: {why}"))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
}

/// The specification's limits for arrays (32), structs (32) and variants (64 in all).
const DEPTH: u32 = 64;

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or_else(|| garbled("a message that is cut off"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<()> {
        let next = self.at.next_multiple_of(to);
        self.take(next - self.at).map(drop)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.align(N)?;
        Ok(self.take(N)?.try_into().expect("take gives as many bytes as it is asked for"))
    }

    fn text(&mut self) -> Result<String> {
        let length = u32::from_ne_bytes(self.number()?) as usize;
        self.text_of(length)
    }

    fn text_of(&mut self, length: usize) -> Result<String> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| garbled("a text that is not UTF-8"))?.to_owned();
        self.take(1)?;
        Ok(text)
    }

    /// Reads one value and moves the signature behind its type.
    fn value(&mut self, signature: &mut &[u8]) -> Result<Value> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(garbled("values nested too deeply"));
        }
        let value = self.shallow(signature);
        self.depth -= 1;
        value
    }

    fn shallow(&mut self, signature: &mut &[u8]) -> Result<Value> {
        let (&first, rest) = signature.split_first().ok_or_else(|| garbled("an incomplete signature"))?;
        *signature = rest;
        Ok(match first {
            b'y' => Value::Byte(self.take(1)?[0]),
            b'b' => Value::Bool(u32::from_ne_bytes(self.number()?) != 0),
            b'n' => Value::I16(i16::from_ne_bytes(self.number()?)),
            b'q' => Value::U16(u16::from_ne_bytes(self.number()?)),
            b'i' => Value::I32(i32::from_ne_bytes(self.number()?)),
            // A descriptor is told by its number; none is asked for here.
            b'u' | b'h' => Value::U32(u32::from_ne_bytes(self.number()?)),
            b'x' => Value::I64(i64::from_ne_bytes(self.number()?)),
            b't' => Value::U64(u64::from_ne_bytes(self.number()?)),
            b'd' => Value::Double(f64::from_ne_bytes(self.number()?)),
            b's' => Value::Text(self.text()?),
            b'o' => Value::Path(self.text()?),
            b'g' => Value::Text(self.short_text()?),
            b'v' => {
                let inner = self.short_text()?;
                Value::Variant(Box::new(self.value(&mut inner.as_bytes())?))
            }
            b'a' => self.array(signature)?,
            b'(' => self.fields(signature, b')')?,
            b'{' => self.fields(signature, b'}')?,
            _ => return Err(garbled("an unknown type")),
        })
    }

    fn short_text(&mut self) -> Result<String> {
        let length = usize::from(self.take(1)?[0]);
        self.text_of(length)
    }

    fn array(&mut self, signature: &mut &[u8]) -> Result<Value> {
        let element = &signature[..type_length(signature)?];
        *signature = &signature[element.len()..];
        let length = u32::from_ne_bytes(self.number()?) as usize;
        self.align(alignment(element))?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or_else(|| garbled("an array that is cut off"))?;
        let mut values = Vec::new();
        while self.at < end {
            values.push(self.value(&mut &*element)?);
        }
        Ok(Value::Array(String::from_utf8_lossy(element).into_owned(), values))
    }

    /// Of a struct or a dictionary's entry.
    fn fields(&mut self, signature: &mut &[u8], close: u8) -> Result<Value> {
        self.align(8)?;
        let mut fields = Vec::new();
        while signature.first() != Some(&close) {
            fields.push(self.value(signature)?);
        }
        *signature = &signature[1..];
        // The specification knows none; an array of them would have no end.
        if fields.is_empty() { Err(garbled("an empty struct")) } else { Ok(Value::Struct(fields)) }
    }
}

/// How many bytes of the signature its first complete type takes.
fn type_length(signature: &[u8]) -> Result<usize> {
    let mut open = 0u32;
    for (at, byte) in signature.iter().enumerate() {
        match byte {
            b'(' | b'{' => open += 1,
            b')' | b'}' => open = open.checked_sub(1).ok_or_else(|| garbled("an unbalanced signature"))?,
            _ => {}
        }
        if open == 0 && *byte != b'a' {
            return Ok(at + 1);
        }
    }
    Err(garbled("an incomplete signature"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(body: &[Value]) -> Vec<u8> {
        encode(&Call { destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "i.f", member: "M", body }, 7)
    }

    /// What comes back of a call's body: the fields of a call are read like those of an answer.
    fn round(body: &[Value]) -> Vec<Value> {
        let bytes = call(body);
        let header: [u8; HEADER] = bytes[..HEADER].try_into().unwrap();
        assert_eq!(message_length(&header).unwrap(), bytes.len());
        let message = decode(&bytes).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (METHOD_CALL, "M"));
        message.body
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_call_without_a_body_is_these_bytes() {
        let mut expected = b"l\x01\x00\x01\x00\x00\x00\x00\x07\x00\x00\x00\x62\x00\x00\x00".to_vec();
        expected.extend(b"\x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus\x00\x00\x00");
        expected.extend(b"\x02\x01s\x00\x03\x00\x00\x00i.f\x00\x00\x00\x00\x00");
        expected.extend(b"\x03\x01s\x00\x01\x00\x00\x00M\x00\x00\x00\x00\x00\x00\x00");
        expected.extend(b"\x06\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00");
        // The length of the fields does not count the padding before the body.
        expected[12] = u8::try_from(expected.len() - HEADER - 3).unwrap();
        let bytes = call(&[]);
        assert_eq!(bytes, expected, "{:?}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn every_type_survives_the_way() {
        let all = vec![
            Value::Byte(1),
            Value::Bool(true),
            Value::I16(-2),
            Value::U16(3),
            Value::I32(-4),
            Value::Byte(9),
            Value::I64(-5),
            Value::U64(u64::MAX),
            Value::Double(0.5),
            Value::text("text"),
            Value::Path("/a/b".into()),
            Value::texts(&["", "one"]),
            Value::Array("t".into(), vec![]),
            Value::Array("ay".into(), vec![Value::Array("y".into(), vec![Value::Byte(1), Value::Byte(2)])]),
            Value::Struct(vec![Value::U32(6), Value::Variant(Box::new(Value::Struct(vec![Value::text("s")])))]),
        ];
        assert_eq!(round(&all), all);
    }

    #[test]
    fn properties_have_systemds_shape() {
        let properties = Value::Array("(sv)".into(), vec![Value::property("PIDs", Value::Array("u".into(), vec![Value::U32(42)]))]);
        assert_eq!(properties.signature(), "a(sv)");
        assert_eq!(round(std::slice::from_ref(&properties)), [properties]);
    }

    #[test]
    fn a_cut_or_mad_message_is_an_error_and_no_panic() {
        let bytes = call(&[Value::property("Name", Value::texts(&["a", "b"])), Value::U64(5)]);
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err() || length < HEADER, "{length}");
        }
        for at in 0..bytes.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut mad = bytes.clone();
                mad[at] = byte;
                drop(decode(&mad));
                if let Ok(header) = <[u8; HEADER]>::try_from(&mad[..HEADER]) {
                    drop(message_length(&header));
                }
            }
        }
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        let deep = (0..200).fold(Value::Byte(0), |inner, _| Value::Variant(Box::new(inner)));
        assert!(decode(&call(&[deep])).unwrap_err().to_string().contains("deep"));
    }
}
