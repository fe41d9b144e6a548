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
//! Every commit is durable when it returns (redb's immediate durability).

mod table;
mod tx;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use rcontainerd_types::{Error, ErrorKind, Result};

pub use table::{SchemaRow, Table, key, prefix};
pub use tx::{ReadTx, WriteTx};

/// Labels of an object, as containerd has them.
pub type Labels = std::collections::BTreeMap<String, String>;

/// Bytes of the database that are kept in memory.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// The open database. Reads run beside a writer; writers queue.
pub struct Metadata {
    path: PathBuf,
    database: RwLock<Option<redb::Database>>,
    /// What the tables on disk say about themselves; filled at open, kept in step by writers.
    schema: Mutex<HashMap<String, SchemaRow>>,
}

impl Metadata {
    /// Opens or creates the database.
    ///
    /// # Errors
    /// `DataLoss` when the file is damaged, else the I/O error.
    pub fn open(path: &Path) -> Result<Self> {
        let database = open_database(path)?;
        let metadata = Self { path: path.to_owned(), database: RwLock::new(Some(database)), schema: Mutex::default() };
        let rows = metadata.read(|tx| tx.list(table::SCHEMA))?;
        *metadata.schema.lock().unwrap_or_else(PoisonError::into_inner) = rows.into_iter().collect();
        Ok(metadata)
    }

    /// Runs `work` on one consistent view.
    ///
    /// # Errors
    /// Those of `work`, or of the database.
    pub fn read<R>(&self, work: impl FnOnce(&ReadTx<'_>) -> Result<R>) -> Result<R> {
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or_else(|| self.closed())?;
        let inner = redb::ReadableDatabase::begin_read(database).map_err(database_error)?;
        work(&ReadTx::new(inner, &self.schema))
    }

    /// Runs `work` in one transaction: all of it is on disk when this returns `Ok`, none of it after an error.
    /// Must not be nested: the inner one would wait for the outer for ever.
    ///
    /// # Errors
    /// Those of `work` (then nothing is changed), or of the database.
    pub fn write<R>(&self, work: impl FnOnce(&WriteTx<'_>) -> Result<R>) -> Result<R> {
        let result = self.try_write(work);
        if result.is_err() {
            self.reopen_after_io_error()?;
        }
        result
    }

    fn try_write<R>(&self, work: impl FnOnce(&WriteTx<'_>) -> Result<R>) -> Result<R> {
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or_else(|| self.closed())?;
        let mut inner = database.begin_write().map_err(database_error)?;
        // Records the allocator's state with the commit, so that an open after kill -9 need not walk the whole file.
        inner.set_quick_repair(true);
        let tx = WriteTx::new(inner, &self.schema);
        match work(&tx) {
            Ok(value) => {
                tx.commit()?;
                Ok(value)
            }
            Err(err) => {
                tx.abort()?;
                Err(err)
            }
        }
    }

    /// redb refuses all work after a failed write (a full disk, say) until the file is opened anew.
    fn reopen_after_io_error(&self) -> Result<()> {
        let healthy = {
            let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
            match guard.as_ref() {
                Some(database) => database.begin_write().is_ok_and(|tx| tx.abort().is_ok()),
                None => false,
            }
        };
        if healthy {
            return Ok(());
        }
        let mut guard = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *guard = None;
        *guard = Some(open_database(&self.path)?);
        Ok(())
    }

    fn closed(&self) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!("metadata database {}: closed after an I/O error and could not be opened again", self.path.display()),
        )
    }

    /// Gives unused pages back to the file system.
    ///
    /// # Errors
    /// When a transaction is in progress or the file cannot be rewritten.
    pub fn compact(&self) -> Result<()> {
        let mut guard = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = guard.as_mut() else { return Err(self.closed()) };
        database.compact().map_err(database_error)?;
        Ok(())
    }

    /// Verifies every page's checksum.
    ///
    /// # Errors
    /// `DataLoss` when the database is damaged beyond the last good commit.
    pub fn verify(&self) -> Result<bool> {
        let mut guard = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = guard.as_mut() else { return Err(self.closed()) };
        database.check_integrity().map_err(database_error)
    }
}

fn open_database(path: &Path) -> Result<redb::Database> {
    redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create(path)
        .map_err(|err| database_error(err).context(format!("open metadata database {}", path.display())))
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
