//! Files and directories, always relative to a directory's descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::fs::{FlockOperation, StatFs, StatxFlags};

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

/// utimensat(2) that follows no symlink: the times of access and change that `stat` tells.
pub fn set_times(dir: impl AsFd, path: &Path, stat: &Stat) -> Result<()> {
    let time = |seconds: i64, nanoseconds: u64| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times = rustix::fs::Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::utimensat(dir, path, &times, AtFlags::SYMLINK_NOFOLLOW).describe("utimensat", || shown(path))
}

/// flistxattr(2), fgetxattr(2), fsetxattr(2): gives one file the extended attributes of another, of the kinds that its file system
/// takes and this process may set.
pub fn copy_attributes(from: impl AsFd, to: impl AsFd) -> Result<()> {
    use rustix::io::Errno;
    // As large as both lists and values can be (XATTR_LIST_MAX, XATTR_SIZE_MAX).
    const LARGEST: usize = 1 << 16;
    let mut names = Vec::with_capacity(LARGEST);
    match rustix::fs::flistxattr(from.as_fd(), rustix::buffer::spare_capacity(&mut names)) {
        Err(Errno::NOTSUP) => return Ok(()),
        done => done.describe("flistxattr", String::new)?,
    };
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let told = || String::from_utf8_lossy(name).into_owned();
        let mut value = Vec::with_capacity(LARGEST);
        rustix::fs::fgetxattr(from.as_fd(), name, rustix::buffer::spare_capacity(&mut value)).describe("fgetxattr", told)?;
        match rustix::fs::fsetxattr(to.as_fd(), name, &value, rustix::fs::XattrFlags::empty()) {
            Err(Errno::NOTSUP | Errno::PERM) => {}
            done => done.describe("fsetxattr", told)?,
        }
    }
    Ok(())
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

/// A mount's numbers: mountinfo's, which is used again, and the one that is not (Linux 6.8; 0 before).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountIds {
    pub mount_id: u64,
    pub unique_id: u64,
}

/// statx(2): the mount that `fd` is on.
pub fn mount_ids(fd: impl AsFd) -> Result<MountIds> {
    const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let ask = |what: StatxFlags| {
        let told = rustix::fs::statx(fd.as_fd(), "", AtFlags::EMPTY_PATH, what).describe("statx", String::new)?;
        Ok(if StatxFlags::from_bits_retain(told.stx_mask).contains(what) { told.stx_mnt_id } else { 0 })
    };
    Ok(MountIds { mount_id: ask(StatxFlags::MNT_ID)?, unique_id: ask(UNIQUE)? })
}

/// Whether the mount that `fd` is on, or its file system, is read-only (fstatvfs(3)'s ST_RDONLY).
pub fn is_on_read_only_mount(fd: impl AsFd) -> Result<bool> {
    let vfs = rustix::fs::fstatvfs(fd).describe("fstatvfs", String::new)?;
    Ok(vfs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// A copy of an open file in memory that nobody can write to (memfd_create(2), F_ADD_SEALS of fcntl(2)).
pub fn sealed_copy(name: &str, from: OwnedFd) -> Result<OwnedFd> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create(name, flags).describe("memfd_create", || name.to_string())?;
    let mut file = std::fs::File::from(copy);
    std::io::copy(&mut std::fs::File::from(from), &mut file)
        .map_err(|e| crate::Error::new("copy", name, e.raw_os_error().unwrap_or(libc::EIO)))?;
    rustix::fs::fcntl_add_seals(&file, SEALS).describe("fcntl", || format!("seal {name}"))?;
    Ok(file.into())
}

/// Whether `fd` is such a copy.
pub fn is_sealed(fd: impl AsFd) -> bool {
    rustix::fs::fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SEALS))
}

const SEALS: rustix::fs::SealFlags =
    rustix::fs::SealFlags::WRITE.union(rustix::fs::SealFlags::SHRINK).union(rustix::fs::SealFlags::GROW).union(rustix::fs::SealFlags::SEAL);

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

/// A whole file, without asking for its size first (procfs says 0); at most `limit` bytes.
pub fn read_file(path: &Path, limit: usize) -> Result<Vec<u8>> {
    read_to_end(openat(CWD, path, OFlags::RDONLY, 0)?, limit)
}

/// Whether what `fd` is on is gone when the machine loses its power, so that nothing there is worth a sync (tmpfs, ramfs).
pub fn is_in_memory(fd: impl AsFd) -> Result<bool> {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    Ok([TMPFS_MAGIC, RAMFS_MAGIC].contains(&fstatfs(fd)?.f_type))
}

/// flock(2), exclusive; blocks.
pub fn lock_exclusive(fd: impl AsFd) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(fd.as_fd(), FlockOperation::LockExclusive)).describe("flock", String::new)
}

/// flock(2), unlock: for every process that shares the open file.
pub fn unlock(fd: impl AsFd) -> Result<()> {
    rustix::fs::flock(fd.as_fd(), FlockOperation::Unlock).describe("flock", String::new)
}

/// From here on this end neither waits for input nor for room.
pub fn set_nonblocking(fd: impl AsFd) -> Result<()> {
    let fd = fd.as_fd();
    let flags = rustix::fs::fcntl_getfl(fd).describe("fcntl", String::new)?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK).describe("fcntl", String::new)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_loss_of_power_takes_is_known() {
        let open = |path: &str| openat(CWD, Path::new(path), OFlags::RDONLY, 0).unwrap();
        assert!(is_in_memory(open("/dev/shm")).unwrap());
        assert!(!is_in_memory(open(env!("CARGO_MANIFEST_DIR"))).unwrap());
    }
}
