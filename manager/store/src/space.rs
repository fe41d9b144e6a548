//! What the store takes on disk, as du(1) counts it: every byte below the root once, under one heading.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rcontainerd_types::Result;

use crate::content::BLOBS;
use crate::fs::{entry_names, failed};
use crate::snapshot::disk_usage;
use crate::store::Store;

/// In bytes of blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Blobs, what is arriving, layers, the database: all but what `writable` tells.
    pub kept: u64,
    /// Of each snapshot that is not committed, by (snapshotter, namespace, key).
    pub writable: BTreeMap<(String, String, String), u64>,
}

impl Store {
    /// Counts what the store itself puts below its root; other directories there (containers', volumes') are their owners' to count.
    /// A committed snapshot cannot change and is not walked again.
    ///
    /// # Errors
    /// When a directory or the database cannot be read.
    pub fn space(&self) -> Result<Space> {
        let root = self.root();
        let mut space = Space { kept: blocks(root)? + blocks(&root.join("snapshots"))?, ..Space::default() };
        for name in entry_names(root)? {
            let path = root.join(&name);
            if name == "content" {
                space.kept += disk_usage(&path)?.size;
            } else if !path.is_dir() {
                space.kept += blocks(&path)?;
            }
        }
        for backend in self.backends() {
            space.kept += blocks(backend.root())?;
            for (full_key, record) in backend.records()? {
                let dir = backend.dir(record.dir);
                if let Some(usage) = record.usage {
                    space.kept += usage.size + blocks(&dir)?;
                    continue;
                }
                // Removed since.
                let size = if dir.is_dir() { disk_usage(&dir)?.size } else { 0 };
                space.writable.insert(crate::gc::split_snapshot_key(&full_key)?, size);
            }
        }
        Ok(space)
    }
}

impl Store {
    /// As [`Self::space`], of blobs, layers and the database of all namespaces, by what their records say: quick, and all but exact.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn recorded_space(&self) -> Result<u64> {
        let blobs: u64 = self.metadata().read(|tx| tx.list(BLOBS))?.iter().map(|(_, row)| row.size).sum();
        let mut used = blobs + blocks(&self.root().join("meta.redb"))?;
        for backend in self.backends() {
            used += backend.records()?.iter().filter_map(|(_, record)| record.usage).map(|usage| usage.size).sum::<u64>();
        }
        Ok(used)
    }
}

/// Of a file or directory itself; nothing when it is gone.
fn blocks(path: &Path) -> Result<u64> {
    match path.symlink_metadata() {
        Ok(found) => Ok(found.blocks() * 512),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(err) => Err(failed("stat", path)(err)),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::metadata::Labels;

    #[test]
    fn every_byte_is_counted_once() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(dir.path()).expect("open");
        store.content("one").put(&[7; 100_000], Labels::new()).expect("put");
        let mut arriving = store.content("two").ingest("half", None).expect("ingest");
        arriving.append(&[8; 70_000]).expect("append");
        drop(arriving);
        let snapshots = store.snapshots("one");
        snapshots.prepare("active", None, Labels::new()).expect("prepare");
        let upper = snapshots.layer_dirs("active").expect("directories").upper;
        std::fs::write(upper.join("file"), [9; 50_000]).expect("write");
        snapshots.commit("layer", "active", Labels::new()).expect("commit");
        snapshots.prepare("top", Some("layer"), Labels::new()).expect("prepare");
        std::fs::write(snapshots.layer_dirs("top").expect("directories").upper.join("own"), [1; 30_000]).expect("write");
        let output = Command::new("du").args(["-s", "-B1"]).arg(dir.path()).output().expect("run du");
        let told: u64 = String::from_utf8_lossy(&output.stdout).split('\t').next().expect("a number").parse().expect("a number");
        let space = store.space().expect("count");
        assert_eq!(space.kept + space.writable.values().sum::<u64>(), told);
        let own = space.writable[&(snapshots.name().to_owned(), "one".to_owned(), "top".to_owned())];
        assert!((30_000..50_000).contains(&own), "{own}");
    }
}
