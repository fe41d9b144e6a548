//! DNS messages as far as a resolver for containers needs them (RFC 1035, section 4): one question in, our answers out.

use std::net::{IpAddr, Ipv4Addr};

/// Header length, RFC 1035 section 4.1.1.
const HEADER: usize = 12;
/// The longest name on the wire, RFC 1035 section 2.3.4.
const NAME_MAX: usize = 255;
/// How long a client may keep our answers, seconds; Docker's value. Names move when containers restart.
const TTL: u32 = 600;

const RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;

const CLASS_IN: u16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    A,
    Ptr,
    Aaaa,
    Other,
}

/// Response codes, RFC 1035 section 4.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Ok = 0,
    FormatError = 1,
    ServerFailure = 2,
    NotImplemented = 4,
    Refused = 5,
}

/// A question as it was asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    id: u16,
    flags: u16,
    /// Lower case, without the final dot.
    pub name: String,
    pub kind: Kind,
    /// Name, type and class as they stood in the message.
    question: Vec<u8>,
}

/// What one name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Address(IpAddr),
    Pointer(String),
}

impl Query {
    /// Reads a message with exactly one question of class IN.
    ///
    /// # Errors
    /// The answer to give; `None` for what cannot be answered (no header, or itself an answer).
    pub fn parse(message: &[u8]) -> Result<Self, Option<Vec<u8>>> {
        let header = message.get(..HEADER).ok_or(None)?;
        let field = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let (id, flags, questions) = (field(0), field(2), field(4));
        if flags & RESPONSE != 0 {
            return Err(None);
        }
        let bare = Self { id, flags, name: String::new(), kind: Kind::Other, question: Vec::new() };
        if flags & OPCODE != 0 {
            return Err(Some(bare.refuse(Code::NotImplemented)));
        }
        let malformed = || Some(bare.refuse(Code::FormatError));
        if questions != 1 {
            return Err(malformed());
        }
        let (name, length) = name(&message[HEADER..]).ok_or_else(malformed)?;
        let fixed = message.get(HEADER + length..HEADER + length + 4).ok_or_else(malformed)?;
        let (kind, class) = (u16::from_be_bytes([fixed[0], fixed[1]]), u16::from_be_bytes([fixed[2], fixed[3]]));
        let kind = match (kind, class) {
            (1, CLASS_IN) => Kind::A,
            (12, CLASS_IN) => Kind::Ptr,
            (28, CLASS_IN) => Kind::Aaaa,
            _ => Kind::Other,
        };
        Ok(Self { id, flags, name, kind, question: message[HEADER..HEADER + length + 4].to_vec() })
    }

    /// The address that a reverse look-up asks for (RFC 1035 section 3.5; IPv4 only).
    pub fn reverse(&self) -> Option<Ipv4Addr> {
        let digits = self.name.strip_suffix(".in-addr.arpa").filter(|_| self.kind == Kind::Ptr)?;
        let octets: Vec<u8> = digits.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
        let [d, c, b, a] = <[u8; 4]>::try_from(octets).ok()?;
        Some(Ipv4Addr::new(a, b, c, d))
    }

    /// An answer with these records; cut to `limit` bytes at a record's border, with the bit that makes clients ask again by TCP.
    pub fn answer(&self, records: &[Record], limit: usize) -> Vec<u8> {
        let mut message = self.header(Code::Ok);
        let mut count = 0_u16;
        for record in records {
            let data = encode(record);
            if message.len() + data.len() > limit {
                let flags = u16::from_be_bytes([message[2], message[3]]) | TRUNCATED;
                message[2..4].copy_from_slice(&flags.to_be_bytes());
                break;
            }
            message.extend(data);
            count += 1;
        }
        message[6..8].copy_from_slice(&count.to_be_bytes());
        message
    }

    pub fn refuse(&self, code: Code) -> Vec<u8> {
        self.header(code)
    }

    /// Whether a message from an upstream server answers this question: same id, same question.
    pub fn is_answered_by(&self, message: &[u8]) -> bool {
        let head = message.get(..HEADER).is_some_and(|head| head[..2] == self.id.to_be_bytes() && head[2] & 0x80 != 0);
        let asked = message.get(HEADER..HEADER + self.question.len());
        head && asked.is_none_or(|asked| asked.eq_ignore_ascii_case(&self.question))
    }

    fn header(&self, code: Code) -> Vec<u8> {
        let flags = RESPONSE | RECURSION_AVAILABLE | (self.flags & (OPCODE | RECURSION_DESIRED)) | code as u16;
        let questions = u16::from(!self.question.is_empty());
        let mut message = Vec::with_capacity(512);
        for field in [self.id, flags, questions, 0, 0, 0] {
            message.extend(field.to_be_bytes());
        }
        message.extend(&self.question);
        message
    }
}

/// A name without compression (a question is the first name of a message, so there is nothing to point to), and its length on the wire.
fn name(wire: &[u8]) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut at = 0;
    loop {
        let length = usize::from(*wire.get(at)?);
        let label = wire.get(at + 1..at + 1 + length).filter(|_| length < 64)?;
        at += 1 + length;
        if at > NAME_MAX {
            return None;
        }
        if length == 0 {
            return Some((name, at));
        }
        if !name.is_empty() {
            name.push('.');
        }
        // Names of containers are ASCII; whatever else is asked is only compared, never shown.
        name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let (kind, data) = match record {
        Record::Address(IpAddr::V4(ip)) => (1_u16, ip.octets().to_vec()),
        Record::Address(IpAddr::V6(ip)) => (28, ip.octets().to_vec()),
        Record::Pointer(name) => (12, encode_name(name)),
    };
    // The name is that of the question, by a pointer to its place.
    let mut bytes = vec![0xc0, HEADER as u8];
    bytes.extend(kind.to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    bytes.extend(TTL.to_be_bytes());
    bytes.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// Labels longer than 63 bytes cannot be written: names of containers and networks are judged before.
fn encode_name(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut wire: Vec<u8> = labels.flat_map(|label| std::iter::once(label.len().min(63) as u8).chain(label.bytes().take(63))).collect();
    wire.push(0);
    wire
}

/// Whether an address can stand in the answer to a question of this kind.
pub fn fits(kind: Kind, address: IpAddr) -> bool {
    matches!((kind, address), (Kind::A, IpAddr::V4(_)) | (Kind::Aaaa, IpAddr::V6(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(encode_name(name));
        message.extend(kind.to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        message
    }

    #[test]
    fn a_question_is_read_and_answered() {
        let query = Query::parse(&question("Web.Example", 1)).expect("a question");
        assert_eq!((query.name.as_str(), query.kind), ("web.example", Kind::A));
        let answer = query.answer(&[Record::Address("10.0.0.2".parse().expect("ip"))], 512);
        assert!(query.is_answered_by(&answer));
        assert_eq!(answer[..8], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(answer[answer.len() - 16..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 10, 0, 0, 2]);
    }

    #[test]
    fn reverse_names_are_addresses() {
        let query = Query::parse(&question("2.0.17.172.in-addr.arpa", 12)).expect("a question");
        assert_eq!(query.reverse(), Some(Ipv4Addr::new(172, 17, 0, 2)));
        for strange in ["2.0.17.in-addr.arpa", "300.0.17.172.in-addr.arpa", "2.0.17.172"] {
            assert_eq!(Query::parse(&question(strange, 12)).expect("a question").reverse(), None, "{strange}");
        }
        let answer = query.answer(&[Record::Pointer("web.mine".into())], 512);
        assert!(answer.ends_with(b"\x03web\x04mine\0"));
    }

    #[test]
    fn too_many_records_are_cut_and_told() {
        let query = Query::parse(&question("many", 1)).expect("a question");
        let records = vec![Record::Address("10.0.0.2".parse().expect("ip")); 100];
        let answer = query.answer(&records, 512);
        assert!(answer.len() <= 512 && answer[2] & 2 != 0);
        assert_eq!(answer.len(), 22 + usize::from(answer[7]) * 16);
        assert_eq!(query.answer(&records, 65535)[7], 100);
    }

    #[test]
    fn no_message_is_too_strange() {
        assert_eq!(Query::parse(&[1, 2, 3]), Err(None));
        let mut response = question("a", 1);
        response[2] |= 0x80;
        assert_eq!(Query::parse(&response), Err(None), "answering answers makes loops");
        // A pointer to itself, a label beyond the end, no question, a name without its end.
        let head = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for tail in [&[0xc0, 12, 0, 1, 0, 1][..], &[63, b'a'], &[], &[1, b'a']] {
            let refusal = Query::parse(&[&head[..], tail].concat()).expect_err("malformed").expect("answered");
            assert_eq!(refusal[3] & 15, Code::FormatError as u8);
        }
        let long: Vec<u8> = std::iter::repeat_n([1, b'a'], 200).flatten().chain([0, 0, 1, 0, 1]).collect();
        assert!(Query::parse(&[&head[..], &long].concat()).is_err(), "longer than a name may be");
        // Every prefix of a good message, and every message with one byte changed, ends in a value.
        let good = question("some.name", 28);
        for at in 0..good.len() {
            drop(Query::parse(&good[..at]));
            for byte in 0..=255 {
                let mut bad = good.clone();
                bad[at] = byte;
                drop(Query::parse(&bad));
            }
        }
    }
}
