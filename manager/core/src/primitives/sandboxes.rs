//! Records of sandboxes, as containerd's sandbox store keeps them: what a group of containers shares. Nothing runs because one exists.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rcontainerd_store::Store;
use rcontainerd_store::metadata::{Labels, Table, key, prefix};
use rcontainerd_store::records::AnyValue;
use rcontainerd_types::{Error, Result, id};
use serde::{Deserialize, Serialize};

/// `namespace/id` → record.
/// Version 2 packs what clients gave as bytes.
pub const SANDBOXES: Table<SandboxRecord> = Table::new("sandboxes", 2).min_reader(2);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub id: String,
    #[serde(default)]
    pub labels: Labels,
    pub runtime_name: String,
    #[serde(default)]
    pub runtime_options: Option<AnyValue>,
    #[serde(default)]
    pub spec: Option<AnyValue>,
    /// Who runs it; empty: the default.
    #[serde(default)]
    pub sandboxer: String,
    pub created: Timestamp,
    pub updated: Timestamp,
    #[serde(default)]
    pub extensions: BTreeMap<String, AnyValue>,
}

/// A namespace's sandboxes.
#[derive(Clone)]
pub struct Sandboxes {
    store: Store,
    namespace: String,
}

impl Sandboxes {
    pub fn new(store: Store, namespace: &str) -> Self {
        Self { store, namespace: namespace.to_owned() }
    }

    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for a malformed id or a record without a runtime.
    pub fn create(&self, record: &SandboxRecord) -> Result<()> {
        id::validate_identifier(&record.id)?;
        if record.runtime_name.is_empty() {
            return Err(Error::invalid(format!("sandbox {:?} names no runtime", record.id)));
        }
        let key = key(&self.namespace, &record.id);
        self.store.metadata().write(|tx| match tx.contains(SANDBOXES, &key)? {
            true => Err(Error::already_exists(format!("sandbox {:?} already exists", record.id))),
            false => tx.put(SANDBOXES, &key, record),
        })
    }

    /// # Errors
    /// `NotFound`.
    pub fn get(&self, sandbox: &str) -> Result<SandboxRecord> {
        let found = self.store.metadata().read(|tx| tx.get(SANDBOXES, &key(&self.namespace, sandbox)))?;
        found.ok_or_else(|| not_found(sandbox))
    }

    /// # Errors
    /// When the database cannot be read.
    pub fn list(&self) -> Result<Vec<SandboxRecord>> {
        let found = self.store.metadata().read(|tx| tx.list_prefix(SANDBOXES, &prefix(&self.namespace)))?;
        Ok(found.into_iter().map(|(_, record)| record).collect())
    }

    /// # Errors
    /// `NotFound`, or what `change` says.
    pub fn update(&self, sandbox: &str, change: impl FnOnce(&mut SandboxRecord) -> Result<()>) -> Result<SandboxRecord> {
        let key = key(&self.namespace, sandbox);
        self.store.metadata().write(|tx| {
            let mut record = tx.get(SANDBOXES, &key)?.ok_or_else(|| not_found(sandbox))?;
            change(&mut record)?;
            record.updated = Timestamp::now();
            tx.put(SANDBOXES, &key, &record)?;
            Ok(record)
        })
    }

    /// # Errors
    /// `NotFound`.
    pub fn delete(&self, sandbox: &str) -> Result<()> {
        match self.store.metadata().write(|tx| tx.delete(SANDBOXES, &key(&self.namespace, sandbox)))? {
            true => Ok(()),
            false => Err(not_found(sandbox)),
        }
    }
}

fn not_found(sandbox: &str) -> Error {
    Error::not_found(format!("sandbox {sandbox:?} not found"))
}

#[cfg(test)]
mod tests {
    use rcontainerd_types::ErrorKind;

    use super::*;

    fn record(id: &str, runtime: &str) -> SandboxRecord {
        let now = Timestamp::now();
        let (id, runtime_name) = (id.to_owned(), runtime.to_owned());
        let (labels, extensions) = (Labels::new(), BTreeMap::new());
        SandboxRecord {
            id,
            labels,
            runtime_name,
            runtime_options: None,
            spec: None,
            sandboxer: String::new(),
            created: now,
            updated: now,
            extensions,
        }
    }

    #[test]
    fn records_are_kept_per_namespace() {
        let dir = tempfile::tempdir().expect("directory");
        let store = Store::open(dir.path()).expect("store");
        let (here, there) = (Sandboxes::new(store.clone(), "here"), Sandboxes::new(store, "there"));
        here.create(&record("a", "r")).expect("create");
        assert_eq!(here.create(&record("a", "r")).expect_err("twice").kind(), ErrorKind::AlreadyExists);
        assert_eq!(here.create(&record("b", "")).expect_err("no runtime").kind(), ErrorKind::InvalidArgument);
        assert!(there.list().expect("list").is_empty());
        let changed = here.update("a", |record| {
            record.sandboxer = "x".to_owned();
            Ok(())
        });
        assert_eq!(changed.expect("update").sandboxer, "x");
        assert_eq!(here.get("a").expect("get").sandboxer, "x");
        here.delete("a").expect("delete");
        assert_eq!(here.delete("a").expect_err("gone").kind(), ErrorKind::NotFound);
    }
}
