//! Files and directories, always relative to a directory's descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::fs::{FlockOperation, StatFs};

use crate::Result;
use crate::error::Described;

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// openat(2); O_CLOEXEC is always added.
pub fn openat(dir: impl AsFd, path: &Path, flags: OFlags, mode: u32) -> Result<OwnedFd> {
    rustix::fs::openat(dir, path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode)).describe("open", || shown(path))
}

/// openat2(2), Linux 5.6; O_CLOEXEC is always added.
pub fn openat2(dir: impl AsFd, path: &Path, flags: OFlags, mode: u32, resolve: ResolveFlags) -> Result<OwnedFd> {
    let mode = Mode::from_raw_mode(mode);
    for _ in 0..64 {
        // EAGAIN: a rename or mount raced with a ".." of the path; the kernel asks to try again.
        match rustix::fs::openat2(dir.as_fd(), path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(rustix::io::Errno::AGAIN) => {}
            done => return done.describe("openat2", || shown(path)),
        }
    }
    Err(rustix::io::Errno::AGAIN).describe("openat2", || shown(path))
}

/// Resolves `path` as a process whose root directory is `root` would, but through no magic link.
pub fn open_in_root(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    openat2(root, path, flags, 0, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// mkdirat(2).
pub fn mkdirat(dir: impl AsFd, path: &Path, mode: u32) -> Result<()> {
    rustix::fs::mkdirat(dir, path, Mode::from_raw_mode(mode)).describe("mkdir", || shown(path))
}

/// mknodat(2).
pub fn mknodat(dir: impl AsFd, path: &Path, kind: FileType, mode: u32, major: u32, minor: u32) -> Result<()> {
    let dev = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(dir, path, kind, Mode::from_raw_mode(mode), dev).describe("mknod", || shown(path))
}

/// symlinkat(2).
pub fn symlinkat(target: &Path, dir: impl AsFd, path: &Path) -> Result<()> {
    rustix::fs::symlinkat(target, dir, path).describe("symlink", || shown(path))
}

/// unlinkat(2).
pub fn unlinkat(dir: impl AsFd, path: &Path, flags: AtFlags) -> Result<()> {
    rustix::fs::unlinkat(dir, path, flags).describe("unlink", || shown(path))
}

/// renameat(2).
pub fn renameat(dir: impl AsFd, from: &Path, to: &Path) -> Result<()> {
    rustix::fs::renameat(dir.as_fd(), from, dir.as_fd(), to).describe("rename", || shown(to))
}

/// fchownat(2) that follows no symlink; u32::MAX leaves an id alone.
pub fn chownat(dir: impl AsFd, path: &Path, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (owner(uid).map(rustix::fs::Uid::from_raw), owner(gid).map(rustix::fs::Gid::from_raw));
    rustix::fs::chownat(dir, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).describe("chown", || shown(path))
}

/// fchown(2); u32::MAX leaves an id alone.
pub fn fchown(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (owner(uid).map(rustix::fs::Uid::from_raw), owner(gid).map(rustix::fs::Gid::from_raw));
    rustix::fs::fchown(fd, uid, gid).describe("fchown", || format!("{uid:?}:{gid:?}"))
}

fn owner(id: u32) -> Option<u32> {
    (id != u32::MAX).then_some(id)
}

/// fchmod(2).
pub fn fchmod(fd: impl AsFd, mode: u32) -> Result<()> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)).describe("fchmod", || format!("{mode:o}"))
}

/// fchmodat(2).
pub fn chmodat(dir: impl AsFd, path: &Path, mode: u32) -> Result<()> {
    rustix::fs::chmodat(dir, path, Mode::from_raw_mode(mode), AtFlags::empty()).describe("chmod", || shown(path))
}

/// fstat(2).
pub fn fstat(fd: impl AsFd) -> Result<Stat> {
    rustix::fs::fstat(fd).describe("fstat", String::new)
}

/// newfstatat(2) that follows no symlink.
pub fn lstatat(dir: impl AsFd, path: &Path) -> Result<Stat> {
    rustix::fs::statat(dir, path, AtFlags::SYMLINK_NOFOLLOW).describe("lstat", || shown(path))
}

/// faccessat2(2) with the effective ids; `mode` of `libc::{R_OK, W_OK, X_OK}`.
pub fn may_execute(dir: impl AsFd, path: &Path) -> Result<()> {
    rustix::fs::accessat(dir, path, rustix::fs::Access::EXEC_OK, AtFlags::EACCESS).describe("access", || shown(path))
}

/// fstatfs(2).
pub fn fstatfs(fd: impl AsFd) -> Result<StatFs> {
    rustix::fs::fstatfs(fd).describe("fstatfs", String::new)
}

/// Whether the mount that `fd` is on, or its file system, is read-only (fstatvfs(3)'s ST_RDONLY).
pub fn is_on_read_only_mount(fd: impl AsFd) -> Result<bool> {
    let vfs = rustix::fs::fstatvfs(fd).describe("fstatvfs", String::new)?;
    Ok(vfs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// readlinkat(2).
pub fn readlinkat(dir: impl AsFd, path: &Path) -> Result<std::ffi::CString> {
    rustix::fs::readlinkat(dir, path, Vec::new()).describe("readlink", || shown(path))
}

/// One write(2) that must take everything: procfs, sysfs and cgroup files judge one write as a whole.
pub fn write_all_at_once(fd: impl AsFd, bytes: &[u8]) -> Result<()> {
    let wrote = rustix::io::retry_on_intr(|| rustix::io::write(fd.as_fd(), bytes))
        .describe("write", || String::from_utf8_lossy(bytes).into_owned())?;
    if wrote == bytes.len() { Ok(()) } else { Err(crate::Error::new("write", "short write", libc::EIO)) }
}

/// read(2) until the end, at most `limit` bytes (more is EFBIG).
pub fn read_to_end(fd: impl AsFd, limit: usize) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        let n = rustix::io::retry_on_intr(|| rustix::io::read(fd.as_fd(), &mut chunk)).describe("read", String::new)?;
        if n == 0 {
            return Ok(all);
        }
        all.extend_from_slice(&chunk[..n]);
        if all.len() > limit {
            return Err(crate::Error::new("read", format!("more than {limit} bytes"), libc::EFBIG));
        }
    }
}

/// flock(2), exclusive; blocks.
pub fn lock_exclusive(fd: impl AsFd) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(fd.as_fd(), FlockOperation::LockExclusive)).describe("flock", String::new)
}

/// flock(2), unlock: for every process that shares the open file.
pub fn unlock(fd: impl AsFd) -> Result<()> {
    rustix::fs::flock(fd.as_fd(), FlockOperation::Unlock).describe("flock", String::new)
}

/// fsync(2).
pub fn fsync(fd: impl AsFd) -> Result<()> {
    rustix::fs::fsync(fd).describe("fsync", String::new)
}

/// A path that reaches `fd`'s file through procfs, for calls that know no descriptors.
pub fn proc_fd_path(fd: BorrowedFd<'_>) -> std::path::PathBuf {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}
