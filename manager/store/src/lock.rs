//! One manager per root: an flock on ROOT/lock, whose content names the holder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcontainerd_types::{Error, Result};
use rustix::fs::{FlockOperation, flock};

use crate::fs::failed;

/// Held while the value lives; the kernel lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub struct RootLock {
    _file: File,
}

impl RootLock {
    /// # Errors
    /// `Conflict` naming the process that holds the root.
    pub fn acquire(root: &Path) -> Result<Self> {
        let path = root.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(held_by_another(root, &mut file)),
            Err(err) => return Err(failed("lock", &path)(err.into())),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed("truncate", &path))?;
        writeln!(file, "{} {}", std::process::id(), program_name()).map_err(failed("write", &path))?;
        Ok(Self { _file: file })
    }
}

fn program_name() -> String {
    let exe = std::env::current_exe().ok();
    exe.as_deref().and_then(Path::file_name).map_or_else(|| "unknown program".into(), |name| name.to_string_lossy().into_owned())
}

fn held_by_another(root: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    let owner = match file.read_to_string(&mut text) {
        Ok(_) => match text.trim().split_once(' ') {
            Some((pid, program)) => format!("{program} with process id {pid}"),
            None => "another process".to_owned(),
        },
        Err(_) => "another process".to_owned(),
    };
    Error::conflict(format!("root {} is in use by {owner}: stop it first, or choose another --root", root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_has_the_root() {
        let root = tempfile::tempdir().expect("temporary directory");
        let held = RootLock::acquire(root.path()).expect("first");
        let err = RootLock::acquire(root.path()).expect_err("second");
        assert!(err.message().contains(&format!("process id {}", std::process::id())), "{err}");
        drop(held);
        RootLock::acquire(root.path()).expect("free again");
    }
}
