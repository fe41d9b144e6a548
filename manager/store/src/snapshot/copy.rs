//! A faithful copy of a tree: hard links, holes, xattrs, owners, modes, times, devices. Works by directory descriptors; the source
//! is ours and immutable, the target is new, so no name in either can lead outside.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rcontainerd_types::{Error, Result};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, Uid, chownat, linkat, mkdirat, mknodat, openat,
    readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::fs::failed;
use crate::unpack::xattr;

/// Copies the directory `from` to `to`, which must not exist.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let name =
        |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Error::internal("a path of ours contains a NUL"));
    let mut copier = Copier { links: HashMap::new() };
    let (source, target) = (name(from)?, name(to)?);
    copier.entry(CWD, &source, CWD, &target).map_err(|err| failed("copy", from)(err.into()))
}

/// Copies one object, with everything below it, from a directory to another.
pub fn copy_entry(from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, target: &CStr) -> rustix::io::Result<()> {
    Copier { links: HashMap::new() }.entry(from, name, to, target)
}

struct Copier {
    /// (device, inode) of a file with several names → the target's first name, opened.
    links: HashMap<(u64, u64), OwnedFd>,
}

impl Copier {
    fn entry(&mut self, from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, target: &CStr) -> rustix::io::Result<()> {
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory
            && stat.st_nlink > 1
            && let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino))
        {
            // AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH; the manager is root.
            return linkat(first, c"", to, target, AtFlags::EMPTY_PATH);
        }
        match kind {
            FileType::Directory => self.directory(from, name, to, target)?,
            FileType::RegularFile => copy_file(from, name, to, target, &stat)?,
            FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?.as_c_str(), to, target)?,
            other => mknodat(to, target, other, Mode::from_raw_mode(0o600), stat.st_rdev)?,
        }
        attributes(from, name, to, target, &stat)?;
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let opened = openat(to, target, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            self.links.insert((stat.st_dev, stat.st_ino), opened);
        }
        Ok(())
    }

    fn directory(&mut self, from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, target: &CStr) -> rustix::io::Result<()> {
        mkdirat(to, target, Mode::from_raw_mode(0o700))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = openat(from, name, flags, Mode::empty())?;
        let inside = openat(to, target, flags, Mode::empty())?;
        for entry in Dir::read_from(&source)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                self.entry(source.as_fd(), entry.file_name(), inside.as_fd(), entry.file_name())?;
            }
        }
        Ok(())
    }
}

/// Owner before mode (chown clears setuid and file capabilities), times last.
fn attributes(from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, target: &CStr, stat: &Stat) -> rustix::io::Result<()> {
    chownat(to, target, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)), AtFlags::SYMLINK_NOFOLLOW)?;
    xattr::copy(from, name, to, target)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        rustix::fs::chmodat(to, target, Mode::from_raw_mode(stat.st_mode as RawMode & 0o7777), AtFlags::empty())?;
    }
    utimensat(to, target, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |sec: i64, nsec: u64| Timespec { tv_sec: sec, tv_nsec: i64::try_from(nsec).unwrap_or(0) };
    Timestamps { last_access: time(stat.st_atime, stat.st_atime_nsec), last_modification: time(stat.st_mtime, stat.st_mtime_nsec) }
}

/// Reflink if the file system can, else copies the parts that hold data.
fn copy_file(from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, target: &CStr, stat: &Stat) -> rustix::io::Result<()> {
    let source = openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let output = openat(to, target, flags, Mode::from_raw_mode(0o600))?;
    if rustix::fs::ioctl_ficlone(&output, &source).is_ok() {
        return Ok(());
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    rustix::fs::ftruncate(&output, size)?;
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(&source, rustix::fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(err) => return Err(err),
        };
        let end = rustix::fs::seek(&source, rustix::fs::SeekFrom::Hole(start))?;
        copy_range(source.as_fd(), output.as_fd(), start, end)?;
        at = end;
    }
    Ok(())
}

fn copy_range(source: BorrowedFd<'_>, output: BorrowedFd<'_>, start: u64, end: u64) -> rustix::io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let length = usize::try_from(end - read_at).unwrap_or(usize::MAX).min(1 << 30);
        let copied = rustix::fs::copy_file_range(source, Some(&mut read_at), output, Some(&mut write_at), length)?;
        if copied == 0 {
            return Err(Errno::IO);
        }
    }
    Ok(())
}
