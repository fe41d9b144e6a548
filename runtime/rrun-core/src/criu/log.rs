//! What criu writes down of its work, and the lines of it that say why something failed.

use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rrun_sys::fs::{self, AtFlags, OFlags};

use crate::{Context, Result, one_line};

/// The file, in a directory that criu works in.
#[derive(Debug)]
pub struct Log {
    dir: OwnedFd,
    pub name: &'static str,
    /// Where a person finds it; None: it is gone when anybody could look.
    pub shown: Option<PathBuf>,
}

/// Of a long log the end.
const LAST_BYTES: i64 = 256 << 10;
const LAST_LINES: usize = 3;

impl Log {
    /// In `dir`, as whose link criu would write elsewhere: what has this name there is removed first.
    pub fn new(dir: OwnedFd, path: &Path, name: &'static str, kept: bool) -> Result<Log> {
        match fs::unlinkat(&dir, Path::new(name), AtFlags::empty()) {
            Err(e) if e.is(libc::ENOENT) => {}
            done => done.doing(|| format!("make room for criu's log in {}", path.display()))?,
        }
        Ok(Log { dir, name, shown: kept.then(|| path.join(name)) })
    }

    /// The directory's descriptor, for criu to look up.
    pub fn number(&self) -> i32 {
        self.dir.as_raw_fd()
    }

    /// Where to look for more.
    pub fn advice(&self) -> String {
        match &self.shown {
            Some(path) => format!("see {}", path.display()),
            None => "give --work-path for a directory that keeps criu's log".to_string(),
        }
    }

    /// The last errors, as one line; empty where there are none, or no log.
    pub fn errors(&self) -> String {
        errors(&self.end().unwrap_or_default())
    }

    fn end(&self) -> Option<Vec<u8>> {
        let file = fs::openat(&self.dir, Path::new(self.name), OFlags::RDONLY | OFlags::NOFOLLOW, 0).ok()?;
        let mut file = std::fs::File::from(file);
        let length = file.metadata().ok()?.len();
        if length > LAST_BYTES.cast_unsigned() {
            file.seek(SeekFrom::End(-LAST_BYTES)).ok()?;
        }
        let mut bytes = Vec::new();
        file.take(LAST_BYTES.cast_unsigned()).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

fn errors(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    // "(00.123456)      7: Error (criu/mount.c:1089): mnt: …": what follows the place in criu's source.
    let told = |line: &str| {
        let (_, rest) = line.split_once("Error (")?;
        Some(one_line(&rest.split_once("): ").map_or(rest, |(_, why)| why).trim()))
    };
    let all: Vec<String> = text.lines().filter_map(told).collect();
    all[all.len().saturating_sub(LAST_LINES)..].join("; ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_last_errors_are_told_without_their_places() {
        let log = b"(00.1) Warn  (criu/x.c:1): no\n(00.2)     1: Error (criu/a.c:5): one\n(00.3) Error (criu/b.c:6): mnt: two\n\
            (00.4) Error (criu/c.c:7): three\n(00.5) Error (criu/c.c:8): fo\x1bur\n(00.6) done\n";
        assert_eq!(super::errors(log), "mnt: two; three; fo\\u{1b}ur");
        assert_eq!(super::errors(b"(00.1) Dumping finished successfully\n"), "");
    }
}
