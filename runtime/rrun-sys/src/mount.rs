//! Mounts by descriptor: the kernel's mount API of Linux 5.2 and 5.12.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

pub use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::error::Described;
use crate::{Result, check};

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountAttr {
    pub attr_set: u64,
    pub attr_clr: u64,
    pub propagation: u64,
    pub userns_fd: u64,
}

/// fsopen(2).
pub fn fsopen(fstype: &str) -> Result<OwnedFd> {
    rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).describe("fsopen", || fstype.to_string())
}

/// fsconfig(2), FSCONFIG_SET_STRING.
pub fn fsconfig_string(fs: impl AsFd, key: &str, value: &str) -> Result<()> {
    rustix::mount::fsconfig_set_string(fs.as_fd(), key, value).describe("fsconfig", || explained(&fs, &format!("{key}={value}")))
}

/// fsconfig(2), FSCONFIG_SET_FLAG.
pub fn fsconfig_flag(fs: impl AsFd, key: &str) -> Result<()> {
    rustix::mount::fsconfig_set_flag(fs.as_fd(), key).describe("fsconfig", || explained(&fs, key))
}

/// fsconfig(2), FSCONFIG_CMD_CREATE.
pub fn fsconfig_create(fs: impl AsFd) -> Result<()> {
    rustix::mount::fsconfig_create(fs.as_fd()).describe("fsconfig", || explained(&fs, "create"))
}

/// What was configured, with the file system's own words from the context's message log.
fn explained(fs: &impl AsFd, what: &str) -> String {
    let mut buf = [0u8; 512];
    match rustix::io::read(fs, &mut buf) {
        Ok(n) if n > 2 => format!("{what} ({})", String::from_utf8_lossy(&buf[2..n]).trim()),
        _ => what.to_string(),
    }
}

/// fsmount(2).
pub fn fsmount(fs: impl AsFd, attrs: MountAttrFlags) -> Result<OwnedFd> {
    rustix::mount::fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attrs).describe("fsmount", || format!("{attrs:?}"))
}

/// open_tree(2) with OPEN_TREE_CLONE: a copy of the mount (and of those below it) that is attached nowhere.
pub fn clone_tree(dir: impl AsFd, path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.as_os_str().is_empty());
    rustix::mount::open_tree(dir, path, flags).describe("open_tree", || path.display().to_string())
}

/// move_mount(2): attaches the mount `from` on the file or directory `to` itself.
pub fn attach(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(from, "", to, "", flags).describe("move_mount", String::new)
}

/// mount_setattr(2), Linux 5.12, on the mount that `fd` is (not on a path).
pub fn set_attr(fd: impl AsFd, recursive: bool, attr: &MountAttr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated literal, `attr` outlives the call and its size is passed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    check(ret, "mount_setattr", || format!("{attr:x?}")).map(drop)
}

/// mount(2) that only changes propagation (and what else `flags` says) of what `path` is.
pub fn change(path: &Path, flags: rustix::mount::MountPropagationFlags) -> Result<()> {
    rustix::mount::mount_change(path, flags).describe("mount", || format!("{} {flags:?}", path.display()))
}

/// mount(2) as it is, for kernels and cases that the descriptor calls do not cover. `flags` are `MS_*`.
pub fn mount(source: &str, target: &Path, fstype: &str, flags: libc::c_ulong, data: &str) -> Result<()> {
    let flags = nix::mount::MsFlags::from_bits_retain(flags);
    nix::mount::mount(Some(source), target, Some(fstype), flags, Some(data))
        .describe("mount", || format!("{source} on {} ({fstype}, {flags:?}, {data:?})", target.display()))
}

/// umount2(2).
pub fn unmount(path: &Path, flags: UnmountFlags) -> Result<()> {
    rustix::mount::unmount(path, flags).describe("umount", || path.display().to_string())
}

/// pivot_root(".", "."): the current directory becomes the root, the old root is mounted over it.
pub fn pivot_root_here() -> Result<()> {
    rustix::process::pivot_root(".", ".").describe("pivot_root", || ".".to_string())
}

pub use rustix::mount::MountPropagationFlags;
