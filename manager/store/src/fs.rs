//! File system steps that the whole crate takes the same way: safe modes, fsync discipline, errors that name the path.

use std::ffi::{CStr, CString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rcontainerd_types::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

/// `Error::io` with the verb and the path.
pub fn failed<'a>(verb: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |err| Error::io(format!("{verb} {}", path.display()), err)
}

/// Makes the directory and its parents, all 0700 where they are new.
pub fn make_private_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create directory", path))
}

/// Opens a new file that only root may touch.
pub fn create_private_file(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed("create", path))
}

/// Makes the directory's entries durable.
pub fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(failed("fsync directory", path))
}

/// Writes back everything dirty of the file system that `path` lies on (syncfs(2)): one call instead of an fsync per file.
pub fn sync_filesystem(path: &Path) -> Result<()> {
    let dir = File::open(path).map_err(failed("open", path))?;
    rustix::fs::syncfs(&dir).map_err(|err| failed("syncfs", path)(err.into()))
}

/// Removes a file that may be gone already.
pub fn remove_file_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(err)),
        _ => Ok(()),
    }
}

/// Removes a tree that may be gone already.
pub fn remove_tree_if_there(path: &Path) -> Result<()> {
    let Some((parent, name)) = path.parent().zip(path.file_name()) else {
        return Err(Error::internal(format!("{} is nothing that can be removed", path.display())));
    };
    let dir = match File::open(parent) {
        Ok(dir) => dir,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(failed("open", parent)(err)),
    };
    let name = CString::new(name.as_encoded_bytes()).map_err(|_| Error::internal("a name of ours contains a NUL byte"))?;
    remove_tree_at(dir.as_fd(), &name).map_err(|err| failed("remove", path)(err.into()))
}

/// Removes an entry of a directory with everything below it; gone already is fine. Symlinks are never followed, and a tree may be
/// deeper than any path or descriptor limit (containers can make such): two descriptors are open at a time, upwards goes by `..`.
pub fn remove_tree_at(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    if remove_leaf(dir, name)? {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut current = openat(dir, name, flags, Mode::empty())?;
    let mut above = vec![name.to_owned()];
    loop {
        if let Some(sub) = remove_leaves(&current)? {
            current = openat(&current, &sub, flags, Mode::empty())?;
            above.push(sub);
            continue;
        }
        let Some(empty) = above.pop() else { return Ok(()) };
        if above.is_empty() {
            return unlinkat(dir, &empty, AtFlags::REMOVEDIR);
        }
        current = openat(&current, c"..", flags, Mode::empty())?;
        unlinkat(&current, &empty, AtFlags::REMOVEDIR)?;
    }
}

/// Removes what is no directory; `false` for a directory that is not empty.
fn remove_leaf(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<bool> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(err) => Err(err),
        },
        Err(err) => Err(err),
    }
}

/// Empties a directory up to the first subdirectory that is not empty, and names that.
fn remove_leaves(dir: &OwnedFd) -> rustix::io::Result<Option<CString>> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") && !remove_leaf(dir.as_fd(), name)? {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

/// Names of a directory's entries that are valid UTF-8 (all that this crate makes are); nothing when it does not exist.
pub fn entry_names(path: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(failed("read directory", path)(err)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("read directory", path))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Names this boot of the kernel; another one every time (random(4), boot_id).
pub fn boot_id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(std::fs::read_to_string(path).map_err(failed("read", path))?.trim().to_owned())
}

/// Carries an error through an `io` interface (`Write`, `Read`) without losing what kind it was.
pub fn into_io(err: Error) -> io::Error {
    let kind = match err.kind() {
        ErrorKind::ResourceExhausted => io::ErrorKind::StorageFull,
        ErrorKind::InvalidArgument => io::ErrorKind::InvalidInput,
        ErrorKind::DataLoss => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, err)
}
