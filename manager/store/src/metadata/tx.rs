//! Transactions: get, list, put, delete on typed tables.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rcontainerd_types::{Error, ErrorKind, Result};
use redb::{ReadableTable, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::follow::Touched;
use super::journal::Change;
use super::table::{SCHEMA, SchemaRow, Table};
use super::{CHANGES, NUMBERS, database_error};

/// What all transactions of a database share.
#[derive(Debug, Default)]
pub(super) struct Schema {
    /// What the tables on disk say about themselves.
    rows: Mutex<HashMap<String, SchemaRow>>,
    /// Records that were decoded so far.
    decoded: AtomicU64,
}

impl Schema {
    pub(super) fn rows(&self) -> MutexGuard<'_, HashMap<String, SchemaRow>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn decoded(&self) -> u64 {
        self.decoded.load(Ordering::Relaxed)
    }

    fn decode<T: DeserializeOwned>(&self, table: Table<T>, key: &str, bytes: &[u8]) -> Result<T> {
        self.decoded.fetch_add(1, Ordering::Relaxed);
        serde_json::from_slice(bytes).map_err(|err| undecodable(table.name, key, &err))
    }
}

type Raw<'a> = (&'a str, &'a [u8]);

/// A consistent view of the database.
pub struct ReadTx<'a> {
    inner: redb::ReadTransaction,
    schema: &'a Schema,
}

impl<'a> ReadTx<'a> {
    pub(super) fn new(inner: redb::ReadTransaction, schema: &'a Schema) -> Self {
        Self { inner, schema }
    }

    /// # Errors
    /// When the record cannot be read or the table is from a newer schema.
    pub fn get<T: DeserializeOwned>(&self, table: Table<T>, key: &str) -> Result<Option<T>> {
        match self.open(table)? {
            Some(open) => get_in(self.schema, &open, table, key),
            None => Ok(None),
        }
    }

    /// All records, by key.
    ///
    /// # Errors
    /// As `get`.
    pub fn list<T: DeserializeOwned>(&self, table: Table<T>) -> Result<Vec<(String, T)>> {
        self.list_prefix(table, "")
    }

    /// The records whose key begins with `prefix`, by key.
    ///
    /// # Errors
    /// As `get`.
    pub fn list_prefix<T: DeserializeOwned>(&self, table: Table<T>, prefix: &str) -> Result<Vec<(String, T)>> {
        match self.open(table)? {
            Some(open) => list_in(self.schema, &open, table, prefix),
            None => Ok(Vec::new()),
        }
    }

    /// The keys that begin with `prefix`, without decoding the records.
    ///
    /// # Errors
    /// As `get`.
    pub fn keys<T>(&self, table: Table<T>, prefix: &str) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        if let Some(open) = self.open(table)? {
            scan(&open, prefix, |(key, _)| {
                keys.push(key.to_owned());
                Ok(())
            })?;
        }
        Ok(keys)
    }

    /// Names of all tables in the file.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn tables(&self) -> Result<Vec<String>> {
        let tables = self.inner.list_tables().map_err(database_error)?;
        Ok(tables.map(|table| redb::TableHandle::name(&table).to_owned()).collect())
    }

    fn open<T>(&self, table: Table<T>) -> Result<Option<redb::ReadOnlyTable<&'static str, &'static [u8]>>> {
        check_schema(self.schema, table)?;
        match self.inner.open_table(table.definition()) {
            Ok(open) => Ok(Some(open)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(err) => Err(database_error(err)),
        }
    }
}

/// A transaction that sees its own changes.
pub struct WriteTx<'a> {
    inner: redb::WriteTransaction,
    schema: &'a Schema,
    /// Rows to add to `schema` once it is committed.
    declared: Mutex<HashMap<String, SchemaRow>>,
    /// What a volatile transaction changes, for the journal.
    changes: Option<Mutex<Vec<Change>>>,
    /// Directories that its records name.
    named: Mutex<BTreeSet<PathBuf>>,
    /// Changed records of followed tables, and the number under which they are noted.
    touched: Mutex<(u64, Vec<Touched>)>,
}

impl<'a> WriteTx<'a> {
    pub(super) fn new(inner: redb::WriteTransaction, schema: &'a Schema, volatile: bool) -> Self {
        Self {
            inner,
            schema,
            declared: Mutex::default(),
            changes: volatile.then(Mutex::default),
            named: Mutex::default(),
            touched: Mutex::default(),
        }
    }

    /// Tells that a record of this transaction counts on a directory that has just been made: whatever makes the record durable, this
    /// transaction or a later one, has the directory and its name in its parent on the disk before. A database's own sync does not: of
    /// a file whose size stays it writes the bytes, not the file system's journal.
    pub fn names_directory(&self, path: &Path) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        named.extend([Some(path), path.parent()].into_iter().flatten().map(Path::to_owned));
    }

    /// What [`Self::names_directory`] was told.
    pub(super) fn take_named(&self) -> BTreeSet<PathBuf> {
        std::mem::take(&mut self.named.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The changed records of followed tables, with their number; nothing when there are none.
    pub(super) fn take_touched(&self) -> (u64, Vec<Touched>) {
        std::mem::take(&mut self.touched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What has been changed so far; nothing for a durable transaction.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        self.changes.take().map(|changes| changes.into_inner().unwrap_or_else(PoisonError::into_inner)).unwrap_or_default()
    }

    /// Before a record of a followed table changes.
    fn touch<T>(&self, table: Table<T>, key: &str) -> Result<()> {
        if !table.followed {
            return Ok(());
        }
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        if touched.1.is_empty() {
            touched.0 = self.next(NUMBERS, CHANGES)?;
        }
        touched.1.push(Touched { table: table.name, key: key.to_owned() });
        Ok(())
    }

    fn note(&self, table: &str, key: &str, value: Option<&[u8]>) {
        if let Some(changes) = &self.changes {
            // JSON is UTF-8.
            let value = value.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            changes.lock().unwrap_or_else(PoisonError::into_inner).push(Change { table: table.to_owned(), key: key.to_owned(), value });
        }
    }

    /// Repeats what a journal tells.
    pub(super) fn redo(&self, change: &Change) -> Result<()> {
        let definition = redb::TableDefinition::<&str, &[u8]>::new(&change.table);
        let mut open = self.inner.open_table(definition).map_err(database_error)?;
        match &change.value {
            Some(value) => drop(open.insert(change.key.as_str(), value.as_bytes()).map_err(database_error)?),
            None => drop(open.remove(change.key.as_str()).map_err(database_error)?),
        }
        Ok(())
    }

    /// # Errors
    /// When the record cannot be read or the table is from a newer schema.
    pub fn get<T: DeserializeOwned>(&self, table: Table<T>, key: &str) -> Result<Option<T>> {
        get_in(self.schema, &self.open(table)?, table, key)
    }

    /// All records, by key.
    ///
    /// # Errors
    /// As `get`.
    pub fn list<T: DeserializeOwned>(&self, table: Table<T>) -> Result<Vec<(String, T)>> {
        self.list_prefix(table, "")
    }

    /// The records whose key begins with `prefix`, by key.
    ///
    /// # Errors
    /// As `get`.
    pub fn list_prefix<T: DeserializeOwned>(&self, table: Table<T>, prefix: &str) -> Result<Vec<(String, T)>> {
        list_in(self.schema, &self.open(table)?, table, prefix)
    }

    /// Inserts or replaces.
    ///
    /// # Errors
    /// When the value cannot be encoded or written.
    pub fn put<T: Serialize>(&self, table: Table<T>, key: &str, value: &T) -> Result<()> {
        let bytes = serde_json::to_vec(value).map_err(|err| undecodable(table.name, key, &err))?;
        self.declare(table)?;
        self.touch(table, key)?;
        let mut open = self.open(table)?;
        open.insert(key, bytes.as_slice()).map_err(database_error)?;
        self.note(table.name, key, Some(&bytes));
        Ok(())
    }

    /// Inserts; refuses an existing key.
    ///
    /// # Errors
    /// `AlreadyExists` naming table and key, else as `put`.
    pub fn create<T: Serialize>(&self, table: Table<T>, key: &str, value: &T) -> Result<()> {
        if self.contains(table, key)? {
            return Err(Error::already_exists(format!("{} {key:?} already exists", table.name)));
        }
        self.put(table, key, value)
    }

    /// # Errors
    /// When the table cannot be read.
    pub fn contains<T>(&self, table: Table<T>, key: &str) -> Result<bool> {
        Ok(self.open(table)?.get(key).map_err(database_error)?.is_some())
    }

    /// Removes; says whether there was such a key.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn delete<T>(&self, table: Table<T>, key: &str) -> Result<bool> {
        self.touch(table, key)?;
        let removed = self.open(table)?.remove(key).map_err(database_error)?.is_some();
        if removed {
            self.note(table.name, key, None);
        }
        Ok(removed)
    }

    /// Adds one to the counter `key` and gives the new value (the first is 1).
    ///
    /// # Errors
    /// As `put`.
    pub fn next(&self, table: Table<u64>, key: &str) -> Result<u64> {
        let next = self.get(table, key)?.unwrap_or(0) + 1;
        self.put(table, key, &next)?;
        Ok(next)
    }

    fn open<T>(&self, table: Table<T>) -> Result<redb::Table<'_, &'static str, &'static [u8]>> {
        check_schema(self.schema, table)?;
        self.inner.open_table(table.definition()).map_err(database_error)
    }

    /// Records the table's schema the first time that this version writes to it.
    fn declare<T>(&self, table: Table<T>) -> Result<()> {
        let row = table.schema_row();
        let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.schema.rows().get(table.name) == Some(&row);
        if known || declared.contains_key(table.name) {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&row).map_err(|err| undecodable(SCHEMA.name, table.name, &err))?;
        let mut open = self.inner.open_table(SCHEMA.definition()).map_err(database_error)?;
        open.insert(table.name, bytes.as_slice()).map_err(database_error)?;
        self.note(SCHEMA.name, table.name, Some(&bytes));
        declared.insert(table.name.to_owned(), row);
        Ok(())
    }

    pub(super) fn commit(self, durability: redb::Durability) -> Result<()> {
        let Self { mut inner, schema, declared, .. } = self;
        inner.set_durability(durability).map_err(|err| Error::internal(format!("metadata database: {err}")))?;
        inner.commit().map_err(database_error)?;
        let declared = declared.into_inner().unwrap_or_else(PoisonError::into_inner);
        schema.rows().extend(declared);
        Ok(())
    }

    pub(super) fn abort(self) -> Result<()> {
        self.inner.abort().map_err(database_error)
    }
}

fn check_schema<T>(schema: &Schema, table: Table<T>) -> Result<()> {
    match schema.rows().get(table.name) {
        Some(found) => table.accept(found),
        None => Ok(()),
    }
}

fn get_in<T: DeserializeOwned>(
    schema: &Schema,
    open: &impl ReadableTable<&'static str, &'static [u8]>,
    table: Table<T>,
    key: &str,
) -> Result<Option<T>> {
    match open.get(key).map_err(database_error)? {
        Some(value) => Ok(Some(schema.decode(table, key, value.value())?)),
        None => Ok(None),
    }
}

fn list_in<T: DeserializeOwned>(
    schema: &Schema,
    open: &impl ReadableTable<&'static str, &'static [u8]>,
    table: Table<T>,
    prefix: &str,
) -> Result<Vec<(String, T)>> {
    let mut records = Vec::new();
    scan(open, prefix, |(key, value)| {
        records.push((key.to_owned(), schema.decode(table, key, value)?));
        Ok(())
    })?;
    Ok(records)
}

fn scan(open: &impl ReadableTable<&'static str, &'static [u8]>, prefix: &str, mut each: impl FnMut(Raw<'_>) -> Result<()>) -> Result<()> {
    for entry in open.range(prefix..).map_err(database_error)? {
        let (key, value) = entry.map_err(database_error)?;
        if !key.value().starts_with(prefix) {
            break;
        }
        each((key.value(), value.value()))?;
    }
    Ok(())
}

fn undecodable(table: &str, key: &str, err: &serde_json::Error) -> Error {
    Error::new(ErrorKind::DataLoss, format!("record {key:?} of table {table:?} is not readable: {err}"))
}
