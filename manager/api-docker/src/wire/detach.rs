//! Detach keys: the sequence that leaves a terminal's container running (`ctrl-p,ctrl-q` by default).

use super::error::ApiError;

const DEFAULT: [u8; 2] = [0x10, 0x11];

/// Finds the sequence in what a client types, across reads.
#[derive(Debug)]
pub(crate) struct DetachScanner {
    keys: Vec<u8>,
    /// How many of `keys` the input's end matches; these bytes are held back.
    matched: usize,
}

/// What one read amounts to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// For the process.
    pub(crate) forward: Vec<u8>,
    /// The sequence was completed; input behind it is dropped.
    pub(crate) detach: bool,
}

impl DetachScanner {
    /// `keys` as clients send them: comma-separated characters and `ctrl-X`; empty is the default.
    ///
    /// # Errors
    /// 400 in dockerd's words.
    pub(crate) fn parse(keys: &str) -> Result<Self, ApiError> {
        if keys.is_empty() {
            return Ok(Self { keys: DEFAULT.to_vec(), matched: 0 });
        }
        let parsed: Option<Vec<u8>> = keys.split(',').map(key).collect();
        match parsed {
            Some(keys) => Ok(Self { keys, matched: 0 }),
            None => Err(ApiError::bad_request(format!("Invalid detach keys ({keys}) provided"))),
        }
    }

    pub(crate) fn keys(&self) -> &[u8] {
        &self.keys
    }

    pub(crate) fn scan(&mut self, input: &[u8]) -> Scanned {
        let mut forward = Vec::with_capacity(input.len() + self.matched);
        for &byte in input {
            while self.matched > 0 && self.keys[self.matched] != byte {
                self.release_one(&mut forward);
            }
            if self.keys[self.matched] != byte {
                forward.push(byte);
                continue;
            }
            self.matched += 1;
            if self.matched == self.keys.len() {
                self.matched = 0;
                return Scanned { forward, detach: true };
            }
        }
        Scanned { forward, detach: false }
    }

    /// What was held back when the input ends.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let held = self.keys[..self.matched].to_vec();
        self.matched = 0;
        held
    }

    /// Gives up the longest part of what is held that cannot start the sequence any more (at least one byte).
    fn release_one(&mut self, forward: &mut Vec<u8>) {
        let held = &self.keys[..self.matched];
        let keep = (0..held.len()).rev().find(|&length| self.keys.starts_with(&held[held.len() - length..])).unwrap_or(0);
        forward.extend_from_slice(&held[..held.len() - keep]);
        self.matched = keep;
    }
}

fn key(name: &str) -> Option<u8> {
    if let Some(control) = name.strip_prefix("ctrl-") {
        return match control.as_bytes() {
            [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
            [b'@'] => Some(0),
            [symbol @ (b'[' | b'\\' | b']' | b'^' | b'_')] => Some(symbol - b'[' + 27),
            _ => None,
        };
    }
    match name.as_bytes() {
        [byte] => Some(*byte),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(keys: &str, reads: &[&str]) -> (String, bool) {
        let mut scanner = DetachScanner::parse(keys).expect("good keys");
        let mut typed = Vec::new();
        for read in reads {
            let scanned = scanner.scan(read.as_bytes());
            typed.extend(scanned.forward);
            if scanned.detach {
                return (String::from_utf8(typed).expect("text"), true);
            }
        }
        typed.extend(scanner.finish());
        (String::from_utf8(typed).expect("text"), false)
    }

    #[test]
    fn the_sequence_is_found_across_reads_and_kept_from_the_process() {
        assert_eq!(feed("", &["ls\n\x10\x11rest"]), ("ls\n".into(), true));
        assert_eq!(feed("", &["a\x10", "\x11"]), ("a".into(), true));
        assert_eq!(feed("ctrl-a,a,d", &["\x01", "a", "d"]), (String::new(), true));
    }

    #[test]
    fn beginnings_that_come_to_nothing_are_passed_on_in_order() {
        assert_eq!(feed("", &["\x10", "b"]), ("\x10b".into(), false));
        assert_eq!(feed("", &["\x10\x10", "\x11"]), ("\x10".into(), true));
        assert_eq!(feed("", &["x\x10"]), ("x\x10".into(), false));
        assert_eq!(feed("a,a,b", &["aaab"]), ("a".into(), true));
        assert_eq!(feed("a,b,a,c", &["ababac"]), ("ab".into(), true));
    }

    #[test]
    fn key_names_follow_dockers_list() {
        assert_eq!(
            DetachScanner::parse("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_,ctrl-z,q").expect("good").keys,
            [0, 27, 28, 29, 30, 31, 26, b'q']
        );
        for bad in ["ctrl-", "ctrl-A", "ctrl-1", "ab", "a,,b"] {
            let error = DetachScanner::parse(bad).expect_err("bad keys");
            assert_eq!(error.message(), format!("Invalid detach keys ({bad}) provided"));
        }
    }
}
