//! What a directory takes on disk, as du(1) counts it.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rcontainerd_types::Result;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use super::Usage;
use crate::fs::failed;

/// Allocated bytes and inodes below `root`, itself included; hard links count once, symlinks are not followed. Walks by descriptors:
/// a container may have made a tree deeper than any path can name.
pub fn disk_usage(root: &Path) -> Result<Usage> {
    let mut counter = Counter::default();
    counter.walk(root).map_err(|err| failed("count", root)(err.into()))?;
    Ok(counter.usage)
}

#[derive(Default)]
struct Counter {
    usage: Usage,
    /// Files with several names that were counted.
    seen: HashSet<(u64, u64)>,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Counter {
    fn walk(&mut self, root: &Path) -> rustix::io::Result<()> {
        let mut current = openat(CWD, root, DIRECTORY, Mode::empty())?;
        self.add(&fstat(&current)?);
        // Subdirectories still to be visited, of each level above and of the current one.
        let mut levels = vec![self.level(&current)?];
        while let Some(pending) = levels.last_mut() {
            if let Some(name) = pending.pop() {
                match openat(&current, &name, DIRECTORY, Mode::empty()) {
                    Ok(inside) => current = inside,
                    // A running container may remove its files while we look.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                    Err(err) => return Err(err),
                }
                let level = self.level(&current)?;
                levels.push(level);
            } else {
                levels.pop();
                if !levels.is_empty() {
                    current = openat(&current, c"..", DIRECTORY, Mode::empty())?;
                }
            }
        }
        Ok(())
    }

    /// Counts a directory's entries and gives the names of its subdirectories.
    fn level(&mut self, dir: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
        let mut subdirectories = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(err) => return Err(err),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                subdirectories.push(name.to_owned());
            } else if stat.st_nlink > 1 && !self.seen.insert((stat.st_dev, stat.st_ino)) {
                continue;
            }
            self.add(&stat);
        }
        Ok(subdirectories)
    }

    fn add(&mut self, stat: &Stat) {
        self.usage.size += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        self.usage.inodes += 1;
    }
}
