//! A whole tree into a tar, names sorted, without recursion: a container may make directories deeper than any stack.

use std::ffi::{CStr, CString};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rcontainerd_types::{Error, ErrorKind, Result};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::DEPTH_MAX;
use super::write::{TarWriter, names, open_dir};

/// A directory whose names are still to be written.
struct Level {
    dir: OwnedFd,
    path: Vec<u8>,
    /// Last first.
    todo: Vec<CString>,
}

/// Writes `name` of `dir`, and everything below it if it is a directory, as `path`; an empty path writes only what is below.
///
/// # Errors
/// `ResourceExhausted` for a tree too deep; those of reading and of the output.
pub fn write_tree<W: Write>(writer: &mut TarWriter<W>, dir: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<()> {
    let mut levels = Vec::new();
    if path.is_empty() || is_directory(writer.object(dir, name, path)?.as_ref()) {
        levels.extend(enter(dir, name, path.to_vec())?);
    }
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.todo.pop() else {
            levels.pop();
            continue;
        };
        let path = join(&level.path, name.to_bytes());
        let stat = writer.object(level.dir.as_fd(), &name, &path)?;
        if !is_directory(stat.as_ref()) {
            continue;
        }
        let below = enter(level.dir.as_fd(), &name, path)?;
        if levels.len() >= DEPTH_MAX {
            return Err(Error::new(ErrorKind::ResourceExhausted, format!("the directory tree is deeper than {DEPTH_MAX} levels")));
        }
        levels.extend(below);
    }
    Ok(())
}

fn is_directory(stat: Option<&rustix::fs::Stat>) -> bool {
    stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// `None` when it is gone or no directory any more.
fn enter(dir: BorrowedFd<'_>, name: &CStr, path: Vec<u8>) -> Result<Option<Level>> {
    let failed = |err: Errno| Error::io(format!("read directory {}", String::from_utf8_lossy(&path)), err.into());
    let dir = match open_dir(dir, name) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(err) => return Err(failed(err)),
    };
    let mut todo = names(&dir).map_err(failed)?;
    todo.reverse();
    Ok(Some(Level { dir, path, todo }))
}

/// `/` alone is a prefix of its own: members of the root copied by name are `/etc`, as docker's are.
pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() || parent.ends_with(b"/") { [parent, name].concat() } else { [parent, b"/", name].concat() }
}
