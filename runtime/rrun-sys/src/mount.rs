//! Mounts by descriptor: the kernel's mount API of Linux 5.2 and 5.12, with mount(2) in place of the latter on older kernels.

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

/// Attributes of a mount, and whether those below it get them too.
pub type Attribute = (bool, MountAttr);

/// Gives a mount that is attached nowhere its attributes, then attaches it: nobody sees it without them. Before Linux 5.12 it is
/// the other way round, for only mount(2) can set them, and only on an attached mount.
pub fn attach_with(tree: impl AsFd, to: impl AsFd, attributes: &[Attribute]) -> Result<()> {
    let set = attributes.iter().try_for_each(|(recursive, attr)| mount_setattr(&tree, *recursive, attr));
    match set {
        Err(e) if e.is(libc::ENOSYS) => {
            attach(&tree, to)?;
            attributes.iter().try_for_each(|(recursive, attr)| remount(&tree, *recursive, attr))
        }
        done => done.and_then(|()| attach(&tree, to)),
    }
}

/// Attaches a mount, it and all below read-only. Before Linux 5.12 only the mount itself is: what lies below keeps what it is.
pub fn attach_read_only(tree: impl AsFd, to: impl AsFd) -> Result<()> {
    let attr = MountAttr { attr_set: MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), ..MountAttr::default() };
    match mount_setattr(&tree, true, &attr) {
        Err(e) if e.is(libc::ENOSYS) => attach_with(tree, to, &[(false, attr)]),
        done => done.and_then(|()| attach(tree, to)),
    }
}

/// Changes the attributes of the attached mount that `fd` is (not of a path).
pub fn set_attr(fd: impl AsFd, recursive: bool, attr: &MountAttr) -> Result<()> {
    match mount_setattr(&fd, recursive, attr) {
        Err(e) if e.is(libc::ENOSYS) => remount(&fd, recursive, attr),
        done => done,
    }
}

/// What [`set_attr`] does where there is no mount_setattr(2). Needs /proc.
fn remount(fd: impl AsFd, recursive: bool, attr: &MountAttr) -> Result<()> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let path = Path::new(&path);
    let below = if recursive { libc::MS_REC } else { 0 };
    if attr.propagation != 0 {
        change(path, MountPropagationFlags::from_bits_retain((attr.propagation | below) as u32))?;
    }
    if attr.attr_set | attr.attr_clr == 0 {
        return Ok(());
    }
    if recursive || attr.userns_fd != 0 {
        return Err(crate::Error::new("mount_setattr", format!("{attr:x?}: this kernel is older than 5.12"), libc::ENOSYS));
    }
    let now = rustix::fs::fstatvfs(&fd).describe("fstatvfs", String::new)?.f_flag.bits();
    mount("", path, "", libc::MS_REMOUNT | libc::MS_BIND | attr.flags_after(now), "")
}

impl MountAttr {
    /// The attributes that are set, as `MS_*` flags.
    pub fn flags(&self) -> libc::c_ulong {
        // Not among what statvfs(3) tells; Linux 5.10.
        const NOSYMFOLLOW: (u64, libc::c_ulong) = (0x20_0000, 0x100);
        self.flags_after(0) | if self.attr_set & NOSYMFOLLOW.0 != 0 { NOSYMFOLLOW.1 } else { 0 }
    }

    /// The `MS_*` flags of a mount whose `ST_*` flags (statvfs(3)) are `now`, once the attributes are applied.
    fn flags_after(&self, now: u64) -> libc::c_ulong {
        /// MOUNT_ATTR_*, ST_*, MS_* of the same meaning. An access time mode (MOUNT_ATTR__ATIME, 0x70) replaces the others.
        const FLAGS: [(u64, u64, libc::c_ulong); 8] = [
            (0x1, libc::ST_RDONLY, libc::MS_RDONLY),
            (0x2, libc::ST_NOSUID, libc::MS_NOSUID),
            (0x4, libc::ST_NODEV, libc::MS_NODEV),
            (0x8, libc::ST_NOEXEC, libc::MS_NOEXEC),
            (0x10, libc::ST_NOATIME, libc::MS_NOATIME),
            (0x20, 0, libc::MS_STRICTATIME),
            (0x80, libc::ST_NODIRATIME, libc::MS_NODIRATIME),
            (0, libc::ST_RELATIME, libc::MS_RELATIME),
        ];
        let kept = |st: u64, attr: u64| now & st != 0 && self.attr_clr & attr == 0;
        let atime = self.attr_clr & 0x70 != 0;
        FLAGS
            .iter()
            .filter(|(attr, st, ms)| {
                let mode = *ms & (libc::MS_NOATIME | libc::MS_RELATIME) != 0;
                self.attr_set & attr != 0 || kept(*st, *attr) && !(mode && atime)
            })
            .fold(0, |flags, (_, _, ms)| flags | ms)
    }
}

/// mount_setattr(2), Linux 5.12.
fn mount_setattr(fd: impl AsFd, recursive: bool, attr: &MountAttr) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_become_the_flags_of_a_remount() {
        let flags = |set, clr, now| MountAttr { attr_set: set, attr_clr: clr, ..MountAttr::default() }.flags_after(now);
        assert_eq!(flags(0x1, 0, libc::ST_NOSUID | libc::ST_RELATIME), libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_RELATIME);
        assert_eq!(flags(0x8, 0x2, libc::ST_NOSUID | libc::ST_NODEV), libc::MS_NOEXEC | libc::MS_NODEV);
        assert_eq!(flags(0x10, 0x70, libc::ST_RELATIME), libc::MS_NOATIME);
        assert_eq!(flags(0, 0x70, libc::ST_NOATIME | libc::ST_RDONLY), libc::MS_RDONLY);
    }

    /// What kernels before 5.12 are given must mean the same to newer ones.
    #[test]
    fn a_remount_does_what_mount_setattr_does() {
        let place = Path::new("/mnt");
        let attach_to = |old: bool| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("the tests run as root");
            change(Path::new("/"), MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private");
            let fs = fsopen("tmpfs").expect("fsopen");
            fsconfig_create(&fs).expect("create");
            let tree = fsmount(&fs, MountAttrFlags::MOUNT_ATTR_NOSUID).expect("fsmount");
            let to = rustix::fs::open(place, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).expect("open");
            let attributes = [
                (false, MountAttr { attr_set: 0x1 | 0x8, ..MountAttr::default() }),
                (true, MountAttr { propagation: libc::MS_SHARED, ..MountAttr::default() }),
            ];
            if old {
                attach(&tree, &to).expect("attach");
                attributes.iter().for_each(|(recursive, attr)| remount(&tree, *recursive, attr).expect("remount"));
            } else {
                attach_with(&tree, &to, &attributes).expect("attach");
            }
            let table = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
            let line = table.lines().rfind(|line| line.split(' ').nth(4) == place.to_str()).expect("mounted").to_owned();
            line.split(' ').skip(5).take(2).map(|word| word.split(':').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let (new, old) = std::thread::scope(|scope| {
            let new = scope.spawn(|| attach_to(false)).join().expect("new");
            (new, scope.spawn(|| attach_to(true)).join().expect("old"))
        });
        assert_eq!(new, old);
        assert_eq!(new, ["ro,nosuid,noexec,relatime", "shared"]);
    }
}
