//! Small files of cgroup file systems: one open, one write or few reads, no stat.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::{Error, Result};

/// Writes a value in one call, as kernfs wants it. Never creates a file.
pub(crate) fn write(path: &Path, value: &str) -> io::Result<()> {
    let written = OpenOptions::new().write(true).open(path)?.write(value.as_bytes())?;
    if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// As [`write`], with an error that tells what was to be written where.
pub(crate) fn write_told(path: &Path, value: &str) -> Result<()> {
    write(path, value).map_err(|e| Error::io(format!("write {value:?} to"), path, e))
}

/// A file that takes several values, one write(2) each.
pub(crate) struct Lines {
    file: File,
    path: PathBuf,
}

impl Lines {
    pub(crate) fn open(path: &Path) -> Result<Lines> {
        let file = OpenOptions::new().write(true).open(path).map_err(|e| Error::io("open", path, e))?;
        Ok(Lines { file, path: path.to_path_buf() })
    }

    pub(crate) fn write(&mut self, value: &str) -> Result<()> {
        let told = |e: io::Error| Error::io(format!("write {value:?} to"), &self.path, e);
        let written = self.file.write(value.as_bytes()).map_err(told)?;
        if written == value.len() { Ok(()) } else { Err(told(io::ErrorKind::WriteZero.into())) }
    }
}

/// Reads a whole file without asking for its size first (kernfs says 0).
pub(crate) fn read_io(path: &Path) -> io::Result<String> {
    read_open(&mut File::open(path)?)
}

/// As [`read_io`], for a file that is open and read from its start.
pub(crate) fn read_open(file: &mut impl Read) -> io::Result<String> {
    let mut out = Vec::with_capacity(512);
    let mut buffer = [0u8; 4096];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return String::from_utf8(out).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)),
            Ok(n) => out.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// As [`read_io`], with an error that tells the path.
pub(crate) fn read(path: &Path) -> Result<String> {
    read_io(path).map_err(|e| Error::io("read", path, e))
}

/// None if the file (or the whole cgroup) is not there.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>> {
    match read_io(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

/// ENOENT: not there; ENODEV: removed while it was open.
pub(crate) fn is_gone(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Makes one directory; false if it was there.
pub(crate) fn make_dir(path: &Path) -> rustix::io::Result<bool> {
    match rustix::fs::mkdir(path, 0o755.into()) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The value of `key` in a flat keyed file (`populated 1`).
pub(crate) fn flat_key(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
