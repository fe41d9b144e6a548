//! Room for the database on a full disk: every transaction, one that removes included, and the opening after an error write new pages
//! before they free old ones. Without room of its own a full disk would leave nothing that `rm` or `prune` could do about it.

use std::fs::File;
use std::path::{Path, PathBuf};

use rcontainerd_types::{Error, ErrorKind, Result};
use rustix::fs::FallocateFlags;

/// Enough for some hundred small transactions: each writes a few pages of 4 KiB, and frees as many of an earlier one.
const BYTES: u64 = 1024 * 1024;

/// What must be free before the room is taken back: on a disk that is all but full it would be the next transaction that fails.
const PLENTY: u64 = 4 * BYTES;

/// A file beside the database that holds blocks and nothing else.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    held: bool,
}

impl Reserve {
    /// Of the database at `database`. On a disk without room for it the database goes on without.
    pub fn open(database: &Path) -> Self {
        let mut reserve = Self { path: database.with_extension("reserve"), held: false };
        reserve.refill();
        reserve
    }

    /// Takes the room back, once there is some again.
    pub fn refill(&mut self) {
        if self.held {
            return;
        }
        match allocate(&self.path) {
            Ok(()) => self.held = true,
            Err(err) => {
                tracing::debug!(%err, "no room is reserved for the metadata database");
                self.remove();
            }
        }
    }

    /// Gives the room to the database if that is what it lacks; tells whether it did.
    pub fn release(&mut self, why: &Error) -> bool {
        let release = self.held && why.kind() == ErrorKind::ResourceExhausted;
        if release {
            self.remove();
            self.held = false;
        }
        release
    }

    fn remove(&self) {
        match std::fs::remove_file(&self.path) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %err, "remove the reserve");
            }
            _ => {}
        }
    }
}

fn allocate(path: &Path) -> Result<()> {
    let failed = |err: std::io::Error| Error::io(path.display(), err);
    let directory = path.parent().expect("the database is in a directory");
    let disk = rustix::fs::statvfs(directory).map_err(|err| failed(err.into()))?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < PLENTY {
        return Err(failed(std::io::ErrorKind::StorageFull.into()));
    }
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BYTES).map_err(|err| failed(err.into()))
}
