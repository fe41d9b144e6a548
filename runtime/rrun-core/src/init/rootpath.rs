//! Paths inside the container's root, always by descriptor, never through a magic link.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rrun_sys::fs::{self, OFlags};
use rrun_sys::process;

use crate::{Error, Result};

/// What a missing path is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
}

/// Opens (O_PATH) what `path` means in `root`; None if it does not exist.
pub fn find(root: impl AsFd, path: &Path) -> Result<Option<OwnedFd>> {
    match fs::open_in_root(root, path, OFlags::PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if [libc::ENOENT, libc::ENOTDIR].contains(&e.errno()) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Opens it, made with its parents where it is missing. A symlink that leads nowhere gets its target made, inside the root.
pub fn ensure(root: &OwnedFd, path: &Path, kind: Kind) -> Result<OwnedFd> {
    ensure_bounded(root, path, kind, 40)
}

fn ensure_bounded(root: &OwnedFd, path: &Path, kind: Kind, links_left: u32) -> Result<OwnedFd> {
    match fs::open_in_root(root, path, OFlags::PATH) {
        Ok(fd) => return Ok(fd),
        Err(e) if e.is(libc::ENOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let mut components = path.components();
    let Some(Component::Normal(name)) = components.next_back() else {
        return Err(Error::invalid(format!("{}: cannot be made: give a path without \"..\"", path.display())));
    };
    let parent_path = components.as_path();
    let parent = ensure_bounded(root, parent_path, Kind::Directory, links_left)?;
    let name = Path::new(name);
    match kind {
        Kind::Directory => tolerate_exists(fs::mkdirat(&parent, name, 0o755))?,
        Kind::File => {
            tolerate_exists(fs::openat(&parent, name, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW, 0o755).map(drop))?;
        }
    }
    match fs::open_in_root(root, path, OFlags::PATH) {
        Err(e) if e.is(libc::ENOENT) && links_left > 0 => {
            let target = fs::readlinkat(&parent, name)?;
            let target = target.to_str().map_err(|_| Error::state(format!("{}: leads to a name that is not UTF-8", path.display())))?;
            // `join` takes an absolute target as it is: the root is the container's.
            ensure_bounded(root, &parent_path.join(target), kind, links_left - 1)
        }
        done => Ok(done?),
    }
}

fn tolerate_exists(result: rrun_sys::Result<()>) -> Result<()> {
    match result {
        Err(e) if e.is(libc::EEXIST) => Ok(()),
        done => Ok(done?),
    }
}

/// Makes `path` (as seen after pivot) the working directory and proves that it is inside the root. False: this user may not go there;
/// the one that the process will be perhaps may.
pub fn enter(path: &str, create: bool) -> Result<bool> {
    let root = fs::openat(fs::CWD, Path::new("/"), OFlags::PATH | OFlags::DIRECTORY, 0)?;
    let opened = fs::open_in_root(&root, Path::new(path), OFlags::PATH | OFlags::DIRECTORY);
    let entered = match opened {
        Err(e) if create && e.is(libc::ENOENT) => process::change_dir(ensure(&root, &normal(path), Kind::Directory)?),
        Err(e) => Err(e),
        Ok(dir) => process::change_dir(dir),
    };
    match entered {
        Err(e) if e.is(libc::EACCES) => return Ok(false),
        done => done.map_err(|e| not_entered(path, e.errno()))?,
    }
    if process::current_dir()?.first() != Some(&b'/') {
        return Err(Error::Exec(
            "current working directory is outside of container mount namespace root -- possible container breakout detected".into(),
        ));
    }
    Ok(true)
}

/// As the process's own user, who has to get there.
pub fn enter_at_last(path: &str) -> Result<()> {
    if enter(path, false)? { Ok(()) } else { Err(not_entered(path, libc::EACCES)) }
}

fn not_entered(path: &str, errno: i32) -> Error {
    Error::Exec(format!("chdir to cwd ({path:?}) set in config.json failed: {}", rrun_sys::errno_text(errno)))
}

/// The path without `.` and `..`, by name alone.
fn normal(path: &str) -> std::path::PathBuf {
    let mut out = std::path::PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            _ => {}
        }
    }
    out
}
