//! A table's declaration and what the database remembers about it.

use std::marker::PhantomData;

use rcontainerd_types::{Error, Result};
use serde::{Deserialize, Serialize};

/// A table of records of type `T` under string keys; declared as a constant by the module that owns it.
pub struct Table<T> {
    pub(super) name: &'static str,
    pub(super) version: u32,
    pub(super) min_reader: u32,
    pub(super) followed: bool,
    record: PhantomData<fn() -> T>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Table<T> {}

impl<T> Table<T> {
    /// `version` counts the record's changes; readers of version 1 can still read it.
    pub const fn new(name: &'static str, version: u32) -> Self {
        Self { name, version, min_reader: 1, followed: false, record: PhantomData }
    }

    /// The oldest version of this declaration that understands what is written now.
    #[must_use]
    pub const fn min_reader(mut self, version: u32) -> Self {
        self.min_reader = version;
        self
    }

    /// Its changes can be followed ([`super::Metadata::read_since`]).
    #[must_use]
    pub const fn followed(mut self) -> Self {
        self.followed = true;
        self
    }

    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn definition(&self) -> redb::TableDefinition<'static, &'static str, &'static [u8]> {
        redb::TableDefinition::new(self.name)
    }

    pub(super) fn schema_row(&self) -> SchemaRow {
        SchemaRow { version: self.version, min_reader: self.min_reader, written_by: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// Whether this program understands what `found` says was written.
    pub(super) fn accept(&self, found: &SchemaRow) -> Result<()> {
        if found.min_reader <= self.version {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "table {:?} was written by version {} and needs a reader of schema {}, this is {} with schema {}: start the newer version",
            self.name,
            found.written_by,
            found.min_reader,
            env!("CARGO_PKG_VERSION"),
            self.version
        )))
    }
}

/// What is stored of each table's declaration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaRow {
    pub version: u32,
    pub min_reader: u32,
    /// Package version of the last program that changed this row.
    pub written_by: String,
}

pub(super) const SCHEMA: Table<SchemaRow> = Table::new("schema", 1);

/// The key of an object in a namespace; namespaces cannot contain `/` (containerd's identifier rule), so it is unambiguous.
pub fn key(namespace: &str, id: &str) -> String {
    format!("{namespace}/{id}")
}

/// The prefix of all keys of a namespace.
pub fn prefix(namespace: &str) -> String {
    format!("{namespace}/")
}
