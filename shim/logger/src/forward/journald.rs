//! journald's native protocol (systemd's `docs/JOURNAL_NATIVE_PROTOCOL.md`): a datagram of fields.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::encode::rfc3339_nano;
use crate::record::Stream;

/// An entry with docker's fields: `PRIORITY` is 3 (error) for stderr and 6 (informational) for stdout, as in syslog(3).
pub fn entry(fields: &BTreeMap<String, String>, stream: Stream, piece: &[u8], time: SystemTime) -> Vec<u8> {
    let mut out = Vec::with_capacity(piece.len() + 512);
    let line = piece.strip_suffix(b"\n");
    field(&mut out, "MESSAGE", line.unwrap_or(piece));
    field(&mut out, "PRIORITY", if stream == Stream::Stderr { b"3" } else { b"6" });
    field(&mut out, "SYSLOG_TIMESTAMP", &rfc3339_nano(time));
    if line.is_none() {
        field(&mut out, "CONTAINER_PARTIAL_MESSAGE", b"true");
    }
    for (name, value) in fields {
        field(&mut out, name, value.as_bytes());
    }
    out
}

/// `NAME=value`, or with the value's length where it has more than one line.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn an_entry_is_a_field_a_line() {
        let fields = BTreeMap::from([("A".to_owned(), "b".to_owned()), ("L".to_owned(), "x\ny".to_owned())]);
        let expected = b"MESSAGE=hello\nPRIORITY=6\nSYSLOG_TIMESTAMP=1970-01-01T00:00:00Z\nA=b\nL\n\x03\0\0\0\0\0\0\0x\ny\n";
        assert_eq!(entry(&fields, Stream::Stdout, b"hello\n", UNIX_EPOCH), expected);
        let cut = entry(&BTreeMap::new(), Stream::Stderr, b"hal", UNIX_EPOCH);
        assert_eq!(cut, b"MESSAGE=hal\nPRIORITY=3\nSYSLOG_TIMESTAMP=1970-01-01T00:00:00Z\nCONTAINER_PARTIAL_MESSAGE=true\n");
    }
}
