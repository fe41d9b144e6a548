//! PAX extended header records (POSIX.1-2001, "pax Extended Header"): `LENGTH KEY=VALUE\n`, read by their length.

use rcontainerd_types::{Error, Result};

use super::sparse::PaxSparse;
use super::tar::Mtime;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records that mean something to a layer.
#[derive(Clone, Debug, Default)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Mtime>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: PaxSparse,
}

fn malformed(why: &str) -> Error {
    Error::invalid(format!("malformed tar: PAX header: {why}"))
}

/// Reads all records; of two with one key the last counts, an empty value means "as in the plain header".
pub fn parse(mut bytes: &[u8]) -> Result<Pax> {
    let mut pax = Pax::default();
    // Some writers pad the records with zeros.
    while !bytes.is_empty() && bytes[0] != 0 {
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(|| malformed("a record without length"))?;
        let length = usize::try_from(decimal(&bytes[..space])?).map_err(|_| malformed("a record's length is out of range"))?;
        if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
            return Err(malformed("a record's length is wrong"));
        }
        let record = &bytes[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(|| malformed("a record without '='"))?;
        pax.set(&record[..equals], &record[equals + 1..])?;
        bytes = &bytes[length..];
    }
    Ok(pax)
}

impl Pax {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if let Some(name) = key.strip_prefix(XATTR) {
            self.xattrs.retain(|(known, _)| known != name);
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        if self.sparse.set(key, value)? {
            return Ok(());
        }
        let given = !value.is_empty();
        match key {
            b"path" => self.path = given.then(|| value.to_vec()),
            b"linkpath" => self.link = given.then(|| value.to_vec()),
            b"size" => self.size = given.then(|| decimal(value)).transpose()?,
            b"uid" => self.uid = given.then(|| decimal(value)).transpose()?,
            b"gid" => self.gid = given.then(|| decimal(value)).transpose()?,
            b"mtime" => self.mtime = given.then(|| time(value)).transpose()?,
            _ => {}
        }
        Ok(())
    }
}

/// Digits only: `+1`, ` 1` and `1_0`, which one reader or another takes, are refused.
pub fn decimal(text: &[u8]) -> Result<u64> {
    let digits = std::str::from_utf8(text).ok().filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or_else(|| malformed("a number is malformed or too large"))
}

/// `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are cut.
fn time(text: &[u8]) -> Result<Mtime> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let whole = i64::try_from(decimal(parts.next().unwrap_or_default())?).map_err(|_| malformed("a time is out of range"))?;
    let mut nanoseconds = 0u32;
    let mut digits = parts.next().unwrap_or_default().iter().copied();
    for _ in 0..9 {
        let digit = digits.next().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return Err(malformed("a time is malformed"));
        }
        nanoseconds = nanoseconds * 10 + u32::from(digit - b'0');
    }
    Ok(match (negative, nanoseconds) {
        (false, _) => Mtime { seconds: whole, nanoseconds },
        (true, 0) => Mtime { seconds: -whole, nanoseconds: 0 },
        (true, _) => Mtime { seconds: -whole - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let mut length = body.len();
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        [length.to_string().as_bytes(), &body].concat()
    }

    #[test]
    fn a_binary_value_may_hold_newlines_and_equal_signs() {
        let value = b"\x01\n12 path=/evil\n\0=";
        let pax = parse(&[record("SCHILY.xattr.security.capability", value), record("path", b"good")].concat()).expect("parses");
        assert_eq!(pax.xattrs, [(b"security.capability".to_vec(), value.to_vec())]);
        assert_eq!(pax.path.as_deref(), Some(&b"good"[..]));
    }

    #[test]
    fn wrong_lengths_and_numbers_are_refused() {
        for bad in
            ["path=x\n", "5 path=x\n", "99 path=x\n", "10 path=xyz", "x path=x\n", "10 size=1a\n", "11 size=-12\n", "11 size=+12\n", "3 \n"]
        {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?} should be refused");
        }
    }

    #[test]
    fn times_before_the_epoch_keep_their_fraction() {
        assert_eq!(time(b"-1.25").expect("parses"), Mtime { seconds: -2, nanoseconds: 750_000_000 });
        assert_eq!(time(b"1700000000.1234567891").expect("parses"), Mtime { seconds: 1_700_000_000, nanoseconds: 123_456_789 });
    }
}
