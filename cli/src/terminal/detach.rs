//! The keys that leave a container without ending it: `ctrl-p,ctrl-q` or what the user chose.

use crate::failure::Failure;

pub const DEFAULT: &[u8] = &[16, 17];

/// Reads `ctrl-a,b,ctrl-@`.
///
/// # Errors
/// A text that names the key that is none.
pub fn parse(keys: &str) -> Result<Vec<u8>, Failure> {
    if keys.is_empty() {
        return Ok(DEFAULT.to_vec());
    }
    keys.split(',')
        .map(|key| one(key).ok_or_else(|| Failure::message(format!("invalid detach keys ({keys}): unknown character: '{key}'"))))
        .collect()
}

fn one(key: &str) -> Option<u8> {
    let bytes = key.as_bytes();
    if let [byte] = bytes {
        return byte.is_ascii().then_some(*byte);
    }
    match key.to_ascii_lowercase().strip_prefix("ctrl-")?.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        b"@" => Some(0),
        b"[" => Some(27),
        b"\\" => Some(28),
        b"]" => Some(29),
        b"^" => Some(30),
        b"_" => Some(31),
        _ => None,
    }
}

/// Watches typed bytes for the sequence. A beginning of it is held back until it is clear what it is.
#[derive(Debug)]
pub struct Watcher {
    keys: Vec<u8>,
    seen: usize,
}

impl Watcher {
    pub fn new(keys: Vec<u8>) -> Self {
        Self { keys, seen: 0 }
    }

    /// What to send on of these bytes, and whether the sequence is complete.
    pub fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len() + self.seen);
        for &byte in typed {
            if self.keys.get(self.seen) == Some(&byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.seen]);
            self.seen = 0;
            if self.keys.first() == Some(&byte) {
                self.seen = 1;
            } else {
                out.push(byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_names() {
        assert_eq!(parse("").expect("default"), [16, 17]);
        assert_eq!(parse("ctrl-a,b,ctrl-[").expect("parses"), [1, b'b', 27]);
        assert_eq!(parse("ctrl-ä").expect_err("no key").text(), Some("invalid detach keys (ctrl-ä): unknown character: 'ctrl-ä'"));
    }

    #[test]
    fn the_sequence_is_found_across_reads_and_nothing_else_is_lost() {
        let mut watcher = Watcher::new(DEFAULT.to_vec());
        assert_eq!(watcher.feed(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(watcher.feed(b"c\x10\x10"), (b"\x10c\x10".to_vec(), false));
        assert_eq!(watcher.feed(b"\x11zzz"), (Vec::new(), true));
    }
}
