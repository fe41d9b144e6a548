//! Network namespaces kept alive by bind mounts, as iproute2 does it (ip-netns(8)).

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use rcontainerd_types::{Error, ErrorKind, Result};

pub fn ensure_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(|err| Error::io(format!("create {}", dir.display()), err))
}

/// Makes a namespace and mounts it at `dir/id`.
pub fn create(dir: &Path, id: &str) -> Result<PathBuf> {
    let path = dir.join(id);
    ensure_dir(dir)?;
    File::options()
        .create_new(true)
        .write(true)
        .open(&path)
        .map_err(|err| Error::io(format!("create network namespace {}", path.display()), err))?;
    let target = path.clone();
    let made = in_thread(move || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| errno_error("unshare(CLONE_NEWNET)", errno))?;
        // thread-self names this thread's namespace; the mount lands in the process's mount namespace, which threads share.
        nix::mount::mount(Some("/proc/thread-self/ns/net"), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|errno| errno_error(format!("bind the new network namespace to {}", target.display()), errno))
    });
    if made.is_err() {
        remove_file(&path)?;
    }
    made.map(|()| path)
}

/// Unmounts and unlinks; a namespace that is gone is no error.
pub fn remove(path: &Path) -> Result<()> {
    match nix::mount::umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: a plain file, left by a crash between creat and mount.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => remove_file(path),
        Err(errno) => Err(errno_error(format!("unmount network namespace {}", path.display()), errno)),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(Error::io(format!("remove {}", path.display()), err)),
        _ => Ok(()),
    }
}

pub fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|err| Error::io(format!("open network namespace {}", path.display()), err))
}

/// Runs `work` in a thread that has joined the namespace; the thread ends with it, so nobody else is moved.
pub fn within<T: Send + 'static>(path: &Path, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let namespace = open(path)?;
    let name = path.display().to_string();
    in_thread(move || {
        nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| errno_error(format!("join network namespace {name}"), errno))?;
        work()
    })
}

fn in_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let thread = std::thread::Builder::new().name("netns".into()).stack_size(128 << 10).spawn(work);
    let thread = thread.map_err(|err| Error::io("start a thread for a network namespace", err))?;
    thread.join().unwrap_or_else(|_| Err(Error::internal("the thread in the network namespace panicked")))
}

pub fn errno_error(what: impl std::fmt::Display, errno: nix::Error) -> Error {
    let kind = match errno {
        nix::Error::EPERM | nix::Error::EACCES => ErrorKind::PermissionDenied,
        nix::Error::ENOSPC | nix::Error::EMFILE | nix::Error::ENOMEM => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("{what}: {}", errno.desc())).with_source(errno)
}
