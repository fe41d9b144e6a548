//! Garbage collection by reference: what no image, container, lease or `gc.root` label leads to, and no one has touched lately.
//!
//! ```text
//! image → target → (documents' children, containerd.io/gc.ref.content*) → config → its layers' snapshots (ChainIDs)
//! container → snapshot → parent …      lease → content, snapshots, ingests      gc.ref.snapshot.<snapshotter>* → snapshot
//! ```
//! Mark and sweep happen in one transaction: nobody can take a reference in between. What has just arrived and is not referenced yet
//! is kept for a grace period; a pull holds a lease besides.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use rcontainerd_types::{Digest, Error, ErrorKind, Result};

use crate::content::{CONTENT, ContentRecord};
use crate::descriptor::Descriptor;
use crate::fs;
use crate::image::{DOCUMENT_MAX, Document, diff_ids, is_document};
use crate::metadata::{Labels, WriteTx};
use crate::records::{CONTAINERS, IMAGES, LEASES};
use crate::snapshot::{SNAPSHOTS, SnapshotRecord};
use crate::store::Store;
use crate::unpack::chain_ids;

const ROOT_LABEL: &str = "containerd.io/gc.root";
const CONTENT_LABEL: &str = "containerd.io/gc.ref.content";
const SNAPSHOT_LABEL: &str = "containerd.io/gc.ref.snapshot.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcOptions {
    /// What was made or changed so recently is kept, referenced or not.
    pub grace: Duration,
    /// Unfinished ingests that nothing was added to for so long are thrown away.
    pub ingest_age: Duration,
    /// Only tell.
    pub dry_run: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { grace: Duration::from_secs(3600), ingest_age: Duration::from_secs(7 * 24 * 3600), dry_run: false }
    }
}

/// What went (or would go).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// (namespace, digest)
    pub content: Vec<(String, Digest)>,
    /// (snapshotter, namespace, key)
    pub snapshots: Vec<(String, String, String)>,
    /// (namespace, ingest key)
    pub ingests: Vec<(String, String)>,
    /// Bytes given back by blobs; a blob that another namespace still sees does not count.
    pub content_bytes: u64,
    /// Bytes given back by committed snapshots.
    pub snapshot_bytes: u64,
}

/// Everything that can be collected or refer to something, as one transaction sees it.
struct State {
    content: BTreeMap<(String, Digest), ContentRecord>,
    /// By full key, `<snapshotter>/<namespace>/<key>`.
    snapshots: BTreeMap<String, SnapshotRecord>,
}

#[derive(Default)]
struct Marks {
    content: BTreeSet<(String, Digest)>,
    snapshots: BTreeSet<String>,
}

impl Store {
    /// Collects in all namespaces.
    ///
    /// # Errors
    /// `DataLoss` when a document that decides what is referenced cannot be read (then nothing is removed: `fsck` first).
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport> {
        let publishing = self.content_files().hold_publishing();
        let (mut report, files, dirs) = self.metadata().write(|tx| self.collect(tx, options))?;
        for digest in files {
            fs::remove_file_if_there(&self.content_files().blob_path(&digest))?;
        }
        drop(publishing);
        for dir in dirs {
            fs::remove_tree_if_there(&dir)?;
        }
        report.ingests = self.stale_ingests(options)?;
        Ok(report)
    }

    fn collect(&self, tx: &WriteTx<'_>, options: &GcOptions) -> Result<(GcReport, Vec<Digest>, Vec<PathBuf>)> {
        let state = State::read(tx)?;
        let since = Timestamp::now().checked_sub(options.grace).unwrap_or(Timestamp::MIN);
        let marks = Marker { store: self, state: &state, marks: Marks::default() }.run(tx, since)?;
        let (mut report, mut files, mut dirs) = (GcReport::default(), Vec::new(), Vec::new());
        for (full_key, record) in state.snapshots.iter().filter(|(key, _)| !marks.snapshots.contains(*key)) {
            report.snapshot_bytes += record.usage.map_or(0, |usage| usage.size);
            report.snapshots.push(split_snapshot_key(full_key)?);
            if !options.dry_run {
                tx.delete(SNAPSHOTS, full_key)?;
                dirs.extend(self.snapshot_dir(full_key, record.dir));
            }
        }
        for ((namespace, digest), record) in state.content.iter().filter(|(key, _)| !marks.content.contains(key)) {
            let last = if options.dry_run {
                !state.content.keys().any(|(other, same)| same == digest && other != namespace)
            } else {
                self.content(namespace).delete_in(tx, digest)?
            };
            if last {
                report.content_bytes += record.size;
            }
            if last && !options.dry_run {
                files.push(digest.clone());
            }
            report.content.push((namespace.clone(), digest.clone()));
        }
        Ok((report, files, dirs))
    }

    fn snapshot_dir(&self, full_key: &str, number: u64) -> Option<PathBuf> {
        let name = full_key.split('/').next()?;
        let backend = self.backends().iter().find(|backend| backend.name() == name)?;
        Some(backend.dir(number))
    }

    fn stale_ingests(&self, options: &GcOptions) -> Result<Vec<(String, String)>> {
        let before = Timestamp::now().checked_sub(options.ingest_age).unwrap_or(Timestamp::MIN);
        let held: BTreeSet<(String, String)> = self.metadata().read(|tx| {
            let leases = tx.list(LEASES)?.into_iter().filter(|(_, lease)| lease.counts(Timestamp::now()));
            Ok(leases.flat_map(|(key, lease)| lease.ingests.into_iter().map(move |ingest| (namespace_of(&key), ingest))).collect())
        })?;
        let mut stale = Vec::new();
        for (namespace, status) in self.content_files().all_ingests()? {
            let name = (namespace, status.key);
            if status.updated >= before || held.contains(&name) {
                continue;
            }
            let removed = if options.dry_run { Ok(()) } else { self.content(&name.0).abort(&name.1) };
            match removed {
                Ok(()) => stale.push(name),
                // It has a writer after all.
                Err(err) if err.kind() == ErrorKind::Unavailable => {}
                Err(err) => return Err(err),
            }
        }
        Ok(stale)
    }
}

fn namespace_of(key: &str) -> String {
    key.split('/').next().unwrap_or_default().to_owned()
}

fn split_snapshot_key(full_key: &str) -> Result<(String, String, String)> {
    let mut parts = full_key.splitn(3, '/').map(str::to_owned);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(snapshotter), Some(namespace), Some(key)) => Ok((snapshotter, namespace, key)),
        _ => Err(Error::new(ErrorKind::DataLoss, format!("snapshot record {full_key:?} has a malformed key"))),
    }
}

impl State {
    fn read(tx: &WriteTx<'_>) -> Result<Self> {
        let mut content = BTreeMap::new();
        for (key, record) in tx.list(CONTENT)? {
            let (namespace, digest) = key.split_once('/').unwrap_or_default();
            content.insert((namespace.to_owned(), digest.parse()?), record);
        }
        Ok(Self { content, snapshots: tx.list(SNAPSHOTS)?.into_iter().collect() })
    }
}

struct Marker<'a> {
    store: &'a Store,
    state: &'a State,
    marks: Marks,
}

impl Marker<'_> {
    fn run(mut self, tx: &WriteTx<'_>, since: Timestamp) -> Result<Marks> {
        for (key, image) in tx.list(IMAGES)? {
            self.descriptor(&namespace_of(&key), &image.target)?;
            self.labels(&namespace_of(&key), &image.labels)?;
        }
        for (key, container) in tx.list(CONTAINERS)? {
            let namespace = namespace_of(&key);
            self.snapshot(&format!("{}/{namespace}/{}", container.snapshotter, container.snapshot_key))?;
            self.labels(&namespace, &container.labels)?;
        }
        for (key, lease) in tx.list(LEASES)?.into_iter().filter(|(_, lease)| lease.counts(Timestamp::now())) {
            let namespace = namespace_of(&key);
            for digest in &lease.content {
                self.content(&namespace, digest)?;
            }
            for (snapshotter, keys) in &lease.snapshots {
                keys.iter().try_for_each(|key| self.snapshot(&format!("{snapshotter}/{namespace}/{key}")))?;
            }
        }
        for ((namespace, digest), record) in &self.state.content {
            if record.updated >= since || record.labels.contains_key(ROOT_LABEL) {
                self.content(namespace, digest)?;
            }
        }
        for (full_key, record) in &self.state.snapshots {
            if record.updated >= since || record.labels.contains_key(ROOT_LABEL) {
                self.snapshot(full_key)?;
            }
        }
        Ok(self.marks)
    }

    /// A blob and what its labels point at.
    fn content(&mut self, namespace: &str, digest: &Digest) -> Result<()> {
        let key = (namespace.to_owned(), digest.clone());
        let Some(record) = self.state.content.get(&key) else { return Ok(()) };
        if !self.marks.content.insert(key) {
            return Ok(());
        }
        self.labels(namespace, &record.labels)
    }

    /// A blob, and what it says itself when it is a document.
    fn descriptor(&mut self, namespace: &str, descriptor: &Descriptor) -> Result<()> {
        let known = self.state.content.contains_key(&(namespace.to_owned(), descriptor.digest.clone()));
        self.content(namespace, &descriptor.digest)?;
        if !known || !is_document(descriptor) {
            return Ok(());
        }
        let document = Document::parse(&self.read(&descriptor.digest)?)?;
        for child in document.children() {
            self.descriptor(namespace, child)?;
        }
        if let Document::Manifest(manifest) = &document
            && self.state.content.contains_key(&(namespace.to_owned(), manifest.config.digest.clone()))
        {
            self.layers(namespace, &manifest.config.digest)?;
        }
        Ok(())
    }

    /// The snapshots that an image's config names. What is no image config (an artifact's, say) names none.
    fn layers(&mut self, namespace: &str, config: &Digest) -> Result<()> {
        let Ok(diff_ids) = diff_ids(&self.read(config)?) else { return Ok(()) };
        let names: Vec<&'static str> = self.store.snapshotter_names();
        for chain_id in chain_ids(&diff_ids) {
            names.iter().try_for_each(|snapshotter| self.snapshot(&format!("{snapshotter}/{namespace}/{chain_id}")))?;
        }
        Ok(())
    }

    fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.store.content_files().read_verified(digest, DOCUMENT_MAX)
    }

    /// A snapshot and its parents.
    fn snapshot(&mut self, full_key: &str) -> Result<()> {
        let mut next = Some(full_key.to_owned());
        while let Some(full_key) = next.take() {
            let Some(record) = self.state.snapshots.get(&full_key) else { break };
            if !self.marks.snapshots.insert(full_key.clone()) {
                break;
            }
            let (snapshotter, namespace, _) = split_snapshot_key(&full_key)?;
            self.labels(&namespace, &record.labels)?;
            next = record.parent.as_ref().map(|parent| format!("{snapshotter}/{namespace}/{parent}"));
        }
        Ok(())
    }

    /// containerd's reference labels, with their `.suffix` and `/suffix` forms.
    fn labels(&mut self, namespace: &str, labels: &Labels) -> Result<()> {
        for (label, value) in labels {
            if let Some(rest) = label.strip_prefix(CONTENT_LABEL) {
                if matches!(rest.as_bytes().first(), None | Some(b'.' | b'/'))
                    && let Ok(digest) = value.parse()
                {
                    self.content(namespace, &digest)?;
                }
            } else if let Some(rest) = label.strip_prefix(SNAPSHOT_LABEL) {
                let snapshotter = rest.split(['.', '/']).next().unwrap_or(rest);
                self.snapshot(&format!("{snapshotter}/{namespace}/{value}"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
