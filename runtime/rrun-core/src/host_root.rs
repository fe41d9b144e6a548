//! The root of a container without a mount namespace: one mount on the host, and everything else that the container is given on it.
//!
//! The container's root directory is bound on itself. That mount is private, so that what is mounted on it shows nowhere else, and so
//! are its ways up: what the container is given of the host's mounts is a slave of them. Undoing is one unmount(2) of it, which takes all
//! that lies below along and cannot reach a mount of the host's. The mount's number is written down before it is attached, so whoever
//! cleans up after a runtime that was killed knows what to look for.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rrun_cgroup::decode_mountinfo_path;
use rrun_sys::fs::{self, MountIds, OFlags};
use rrun_sys::mount::{self, MountAttr, UnmountFlags};
use serde::{Deserialize, Serialize};

use crate::state::Store;
use crate::{Context, Error, Result};

/// Which mount it is, as a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoot {
    path: PathBuf,
    /// As in mountinfo: used again after the mount has gone.
    mount_id: u64,
    /// Never used again in this boot; 0 before Linux 6.8.
    unique_id: u64,
    boot_id: String,
}

/// Of two such roots on one directory the later lies on the earlier, and would go with it.
pub fn is_alone(store: &Store, rootfs: &Path) -> Result<()> {
    for id in store.ids()? {
        // Another's that cannot be read is no reason to fail here.
        let state = store.entry(&id, false).and_then(|entry| entry.load());
        if state.is_ok_and(|state| state.host_root.is_some_and(|root| root.path == rootfs)) {
            return Err(Error::invalid(format!(
                "config.json: root.path: {:?}: is the root of container {id}, which has no mount namespace either: give each its own",
                rootfs.display().to_string()
            )));
        }
    }
    Ok(())
}

impl HostRoot {
    /// The mount as it is to be, attached nowhere yet.
    pub fn prepare(rootfs: &Path) -> Result<(HostRoot, OwnedFd)> {
        let tree = mount::clone_tree(fs::CWD, rootfs, false).doing(|| bound(rootfs))?;
        let MountIds { mount_id, unique_id } = fs::mount_ids(&tree)?;
        let boot_id = crate::state::boot_id()?;
        Ok((HostRoot { path: rootfs.to_path_buf(), mount_id, unique_id, boot_id }, tree))
    }

    /// Attaches it; what the host has mounted below the directory is below it, too. Returns its top directory.
    pub fn attach(&self, tree: &OwnedFd) -> Result<OwnedFd> {
        let below = mounts()?.into_iter().filter(|m| m.place != self.path && m.place.starts_with(&self.path)).map(|m| m.place);
        let mut tops: Vec<PathBuf> = Vec::new();
        for place in below {
            tops.retain(|top| !top.starts_with(&place));
            if !tops.iter().any(|top| place.starts_with(top)) {
                tops.push(place);
            }
        }
        let copies = tops.iter().map(|top| Ok((top, copy_of(top)?))).collect::<Result<Vec<_>>>()?;
        let place = fs::openat(fs::CWD, &self.path, OFlags::PATH | OFlags::DIRECTORY, 0)?;
        mount::attach(tree, &place).doing(|| bound(&self.path))?;
        // A mount on a shared one is shared itself. Nothing lies on it yet.
        mount::set_attr(tree, false, &MountAttr { propagation: libc::MS_PRIVATE, ..MountAttr::default() })?;
        let root = fs::openat(tree, Path::new("."), OFlags::PATH | OFlags::DIRECTORY, 0)?;
        for (top, copy) in copies {
            let inside = top.strip_prefix(&self.path).unwrap_or(top);
            let place = fs::open_in_root(&root, inside, OFlags::PATH)?;
            mount::attach(copy, place).doing(|| format!("mount what is on {}", top.display()))?;
        }
        Ok(root)
    }

    /// Its top directory, for another process of the container.
    pub fn open(&self) -> Result<OwnedFd> {
        let top = fs::openat(fs::CWD, &self.path, OFlags::PATH | OFlags::DIRECTORY, 0)?;
        if self.is(&top)? {
            return Ok(top);
        }
        Err(Error::state(format!("{}: the container's root is no longer mounted there, or something lies over it", self.path.display())))
    }

    /// Unmounts it, with all that lies on it. Nothing to do where it has gone: by itself with a boot or a mount namespace, or at other hands.
    pub fn detach(&self) -> Result<()> {
        if crate::state::boot_id()? != self.boot_id {
            return Ok(());
        }
        loop {
            let top = match fs::openat(fs::CWD, &self.path, OFlags::PATH, 0) {
                Err(e) if [libc::ENOENT, libc::ENOTDIR].contains(&e.errno()) => return Ok(()),
                done => done?,
            };
            let ours = self.is(&top)?;
            // The container may have mounted over its root.
            if !ours && !self.carries(fs::mount_ids(&top)?.mount_id)? {
                return Ok(());
            }
            mount::unmount(&fs::proc_fd_path(top.as_fd()), UnmountFlags::DETACH).doing(|| format!("unmount {}", self.path.display()))?;
            if ours {
                return Ok(());
            }
        }
    }

    fn is(&self, top: &OwnedFd) -> Result<bool> {
        Ok(fs::mount_ids(top)? == MountIds { mount_id: self.mount_id, unique_id: self.unique_id })
    }

    /// Whether a mount lies on it, or on one that does.
    fn carries(&self, mount_id: u64) -> Result<bool> {
        let table = mounts()?;
        let parent = |id: u64| table.iter().find(|m| m.id == id).map(|m| m.parent).filter(|parent| *parent != id);
        Ok(std::iter::successors(Some(mount_id), |id| parent(*id)).skip(1).any(|id| id == self.mount_id))
    }
}

fn bound(rootfs: &Path) -> String {
    format!("bind the root file system {}", rootfs.display())
}

/// What is mounted there, with all below; the host's mounts reach into it, it does not reach out.
fn copy_of(place: &Path) -> Result<OwnedFd> {
    let copy = mount::clone_tree(fs::CWD, place, true).doing(|| place.display().to_string())?;
    mount::set_attr(&copy, true, &MountAttr { propagation: libc::MS_SLAVE, ..MountAttr::default() })?;
    Ok(copy)
}

struct Mounted {
    id: u64,
    parent: u64,
    place: PathBuf,
}

/// This process's mount table (proc_pid_mountinfo(5)).
fn mounts() -> Result<Vec<Mounted>> {
    let path = Path::new("/proc/self/mountinfo");
    let table = std::fs::read(path).map_err(|e| Error::io("read", path, &e))?;
    Ok(table.split(|&b| b == b'\n').filter_map(mounted).collect())
}

fn mounted(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|&b| b == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    Some(Mounted { id, parent, place: decode_mountinfo_path(fields.nth(2)?) })
}
