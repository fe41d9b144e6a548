//! File system steps that the whole crate takes the same way: safe modes, fsync discipline, errors that name the path.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rcontainerd_types::{Error, ErrorKind, Result};

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

/// Writes a small file so that after a crash it is there whole or not at all.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = create_private_file(&temporary)?;
    file.write_all(bytes).map_err(failed("write", &temporary))?;
    file.sync_all().map_err(failed("fsync", &temporary))?;
    std::fs::rename(&temporary, path).map_err(failed("rename", &temporary))?;
    match path.parent() {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
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

/// Removes a tree that may be gone already; symlinks inside are never followed (std walks by directory descriptors).
pub fn remove_tree_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(err)),
        _ => Ok(()),
    }
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
