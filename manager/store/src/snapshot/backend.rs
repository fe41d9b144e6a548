//! What all snapshotters share: the records, the directory numbers, and the order of steps that a crash cannot hurt.
//!
//! ```text
//! table snapshots:  <snapshotter>/<namespace>/<key> → SnapshotRecord { dir: n, … }
//! disk:             snapshots/<snapshotter>/<n>/fs  (overlay also work/)
//! ```
//! Made: directory first, then the record. Removed: record first, then the directory. A directory without a record is therefore
//! always rubbish, and swept at open.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use rcontainerd_types::{Error, Finding, Result};
use serde::{Deserialize, Serialize};

use super::native::Native;
use super::overlay::Overlay;
use super::usage::disk_usage;
use super::{Kind, LayerDirs, SnapshotInfo, Snapshotter, Usage};
use crate::fs;
use crate::metadata::{Labels, Metadata, ReadTx, Table, WriteTx};
use crate::mount::Mount;

pub const SNAPSHOTS: Table<SnapshotRecord> = Table::new("snapshots", 1);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    pub kind: Kind,
    #[serde(default)]
    pub parent: Option<String>,
    /// Number of its directory.
    pub dir: u64,
    pub created: Timestamp,
    pub updated: Timestamp,
    #[serde(default)]
    pub labels: Labels,
    /// Of a committed snapshot, which cannot change any more.
    #[serde(default)]
    pub usage: Option<Usage>,
}

/// The file system work in which snapshotters differ.
pub trait Backend: Send + Sync {
    fn name(&self) -> &'static str;

    /// Fills the new directory `dir` of an active snapshot or view. `parents` are directories of the chain, nearest first.
    fn create(&self, dir: &Path, kind: Kind, parents: &[PathBuf]) -> Result<()>;

    fn mounts(&self, dir: &Path, kind: Kind, parents: &[PathBuf]) -> Vec<Mount>;

    fn layer_dirs(&self, dir: &Path, parents: &[PathBuf]) -> LayerDirs;

    /// Tidies a directory that becomes immutable.
    fn seal(&self, dir: &Path) -> Result<()>;

    /// Why new snapshots cannot be made or mounted here.
    fn usable(&self) -> Result<()>;

    fn check(&self) -> Vec<Finding>;
}

/// One snapshotter with its directory, for all namespaces.
pub struct Shared {
    backend: Box<dyn Backend>,
    root: PathBuf,
    metadata: Arc<Metadata>,
    last_dir: AtomicU64,
    /// The last number in use when the store was opened: nothing up to it is new.
    swept_up_to: u64,
}

/// Opens every snapshotter that is built in.
pub fn open_all(root: &Path, metadata: &Arc<Metadata>) -> Result<Vec<Arc<Shared>>> {
    let overlay = Box::new(Overlay::new(root.join(super::OVERLAY)));
    let native = Box::new(Native::new(root.join(super::NATIVE)));
    let backends: [Box<dyn Backend>; 2] = [overlay, native];
    backends.into_iter().map(|backend| Shared::open(root, backend, metadata).map(Arc::new)).collect()
}

/// A namespace's view of a snapshotter.
pub fn handle(shared: &Arc<Shared>, namespace: &str) -> Arc<dyn Snapshotter> {
    Arc::new(Handle { shared: shared.clone(), prefix: format!("{}/{namespace}/", shared.name()) })
}

impl Shared {
    fn open(root: &Path, backend: Box<dyn Backend>, metadata: &Arc<Metadata>) -> Result<Self> {
        let root = root.join(backend.name());
        fs::make_private_dir(&root)?;
        let mut shared = Self { backend, root, metadata: metadata.clone(), last_dir: AtomicU64::new(0), swept_up_to: 0 };
        shared.swept_up_to = shared.sweep()?;
        shared.last_dir = AtomicU64::new(shared.swept_up_to);
        Ok(shared)
    }

    /// Removes directories without a record and finds the highest number in use.
    fn sweep(&self) -> Result<u64> {
        let known: HashSet<u64> = self.records()?.into_iter().map(|(_, record)| record.dir).collect();
        let mut last = known.iter().copied().max().unwrap_or(0);
        for name in fs::entry_names(&self.root)? {
            match name.parse::<u64>() {
                Ok(number) if known.contains(&number) => last = last.max(number),
                _ => {
                    tracing::info!(snapshotter = self.name(), directory = name, "remove a directory that no snapshot owns");
                    fs::remove_tree_if_there(&self.root.join(&name))?;
                }
            }
        }
        Ok(last)
    }

    pub fn name(&self) -> &'static str {
        self.backend.name()
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn usable(&self) -> Result<()> {
        self.backend.usable()
    }

    pub fn check(&self) -> Vec<Finding> {
        self.backend.check()
    }

    /// All records of all namespaces, by full key.
    pub fn records(&self) -> Result<Vec<(String, SnapshotRecord)>> {
        self.metadata.read(|tx| tx.list_prefix(SNAPSHOTS, &format!("{}/", self.name())))
    }

    /// Whether the number was given out since the open: then its record may be about to be written.
    pub fn in_the_making(&self, number: u64) -> bool {
        number > self.swept_up_to && number <= self.last_dir.load(Ordering::Relaxed)
    }

    pub fn dir(&self, number: u64) -> PathBuf {
        self.root.join(number.to_string())
    }
}

struct Handle {
    shared: Arc<Shared>,
    /// `<snapshotter>/<namespace>/`
    prefix: String,
}

/// Reads from either kind of transaction.
trait Records {
    fn record(&self, full_key: &str) -> Result<Option<SnapshotRecord>>;
}

impl Records for ReadTx<'_> {
    fn record(&self, full_key: &str) -> Result<Option<SnapshotRecord>> {
        self.get(SNAPSHOTS, full_key)
    }
}

impl Records for WriteTx<'_> {
    fn record(&self, full_key: &str) -> Result<Option<SnapshotRecord>> {
        self.get(SNAPSHOTS, full_key)
    }
}

impl Handle {
    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn must_get(&self, tx: &dyn Records, key: &str) -> Result<SnapshotRecord> {
        tx.record(&self.full(key))?.ok_or_else(|| Error::not_found(format!("snapshot {key:?} not found")))
    }

    /// Directories of `parent` and its ancestors, nearest first.
    fn chain(&self, tx: &dyn Records, parent: Option<&str>) -> Result<Vec<PathBuf>> {
        let mut dirs = Vec::new();
        let mut next = parent.map(str::to_owned);
        while let Some(key) = next {
            let record = self.must_get(tx, &key)?;
            dirs.push(self.shared.dir(record.dir));
            next = record.parent;
        }
        Ok(dirs)
    }

    /// Whether `key` can be made on `parent`.
    fn admit(&self, tx: &dyn Records, key: &str, parent: Option<&str>) -> Result<()> {
        if key.is_empty() {
            return Err(Error::invalid("a snapshot needs a key"));
        }
        if tx.record(&self.full(key))?.is_some() {
            return Err(Error::already_exists(format!("snapshot {key:?} already exists")));
        }
        if let Some(parent) = parent {
            let kind = self.must_get(tx, parent).map_err(|err| err.context(format!("parent of snapshot {key:?}")))?.kind;
            if kind != Kind::Committed {
                return Err(Error::invalid(format!("snapshot {parent:?} is not committed: it cannot be a parent")));
            }
        }
        Ok(())
    }

    fn create(&self, key: &str, parent: Option<&str>, kind: Kind, labels: Labels) -> Result<Vec<Mount>> {
        let chain = self.shared.metadata.read(|tx| {
            self.admit(tx, key, parent)?;
            self.chain(tx, parent)
        })?;
        let number = self.shared.last_dir.fetch_add(1, Ordering::Relaxed) + 1;
        let dir = self.shared.dir(number);
        let made = self.make(&dir, key, parent, kind, labels, number, &chain);
        if let Err(err) = made {
            if let Err(also) = fs::remove_tree_if_there(&dir) {
                tracing::warn!(%also, "remove the directory of a snapshot that could not be made");
            }
            return Err(err);
        }
        Ok(self.shared.backend.mounts(&dir, kind, &chain))
    }

    #[expect(clippy::too_many_arguments, reason = "one step of create, split off only for its error path")]
    fn make(&self, dir: &Path, key: &str, parent: Option<&str>, kind: Kind, labels: Labels, number: u64, chain: &[PathBuf]) -> Result<()> {
        fs::make_private_dir(dir)?;
        self.shared.backend.create(dir, kind, chain)?;
        let now = Timestamp::now();
        let parent = parent.map(str::to_owned);
        let record = SnapshotRecord { kind, parent, dir: number, created: now, updated: now, labels, usage: None };
        self.shared.metadata.write(|tx| {
            self.admit(tx, key, record.parent.as_deref())?;
            tx.put(SNAPSHOTS, &self.full(key), &record)
        })
    }

    fn info(&self, key: &str, record: SnapshotRecord) -> SnapshotInfo {
        SnapshotInfo {
            name: key.to_owned(),
            parent: record.parent,
            kind: record.kind,
            created: record.created,
            updated: record.updated,
            labels: record.labels,
        }
    }

    fn has_children(&self, tx: &WriteTx<'_>, key: &str) -> Result<bool> {
        let records = tx.list_prefix(SNAPSHOTS, &self.prefix)?;
        Ok(records.iter().any(|(_, record)| record.parent.as_deref() == Some(key)))
    }

    fn record_and_chain(&self, key: &str) -> Result<(SnapshotRecord, Vec<PathBuf>)> {
        self.shared.metadata.read(|tx| {
            let record = self.must_get(tx, key)?;
            let chain = self.chain(tx, record.parent.as_deref())?;
            Ok((record, chain))
        })
    }
}

impl Snapshotter for Handle {
    fn name(&self) -> &'static str {
        self.shared.name()
    }

    fn stat(&self, key: &str) -> Result<SnapshotInfo> {
        let record = self.shared.metadata.read(|tx| self.must_get(tx, key))?;
        Ok(self.info(key, record))
    }

    fn set_labels(&self, key: &str, labels: Labels) -> Result<SnapshotInfo> {
        let record = self.shared.metadata.write(|tx| {
            let mut record = self.must_get(tx, key)?;
            record.labels = labels;
            record.updated = Timestamp::now();
            tx.put(SNAPSHOTS, &self.full(key), &record)?;
            Ok(record)
        })?;
        Ok(self.info(key, record))
    }

    fn usage(&self, key: &str) -> Result<Usage> {
        let record = self.shared.metadata.read(|tx| self.must_get(tx, key))?;
        match record.usage {
            Some(usage) => Ok(usage),
            None => disk_usage(&self.shared.dir(record.dir).join("fs")),
        }
    }

    fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let (record, chain) = self.record_and_chain(key)?;
        if record.kind == Kind::Committed {
            return Err(Error::conflict(format!("snapshot {key:?} is committed: prepare or view a child of it to mount it")));
        }
        Ok(self.shared.backend.mounts(&self.shared.dir(record.dir), record.kind, &chain))
    }

    fn prepare(&self, key: &str, parent: Option<&str>, labels: Labels) -> Result<Vec<Mount>> {
        self.create(key, parent, Kind::Active, labels)
    }

    fn view(&self, key: &str, parent: Option<&str>, labels: Labels) -> Result<Vec<Mount>> {
        self.create(key, parent, Kind::View, labels)
    }

    fn commit(&self, name: &str, key: &str, labels: Labels) -> Result<()> {
        let record = self.shared.metadata.read(|tx| self.must_get(tx, key))?;
        let dir = self.shared.dir(record.dir);
        if record.kind != Kind::Active {
            return Err(Error::conflict(format!("snapshot {key:?} is not active: it cannot be committed")));
        }
        self.shared.backend.seal(&dir)?;
        let usage = disk_usage(&dir.join("fs"))?;
        fs::sync_filesystem(&dir)?;
        self.shared.metadata.write(|tx| {
            let mut record = self.must_get(tx, key)?;
            if name.is_empty() {
                return Err(Error::invalid("a committed snapshot needs a name"));
            }
            if tx.contains(SNAPSHOTS, &self.full(name))? {
                return Err(Error::already_exists(format!("snapshot {name:?} already exists")));
            }
            let now = Timestamp::now();
            record.kind = Kind::Committed;
            record.labels = labels;
            record.created = now;
            record.updated = now;
            record.usage = Some(usage);
            tx.delete(SNAPSHOTS, &self.full(key))?;
            tx.put(SNAPSHOTS, &self.full(name), &record)
        })
    }

    fn remove(&self, key: &str) -> Result<()> {
        let number = self.shared.metadata.write(|tx| {
            let record = self.must_get(tx, key)?;
            if record.kind == Kind::Committed && self.has_children(tx, key)? {
                return Err(Error::conflict(format!("snapshot {key:?} has children: remove them first")));
            }
            tx.delete(SNAPSHOTS, &self.full(key))?;
            Ok(record.dir)
        })?;
        fs::remove_tree_if_there(&self.shared.dir(number))
    }

    fn list(&self) -> Result<Vec<SnapshotInfo>> {
        let records = self.shared.metadata.read(|tx| tx.list_prefix(SNAPSHOTS, &self.prefix))?;
        Ok(records.into_iter().map(|(key, record)| self.info(&key[self.prefix.len()..], record)).collect())
    }

    fn layer_dirs(&self, key: &str) -> Result<LayerDirs> {
        let (record, chain) = self.record_and_chain(key)?;
        if record.kind != Kind::Active {
            return Err(Error::conflict(format!("snapshot {key:?} is not active: nothing can be written to it")));
        }
        Ok(self.shared.backend.layer_dirs(&self.shared.dir(record.dir), &chain))
    }

    fn check(&self) -> Vec<Finding> {
        self.shared.check()
    }
}
