//! What a directory takes on disk, as du(1) counts it.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rcontainerd_types::Result;

use super::Usage;
use crate::fs::failed;

/// Allocated bytes and inodes below `root`, itself included; hard links count once, symlinks are not followed.
pub fn disk_usage(root: &Path) -> Result<Usage> {
    let mut usage = Usage::default();
    let mut seen = HashSet::new();
    let mut pending = vec![root.to_owned()];
    add(&mut usage, &std::fs::symlink_metadata(root).map_err(failed("stat", root))?);
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).map_err(failed("read directory", &dir))? {
            let entry = entry.map_err(failed("read directory", &dir))?;
            let path = entry.path();
            let found = match entry.metadata() {
                Ok(found) => found,
                // A running container may remove its files while we look.
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
                Err(err) => return Err(failed("stat", &path)(err)),
            };
            if found.is_dir() {
                pending.push(path);
            } else if found.nlink() > 1 && !seen.insert((found.dev(), found.ino())) {
                continue;
            }
            add(&mut usage, &found);
        }
    }
    Ok(usage)
}

fn add(usage: &mut Usage, found: &std::fs::Metadata) {
    usage.size += found.blocks() * 512;
    usage.inodes += 1;
}
