//! The primitives' records, keyed (namespace, id), with containerd's semantics: images, leases, containers.
//!
//! The tables are public so that a service can change its own records and these in one transaction:
//! `store.metadata().write(|tx| { images::put(tx, …)?; tx.put(MINE, …) })`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use rcontainerd_types::{Digest, Error, Result, id};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::descriptor::Descriptor;
use crate::metadata::{Durability, Labels, Metadata, Table, WriteTx, key, prefix};
use crate::packed::Packed;

pub const IMAGES: Table<ImageRecord> = Table::new("images", 1).followed();
pub const LEASES: Table<LeaseRecord> = Table::new("leases", 1).followed();
/// Version 2 packs what clients gave as bytes ([`AnyValue`]).
pub const CONTAINERS: Table<ContainerRecord> = Table::new("containers", 2).min_reader(2).followed();
/// The same table, for those who walk all of it and need not know what runs.
pub(crate) const CONTAINER_LINKS: Table<ContainerLinks> = Table::new("containers", 2).min_reader(2).followed();

/// A name that points at a manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    pub name: String,
    pub target: Descriptor,
    #[serde(default)]
    pub labels: Labels,
    pub created: Timestamp,
    pub updated: Timestamp,
}

/// Keeps resources from being collected until it is deleted or expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    pub id: String,
    #[serde(default)]
    pub labels: Labels,
    pub created: Timestamp,
    /// After this moment the lease no longer counts (containerd's label `containerd.io/gc.expire`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    #[serde(default)]
    pub content: Vec<Digest>,
    /// Snapshotter name → snapshot keys.
    #[serde(default)]
    pub snapshots: BTreeMap<String, Vec<String>>,
    /// Ingest keys.
    #[serde(default)]
    pub ingests: Vec<String>,
}

impl LeaseRecord {
    /// Whether it keeps anything at `now`: by our own date of expiry, or by containerd's label.
    pub fn counts(&self, now: Timestamp) -> bool {
        let labelled = self.labels.get("containerd.io/gc.expire").and_then(|text| text.parse::<Timestamp>().ok());
        self.expires.or(labelled).is_none_or(|end| end > now)
    }
}

/// An opaque message of a client: containerd's `Any`. Records keep it [packed](crate::packed).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Packed", into = "Packed")]
pub struct AnyValue {
    pub type_url: String,
    pub value: Vec<u8>,
}

/// containerd's container metadata object; nothing runs because it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub id: String,
    #[serde(default)]
    pub labels: Labels,
    #[serde(default)]
    pub image: String,
    pub runtime_name: String,
    #[serde(default)]
    pub runtime_options: Option<AnyValue>,
    #[serde(default)]
    pub spec: Option<AnyValue>,
    #[serde(default)]
    pub snapshotter: String,
    #[serde(default)]
    pub snapshot_key: String,
    #[serde(default)]
    pub sandbox: String,
    pub created: Timestamp,
    pub updated: Timestamp,
    #[serde(default)]
    pub extensions: BTreeMap<String, AnyValue>,
}

/// What a container's record refers to.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ContainerLinks {
    pub id: String,
    #[serde(default)]
    pub labels: Labels,
    #[serde(default)]
    pub snapshotter: String,
    #[serde(default)]
    pub snapshot_key: String,
}

/// A namespace's images.
#[derive(Clone)]
pub struct Images(Handle);

/// A namespace's leases.
#[derive(Clone)]
pub struct Leases(Handle);

/// A namespace's containers.
#[derive(Clone)]
pub struct Containers(Handle);

#[derive(Clone)]
struct Handle {
    metadata: Arc<Metadata>,
    namespace: String,
}

impl Handle {
    fn key(&self, id: &str) -> String {
        key(&self.namespace, id)
    }

    fn get<T: DeserializeOwned>(&self, table: Table<T>, what: &str, id: &str) -> Result<T> {
        let found = self.metadata.read(|tx| tx.get(table, &self.key(id)))?;
        found.ok_or_else(|| Error::not_found(format!("{what} {id:?} not found")))
    }

    fn list<T: DeserializeOwned>(&self, table: Table<T>) -> Result<Vec<T>> {
        let records = self.metadata.read(|tx| tx.list_prefix(table, &prefix(&self.namespace)))?;
        Ok(records.into_iter().map(|(_, record)| record).collect())
    }

    fn create<T: Serialize>(&self, table: Table<T>, what: &str, id: &str, record: &T) -> Result<()> {
        self.metadata.write(|tx| match tx.contains(table, &self.key(id))? {
            true => Err(Error::already_exists(format!("{what} {id:?} already exists"))),
            false => tx.put(table, &self.key(id), record),
        })
    }

    /// Reads, changes and writes back in one transaction.
    fn update<T: Serialize + DeserializeOwned>(
        &self,
        table: Table<T>,
        what: &str,
        id: &str,
        change: impl FnOnce(&mut T) -> Result<()>,
    ) -> Result<T> {
        self.metadata.write(|tx| {
            let found = tx.get(table, &self.key(id))?;
            let mut record = found.ok_or_else(|| Error::not_found(format!("{what} {id:?} not found")))?;
            change(&mut record)?;
            tx.put(table, &self.key(id), &record)?;
            Ok(record)
        })
    }

    fn delete<T>(&self, table: Table<T>, what: &str, id: &str) -> Result<()> {
        match self.metadata.write_freeing(Durability::Immediate, |tx| tx.delete(table, &self.key(id)))? {
            true => Ok(()),
            false => Err(Error::not_found(format!("{what} {id:?} not found"))),
        }
    }
}

impl Images {
    pub(crate) fn new(metadata: Arc<Metadata>, namespace: &str) -> Self {
        Self(Handle { metadata, namespace: namespace.to_owned() })
    }

    /// # Errors
    /// `NotFound`.
    pub fn get(&self, name: &str) -> Result<ImageRecord> {
        self.0.get(IMAGES, "image", name)
    }

    /// # Errors
    /// When the database cannot be read.
    pub fn list(&self) -> Result<Vec<ImageRecord>> {
        self.0.list(IMAGES)
    }

    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for an empty name.
    pub fn create(&self, name: &str, target: Descriptor, labels: Labels) -> Result<ImageRecord> {
        let record = new_image(name, target, labels)?;
        self.0.create(IMAGES, "image", name, &record)?;
        Ok(record)
    }

    /// Points the name at `target`, whether it existed or not (a pull's last step); keeps the date of creation.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty name.
    pub fn put(&self, name: &str, target: Descriptor, labels: Labels) -> Result<ImageRecord> {
        self.0.metadata.write(|tx| put_image(tx, &self.0.namespace, name, target, labels))
    }

    /// # Errors
    /// `NotFound`, or what `change` says.
    pub fn update(&self, name: &str, change: impl FnOnce(&mut ImageRecord) -> Result<()>) -> Result<ImageRecord> {
        self.0.update(IMAGES, "image", name, |record| {
            change(record)?;
            record.updated = Timestamp::now();
            Ok(())
        })
    }

    /// # Errors
    /// `NotFound`.
    pub fn delete(&self, name: &str) -> Result<()> {
        self.0.delete(IMAGES, "image", name)
    }
}

/// `Images::put` inside a caller's transaction.
///
/// # Errors
/// `InvalidArgument` for an empty name.
pub fn put_image(tx: &WriteTx<'_>, namespace: &str, name: &str, target: Descriptor, labels: Labels) -> Result<ImageRecord> {
    let mut record = new_image(name, target, labels)?;
    if let Some(before) = tx.get(IMAGES, &key(namespace, name))? {
        record.created = before.created;
        // What a client has said of the name (that it is pinned, say) holds for what it names next.
        let said = before.labels.into_iter().filter(|(label, _)| label != crate::gc::EXPIRE_LABEL);
        record.labels = said.chain(std::mem::take(&mut record.labels)).collect();
    }
    tx.put(IMAGES, &key(namespace, name), &record)?;
    Ok(record)
}

fn new_image(name: &str, target: Descriptor, labels: Labels) -> Result<ImageRecord> {
    if name.is_empty() {
        return Err(Error::invalid("an image needs a name"));
    }
    let now = Timestamp::now();
    Ok(ImageRecord { name: name.to_owned(), target, labels, created: now, updated: now })
}

/// A thing that a lease keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    Content(Digest),
    Snapshot { snapshotter: String, key: String },
    Ingest(String),
}

impl Leases {
    pub(crate) fn new(metadata: Arc<Metadata>, namespace: &str) -> Self {
        Self(Handle { metadata, namespace: namespace.to_owned() })
    }

    /// Clients make ids up as they like (`946364175--ua_`): these are no identifiers, and never become file names.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for an id that is empty, longer than 255 bytes or has '/' or control characters in it.
    pub fn create(&self, lease_id: &str, labels: Labels, expires: Option<Timestamp>) -> Result<LeaseRecord> {
        if lease_id.is_empty() || lease_id.len() > 255 || lease_id.contains(|c: char| c == '/' || c.is_control()) {
            return Err(Error::invalid(format!("lease id {lease_id:?} is invalid")));
        }
        let record = LeaseRecord {
            id: lease_id.to_owned(),
            labels,
            created: Timestamp::now(),
            expires,
            content: Vec::new(),
            snapshots: BTreeMap::new(),
            ingests: Vec::new(),
        };
        self.0.create(LEASES, "lease", lease_id, &record)?;
        Ok(record)
    }

    /// # Errors
    /// `NotFound`.
    pub fn get(&self, lease_id: &str) -> Result<LeaseRecord> {
        self.0.get(LEASES, "lease", lease_id)
    }

    /// # Errors
    /// When the database cannot be read.
    pub fn list(&self) -> Result<Vec<LeaseRecord>> {
        self.0.list(LEASES)
    }

    /// # Errors
    /// `NotFound`.
    pub fn delete(&self, lease_id: &str) -> Result<()> {
        self.0.delete(LEASES, "lease", lease_id)
    }

    /// Adds a resource; one that is there already is fine.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn add(&self, lease_id: &str, resource: &Resource) -> Result<()> {
        self.0.update(LEASES, "lease", lease_id, |lease| {
            match resource {
                Resource::Content(digest) => add_once(&mut lease.content, digest),
                Resource::Snapshot { snapshotter, key } => add_once(lease.snapshots.entry(snapshotter.clone()).or_default(), key),
                Resource::Ingest(key) => add_once(&mut lease.ingests, key),
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Takes a resource out; one that is not there is fine.
    ///
    /// # Errors
    /// `NotFound` for the lease.
    pub fn remove(&self, lease_id: &str, resource: &Resource) -> Result<()> {
        self.0.update(LEASES, "lease", lease_id, |lease| {
            match resource {
                Resource::Content(digest) => lease.content.retain(|held| held != digest),
                Resource::Snapshot { snapshotter, key } => {
                    if let Some(keys) = lease.snapshots.get_mut(snapshotter) {
                        keys.retain(|held| held != key);
                    }
                }
                Resource::Ingest(key) => lease.ingests.retain(|held| held != key),
            }
            Ok(())
        })?;
        Ok(())
    }
}

fn add_once<T: Clone + PartialEq>(list: &mut Vec<T>, item: &T) {
    if !list.contains(item) {
        list.push(item.clone());
    }
}

impl Containers {
    pub(crate) fn new(metadata: Arc<Metadata>, namespace: &str) -> Self {
        Self(Handle { metadata, namespace: namespace.to_owned() })
    }

    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for a malformed id.
    pub fn create(&self, record: &ContainerRecord) -> Result<()> {
        id::validate_identifier(&record.id)?;
        self.0.create(CONTAINERS, "container", &record.id, record)
    }

    /// # Errors
    /// `NotFound`.
    pub fn get(&self, container_id: &str) -> Result<ContainerRecord> {
        self.0.get(CONTAINERS, "container", container_id)
    }

    /// # Errors
    /// When the database cannot be read.
    pub fn list(&self) -> Result<Vec<ContainerRecord>> {
        self.0.list(CONTAINERS)
    }

    /// # Errors
    /// `NotFound`, or what `change` says.
    pub fn update(&self, container_id: &str, change: impl FnOnce(&mut ContainerRecord) -> Result<()>) -> Result<ContainerRecord> {
        self.0.update(CONTAINERS, "container", container_id, |record| {
            change(record)?;
            record.updated = Timestamp::now();
            Ok(())
        })
    }

    /// # Errors
    /// `NotFound`.
    pub fn delete(&self, container_id: &str) -> Result<()> {
        self.0.delete(CONTAINERS, "container", container_id)
    }
}
