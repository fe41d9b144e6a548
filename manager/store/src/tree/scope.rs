//! Paths within a root that somebody else may be changing at the same time: the kernel resolves them, links stay inside, magic links are
//! refused (openat2(2), Linux 5.6).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rcontainerd_types::{Error, ErrorKind};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat, mkdirat, openat2, readlinkat, statat};
use rustix::io::Errno;

/// A race with a rename makes the kernel give up with EAGAIN; it is tried again so often.
const ATTEMPTS: u32 = 64;

/// A root directory; all paths are relative to it.
pub struct Scope {
    root: OwnedFd,
}

impl Scope {
    pub fn new(root: OwnedFd) -> Self {
        Self { root }
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens the directory that `path` leads to, links followed within the root.
    ///
    /// # Errors
    /// What openat2(2) says: `NOENT`, `NOTDIR`, `LOOP`, …
    pub fn dir(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// What `path` leads to, opened `O_PATH`.
    ///
    /// # Errors
    /// As [`Self::dir`].
    pub fn object(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.open(path, OFlags::PATH)
    }

    /// The directory at `path`, missing ones made (0755, root's).
    ///
    /// # Errors
    /// As [`Self::dir`].
    pub fn make_dirs(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        match self.dir(path) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut at = 0;
        while at < path.len() {
            let end = path[at..].iter().position(|byte| *byte == b'/').map_or(path.len(), |slash| at + slash);
            if self.dir(&path[..end]).is_err_and(|err| err == Errno::NOENT) {
                let parent = self.dir(&path[..at])?;
                let name = CString::new(&path[at..end]).map_err(|_| Errno::INVAL)?;
                match mkdirat(&parent, &name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(err) => return Err(err),
                }
            }
            at = end + 1;
        }
        self.dir(path)
    }

    fn open(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { c".".to_owned() } else { CString::new(path).map_err(|_| Errno::INVAL)? };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut attempts = ATTEMPTS;
        loop {
            match openat2(&self.root, &path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if attempts > 0 => attempts -= 1,
                other => return other,
            }
        }
    }

    /// What a name in a directory is, and where it points if it is a link.
    ///
    /// # Errors
    /// As fstatat(2) and readlinkat(2).
    pub fn look(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<(Stat, Option<CString>)> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Symlink {
            return Ok((stat, None));
        }
        Ok((stat, Some(readlinkat(dir, name, Vec::new())?)))
    }
}

/// What a failed look-up in a container means to the client.
pub(super) fn path_error(what: &str, path: &[u8], err: Errno) -> Error {
    let shown = String::from_utf8_lossy(path).into_owned();
    match err {
        Errno::NOENT => Error::not_found(format!("{what} {shown}: no such file or directory")),
        Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL | Errno::ISDIR => Error::invalid(format!("{what} {shown}: {err}")),
        Errno::ROFS => Error::new(ErrorKind::PermissionDenied, format!("{what} {shown}: read-only file system")),
        _ => Error::io(format!("{what} {shown}"), err.into()),
    }
}
