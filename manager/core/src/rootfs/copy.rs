//! Copy-up: a new volume begins with what the image has at its place (owner, modes, times, links, extended attributes).

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rcontainerd_types::{Error, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Directory, Node, Rootfs, reopen};

/// Fills the empty directory `volume` with the image's directory at `path`, and gives it that one's owner and mode. An image without such a
/// directory leaves the volume as it is.
///
/// # Errors
/// I/O errors, a full disk among them.
pub fn populate(rootfs: &Rootfs, path: &str, volume: &Path) -> Result<()> {
    let Some(Node::Directory(source)) = rootfs.lookup(Path::new(path))? else { return Ok(()) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |err: std::io::Error| Error::io(format!("copy {path} of the image into volume {}", volume.display()), err);
    let target = rustix::fs::open(volume, flags, Mode::empty()).map_err(|err| failed(err.into()))?;
    copy_directory(&source, &target).map_err(failed)
}

/// Whether a directory has nothing in it.
pub fn is_empty(directory: &Path) -> std::io::Result<bool> {
    Ok(std::fs::read_dir(directory)?.next().is_none())
}

fn copy_directory(source: &Directory, target: &OwnedFd) -> std::io::Result<()> {
    for name in source.names()? {
        match source.child(&name)? {
            None => {}
            Some(Node::Directory(child)) => {
                rustix::fs::mkdirat(target, &name, Mode::RWXU)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                copy_directory(&child, &rustix::fs::openat(target, &name, flags, Mode::empty())?)?;
            }
            Some(Node::Link(link)) => {
                rustix::fs::symlinkat(&link, target, &name)?;
            }
            Some(Node::Other(fd, stat)) => copy_file(&fd, &stat, target, &name)?,
        }
    }
    let stat = rustix::fs::statat(source.top(), "", AtFlags::EMPTY_PATH)?;
    let readable = rustix::fs::openat(source.top(), ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    copy_xattrs(&readable, target)?;
    apply(target, &stat)
}

fn copy_file(fd: &OwnedFd, stat: &Stat, target: &OwnedFd, name: &OsStr) -> std::io::Result<()> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile {
        rustix::fs::mknodat(target, name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)?;
        let (owner, group) = owners(stat);
        rustix::fs::chownat(target, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        return Ok(rustix::fs::utimensat(target, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut to = File::from(rustix::fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)?);
    let mut from = reopen(fd)?;
    std::io::copy(&mut from, &mut to)?;
    copy_xattrs(from.as_fd(), to.as_fd())?;
    apply(&OwnedFd::from(to), stat)
}

/// Owner before mode: chown clears setuid.
fn apply(target: &OwnedFd, stat: &Stat) -> std::io::Result<()> {
    let (owner, group) = owners(stat);
    rustix::fs::fchown(target, Some(owner), Some(group))?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(stat.st_mode))?;
    Ok(rustix::fs::futimens(target, &times(stat))?)
}

fn owners(stat: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}

fn times(stat: &Stat) -> Timestamps {
    let spec = |seconds: i64, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    Timestamps { last_access: spec(stat.st_atime, stat.st_atime_nsec), last_modification: spec(stat.st_mtime, stat.st_mtime_nsec) }
}

/// All but the overlay's own.
fn copy_xattrs(from: impl AsFd, to: impl AsFd) -> std::io::Result<()> {
    let mut names = vec![0u8; 64 << 10];
    let length = match rustix::fs::flistxattr(&from, &mut names) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(err) => return Err(err.into()),
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty() && !name.starts_with(b"trusted.overlay.")) {
        let mut value = vec![0u8; 64 << 10];
        let size = rustix::fs::fgetxattr(&from, name, &mut value)?;
        match rustix::fs::fsetxattr(&to, name, &value[..size], XattrFlags::empty()) {
            // The volume's filesystem need not know every attribute.
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}
