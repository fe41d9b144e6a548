//! Content: blobs named by their digest, stored once, visible per namespace.
//!
//! ```text
//! content/blobs/<algorithm>/<hex>   0444; complete, verified, fsynced before it has this name
//! content/ingest/<hash of key>/ref  JSON: namespace, key, start
//! content/ingest/<hash of key>/data what has arrived so far
//! ```
//! Tables: `content` (namespace/digest → labels and dates), `blobs` (digest → size and the namespaces that see it).
//! A blob file without a row in `blobs` is what a crash left between rename and transaction; it is swept at open.

mod blobs;
mod follow;
mod ingest;

use std::collections::{BTreeSet, HashSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rcontainerd_types::{Digest, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::found::Found;
use crate::fs;
use crate::metadata::{Durability, Labels, Metadata, Table, WriteTx, key, prefix};
use crate::settle::{Unsettled, Waiting};

pub use blobs::BlobReader;
pub use follow::Follower;
pub use ingest::{Ingest, IngestStatus, Sealed};

pub const CONTENT: Table<ContentRecord> = Table::new("content", 1).followed();
pub const BLOBS: Table<BlobRow> = Table::new("blobs", 1);
/// The same table, for an open.
pub(crate) const BLOB_MARKS: Table<BlobMark> = Table::new("blobs", 1);

/// A namespace's view of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRecord {
    /// Bytes.
    pub size: u64,
    #[serde(default)]
    pub labels: Labels,
    pub created: Timestamp,
    pub updated: Timestamp,
}

/// The stored file, and who sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRow {
    /// Bytes.
    pub size: u64,
    pub namespaces: BTreeSet<String>,
    /// It waits for a sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<Unsettled>,
}

/// Of a blob's row, what an open looks at.
#[derive(Debug, Deserialize)]
pub(crate) struct BlobMark {
    #[serde(default)]
    pub unsettled: Option<Unsettled>,
}

/// What is known of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub labels: Labels,
    pub created: Timestamp,
    pub updated: Timestamp,
}

impl BlobInfo {
    fn new(digest: Digest, record: ContentRecord) -> Self {
        Self { digest, size: record.size, labels: record.labels, created: record.created, updated: record.updated }
    }
}

/// What an ingest is meant to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

pub(crate) struct Shared {
    root: PathBuf,
    metadata: Arc<Metadata>,
    waiting: Arc<Waiting>,
    /// Ingest directories that have a writer.
    active: Mutex<HashSet<String>>,
    /// Held from a rename into `blobs/` to its transaction, and from a transaction that drops a row to the unlink:
    /// so a blob is never unlinked after another writer has just published it. No other lock is taken under it.
    /// In it: files that may be nobody's and could not be removed yet, or of which the database could not be asked.
    publishing: Mutex<Vec<Digest>>,
}

/// A namespace's content; cheap to clone.
#[derive(Clone)]
pub struct Content {
    shared: Arc<Shared>,
    namespace: String,
}

impl Shared {
    /// Makes the directories and sweeps what a crash left unpublished.
    pub fn open(root: PathBuf, metadata: Arc<Metadata>, waiting: Arc<Waiting>, found: &Found) -> Result<Self> {
        for sub in ["blobs/sha256", "blobs/sha512", "ingest"] {
            fs::make_private_dir(&root.join(sub))?;
        }
        let shared = Self { root, metadata, waiting, active: Mutex::default(), publishing: Mutex::default() };
        shared.sweep_unpublished(found)?;
        Ok(shared)
    }

    /// While it is held no blob is published or unlinked by others.
    pub fn hold_publishing(&self) -> MutexGuard<'_, Vec<Digest>> {
        let mut doubtful = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        doubtful.retain(|digest| self.remove_stray(digest).is_err());
        doubtful
    }

    /// Removes a blob's file that no namespace has; called while publishing is held.
    fn remove_stray(&self, digest: &Digest) -> Result<()> {
        match self.metadata.read(|tx| Ok(tx.get(BLOBS, &digest.to_string())?.is_some()))? {
            true => Ok(()),
            false => fs::remove_file_if_there(&self.blob_path(digest)),
        }
    }

    /// Removes the files of blobs that have lost their rows; what cannot be removed now goes with the next change.
    pub fn remove_strays(&self, digests: Vec<Digest>) {
        let mut publishing = self.hold_publishing();
        publishing.extend(digests.into_iter().filter(|digest| self.remove_stray(digest).is_err()));
    }

    /// Removes the file of a blob that has lost its rows; one that cannot be removed now goes with the next change.
    pub fn unlink(&self, publishing: &mut Vec<Digest>, digest: Digest) {
        if let Err(err) = fs::remove_file_if_there(&self.blob_path(&digest)) {
            tracing::warn!(%digest, "the file of a removed blob stays for now: {err}");
            publishing.push(digest);
        }
    }

    /// The digest that the stored bytes really have.
    pub fn hash(&self, digest: &Digest) -> Result<Digest> {
        let path = self.blob_path(digest);
        let mut file = std::fs::File::open(&path).map_err(fs::failed("open", &path))?;
        let mut hasher = digest.algorithm().hasher();
        let mut buffer = vec![0u8; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(fs::failed("read", &path))? {
                0 => return Ok(hasher.finish()),
                length => hasher.update(&buffer[..length]),
            }
        }
    }

    /// A document, whoever sees it; `DataLoss` when it is damaged.
    pub fn read_verified(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let size = std::fs::metadata(&path).map_err(fs::failed("stat", &path))?.len();
        BlobReader::open(&path, digest, size)?.read_verified(digest, limit)
    }

    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    fn sweep_unpublished(&self, found: &Found) -> Result<()> {
        for orphan in self.files()?.into_iter().filter(|digest| !found.has_blob(&digest.to_string())) {
            tracing::info!(digest = %orphan, "remove a blob that was never published");
            fs::remove_file_if_there(&self.blob_path(&orphan))?;
        }
        Ok(())
    }

    /// Digests of all files under `blobs/`.
    pub fn files(&self) -> Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let names = fs::entry_names(&self.root.join("blobs").join(algorithm))?;
            digests.extend(names.iter().filter_map(|hex| format!("{algorithm}:{hex}").parse().ok()));
        }
        Ok(digests)
    }
}

impl Content {
    pub(crate) fn new(shared: Arc<Shared>, namespace: &str) -> Self {
        Self { shared, namespace: namespace.to_owned() }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// # Errors
    /// `NotFound` when this namespace does not see the blob.
    pub fn info(&self, digest: &Digest) -> Result<BlobInfo> {
        let record = self.shared.metadata.read(|tx| tx.get(CONTENT, &self.key(digest)))?;
        record.map(|record| BlobInfo::new(digest.clone(), record)).ok_or_else(|| not_found(digest))
    }

    /// Whether this namespace has the blob.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn contains(&self, digest: &Digest) -> Result<bool> {
        Ok(self.shared.metadata.read(|tx| tx.get(CONTENT, &self.key(digest)))?.is_some())
    }

    /// All blobs of the namespace, by digest.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn list(&self) -> Result<Vec<BlobInfo>> {
        let prefix = prefix(&self.namespace);
        let records = self.shared.metadata.read(|tx| tx.list_prefix(CONTENT, &prefix))?;
        records.into_iter().map(|(key, record)| Ok(BlobInfo::new(key[prefix.len()..].parse()?, record))).collect()
    }

    /// Replaces the labels.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn set_labels(&self, digest: &Digest, labels: Labels) -> Result<BlobInfo> {
        self.shared.metadata.write(|tx| self.label_in(tx, digest, |all| *all = labels))
    }

    /// Adds labels, in the caller's transaction.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn add_labels_in(&self, tx: &WriteTx<'_>, digest: &Digest, labels: Labels) -> Result<()> {
        self.label_in(tx, digest, |all| all.extend(labels)).map(drop)
    }

    fn label_in(&self, tx: &WriteTx<'_>, digest: &Digest, change: impl FnOnce(&mut Labels)) -> Result<BlobInfo> {
        let mut record = tx.get(CONTENT, &self.key(digest))?.ok_or_else(|| not_found(digest))?;
        change(&mut record.labels);
        record.updated = Timestamp::now();
        tx.put(CONTENT, &self.key(digest), &record)?;
        Ok(BlobInfo::new(digest.clone(), record))
    }

    /// Opens the blob for reading; its size is checked, its bytes are not hashed again (`fsck` does).
    ///
    /// # Errors
    /// `NotFound`; `DataLoss` when the file is gone or has another size than recorded.
    pub fn reader(&self, digest: &Digest) -> Result<BlobReader> {
        let info = self.info(digest)?;
        BlobReader::open(&self.shared.blob_path(digest), digest, info.size)
    }

    /// The whole blob, for documents; refuses one of more than `limit` bytes.
    ///
    /// # Errors
    /// As `reader`; `ResourceExhausted` above the limit; `DataLoss` when the bytes do not have the digest.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        self.reader(digest)?.read_verified(digest, limit)
    }

    /// Where the blob's file lies, for readers that want a path.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn path(&self, digest: &Digest) -> Result<PathBuf> {
        self.info(digest).map(|_| self.shared.blob_path(digest))
    }

    /// Stores a small document in one go; already being there is fine.
    ///
    /// # Errors
    /// I/O errors; `ResourceExhausted` on a full disk.
    pub fn put(&self, bytes: &[u8], labels: Labels) -> Result<BlobInfo> {
        let digest = Digest::sha256(bytes);
        match self.info(&digest) {
            Ok(info) => return Ok(info),
            Err(err) if err.kind() != ErrorKind::NotFound => return Err(err),
            Err(_) => {}
        }
        let mut ingest = self.ingest(&format!("put-{}", rcontainerd_types::id::generate()?), None)?.ephemeral();
        ingest.append(bytes)?;
        ingest.commit(Some(bytes.len() as u64), Some(&digest), labels)
    }

    /// Makes a blob that another namespace has stored visible here; `false` when nobody has it.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn adopt(&self, digest: &Digest, labels: Labels) -> Result<bool> {
        let name = digest.to_string();
        if self.shared.metadata.read(|tx| tx.get(BLOBS, &name))?.is_some_and(|row| row.unsettled.is_some()) {
            self.shared.waiting.settle(|_| Ok(()))?;
        }
        let _publishing = self.shared.hold_publishing();
        self.shared.metadata.write(|tx| match tx.get(BLOBS, &name)? {
            Some(row) => self.make_visible(tx, digest, row.size, labels, None).map(|_| true),
            None => Ok(false),
        })
    }

    /// Takes the blob from this namespace; the file goes with the last namespace that sees it.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn delete(&self, digest: &Digest) -> Result<()> {
        self.delete_many(std::slice::from_ref(digest))?.then_some(()).ok_or_else(|| not_found(digest))
    }

    /// Deletes in one transaction; says whether any of them was there.
    pub(crate) fn delete_many(&self, digests: &[Digest]) -> Result<bool> {
        let mut publishing = self.shared.hold_publishing();
        let mut any = false;
        let unreferenced = self.shared.metadata.write_freeing(Durability::Immediate, |tx| {
            let mut unreferenced = Vec::new();
            for digest in digests {
                any |= tx.contains(CONTENT, &self.key(digest))?;
                if self.delete_in(tx, digest)? {
                    unreferenced.push(digest.clone());
                }
            }
            Ok(unreferenced)
        })?;
        unreferenced.into_iter().for_each(|digest| self.shared.unlink(&mut publishing, digest));
        Ok(any)
    }

    /// Deletes the rows; true when the file is to be removed after the transaction.
    pub(crate) fn delete_in(&self, tx: &WriteTx<'_>, digest: &Digest) -> Result<bool> {
        tx.delete(CONTENT, &self.key(digest))?;
        self.drop_namespace(tx, digest)
    }

    /// Removes this namespace from the blob's row; true when nobody is left.
    fn drop_namespace(&self, tx: &WriteTx<'_>, digest: &Digest) -> Result<bool> {
        let name = digest.to_string();
        let Some(mut row) = tx.get(BLOBS, &name)? else { return Ok(false) };
        row.namespaces.remove(&self.namespace);
        if row.namespaces.is_empty() {
            tx.delete(BLOBS, &name)?;
            return Ok(true);
        }
        tx.put(BLOBS, &name, &row)?;
        Ok(false)
    }

    /// Writes the rows of a blob whose file is in place; labels are added to those it may have.
    fn make_visible(&self, tx: &WriteTx<'_>, digest: &Digest, size: u64, labels: Labels, unsettled: Option<Unsettled>) -> Result<BlobInfo> {
        let name = digest.to_string();
        let mut row = tx.get(BLOBS, &name)?.unwrap_or(BlobRow { size, namespaces: BTreeSet::new(), unsettled: unsettled.clone() });
        row.size = size;
        // A blob that was on the disk before stays there; one that has just been synced is.
        row.unsettled = row.unsettled.and(unsettled);
        row.namespaces.insert(self.namespace.clone());
        tx.put(BLOBS, &name, &row)?;
        let now = Timestamp::now();
        let fresh = ContentRecord { size, labels: Labels::new(), created: now, updated: now };
        let mut record = tx.get(CONTENT, &self.key(digest))?.unwrap_or(fresh);
        record.size = size;
        // A fresh date keeps it from a collection that runs before the new reference is written.
        record.updated = now;
        record.labels.extend(labels);
        tx.put(CONTENT, &self.key(digest), &record)?;
        Ok(BlobInfo::new(digest.clone(), record))
    }

    fn key(&self, digest: &Digest) -> String {
        key(&self.namespace, &digest.to_string())
    }
}

fn not_found(digest: &Digest) -> Error {
    Error::not_found(format!("content {digest} not found"))
}

#[cfg(test)]
mod tests;
