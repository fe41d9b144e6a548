//! The metadata database: typed, transactional tables of JSON records over redb.
//!
//! ```text
//! meta.redb
//!   schema                <table name> → SchemaRow { version, min_reader, written_by }
//!   images                ns/name      → ImageRecord        (records::image)
//!   content               ns/digest    → ContentRecord      (content)
//!   snapshots             snapshotter/ns/key → SnapshotRecord (snapshot)
//!   snapshots.sequence    snapshotter  → last directory number given out
//!   leases                ns/id        → LeaseRecord        (records::lease)
//!   containers            ns/id        → ContainerRecord    (records::container)
//!   … tables of other owners, declared by them as constants
//! ```
//!
//! Evolution: a record is JSON, so a field can be added with `#[serde(default)]` and old readers skip it. A change that an older
//! reader would misunderstand raises the table's `min_reader`; such a table is refused by it with a message that names both versions.
//! The file grows by itself and is compacted by the collection of garbage ([`Metadata::compact_if_wasteful`]).
//! A commit is durable when it returns (redb's immediate durability), unless it was asked for as volatile: see [`journal`].

mod follow;
mod journal;
mod reserve;
mod table;
mod tx;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rcontainerd_types::{Error, ErrorKind, Result};

use self::follow::Changes;
use self::journal::Journal;
use self::reserve::Reserve;
use crate::fs;

pub use follow::{Followed, Touched};
pub use table::{SchemaRow, Table, key, prefix};
use tx::Schema;
pub use tx::{ReadTx, WriteTx};

/// Labels of an object, as containerd has them.
pub type Labels = std::collections::BTreeMap<String, String>;

/// Bytes of the database that are kept in memory.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of a database that may be mostly empty: it would be as large again tomorrow.
const WASTE_MIN: u64 = 8 * 1024 * 1024;

/// Bytes free on a disk that is as good as full: a transaction may need as many.
const FULL: u64 = 1 << 20;

/// Numbers that are the database's own: its [generation](journal), and that of the last change to a [followed](follow) table.
const NUMBERS: Table<u64> = Table::new("database", 1);
const GENERATION: &str = "generation";
const CHANGES: &str = "changes";

/// What a transaction must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Everything: it is on the disk when it returns.
    Immediate,
    /// The end of this process, however it ends. A power loss may undo it, with all that was written after it but never what was durable.
    Volatile,
}

type DatabaseGuard<'a> = RwLockReadGuard<'a, Option<redb::Database>>;

/// The open database. Reads run beside a writer; writers queue.
pub struct Metadata {
    path: PathBuf,
    /// `None` after an I/O error, until it could be opened again.
    database: RwLock<Option<redb::Database>>,
    /// Taken inside `database`'s lock.
    reserve: Mutex<Reserve>,
    /// Taken by the one writer, inside its transaction.
    pending: Mutex<Pending>,
    /// Its rows are filled at open, kept in step by writers.
    schema: Schema,
    changes: Mutex<Changes>,
    /// How often the database was opened; changes inside `database`'s lock.
    epoch: AtomicU64,
}

/// Volatile transactions since the last durable one.
#[derive(Debug)]
struct Pending {
    journal: Journal,
    generation: u64,
    /// Directories that they count on and that are not synced yet.
    named: BTreeSet<PathBuf>,
}

impl Metadata {
    /// Opens or creates the database; what a killed process had only in its journal is in it then.
    ///
    /// # Errors
    /// `DataLoss` when the file is damaged, else the I/O error.
    pub fn open(path: &Path) -> Result<Self> {
        let (database, pending) = open_database(path)?;
        let metadata = Self {
            path: path.to_owned(),
            database: RwLock::new(Some(database)),
            reserve: Mutex::new(Reserve::open(path)),
            pending: Mutex::new(pending),
            schema: Schema::default(),
            changes: Mutex::default(),
            epoch: AtomicU64::new(0),
        };
        let (rows, number) = metadata.read(|tx| Ok((tx.list(table::SCHEMA)?, changes_of(tx)?)))?;
        *metadata.changes() = Changes::starting_at(number);
        metadata.schema.rows().extend(rows);
        Ok(metadata)
    }

    /// Runs `work` on one consistent view.
    ///
    /// # Errors
    /// Those of `work`, or of the database.
    pub fn read<R>(&self, work: impl FnOnce(&ReadTx<'_>) -> Result<R>) -> Result<R> {
        let (_open, inner) = self.begin(redb::ReadableDatabase::begin_read)?;
        work(&ReadTx::new(inner, &self.schema))
    }

    /// As `read`, with the records of followed tables that changed since an earlier call; `None` where that is not known, as with the
    /// first: then all may have changed.
    ///
    /// # Errors
    /// As `read`.
    pub fn read_since<R>(
        &self,
        since: Option<Followed>,
        work: impl FnOnce(&ReadTx<'_>, Option<Vec<Touched>>) -> Result<R>,
    ) -> Result<(R, Followed)> {
        let (_open, inner) = self.begin(redb::ReadableDatabase::begin_read)?;
        let tx = ReadTx::new(inner, &self.schema);
        let now = self.followed(changes_of(&tx)?);
        Ok((work(&tx, self.between(since, now))?, now))
    }

    /// The records of followed tables that changed after `since` and before this transaction began; `None` where that is not known.
    ///
    /// # Errors
    /// Those of the database.
    pub fn touched_before(&self, tx: &WriteTx<'_>, since: Followed) -> Result<(Option<Vec<Touched>>, Followed)> {
        let now = self.followed(tx.get(NUMBERS, CHANGES)?.unwrap_or(0));
        Ok((self.between(Some(since), now), now))
    }

    /// How many records were decoded so far, by all transactions: what reading a table costs, whatever the machine does meanwhile.
    pub fn decoded(&self) -> u64 {
        self.schema.decoded()
    }

    fn followed(&self, number: u64) -> Followed {
        Followed { epoch: self.epoch.load(Ordering::Relaxed), number }
    }

    fn between(&self, since: Option<Followed>, now: Followed) -> Option<Vec<Touched>> {
        let since = since.filter(|since| since.epoch == now.epoch)?;
        self.changes().between(since.number, now.number)
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` in one transaction: all of it is on disk when this returns `Ok`, none of it after an error.
    /// Must not be nested: the inner one would wait for the outer for ever.
    ///
    /// # Errors
    /// Those of `work` (then nothing is changed), or of the database.
    pub fn write<R>(&self, work: impl FnOnce(&WriteTx<'_>) -> Result<R>) -> Result<R> {
        self.write_as(Durability::Immediate, work)
    }

    /// As `write`, with the durability that the caller needs.
    ///
    /// # Errors
    /// As `write`.
    pub fn write_as<R>(&self, durability: Durability, work: impl FnOnce(&WriteTx<'_>) -> Result<R>) -> Result<R> {
        let result = self.try_write(durability, work).map_err(|err| self.told(err));
        if let Err(err) = &result {
            self.close_after_io_error(err);
        }
        result
    }

    /// redb keeps some I/O errors to itself and says later only that there was one: then the disk tells whether it is full.
    fn told(&self, err: Error) -> Error {
        let kept_back = |cause: &redb::Error| matches!(cause, redb::Error::PreviousIo);
        if !std::error::Error::source(&err).and_then(|cause| cause.downcast_ref::<redb::Error>()).is_some_and(kept_back) {
            return err;
        }
        let dir = self.path.parent().unwrap_or(&self.path);
        let full = rustix::fs::statvfs(dir).is_ok_and(|found| found.f_bavail.saturating_mul(found.f_frsize) < FULL);
        let cause = if full { rustix::io::Errno::NOSPC } else { rustix::io::Errno::IO };
        Error::io("metadata database", cause.into())
    }

    /// As `write_as`, for what gives room back: on a full disk it is done once more, with the room that is reserved for it.
    ///
    /// # Errors
    /// As `write`.
    pub fn write_freeing<R>(&self, durability: Durability, mut work: impl FnMut(&WriteTx<'_>) -> Result<R>) -> Result<R> {
        match self.write_as(durability, &mut work) {
            Err(err) if err.kind() == ErrorKind::ResourceExhausted => self.write_as(durability, work),
            done => done,
        }
    }

    fn try_write<R>(&self, durability: Durability, work: impl FnOnce(&WriteTx<'_>) -> Result<R>) -> Result<R> {
        let (_open, mut inner) = self.begin(redb::Database::begin_write)?;
        // Records the allocator's state with the commit, so that an open after kill -9 need not walk the whole file.
        inner.set_quick_repair(true);
        let mut pending = self.pending();
        let volatile = durability == Durability::Volatile && !pending.journal.is_full();
        let tx = WriteTx::new(inner, &self.schema, volatile);
        match work(&tx) {
            Ok(value) => {
                let (number, touched) = tx.take_touched();
                self.changes().note(number, touched);
                if volatile {
                    pending.commit_volatile(tx)?;
                } else {
                    pending.commit_durable(tx)?;
                    self.reserve().refill();
                }
                Ok(value)
            }
            Err(err) => {
                tx.abort()?;
                Err(err)
            }
        }
    }

    /// Makes all volatile transactions durable.
    ///
    /// # Errors
    /// Those of the database.
    pub fn flush(&self) -> Result<()> {
        if self.pending().journal.is_empty() { Ok(()) } else { self.write(|_| Ok(())) }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self) -> MutexGuard<'_, Reserve> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// redb refuses all work after a failed write (a full disk, say) until the file is opened anew: that is done by the next use.
    fn close_after_io_error(&self, why: &Error) {
        let sick = {
            let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
            guard.as_ref().is_some_and(|database| !database.begin_write().is_ok_and(|tx| tx.abort().is_ok()))
        };
        if sick {
            *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
            self.reserve().release(why);
        }
    }

    /// Begins a transaction; where another's I/O error is in the way, in the database that is opened anew.
    fn begin<T>(&self, begin: impl Fn(&redb::Database) -> Result<T, redb::TransactionError>) -> Result<(DatabaseGuard<'_>, T)> {
        let guard = self.shared()?;
        match begin(opened(guard.as_ref())) {
            Ok(begun) => return Ok((guard, begun)),
            Err(redb::TransactionError::Storage(redb::StorageError::PreviousIo)) => {}
            Err(err) => return Err(database_error(err)),
        }
        drop(guard);
        self.close_after_io_error(&database_error(redb::StorageError::PreviousIo));
        let guard = self.shared()?;
        let begun = begin(opened(guard.as_ref())).map_err(database_error)?;
        Ok((guard, begun))
    }

    /// The open database, for reads and transactions.
    fn shared(&self) -> Result<DatabaseGuard<'_>> {
        loop {
            let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
            if guard.is_some() {
                return Ok(guard);
            }
            drop(guard);
            drop(self.exclusive()?);
        }
    }

    /// The open database, and nobody else in it.
    fn exclusive(&self) -> Result<RwLockWriteGuard<'_, Option<redb::Database>>> {
        let mut guard = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            let (database, pending) = match open_database(&self.path) {
                Err(err) if self.reserve().release(&err) => open_database(&self.path),
                opened => opened,
            }?;
            *self.pending() = pending;
            *guard = Some(database);
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
        Ok(guard)
    }

    /// Gives unused pages back to the file system.
    ///
    /// # Errors
    /// When a transaction is in progress or the file cannot be rewritten.
    pub fn compact(&self) -> Result<()> {
        self.flush()?;
        opened(self.exclusive()?.as_mut()).compact().map_err(database_error)?;
        Ok(())
    }

    /// [`Self::compact`], where it is worth it: the file never shrinks by itself. So what `df` tells of a store stays what its records need.
    ///
    /// # Errors
    /// As `compact`.
    pub fn compact_if_wasteful(&self) -> Result<bool> {
        let size = std::fs::metadata(&self.path).map_err(fs::failed("stat", &self.path))?.len();
        if size < WASTE_MIN {
            return Ok(false);
        }
        let used = {
            let (_open, tx) = self.begin(redb::Database::begin_write)?;
            let stats = tx.stats().map_err(database_error)?;
            tx.abort().map_err(database_error)?;
            stats.stored_bytes() + stats.metadata_bytes()
        };
        let wasteful = used < size / 2;
        if wasteful {
            self.compact()?;
            tracing::info!(before = size, records = used, "the metadata database was more than half empty and has been compacted");
        }
        Ok(wasteful)
    }

    /// Verifies every page's checksum.
    ///
    /// # Errors
    /// `DataLoss` when the database is damaged beyond the last good commit.
    pub fn verify(&self) -> Result<bool> {
        self.flush()?;
        opened(self.exclusive()?.as_mut()).check_integrity().map_err(database_error)
    }
}

fn changes_of(tx: &ReadTx<'_>) -> Result<u64> {
    Ok(tx.get(NUMBERS, CHANGES)?.unwrap_or(0))
}

fn opened<T>(database: Option<T>) -> T {
    database.expect("`shared` and `exclusive` give an open database")
}

impl Drop for Metadata {
    fn drop(&mut self) {
        if let Err(err) = self.flush() {
            tracing::warn!(%err, "the last changes stay in the journal");
        }
    }
}

impl Pending {
    /// In memory and in the journal; a journal that cannot be written costs a sync, not the transaction.
    fn commit_volatile(&mut self, mut tx: WriteTx<'_>) -> Result<()> {
        let before = self.journal.length();
        if let Err(err) = self.journal.append(self.generation, &tx.take_changes()) {
            tracing::warn!(%err, "commit durably instead");
            return self.commit_durable(tx);
        }
        let named = tx.take_named();
        let committed = tx.commit(redb::Durability::None);
        match committed {
            Ok(()) => self.named.extend(named),
            Err(_) => self.journal.retract(before)?,
        }
        committed
    }

    /// With all that was pending.
    fn commit_durable(&mut self, tx: WriteTx<'_>) -> Result<()> {
        for dir in self.named.union(&tx.take_named()) {
            sync_dir_if_there(dir)?;
        }
        // Also where the commit fails: then they are synced for nothing.
        self.named.clear();
        if self.journal.is_empty() {
            return tx.commit(redb::Durability::Immediate);
        }
        tx.put(NUMBERS, GENERATION, &(self.generation + 1))?;
        tx.commit(redb::Durability::Immediate)?;
        self.generation += 1;
        self.journal.clear()
    }
}

/// One that is gone by now has lost its record too, or is about to.
fn sync_dir_if_there(dir: &Path) -> Result<()> {
    match fs::sync_dir(dir) {
        Err(_) if !dir.exists() => Ok(()),
        synced => synced,
    }
}

/// Pages whose checksum is right may still contradict each other where a disk has lied about its writes: redb panics then.
fn open_file(path: &Path) -> Result<redb::Database> {
    let open = || redb::Builder::new().set_cache_size(CACHE_BYTES).create(path).map_err(database_error);
    std::panic::catch_unwind(open).unwrap_or_else(|_| {
        let message = "it is damaged: restore it from a copy, or remove it with content/ and snapshots/ to begin anew";
        Err(Error::new(ErrorKind::DataLoss, message))
    })
}

/// The database with what its journal adds.
fn open_database(path: &Path) -> Result<(redb::Database, Pending)> {
    let database = open_file(path).map_err(|err| err.context(format!("open metadata database {}", path.display())))?;
    let schema = Schema::default();
    let generation = {
        let inner = redb::ReadableDatabase::begin_read(&database).map_err(database_error)?;
        ReadTx::new(inner, &schema).get(NUMBERS, GENERATION)?.unwrap_or(0)
    };
    let (mut journal, transactions) = Journal::open(&path.with_extension("journal"), generation)?;
    if transactions.is_empty() {
        journal.clear()?;
        return Ok((database, Pending { journal, generation, named: BTreeSet::new() }));
    }
    tracing::info!(transactions = transactions.len(), "take over what the last process had not written to the database yet");
    let mut inner = database.begin_write().map_err(database_error)?;
    inner.set_quick_repair(true);
    let tx = WriteTx::new(inner, &schema, false);
    transactions.iter().flatten().try_for_each(|change| tx.redo(change))?;
    let mut pending = Pending { journal, generation, named: BTreeSet::new() };
    // Whoever wrote the journal has synced nothing of what it tells of.
    fs::sync_filesystem(path.parent().expect("the database is in a directory"))?;
    pending.commit_durable(tx)?;
    Ok((database, pending))
}

/// Gives redb's error the kind that its cause has.
pub(crate) fn database_error(err: impl Into<redb::Error>) -> Error {
    match err.into() {
        redb::Error::Io(err) => Error::io("metadata database", err),
        redb::Error::Corrupted(why) => Error::new(ErrorKind::DataLoss, format!("metadata database is damaged: {why}")),
        redb::Error::DatabaseAlreadyOpen => Error::conflict("metadata database is open in another process"),
        other => Error::internal(format!("metadata database: {other}")).with_source(other),
    }
}

#[cfg(test)]
mod tests;
