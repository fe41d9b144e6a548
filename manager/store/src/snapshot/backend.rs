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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rcontainerd_types::{Error, ErrorKind, Finding, Result};
use serde::{Deserialize, Serialize};

use super::native::Native;
use super::overlay::Overlay;
use super::usage::disk_usage;
use super::{Kind, LayerDirs, Persistence, SnapshotInfo, Snapshotter, Usage};
use crate::found::Found;
use crate::fs;
use crate::metadata::{Durability, Labels, Metadata, ReadTx, Table, WriteTx};
use crate::mount::Mount;
use crate::settle::{Thing, Unsettled, Waiting};

pub const SNAPSHOTS: Table<SnapshotRecord> = Table::new("snapshots", 1).followed();
/// The same table, for an open.
pub const SNAPSHOT_MARKS: Table<SnapshotMark> = Table::new("snapshots", 1).followed();

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
    /// The boot that it is good for ([`Persistence::Scratch`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<String>,
    /// Its files wait for a sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<Unsettled>,
}

/// Of a snapshot's record, what an open looks at.
#[derive(Debug, Deserialize)]
pub struct SnapshotMark {
    pub kind: Kind,
    pub dir: u64,
    #[serde(default)]
    pub labels: Labels,
    #[serde(default)]
    pub scratch: Option<String>,
    #[serde(default)]
    pub unsettled: Option<Unsettled>,
}

/// The file system work in which snapshotters differ.
pub trait Backend: Send + Sync {
    fn name(&self) -> &'static str;

    /// Fills the new directory `dir` of an active snapshot or view. `parents` are directories of the chain, nearest first.
    fn create(&self, dir: &Path, kind: Kind, parents: &[PathBuf]) -> Result<()>;

    fn mounts(&self, dir: &Path, kind: Kind, parents: &[PathBuf]) -> Vec<Mount>;

    /// Makes the mounts of an active snapshot forgo what only a crash would need.
    fn relax(&self, dir: &Path, mounts: &mut [Mount]) -> Result<()>;

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
    waiting: Arc<Waiting>,
    last_dir: AtomicU64,
    /// Numbers of directories that are just being made or removed.
    busy: Mutex<Vec<u64>>,
    /// Numbers of directories that have no record, or had to lose it: whether a transaction that failed (a full disk) was committed all
    /// the same is known when the database can be read again.
    leftover: Mutex<Vec<u64>>,
    /// Full keys of snapshots that could not be discarded.
    undiscarded: Mutex<Vec<String>>,
}

/// Keeps `fsck` from taking a directory for rubbish while it is made or removed.
pub struct Held {
    shared: Arc<Shared>,
    number: u64,
}

impl Held {
    /// Removes the directory, unless there is a record of it.
    fn remove(self) {
        self.shared.leftover().push(self.number);
        self.shared.remove_leftover();
    }
}

/// A snapshot whose record goes with a transaction.
#[must_use = "its directory is to be removed once the transaction is committed"]
pub struct Removal(Option<Held>);

impl Removal {
    pub(crate) fn new(held: Held) -> Self {
        Self(Some(held))
    }

    /// Removes the directory, now that the transaction is committed; one that cannot be removed now goes later.
    pub fn finish(mut self) {
        let Some(held) = self.0.take() else { return };
        let dir = held.shared.dir(held.number);
        if let Err(err) = fs::remove_tree_if_there(&dir) {
            tracing::warn!(snapshotter = held.shared.name(), "it stays for now: {err}");
            held.shared.leftover().push(held.number);
        } else {
            held.shared.remove_leftover();
        }
    }
}

/// The transaction has failed, as far as it knows.
impl Drop for Removal {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            held.shared.leftover().push(held.number);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut busy = self.shared.busy();
        if let Some(position) = busy.iter().position(|number| *number == self.number) {
            busy.swap_remove(position);
        }
    }
}

/// Opens every snapshotter that is built in.
pub fn open_all(root: &Path, metadata: &Arc<Metadata>, waiting: &Arc<Waiting>, found: &mut Found) -> Result<Vec<Arc<Shared>>> {
    let overlay = Box::new(Overlay::new(root.join(super::OVERLAY)));
    let native = Box::new(Native::new(root.join(super::NATIVE)));
    let backends: [Box<dyn Backend>; 2] = [overlay, native];
    backends.into_iter().map(|backend| Shared::open(root, backend, metadata, waiting, found).map(Arc::new)).collect()
}

/// A namespace's view of a snapshotter.
pub fn handle(shared: &Arc<Shared>, namespace: &str) -> Arc<dyn Snapshotter> {
    Arc::new(Handle { shared: shared.clone(), prefix: format!("{}/{namespace}/", shared.name()) })
}

impl Shared {
    fn open(root: &Path, backend: Box<dyn Backend>, metadata: &Arc<Metadata>, waiting: &Arc<Waiting>, found: &mut Found) -> Result<Self> {
        let root = root.join(backend.name());
        fs::make_private_dir(&root)?;
        let mut shared = Self {
            backend,
            root,
            metadata: metadata.clone(),
            waiting: Arc::clone(waiting),
            last_dir: AtomicU64::new(0),
            busy: Mutex::default(),
            leftover: Mutex::default(),
            undiscarded: Mutex::default(),
        };
        shared.drop_stale(found)?;
        shared.last_dir = AtomicU64::new(shared.sweep(found)?);
        Ok(shared)
    }

    /// Forgets what was good for an earlier boot or process only; the directories go with the sweep.
    fn drop_stale(&self, found: &mut Found) -> Result<()> {
        let boot = fs::boot_id()?;
        let stale = found.take_snapshots(self.name(), |mark| {
            let half_made = mark.kind == Kind::Active && mark.labels.contains_key(crate::unpack::IN_PROGRESS);
            half_made || mark.scratch.as_ref().is_some_and(|of| *of != boot)
        });
        if stale.is_empty() {
            return Ok(());
        }
        tracing::info!(
            snapshotter = self.name(),
            snapshots = stale.len(),
            "forget snapshots that an earlier process or boot left half-made"
        );
        self.metadata.write(|tx| stale.iter().try_for_each(|key| tx.delete(SNAPSHOTS, key).map(drop)))
    }

    /// Removes directories without a record and finds the highest number in use.
    fn sweep(&self, found: &Found) -> Result<u64> {
        let known: HashSet<u64> = found.directories(self.name()).collect();
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

    /// To be held from before the directory is there until its record is, and from before the record goes until the directory has gone.
    pub fn hold(self: &Arc<Self>, number: u64) -> Held {
        self.busy().push(number);
        Held { shared: Arc::clone(self), number }
    }

    pub fn is_busy(&self, number: u64) -> bool {
        self.busy().contains(&number)
    }

    fn undiscarded(&self) -> MutexGuard<'_, Vec<String>> {
        self.undiscarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leftover(&self) -> MutexGuard<'_, Vec<u64>> {
        self.leftover.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes directories that have lost their records.
    pub fn remove_dirs(&self, numbers: impl Iterator<Item = u64>) {
        self.leftover().extend(numbers);
        self.remove_leftover();
    }

    /// Removes what no record owns of what was left; what cannot be removed now goes with the next removal, check or open.
    pub fn remove_leftover(&self) {
        let mut leftover = self.leftover();
        if leftover.is_empty() {
            return;
        }
        let known: HashSet<u64> = match self.records() {
            Ok(records) => records.into_iter().map(|(_, record)| record.dir).collect(),
            Err(err) => return tracing::warn!(snapshotter = self.name(), "what was left of snapshots stays for now: {err}"),
        };
        leftover.retain(|number| {
            let removed = if known.contains(number) { Ok(()) } else { fs::remove_tree_if_there(&self.dir(*number)) };
            removed.inspect_err(|err| tracing::warn!(snapshotter = self.name(), "it stays for now: {err}")).is_err()
        });
    }

    fn busy(&self) -> MutexGuard<'_, Vec<u64>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
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
        Ok(self.ancestors(tx, parent)?.into_iter().map(|record| self.shared.dir(record.dir)).collect())
    }

    /// `parent` and its ancestors, nearest first.
    fn ancestors(&self, tx: &dyn Records, parent: Option<&str>) -> Result<Vec<SnapshotRecord>> {
        let mut found: Vec<SnapshotRecord> = Vec::new();
        let mut next = parent.map(str::to_owned);
        while let Some(key) = next {
            let record = self.must_get(tx, &key)?;
            next = record.parent.clone();
            found.push(record);
        }
        Ok(found)
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

    fn create(&self, key: &str, parent: Option<&str>, kind: Kind, labels: Labels, persistence: Persistence) -> Result<Vec<Mount>> {
        let ancestors = self.shared.metadata.read(|tx| {
            self.admit(tx, key, parent)?;
            self.ancestors(tx, parent)
        })?;
        let may_go = persistence == Persistence::Scratch || labels.contains_key(crate::unpack::IN_PROGRESS);
        if !may_go && ancestors.iter().any(|record| record.unsettled.is_some()) {
            self.shared.waiting.settle(|_| Ok(()))?;
        }
        let chain: Vec<PathBuf> = ancestors.iter().map(|record| self.shared.dir(record.dir)).collect();
        let number = self.shared.last_dir.fetch_add(1, Ordering::Relaxed) + 1;
        let held = self.shared.hold(number);
        let dir = self.shared.dir(number);
        let (now, parent) = (Timestamp::now(), parent.map(str::to_owned));
        let scratch = (persistence == Persistence::Scratch).then(fs::boot_id).transpose()?;
        let record =
            SnapshotRecord { kind, parent, dir: number, created: now, updated: now, labels, usage: None, scratch, unsettled: None };
        let durability = if persistence == Persistence::Durable { Durability::Immediate } else { Durability::Volatile };
        if let Err(err) = self.make(&dir, key, &record, &chain, durability) {
            held.remove();
            return Err(err);
        }
        self.mounts_of(&record, &chain)
    }

    fn make(&self, dir: &Path, key: &str, record: &SnapshotRecord, chain: &[PathBuf], durability: Durability) -> Result<()> {
        fs::make_private_dir(dir)?;
        self.shared.backend.create(dir, record.kind, chain)?;
        self.shared.metadata.write_as(durability, |tx| {
            self.admit(tx, key, record.parent.as_deref())?;
            // Others are not looked for after a power loss.
            if record.scratch.is_none() && !record.labels.contains_key(crate::unpack::IN_PROGRESS) {
                tx.names_directory(dir);
            }
            tx.put(SNAPSHOTS, &self.full(key), record)
        })
    }

    fn mounts_of(&self, record: &SnapshotRecord, chain: &[PathBuf]) -> Result<Vec<Mount>> {
        let dir = self.shared.dir(record.dir);
        let mut mounts = self.shared.backend.mounts(&dir, record.kind, chain);
        if record.scratch.is_some() {
            self.shared.backend.relax(&dir, &mut mounts)?;
        }
        Ok(mounts)
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

    /// Makes an active snapshot's directory what it will be; gives what it takes.
    fn seal(&self, key: &str) -> Result<(PathBuf, Usage)> {
        let record = self.shared.metadata.read(|tx| self.must_get(tx, key))?;
        let dir = self.shared.dir(record.dir);
        if record.kind != Kind::Active {
            return Err(Error::conflict(format!("snapshot {key:?} is not active: it cannot be committed")));
        }
        self.shared.backend.seal(&dir)?;
        let usage = disk_usage(&dir.join("fs"))?;
        Ok((dir, usage))
    }

    fn commit_in(&self, tx: &WriteTx<'_>, name: &str, key: &str, labels: Labels, usage: Usage, unsettled: Option<Unsettled>) -> Result<()> {
        let mut record = self.must_get(tx, key)?;
        if name.is_empty() {
            return Err(Error::invalid("a committed snapshot needs a name"));
        }
        if tx.contains(SNAPSHOTS, &self.full(name))? {
            return Err(Error::already_exists(format!("snapshot {name:?} already exists")));
        }
        // One that waited for a sync goes when that fails.
        if let Some(parent) = &record.parent {
            self.must_get(tx, parent).map_err(|err| err.context(format!("parent of snapshot {key:?}")))?;
        }
        let now = Timestamp::now();
        record.kind = Kind::Committed;
        record.labels = labels;
        record.created = now;
        record.updated = now;
        record.usage = Some(usage);
        record.scratch = None;
        record.unsettled = unsettled;
        tx.delete(SNAPSHOTS, &self.full(key))?;
        tx.put(SNAPSHOTS, &self.full(name), &record)
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
        self.mounts_of(&record, &chain)
    }

    fn prepare_as(&self, persistence: Persistence, key: &str, parent: Option<&str>, labels: Labels) -> Result<Vec<Mount>> {
        self.create(key, parent, Kind::Active, labels, persistence)
    }

    fn view(&self, key: &str, parent: Option<&str>, labels: Labels) -> Result<Vec<Mount>> {
        self.create(key, parent, Kind::View, labels, Persistence::Durable)
    }

    fn commit(&self, name: &str, key: &str, labels: Labels) -> Result<()> {
        let (dir, usage) = self.seal(key)?;
        fs::sync_filesystem(&dir)?;
        self.shared.metadata.write(|tx| self.commit_in(tx, name, key, labels, usage, None))
    }

    fn commit_unsettled(&self, name: &str, key: &str, labels: Labels) -> Result<()> {
        let (_, usage) = self.seal(key)?;
        let thing = Thing::Snapshot(self.full(name));
        self.shared.waiting.show(&[thing], |tx, marks| self.commit_in(tx, name, key, labels, usage, marks.first().cloned()))
    }

    fn remove(&self, key: &str) -> Result<()> {
        let scratch = self.shared.metadata.read(|tx| self.must_get(tx, key))?.scratch.is_some();
        let durability = if scratch { Durability::Volatile } else { Durability::Immediate };
        let removal = self.shared.metadata.write_freeing(durability, |tx| self.remove_in(tx, key))?;
        removal.finish();
        Ok(())
    }

    fn discard(&self, key: &str) {
        if let Err(err) = self.remove(key) {
            tracing::warn!(%err, key, "a snapshot that was not finished stays for now");
            self.shared.undiscarded().push(self.full(key));
        }
    }

    fn discard_again(&self) -> Result<()> {
        let (own, others) = std::mem::take(&mut *self.shared.undiscarded()).into_iter().partition(|full| full.starts_with(&self.prefix));
        self.shared.undiscarded().extend::<Vec<String>>(others);
        let mut outcome = Ok(());
        for full in own {
            match self.remove(&full[self.prefix.len()..]) {
                Err(err) if err.kind() != ErrorKind::NotFound => {
                    self.shared.undiscarded().push(full);
                    outcome = Err(err);
                }
                _ => {}
            }
        }
        outcome
    }

    fn remove_in(&self, tx: &WriteTx<'_>, key: &str) -> Result<Removal> {
        let record = self.must_get(tx, key)?;
        if record.kind == Kind::Committed && self.has_children(tx, key)? {
            return Err(Error::conflict(format!("snapshot {key:?} has children: remove them first")));
        }
        tx.delete(SNAPSHOTS, &self.full(key))?;
        Ok(Removal::new(self.shared.hold(record.dir)))
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
