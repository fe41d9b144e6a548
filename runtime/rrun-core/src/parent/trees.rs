//! Bind mounts that the parent prepares, since only it may: id-mapped ones, and those whose source the container's root could
//! not reach. Detached trees, with all their attributes; the child attaches them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rrun_sys::fs::{self, OFlags};
use rrun_sys::mount::{self, MountAttr};
use rrun_sys::process::{self, Cloned};
use rrun_sys::socket;

use super::maps;
use crate::init::set_attrs;
use crate::plan::{IdMap, InitStep, MapSource, Maps, MountStep, What};
use crate::procfs::{Part, ProcFs};
use crate::{Context, Error, Result};

const ATTR_IDMAP: u64 = 0x10_0000;

/// The tree of this number, made where the child is: among its mounts so far, which a source may lie on.
pub fn prepare(steps: &[InitStep], number: &[u8], child: BorrowedFd<'_>) -> Result<OwnedFd> {
    let number: Option<usize> = std::str::from_utf8(number).ok().and_then(|n| n.parse().ok());
    let wanted = steps.iter().find_map(|step| match step {
        InitStep::Mount(step) if step.tree.is_some() && step.tree == number => Some(step),
        _ => None,
    });
    let step = wanted.ok_or_else(|| Error::state("the container's process asked for a mount that nobody planned"))?;
    let own = fs::openat(fs::CWD, Path::new("/proc/self/ns/mnt"), OFlags::RDONLY, 0)?;
    let here = fs::openat(fs::CWD, Path::new("."), OFlags::PATH | OFlags::DIRECTORY, 0)?;
    process::join_namespace(child, libc::CLONE_NEWNS).doing(|| "join the container's mount namespace".to_string())?;
    let made = tree(step);
    process::join_namespace(&own, libc::CLONE_NEWNS)?;
    process::change_dir(&here)?;
    made.map_err(|e| Error::Step { step: InitStep::Mount(step.clone()).failing(), message: e.to_string() })
}

fn tree(step: &MountStep) -> Result<OwnedFd> {
    let What::Bind { source, recursive } = &step.what else {
        return Err(Error::state("only bind mounts are prepared by the parent"));
    };
    let place = fs::openat(fs::CWD, source, OFlags::PATH, 0).doing(|| format!("mount source {}", source.display()))?;
    let tree = mount::clone_tree(&place, Path::new(""), *recursive)?;
    if let Some(idmap) = &step.idmap {
        map_ids(&tree, idmap).doing(|| format!("map the ids of {} (does its file system support it?)", source.display()))?;
    }
    set_attrs(&tree, step)?;
    Ok(tree)
}

fn map_ids(tree: &OwnedFd, idmap: &IdMap) -> Result<()> {
    let by = namespace(&idmap.by)?;
    let attr = MountAttr { attr_set: ATTR_IDMAP, userns_fd: by.as_raw_fd() as u64, ..MountAttr::default() };
    Ok(mount::set_attr(tree, idmap.recursive, &attr)?)
}

fn namespace(by: &MapSource) -> Result<OwnedFd> {
    match by {
        MapSource::Namespace(path) => Ok(fs::openat(fs::CWD, path, OFlags::RDONLY, 0)?),
        MapSource::Ranges(ranges) => mapped_namespace(ranges),
    }
}

/// A user namespace with these maps, held by nothing but the descriptor: the process that it took has ended.
fn mapped_namespace(ranges: &Maps) -> Result<OwnedFd> {
    let (ours, theirs) = socket::pair()?;
    match process::clone3(libc::CLONE_NEWUSER as u64, None)? {
        Cloned::Child => {
            drop(ours);
            // Ends when the parent has looked, or is gone.
            drop(socket::receive(theirs.as_fd()));
            process::exit_now(0)
        }
        Cloned::Parent { pid, .. } => {
            drop(theirs);
            let opened = ProcFs::open(Part::Processes)
                .and_then(|proc| maps::write(&proc, pid, ranges, false).and_then(|()| proc.namespace(pid, "user")));
            drop(ours);
            process::wait(pid)?;
            opened
        }
    }
}
