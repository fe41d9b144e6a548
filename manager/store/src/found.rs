//! What an open finds in the records of blobs and snapshots: read in one walk, and in part, for all who tidy up behind the last process.
//! They used to walk the tables each for itself: blobs twice, snapshots three times.

use std::collections::BTreeMap;

use rcontainerd_types::Result;

use crate::content::BLOB_MARKS;
use crate::metadata::Metadata;
use crate::settle::{Thing, Unsettled};
use crate::snapshot::{SNAPSHOT_MARKS, SnapshotMark};

/// Kept in step by those who remove what they find.
#[derive(Debug, Default)]
pub struct Found {
    /// Names, in order.
    blobs: Vec<String>,
    unsettled_blobs: BTreeMap<String, Unsettled>,
    /// By full key, in order.
    snapshots: Vec<(String, SnapshotMark)>,
}

impl Found {
    pub fn read(metadata: &Metadata) -> Result<Self> {
        metadata.read(|tx| {
            let mut found = Self { snapshots: tx.list(SNAPSHOT_MARKS)?, ..Self::default() };
            for (name, mark) in tx.list(BLOB_MARKS)? {
                if let Some(unsettled) = mark.unsettled {
                    found.unsettled_blobs.insert(name.clone(), unsettled);
                }
                found.blobs.push(name);
            }
            Ok(found)
        })
    }

    /// What waits for a sync.
    pub fn unsettled(&self) -> Result<BTreeMap<Thing, Unsettled>> {
        let mut all = BTreeMap::new();
        for (name, unsettled) in &self.unsettled_blobs {
            all.insert(Thing::Blob(name.parse()?), unsettled.clone());
        }
        let marked = self.snapshots.iter().filter_map(|(key, mark)| Some((key, mark.unsettled.clone()?)));
        all.extend(marked.map(|(key, unsettled)| (Thing::Snapshot(key.clone()), unsettled)));
        Ok(all)
    }

    pub fn has_blob(&self, name: &str) -> bool {
        self.blobs.binary_search_by(|known| known.as_str().cmp(name)).is_ok()
    }

    /// Numbers of a snapshotter's directories that have a record.
    pub fn directories(&self, snapshotter: &str) -> impl Iterator<Item = u64> {
        let own = self.snapshots.iter().filter(move |(key, _)| is_of(snapshotter, key));
        own.map(|(_, mark)| mark.dir)
    }

    /// Takes out those of a snapshotter that `choose` says; their full keys.
    pub fn take_snapshots(&mut self, snapshotter: &str, choose: impl Fn(&SnapshotMark) -> bool) -> Vec<String> {
        let taken = self.snapshots.extract_if(.., |(key, mark)| is_of(snapshotter, key) && choose(mark));
        taken.map(|(key, _)| key).collect()
    }

    /// Of what has lost its record.
    pub fn forget(&mut self, thing: &Thing) {
        match thing {
            Thing::Blob(digest) => {
                let name = digest.to_string();
                self.unsettled_blobs.remove(&name);
                self.blobs.retain(|known| *known != name);
            }
            Thing::Snapshot(key) => self.snapshots.retain(|(known, _)| known != key),
        }
    }
}

fn is_of(snapshotter: &str, full_key: &str) -> bool {
    full_key.split('/').next() == Some(snapshotter)
}
