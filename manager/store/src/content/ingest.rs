//! Blobs on their way in: one writer per key, resumable, verified before they get their name.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use rcontainerd_types::digest::{Algorithm, Hasher};
use rcontainerd_types::{Digest, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::follow::{End, Follower, Progress};
use super::{BLOBS, BlobInfo, Content, Expected, Shared};
use crate::fs::{self, failed};
use crate::metadata::Labels;
use crate::settle::{Thing, Unsettled};

const REHASH_BUFFER: usize = 1 << 20;

/// What `ingest/<hash>/ref` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reference {
    namespace: String,
    key: String,
    started: Timestamp,
    #[serde(default)]
    digest: Option<Digest>,
    #[serde(default)]
    size: Option<u64>,
}

/// An ingest as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestStatus {
    pub key: String,
    /// Bytes that have arrived.
    pub offset: u64,
    /// Bytes that are to come in all, when that was said.
    pub total: Option<u64>,
    pub expected: Option<Digest>,
    pub started: Timestamp,
    pub updated: Timestamp,
}

/// A blob being written. Dropped without `commit` or `abort` it stays on disk, and the same key goes on where it ended.
pub struct Ingest {
    content: Content,
    slot: Slot,
    file: File,
    hasher: Hasher,
    offset: u64,
    expected: Option<Expected>,
    followed: Followed,
}

/// Tells those who read along that nothing more will come, whatever becomes of the ingest.
#[derive(Default)]
struct Followed(Option<Arc<Progress>>);

impl Drop for Followed {
    fn drop(&mut self) {
        if let Some(progress) = &self.0 {
            progress.end(End::GivenUp);
        }
    }
}

/// A complete, verified blob that has no name yet; removed when it is dropped instead of published.
pub struct Sealed {
    digest: Digest,
    size: u64,
    slot: Slot,
    /// Else it is on the disk when the store is settled after it was published.
    synced: bool,
}

impl Sealed {
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// All of it.
    ///
    /// # Errors
    /// I/O errors.
    pub fn read(&self) -> Result<Vec<u8>> {
        let path = self.slot.data();
        std::fs::read(&path).map_err(failed("read", &path))
    }

    fn sync(&self) -> Result<()> {
        let path = self.slot.data();
        File::open(&path).and_then(|file| file.sync_all()).map_err(failed("fsync", &path))
    }

    /// From its first byte.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(&self) -> Result<File> {
        let path = self.slot.data();
        File::open(&path).map_err(failed("open", &path))
    }
}

/// The ingest's directory, reserved for one writer.
struct Slot {
    shared: Arc<Shared>,
    name: String,
    /// Not to be kept for a resume: sealed, or a failed write left the file in doubt.
    spoiled: bool,
}

impl Slot {
    fn reserve(shared: &Arc<Shared>, namespace: &str, key: &str) -> Result<Self> {
        let name = slot_name(namespace, key);
        if !shared.active.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone()) {
            return Err(Error::new(ErrorKind::Unavailable, format!("ingest {key:?} is being written by someone else: wait for it")));
        }
        Ok(Self { shared: shared.clone(), name, spoiled: false })
    }

    fn dir(&self) -> PathBuf {
        self.shared.root.join("ingest").join(&self.name)
    }

    fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    fn remove(&self) -> Result<()> {
        fs::remove_tree_if_there(&self.dir())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.spoiled
            && let Err(err) = self.remove()
        {
            tracing::warn!(%err, "remove a failed ingest");
        }
        self.shared.active.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

fn slot_name(namespace: &str, key: &str) -> String {
    Digest::sha256(format!("{namespace}/{key}").as_bytes()).hex().to_owned()
}

impl Content {
    /// Starts or resumes the ingest `key`. With `expected`, what arrived for another digest is thrown away first.
    ///
    /// # Errors
    /// `AlreadyExists` when the namespace has the expected blob (or can see one that another has stored): nothing is to be fetched.
    /// `Unavailable` while the key has another writer.
    pub fn ingest(&self, key: &str, expected: Option<&Expected>) -> Result<Ingest> {
        if let Some(expected) = expected
            && self.already_here(expected)?
        {
            return Err(Error::already_exists(format!("content {} already exists", expected.digest)));
        }
        let slot = Slot::reserve(&self.shared, &self.namespace, key)?;
        let mut ingest = self.open_ingest(slot, key, expected)?;
        ingest.rehash()?;
        Ok(ingest)
    }

    fn already_here(&self, expected: &Expected) -> Result<bool> {
        let intact = std::fs::metadata(self.shared.blob_path(&expected.digest)).is_ok_and(|found| found.len() == expected.size);
        Ok(intact && self.adopt(&expected.digest, Labels::new())?)
    }

    fn open_ingest(&self, slot: Slot, key: &str, expected: Option<&Expected>) -> Result<Ingest> {
        let dir = slot.dir();
        let found = read_reference(&dir);
        let wanted = expected.map(|expected| &expected.digest);
        let fits = found.as_ref().is_some_and(|found| wanted.is_none() || found.digest.as_ref() == wanted);
        if !fits {
            slot.remove()?;
            fs::make_private_dir(&dir)?;
            let reference = Reference {
                namespace: self.namespace.clone(),
                key: key.to_owned(),
                started: Timestamp::now(),
                digest: wanted.cloned(),
                size: expected.map(|expected| expected.size),
            };
            let bytes = serde_json::to_vec(&reference).map_err(|err| Error::internal(format!("encode ingest {key:?}: {err}")))?;
            let path = dir.join("ref");
            fs::create_private_file(&path)?.write_all(&bytes).map_err(failed("write", &path))?;
        }
        let path = slot.data();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        let algorithm = wanted.map_or(Algorithm::Sha256, Digest::algorithm);
        Ok(Ingest {
            content: self.clone(),
            slot,
            file,
            hasher: algorithm.hasher(),
            offset: 0,
            expected: expected.cloned(),
            followed: Followed::default(),
        })
    }

    /// The namespace's unfinished ingests.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn ingests(&self) -> Result<Vec<IngestStatus>> {
        let all = self.shared.all_ingests()?.into_iter();
        let mut statuses: Vec<IngestStatus> = all.filter(|(namespace, _)| *namespace == self.namespace).map(|(_, status)| status).collect();
        statuses.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(statuses)
    }

    /// # Errors
    /// `NotFound`.
    pub fn ingest_status(&self, key: &str) -> Result<IngestStatus> {
        let dir = self.shared.root.join("ingest").join(slot_name(&self.namespace, key));
        read_status(&dir).map(|(_, status)| status).ok_or_else(|| Error::not_found(format!("ingest {key:?} not found")))
    }

    /// Throws an unfinished ingest away.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` while it has a writer.
    pub fn abort(&self, key: &str) -> Result<()> {
        let slot = Slot::reserve(&self.shared, &self.namespace, key)?;
        if !slot.dir().exists() {
            return Err(Error::not_found(format!("ingest {key:?} not found")));
        }
        slot.remove()
    }

    /// As `abort`, but whoever still writes it is not waited for: its commit will find nothing.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn discard(&self, key: &str) -> Result<()> {
        let dir = self.shared.root.join("ingest").join(slot_name(&self.namespace, key));
        match dir.exists() {
            true => fs::remove_tree_if_there(&dir),
            false => Err(Error::not_found(format!("ingest {key:?} not found"))),
        }
    }

    /// Gives sealed blobs their names and makes them visible, all in one transaction.
    ///
    /// # Errors
    /// I/O and database errors; then none of them is visible.
    #[expect(clippy::needless_pass_by_value, reason = "what is published must be dropped: its slot goes with it")]
    pub fn publish(&self, blobs: Vec<Sealed>, labels: &Labels) -> Result<Vec<BlobInfo>> {
        let mut publishing = self.shared.hold_publishing();
        let published = match blobs.iter().all(|blob| blob.synced) {
            true => self.publish_synced(&blobs, labels),
            false => self.publish_unsettled(&blobs, labels),
        };
        if published.is_err() {
            // On a full disk the database may not open again before there is room: then it is decided later.
            let doubtful = blobs.iter().map(|blob| &blob.digest).filter(|digest| self.shared.remove_stray(digest).is_err());
            publishing.extend(doubtful.cloned());
        }
        published
    }

    /// Without a sync: they are on the disk when the store is settled.
    fn publish_unsettled(&self, blobs: &[Sealed], labels: &Labels) -> Result<Vec<BlobInfo>> {
        let mut things = Vec::new();
        for blob in blobs {
            let target = self.shared.blob_path(&blob.digest);
            let known = self.shared.metadata.read(|tx| tx.get(BLOBS, &blob.digest.to_string()))?.is_some();
            // What others count on is replaced only where it is damaged, and then by what is on the disk.
            if !known {
                rename_into_place(blob, &target)?;
            } else if std::fs::metadata(&target).map_or(true, |found| found.len() != blob.size) {
                blob.sync()?;
                rename_into_place(blob, &target)?;
                self.shared.sync_dir_of(&target)?;
            }
            things.push(Thing::Blob(blob.digest.clone()));
        }
        self.shared.waiting.show(&things, |tx, marks| {
            let visible =
                |(blob, mark): (&Sealed, &Unsettled)| self.make_visible(tx, &blob.digest, blob.size, labels.clone(), Some(mark.clone()));
            blobs.iter().zip(marks).map(visible).collect()
        })
    }

    fn publish_synced(&self, blobs: &[Sealed], labels: &Labels) -> Result<Vec<BlobInfo>> {
        let mut dirs = Vec::new();
        for blob in blobs {
            let target = self.shared.blob_path(&blob.digest);
            rename_into_place(blob, &target)?;
            let dir = target.parent().map(Path::to_owned).unwrap_or_default();
            if !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
        for dir in &dirs {
            fs::sync_dir(dir)?;
        }
        self.shared.metadata.write(|tx| {
            blobs.iter().map(|blob| self.make_visible(tx, &blob.digest, blob.size, labels.clone(), None)).collect::<Result<Vec<_>>>()
        })
    }
}

/// Replaces whatever is there: an older file of this name may be the damaged one that the new pull is to mend.
fn rename_into_place(blob: &Sealed, target: &Path) -> Result<()> {
    let source = blob.slot.data();
    match std::fs::rename(&source, target) {
        // The same blob twice in one batch: the first took the name.
        Err(err) if err.kind() == io::ErrorKind::NotFound && target.exists() => Ok(()),
        other => other.map_err(failed("rename", &source)),
    }
}

fn read_reference(dir: &Path) -> Option<Reference> {
    serde_json::from_slice(&std::fs::read(dir.join("ref")).ok()?).ok()
}

fn read_status(dir: &Path) -> Option<(String, IngestStatus)> {
    let reference = read_reference(dir)?;
    let data = std::fs::metadata(dir.join("data")).ok()?;
    let updated = data.modified().ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(reference.started);
    let status = IngestStatus {
        key: reference.key,
        offset: data.len(),
        total: reference.size,
        expected: reference.digest,
        started: reference.started,
        updated,
    };
    Some((reference.namespace, status))
}

impl Shared {
    fn sync_dir_of(&self, file: &Path) -> Result<()> {
        file.parent().map_or(Ok(()), fs::sync_dir)
    }

    /// Unfinished ingests of all namespaces; a directory that a crash left without its two files is not one.
    pub fn all_ingests(&self) -> Result<Vec<(String, IngestStatus)>> {
        let root = self.root.join("ingest");
        Ok(fs::entry_names(&root)?.into_iter().filter_map(|name| read_status(&root.join(name))).collect())
    }
}

impl Ingest {
    /// Bytes that are already here: where the sender goes on.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the blob from its first byte while it arrives.
    ///
    /// # Errors
    /// When the file cannot be opened again.
    pub fn follow(&mut self) -> Result<Follower> {
        let path = self.slot.data();
        let file = File::open(&path).map_err(failed("open", &path))?;
        let progress = self.followed.0.get_or_insert_with(Arc::default);
        progress.reached(self.offset);
        Ok(Follower::new(file, Arc::clone(progress)))
    }

    /// Of the bytes that are already here.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Removed when it is dropped before its commit: for a source that cannot be asked to go on where it ended.
    #[must_use]
    pub fn ephemeral(mut self) -> Self {
        self.slot.spoiled = true;
        self
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// `ResourceExhausted` on a full disk (what had arrived is removed), `DataLoss` beyond the expected size.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(expected) = &self.expected
            && self.offset + bytes.len() as u64 > expected.size
        {
            self.slot.spoiled = true;
            return Err(Error::new(
                ErrorKind::DataLoss,
                format!("content {}: more than the {} bytes promised", expected.digest, expected.size),
            ));
        }
        if let Err(err) = self.file.write_all(bytes) {
            self.slot.spoiled = true;
            return Err(Error::io(format!("write to ingest in {}", self.slot.shared.root.display()), err));
        }
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        if let Some(progress) = &self.followed.0 {
            progress.reached(self.offset);
        }
        Ok(())
    }

    /// Throws away what has arrived and begins anew at 0 (a server that cannot send from an offset).
    ///
    /// # Errors
    /// When the file cannot be truncated.
    pub fn restart(&mut self) -> Result<()> {
        let path = self.slot.data();
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(failed("truncate", &path))?;
        self.hasher = self.algorithm().hasher();
        self.offset = 0;
        Ok(())
    }

    /// Verifies, syncs and publishes. On a mismatch the data is removed: a resume of wrong bytes could never succeed.
    ///
    /// # Errors
    /// `DataLoss` when size or digest is not the expected one, `ResourceExhausted` on a full disk.
    #[expect(clippy::needless_pass_by_value, reason = "the snapshotters' commit takes labels so")]
    pub fn commit(self, size: Option<u64>, digest: Option<&Digest>, labels: Labels) -> Result<BlobInfo> {
        let content = self.content.clone();
        let sealed = self.seal(size, digest)?;
        let mut infos = content.publish(vec![sealed], &labels)?;
        infos.pop().ok_or_else(|| Error::internal("publishing one blob gave none"))
    }

    /// As `commit`, but it is on the disk only when the store is settled ([`crate::Store::settle`]); until then a power loss takes it.
    ///
    /// # Errors
    /// As `commit`.
    pub fn commit_unsettled(self, size: Option<u64>, digest: Option<&Digest>, labels: &Labels) -> Result<BlobInfo> {
        let content = self.content.clone();
        let sealed = self.seal_unsynced(size, digest)?;
        let mut infos = content.publish(vec![sealed], labels)?;
        infos.pop().ok_or_else(|| Error::internal("publishing one blob gave none"))
    }

    /// Verifies and syncs; `Content::publish` then gives many blobs their names in one transaction.
    ///
    /// # Errors
    /// As `commit`.
    pub fn seal(self, size: Option<u64>, digest: Option<&Digest>) -> Result<Sealed> {
        let mut sealed = self.seal_unsynced(size, digest)?;
        sealed.sync()?;
        sealed.synced = true;
        Ok(sealed)
    }

    /// Verifies; once published it is on the disk when the store is settled.
    ///
    /// # Errors
    /// As `commit`.
    pub fn seal_unsynced(mut self, size: Option<u64>, digest: Option<&Digest>) -> Result<Sealed> {
        let size = size.or(self.expected.as_ref().map(|expected| expected.size));
        let digest = digest.cloned().or(self.expected.as_ref().map(|expected| expected.digest.clone()));
        if let Some(digest) = &digest
            && digest.algorithm() != self.algorithm()
        {
            self.hasher = digest.algorithm().hasher();
            self.rehash()?;
        }
        let path = self.slot.data();
        let Self { mut slot, file, hasher, offset, followed, .. } = self;
        // From here on it is published or removed: a sealed blob cannot be resumed.
        slot.spoiled = true;
        let found = hasher.finish();
        verify(offset, &found, size, digest.as_ref())?;
        if let Some(progress) = &followed.0 {
            progress.end(End::Complete);
        }
        file.set_permissions(Permissions::from_mode(0o444)).map_err(failed("chmod", &path))?;
        Ok(Sealed { digest: found, size: offset, slot, synced: false })
    }

    /// Removes what has arrived.
    ///
    /// # Errors
    /// When the directory cannot be removed.
    pub fn abort(self) -> Result<()> {
        self.slot.remove()
    }

    fn algorithm(&self) -> Algorithm {
        self.hasher.algorithm()
    }

    /// Brings hasher and offset in step with the bytes on disk.
    fn rehash(&mut self) -> Result<()> {
        let path = self.slot.data();
        self.file.seek(SeekFrom::Start(0)).map_err(failed("seek", &path))?;
        self.offset = 0;
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            let read = Read::take(&self.file, REHASH_BUFFER as u64).read_to_end(&mut buffer).map_err(failed("read", &path))?;
            if read == 0 {
                return Ok(());
            }
            self.hasher.update(&buffer);
            self.offset += read as u64;
        }
    }
}

fn verify(size: u64, digest: &Digest, expected_size: Option<u64>, expected: Option<&Digest>) -> Result<()> {
    let name = expected.unwrap_or(digest);
    if let Some(expected_size) = expected_size.filter(|expected| *expected != size) {
        return Err(Error::new(ErrorKind::DataLoss, format!("content {name}: {size} bytes arrived, {expected_size} were promised")));
    }
    if name != digest {
        return Err(Error::new(ErrorKind::DataLoss, format!("content {name}: what arrived has digest {digest}")));
    }
    Ok(())
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes).map_err(fs::into_io)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
