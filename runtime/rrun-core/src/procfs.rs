//! Writes to procfs that nobody can lead elsewhere (CVE-2019-16884, CVE-2025-52881).
//!
//! The runtime makes a procfs for itself: a mount that is attached nowhere, so nothing can lie over a part of it, of the caller's
//! own pid namespace, and where no sysctl is meant without anything but processes. A runtime that may not make one (a user
//! namespace whose /proc has parts covered, an ordinary user, Linux before 5.2) takes a copy of the host's mount without what lies
//! on it, or the host's mount itself: there a file that something lies over is an error, not a way out.
//!
//! A container's first process takes the procfs that the container is given anyway, before it is mounted: that costs nothing.

use std::os::fd::OwnedFd;
use std::path::Path;

use rrun_sys::fs::{self, OFlags, ResolveFlags};
use rrun_sys::mount::{self, MountAttrFlags};

use crate::{Context, Error, Result};

const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// The inode of the top directory of every procfs (PROC_ROOT_INO of the kernel): a directory of it in disguise has another.
const PROC_ROOT_INODE: u64 = 1;

/// How much of it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The directories of processes (`subset=pid`, Linux 5.8; before, everything).
    Processes,
    /// The kernel's settings, too.
    All,
    /// The container's own, which is mounted later: with these `MOUNT_ATTR_*` bits.
    Container(u64),
}

/// The top directory of a procfs.
#[derive(Debug)]
pub struct ProcFs {
    root: OwnedFd,
}

impl ProcFs {
    /// The best that this process may have.
    pub fn open(part: Part) -> Result<ProcFs> {
        let denied = |e: &rrun_sys::Error| [libc::EPERM, libc::EINVAL, libc::ENOSYS].contains(&e.errno());
        let root = match new(part) {
            Err(e) if denied(&e) => match mount::clone_tree(fs::CWD, Path::new("/proc"), false) {
                Err(e) if denied(&e) => fs::openat(fs::CWD, Path::new("/proc"), OFlags::PATH | OFlags::DIRECTORY, 0)?,
                done => done?,
            },
            done => done?,
        };
        if fs::fstatfs(&root)?.f_type != PROC_SUPER_MAGIC || fs::fstat(&root)?.st_ino != PROC_ROOT_INODE {
            return Err(Error::state("/proc of the host is no procfs: mount one with `mount -t proc proc /proc`"));
        }
        Ok(ProcFs { root })
    }

    /// One write of the whole value to a file, `self/oom_score_adj` for instance.
    pub fn write(&self, file: &str, value: &str) -> Result<()> {
        // "self" is a symlink, but no magic one; what it leads to stays below.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let fd = fs::openat2(&self.root, Path::new(file), OFlags::WRONLY, 0, resolve)?;
        fs::write_all_at_once(&fd, value.as_bytes()).doing(|| format!("write /proc/{file}"))
    }

    /// The mount, to be attached.
    pub fn into_tree(self) -> OwnedFd {
        self.root
    }

    /// A namespace of a process; `kind` as in /proc/PID/ns.
    pub fn namespace(&self, pid: i32, kind: &str) -> Result<OwnedFd> {
        Ok(fs::openat(&self.root, Path::new(&format!("{pid}/ns/{kind}")), OFlags::RDONLY, 0)?)
    }
}

fn new(part: Part) -> rrun_sys::Result<OwnedFd> {
    let context = mount::fsopen("proc")?;
    if part == Part::Processes {
        match mount::fsconfig_string(&context, "subset", "pid") {
            Err(e) if e.is(libc::EINVAL) => {}
            done => done?,
        }
    }
    let attrs = match part {
        Part::Container(attrs) => {
            mount::fsconfig_string(&context, "source", "proc")?;
            MountAttrFlags::from_bits_retain(attrs as u32)
        }
        _ => MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    };
    mount::fsconfig_create(&context)?;
    mount::fsmount(&context, attrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_mount_of_its_own_with_nothing_but_what_is_needed() {
        let seen = |proc: &ProcFs, name: &str| fs::openat(&proc.root, Path::new(name), OFlags::PATH, 0).is_ok();
        let processes = ProcFs::open(Part::Processes).unwrap();
        assert!(seen(&processes, "self/oom_score_adj") && !seen(&processes, "sys") && !seen(&processes, "sysrq-trigger"));
        let all = ProcFs::open(Part::All).unwrap();
        assert!(seen(&all, "sys/kernel"));
        let device = |root: &OwnedFd| fs::fstat(root).unwrap().st_dev;
        let host = fs::openat(fs::CWD, Path::new("/proc"), OFlags::PATH, 0).unwrap();
        assert_ne!(device(&all.root), device(&host), "a new file system, not the host's");
    }

    #[test]
    fn a_write_reaches_this_process_and_nothing_above_the_top() {
        let proc = ProcFs::open(Part::Processes).unwrap();
        let now = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        proc.write("self/oom_score_adj", now.trim()).unwrap();
        for out in ["../etc/hostname", "self/root/tmp/x", "self/cwd/Cargo.toml"] {
            let e = proc.write(out, "x").unwrap_err();
            assert!([libc::EXDEV, libc::ELOOP].contains(&e.errno().unwrap_or_default()), "{out}: {e}");
        }
    }
}
