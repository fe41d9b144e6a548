//! Blobs and layers that can be used already and may not be on the disk yet: one sync for all that a pull or a load brings, at its end.
//!
//! ```text
//! file written → record with a mark, volatile        visible, good for this boot; after a power loss it goes at the next open
//! settle: syncfs(2) → one durable transaction        that clears the marks, with what it was all for (the image's name)
//! ```
//! The record of something that is marked names the boot that made it. A process that follows a killed one in the same boot takes the
//! marked over: the page cache has it. Whatever is acknowledged to somebody settles first, so nothing that counts is ever marked.
//!
//! A sync that fails may have lost any of what was written before it, and is told once: all that waited for it goes, at once or (where the
//! database cannot be written either) before something new is brought.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rcontainerd_types::{Digest, Error, Result};
use serde::{Deserialize, Serialize};

use crate::content::{BLOBS, CONTENT};
use crate::found::Found;
use crate::fs;
use crate::metadata::{Durability, Metadata, WriteTx, key};
use crate::snapshot::SNAPSHOTS;

/// In a record: what it names may not be on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsettled {
    pub boot: String,
    /// Tells it from what had the same name before.
    pub serial: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    Blob(Digest),
    /// By full key.
    Snapshot(String),
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    serial: u64,
    /// Its transaction is under way.
    pending: bool,
    /// A sync has failed since it was written.
    lost: bool,
}

/// What waits for a sync, in all namespaces.
pub struct Waiting {
    metadata: Arc<Metadata>,
    boot: String,
    /// Directories on all file systems that blobs and layers lie on.
    places: Vec<PathBuf>,
    serial: AtomicU64,
    things: Mutex<BTreeMap<Thing, Mark>>,
    /// Removes the files of what is forgotten.
    cleaner: OnceLock<Cleaner>,
}

type Cleaner = Box<dyn Fn(Forgotten) + Send + Sync>;

/// What has lost its records.
#[derive(Debug, Default)]
pub struct Forgotten {
    pub blobs: Vec<Digest>,
    /// Full keys, and numbers of directories.
    pub snapshots: Vec<(String, u64)>,
}

impl Waiting {
    /// Takes over what an earlier process of this boot has left, and forgets what one of another boot has.
    pub fn open(metadata: &Arc<Metadata>, places: Vec<PathBuf>, all: &mut Found) -> Result<Self> {
        let boot = fs::boot_id()?;
        let found = all.unsettled()?;
        let last = found.values().map(|unsettled| unsettled.serial).max().unwrap_or(0);
        let (things, stale): (BTreeMap<_, _>, BTreeMap<_, _>) = found.into_iter().partition(|(_, unsettled)| unsettled.boot == boot);
        let mark = |(thing, unsettled): (Thing, Unsettled)| (thing, Mark { serial: unsettled.serial, pending: false, lost: false });
        let waiting = Self {
            metadata: Arc::clone(metadata),
            boot,
            places,
            serial: AtomicU64::new(last),
            things: Mutex::new(things.into_iter().map(mark).collect()),
            cleaner: OnceLock::new(),
        };
        if !stale.is_empty() {
            tracing::info!(things = stale.len(), "forget blobs and layers that were not on the disk yet when the host went down");
            // Their files go with what is swept at open.
            metadata.write_freeing(Durability::Immediate, |tx| {
                let mut forgotten = Forgotten::default();
                stale.iter().try_for_each(|(thing, mark)| forget(tx, thing, mark.serial, &mut forgotten))
            })?;
            stale.keys().for_each(|thing| all.forget(thing));
        }
        Ok(waiting)
    }

    /// Says who removes the files of what a failed sync may have lost.
    pub fn clean_with(&self, cleaner: Cleaner) {
        drop(self.cleaner.set(cleaner));
    }

    /// Forgets what a failed sync may have lost and that could not be forgotten at once: before something new is brought, which would
    /// take it for present.
    ///
    /// # Errors
    /// Those of the database.
    pub fn forget_lost(&self) -> Result<()> {
        let lost: BTreeMap<Thing, Mark> =
            self.things().iter().filter(|(_, mark)| mark.lost).map(|(thing, mark)| (thing.clone(), *mark)).collect();
        if lost.is_empty() { Ok(()) } else { self.give_up(&lost) }
    }

    fn things(&self) -> MutexGuard<'_, BTreeMap<Thing, Mark>> {
        self.things.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes things visible that are written and not synced: `work` puts the mark that it is given for each into its record.
    ///
    /// # Errors
    /// Those of `work` and the database.
    pub fn show<R>(&self, things: &[Thing], work: impl FnOnce(&WriteTx<'_>, &[Unsettled]) -> Result<R>) -> Result<R> {
        let first = self.serial.fetch_add(things.len() as u64, Ordering::Relaxed) + 1;
        let marks: Vec<Unsettled> = (first..).zip(things).map(|(serial, _)| Unsettled { boot: self.boot.clone(), serial }).collect();
        let mut before = Vec::new();
        {
            // Known before it can be seen: whoever sees it and settles then must not miss it.
            let mut known = self.things();
            for (thing, mark) in things.iter().zip(&marks) {
                before.push(known.insert(thing.clone(), Mark { serial: mark.serial, pending: true, lost: false }));
            }
        }
        let shown = self.metadata.write_as(Durability::Volatile, |tx| work(tx, &marks));
        let mut known = self.things();
        for ((thing, mark), before) in things.iter().zip(&marks).zip(before) {
            match (&shown, before, known.get_mut(thing).filter(|found| found.serial == mark.serial)) {
                (_, _, None) => {}
                (Ok(_), _, Some(found)) => found.pending = false,
                (Err(_), Some(before), Some(found)) => *found = before,
                (Err(_), None, Some(_)) => drop(known.remove(thing)),
            }
        }
        shown
    }

    /// Brings to the disk all that is visible so far, and runs `work` in the transaction that says so.
    ///
    /// # Errors
    /// The I/O error of the sync (then all that waited is gone), those of `work` and the database.
    pub fn settle<R>(&self, work: impl FnOnce(&WriteTx<'_>) -> Result<R>) -> Result<R> {
        let due = self.things().clone();
        self.sync(&due)?;
        let done = self.metadata.write(|tx| {
            let mut settled = Vec::new();
            for (thing, mark) in &due {
                if clear(tx, thing, mark.serial)? {
                    settled.push(thing);
                }
            }
            work(tx).map(|done| (done, settled))
        });
        let (done, settled) = done?;
        self.things().retain(|thing, mark| {
            let same = due.get(thing).filter(|due| due.serial == mark.serial);
            // What was not found has been removed since, unless its transaction is still to come.
            same.is_none_or(|due| due.pending && !settled.contains(&thing))
        });
        Ok(done)
    }

    fn sync(&self, due: &BTreeMap<Thing, Mark>) -> Result<()> {
        if due.is_empty() {
            return Ok(());
        }
        if due.values().any(|mark| mark.lost) {
            self.give_up(due)?;
            return Err(Error::internal("an earlier write to the disk failed: what was brought since is gone; pull or load it again"));
        }
        let Err(err) = self.places.iter().try_for_each(|place| fs::sync_filesystem(place)) else { return Ok(()) };
        for (thing, mark) in self.things().iter_mut() {
            mark.lost |= due.get(thing).is_some_and(|due| due.serial == mark.serial);
        }
        if let Err(also) = self.give_up(due) {
            tracing::warn!("what could not be written to the disk is forgotten later: {also}");
        }
        Err(err)
    }

    /// Forgets what a failed sync may have lost.
    fn give_up(&self, due: &BTreeMap<Thing, Mark>) -> Result<()> {
        let forgotten = self.metadata.write_freeing(Durability::Immediate, |tx| {
            let mut forgotten = Forgotten::default();
            due.iter().try_for_each(|(thing, mark)| forget(tx, thing, mark.serial, &mut forgotten))?;
            Ok(forgotten)
        })?;
        self.things().retain(|thing, mark| due.get(thing).is_none_or(|due| due.serial != mark.serial));
        if let Some(clean) = self.cleaner.get() {
            clean(forgotten);
        }
        Ok(())
    }
}

/// Takes the mark off; false when the thing is not there any more, or not that one.
fn clear(tx: &WriteTx<'_>, thing: &Thing, serial: u64) -> Result<bool> {
    match thing {
        Thing::Blob(digest) => {
            let name = digest.to_string();
            let Some(mut row) = tx.get(BLOBS, &name)?.filter(|row| is(row.unsettled.as_ref(), serial)) else { return Ok(false) };
            row.unsettled = None;
            tx.put(BLOBS, &name, &row)?;
        }
        Thing::Snapshot(name) => {
            let Some(mut record) = tx.get(SNAPSHOTS, name)?.filter(|found| is(found.unsettled.as_ref(), serial)) else { return Ok(false) };
            record.unsettled = None;
            tx.put(SNAPSHOTS, name, &record)?;
        }
    }
    Ok(true)
}

/// Removes the records of a thing that still has the mark.
fn forget(tx: &WriteTx<'_>, thing: &Thing, serial: u64, forgotten: &mut Forgotten) -> Result<()> {
    match thing {
        Thing::Blob(digest) => {
            let name = digest.to_string();
            let Some(row) = tx.get(BLOBS, &name)?.filter(|row| is(row.unsettled.as_ref(), serial)) else { return Ok(()) };
            for namespace in &row.namespaces {
                tx.delete(CONTENT, &key(namespace, &name))?;
            }
            tx.delete(BLOBS, &name)?;
            forgotten.blobs.push(digest.clone());
        }
        Thing::Snapshot(name) => {
            if let Some(record) = tx.get(SNAPSHOTS, name)?.filter(|found| is(found.unsettled.as_ref(), serial)) {
                tx.delete(SNAPSHOTS, name)?;
                forgotten.snapshots.push((name.clone(), record.dir));
            }
        }
    }
    Ok(())
}

fn is(mark: Option<&Unsettled>, serial: u64) -> bool {
    mark.is_some_and(|mark| mark.serial == serial)
}

/// The given directories without those on a file system that another one is on.
pub fn one_of_each_file_system(places: &[&Path]) -> Result<Vec<PathBuf>> {
    use std::os::unix::fs::MetadataExt;
    let mut chosen: BTreeMap<u64, PathBuf> = BTreeMap::new();
    for place in places {
        let device = std::fs::metadata(place).map_err(fs::failed("stat", place))?.dev();
        chosen.entry(device).or_insert_with(|| (*place).to_owned());
    }
    Ok(chosen.into_values().collect())
}

#[cfg(test)]
mod tests {
    use rcontainerd_types::ErrorKind;

    use super::*;
    use crate::metadata::Labels;
    use crate::store::Store;

    const BYTES: &[u8] = b"brought";

    /// A blob and a layer that nobody has synced.
    fn bring(store: &Store) -> Digest {
        let mut ingest = store.content("test").ingest("i", None).expect("ingest").ephemeral();
        ingest.append(BYTES).expect("append");
        let digest = ingest.commit_unsettled(None, None, &Labels::new()).expect("commit").digest;
        let snapshots = store.snapshots("test");
        snapshots.prepare("active", None, Labels::new()).expect("prepare");
        snapshots.commit_unsettled("layer", "active", Labels::new()).expect("commit");
        digest
    }

    fn marks(store: &Store) -> usize {
        let (blobs, layers) = store.metadata().read(|tx| Ok((tx.list(BLOBS)?, tx.list(SNAPSHOTS)?))).expect("read");
        blobs.iter().filter(|(_, row)| row.unsettled.is_some()).count()
            + layers.iter().filter(|(_, record)| record.unsettled.is_some()).count()
    }

    /// Makes what is marked that of another boot, as it is after a power loss when another transaction was durable meanwhile.
    fn lose_power(root: &Path, store: Store) -> Store {
        let elsewhere = |mark: &mut Option<Unsettled>| mark.iter_mut().for_each(|mark| mark.boot = "another".to_owned());
        let changed = store.metadata().write(|tx| {
            for (name, mut row) in tx.list(BLOBS)? {
                elsewhere(&mut row.unsettled);
                tx.put(BLOBS, &name, &row)?;
            }
            for (name, mut record) in tx.list(SNAPSHOTS)? {
                elsewhere(&mut record.unsettled);
                tx.put(SNAPSHOTS, &name, &record)?;
            }
            Ok(())
        });
        changed.expect("write");
        drop(store);
        Store::open(root).expect("open")
    }

    #[test]
    fn what_is_not_settled_goes_with_the_power_and_stays_when_the_manager_is_killed() {
        let root = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(root.path()).expect("open");
        let digest = bring(&store);
        assert_eq!(marks(&store), 2);
        drop(store);
        let store = Store::open(root.path()).expect("the next manager of this boot");
        assert_eq!(store.content("test").read(&digest, 100).expect("there"), BYTES);
        store.snapshots("test").stat("layer").expect("there");
        let store = lose_power(root.path(), store);
        assert!(!store.content("test").contains(&digest).expect("ask"));
        assert_eq!(store.snapshots("test").stat("layer").expect_err("gone").kind(), ErrorKind::NotFound);
        assert!(store.content_files().files().expect("files").is_empty());
        assert!(fs::entry_names(store.backends()[0].root()).expect("directories").is_empty());
        assert_eq!(bring(&store), digest, "and can be brought again");
    }

    #[test]
    fn what_is_settled_stays() {
        let root = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(root.path()).expect("open");
        let digest = bring(&store);
        store.settle(|_| Ok(())).expect("settle");
        assert_eq!(marks(&store), 0);
        let store = lose_power(root.path(), store);
        assert_eq!(store.content("test").read(&digest, 100).expect("there"), BYTES);
        store.snapshots("test").stat("layer").expect("there");
    }

    #[test]
    fn whoever_builds_on_what_is_not_settled_settles_it() {
        let root = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(root.path()).expect("open");
        let digest = bring(&store);
        store.snapshots("test").prepare("container", Some("layer"), Labels::new()).expect("prepare");
        assert_eq!(marks(&store), 0);
        store.content("test").delete(&digest).expect("delete");
        store.snapshots("test").remove("container").expect("remove");
        store.snapshots("test").remove("layer").expect("remove");
        let digest = bring(&store);
        assert!(store.content("other").adopt(&digest, Labels::new()).expect("adopt"));
        assert_eq!(marks(&store), 0);
    }

    #[test]
    fn what_a_failed_sync_may_have_lost_is_gone() {
        let root = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(root.path()).expect("open");
        let kept = store.content("test").put(b"kept", Labels::new()).expect("put").digest;
        let digest = bring(&store);
        // A place that cannot be synced stands for a disk that fails.
        let metadata = Arc::new(Metadata::open(&root.path().join("other.redb")).expect("open"));
        let waiting = Waiting::open(&metadata, vec![root.path().join("not there")], &mut Found::default()).expect("open");
        let row = store.metadata().read(|tx| tx.get(BLOBS, &digest.to_string())).expect("read").expect("a row");
        let name = digest.to_string();
        waiting
            .show(&[Thing::Blob(digest.clone())], |tx, marks| {
                tx.put(BLOBS, &name, &crate::content::BlobRow { unsettled: marks.first().cloned(), ..row })
            })
            .expect("show");
        let mut named = false;
        let failed = waiting.settle(|_| {
            named = true;
            Ok(())
        });
        assert!(failed.is_err() && !named);
        assert_eq!(metadata.read(|tx| tx.get(BLOBS, &name)).expect("read"), None);
        waiting.settle(|_| Ok(())).expect("nothing waits any more");
        assert!(store.content("test").contains(&kept).expect("ask"));
    }
}
