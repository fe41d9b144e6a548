//! A container's files as it sees them, in a mount namespace of a thread's own: its root filesystem, and on it the volumes and binds. No
//! other process sees these mounts, and they go with the thread.
//!
//! ```text
//! running:  the mounted root (bundle/rootfs)     ┐
//! stopped:  the snapshot, mounted here for once  ┴─ + volumes, binds, /etc/hosts … → Scope
//! ```

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rcontainerd_store::tree::Scope;
use rcontainerd_types::{Error, ErrorKind, Result};
use rrun_sys::filesystem::Filesystem;
use rrun_sys::mount::{self, MountAttr, MountAttrFlags, MountPropagationFlags};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// What is to be seen. Paths are the host's.
pub struct Plan {
    pub root: Root,
    /// Any directory: in the thread's own namespace a root that is not mounted elsewhere covers it.
    pub cover: PathBuf,
    pub read_only: bool,
    /// In the order in which they are mounted.
    pub mounts: Vec<Placed>,
}

pub enum Root {
    /// Mounted there by the container's shim.
    Mounted(PathBuf),
    Snapshot(Vec<rcontainerd_store::Mount>),
}

pub struct Placed {
    pub source: PathBuf,
    /// Absolute, in the container.
    pub destination: String,
    pub read_only: bool,
    pub recursive: bool,
}

/// Runs `work` with the view; blocks.
pub fn within<T: Send>(plan: &Plan, work: impl FnOnce(&Scope) -> Result<T> + Send) -> Result<T> {
    let run = || {
        let scope = assemble(plan)?;
        work(&scope)
    };
    std::thread::scope(|threads| {
        let thread = std::thread::Builder::new().name("container-files".into()).spawn_scoped(threads, run);
        let thread = thread.map_err(|err| Error::io("start a thread", err))?;
        thread.join().map_err(|_| Error::internal("the thread that looked into the container panicked"))?
    })
}

fn failed(what: String) -> impl FnOnce(rrun_sys::Error) -> Error {
    move |err| Error::internal(format!("{what}: {err}"))
}

fn assemble(plan: &Plan) -> Result<Scope> {
    rrun_sys::process::unshare(libc::CLONE_FS | libc::CLONE_NEWNS).map_err(failed("a mount namespace for a container's files".into()))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount::change(Path::new("/"), private).map_err(failed("make mounts private".into()))?;
    let sources = plan.mounts.iter().map(|placed| Ok((placed, source(placed)?))).collect::<Result<Vec<_>>>()?;
    let root = root(plan)?;
    let scope = Scope::new(root);
    for (placed, tree) in sources {
        let Some(tree) = tree else { continue };
        place(&scope, placed, &tree)?;
    }
    if plan.read_only {
        mount::set_attr(scope.root(), false, &read_only()).map_err(failed("make the root filesystem read-only".into()))?;
    }
    Ok(scope)
}

/// A copy of the mount; `None` when the host has no such file any more, and so nothing of it can be seen.
fn source(placed: &Placed) -> Result<Option<OwnedFd>> {
    if !placed.source.exists() {
        tracing::debug!("{} is gone: {} is shown without it", placed.source.display(), placed.destination);
        return Ok(None);
    }
    let what = || format!("mount {} for a container's files", placed.source.display());
    mount::clone_tree(rustix::fs::CWD, &placed.source, placed.recursive).map(Some).map_err(failed(what()))
}

fn root(plan: &Plan) -> Result<OwnedFd> {
    let mounts = match &plan.root {
        Root::Mounted(path) => return open(path),
        Root::Snapshot(mounts) => mounts,
    };
    for rcontainerd_store::Mount { fstype, source, options } in mounts {
        let mounted = Filesystem { fstype, source, options }.mount_on(&open(&plan.cover)?);
        mounted.map_err(failed(format!("mount over {}", plan.cover.display())))?;
    }
    open(&plan.cover)
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|err| Error::io(format!("open {}", path.display()), err.into()))
}

/// Mounts on the place that the container knows, made where the container has not been started yet.
fn place(scope: &Scope, placed: &Placed, tree: &OwnedFd) -> Result<()> {
    let path = placed.destination.trim_start_matches('/').as_bytes();
    let target = match scope.object(path) {
        Err(Errno::NOENT) => make_place(scope, path, tree)?,
        other => other.map_err(|err| Error::io(format!("find {} in the container", placed.destination), err.into()))?,
    };
    let attached = if placed.read_only { mount::attach_with(tree, &target, &[(false, read_only())]) } else { mount::attach(tree, &target) };
    attached.map_err(failed(format!("mount on {} for a container's files", placed.destination)))
}

fn read_only() -> MountAttr {
    MountAttr { attr_set: MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), ..MountAttr::default() }
}

fn make_place(scope: &Scope, path: &[u8], tree: &OwnedFd) -> Result<OwnedFd> {
    let make = || {
        let stat = rustix::fs::fstat(tree)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            drop(scope.make_dirs(path)?);
        } else {
            let slash = path.iter().rposition(|byte| *byte == b'/');
            let parent = scope.make_dirs(slash.map_or(&[], |slash| &path[..slash]))?;
            let name = slash.map_or(path, |slash| &path[slash + 1..]);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            drop(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o755))?);
        }
        scope.object(path)
    };
    make().map_err(|err: Errno| Error::io(format!("make {} in the container", String::from_utf8_lossy(path)), err.into()))
}

/// The path of an open object as the container sees it, by what the kernel calls it in this namespace.
pub fn path_of(scope: &Scope, object: &OwnedFd) -> Result<String> {
    let name = |fd: &dyn std::os::fd::AsRawFd| {
        let link = std::fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()));
        link.map_err(|err| Error::io("ask for a path in the container", err))
    };
    let (root, path) = (name(&scope.root())?, name(object)?);
    let inside = path
        .strip_prefix(&root)
        .map_err(|_| Error::new(ErrorKind::PermissionDenied, "the path has just been moved out of the container's root filesystem"))?;
    Ok(format!("/{}", inside.display()))
}

/// Whether nothing can be written there.
pub fn is_read_only(object: &OwnedFd) -> bool {
    rustix::fs::fstatvfs(object).is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}
