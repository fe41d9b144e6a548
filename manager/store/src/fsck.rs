//! Checks database, blobs, snapshots and images against each other; repairs what can be repaired without the network.
//!
//! An empty report means clean. What `repair` does is always the side of caution: rubbish that nobody refers to is removed; a record
//! whose blob is lost or damaged is dropped, so that the next pull fetches just that blob instead of taking it for present.

use std::collections::{BTreeMap, BTreeSet};

use rcontainerd_types::{Digest, Error, ErrorKind, Finding, Result, Severity};

use crate::content::{BLOBS, BlobRow, CONTENT};
use crate::fs;
use crate::image::{DOCUMENT_MAX, Document, is_document};
use crate::metadata::WriteTx;
use crate::records::{CONTAINER_LINKS, IMAGES};
use crate::snapshot::{Kind, SNAPSHOTS, SnapshotRecord};
use crate::store::Store;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsckOptions {
    /// Hash every blob (reads all of them); otherwise only their sizes are compared.
    pub digests: bool,
    pub repair: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    pub findings: Vec<Finding>,
    /// Blobs that are lost or damaged and that some namespace wants: fetch these again.
    pub refetch: Vec<Digest>,
}

impl FsckReport {
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    fn add(&mut self, severity: Severity, subject: String, observed: impl Into<String>, cost: &str, remedy: &str) {
        self.findings.push(Finding { severity, subject, observed: observed.into(), cost: cost.into(), remedy: remedy.into() });
    }
}

const REPAIR: &str = "run fsck with --repair";

impl Store {
    /// # Errors
    /// When the database or a directory cannot be read at all.
    pub fn fsck(&self, options: &FsckOptions) -> Result<FsckReport> {
        let mut report = FsckReport::default();
        if !self.metadata().verify()? {
            report.add(
                Severity::Degraded,
                "metadata database".into(),
                "it had not been closed cleanly and was repaired from its last commit",
                "",
                "",
            );
        }
        self.check_blobs(options, &mut report)?;
        self.check_snapshots(options, &mut report)?;
        self.check_images(&mut report)?;
        Ok(report)
    }

    fn check_blobs(&self, options: &FsckOptions, report: &mut FsckReport) -> Result<()> {
        // Reading all blobs takes its time: nobody waits for that, and what was seen is looked at again below.
        let suspects = self.suspects(options)?;
        let publishing = self.content_files().hold_publishing();
        let (rows, seen) = self.metadata().read(|tx| Ok((tx.list(BLOBS)?, tx.keys(CONTENT, "")?)))?;
        let mut bad = Vec::new();
        for (digest, observed) in suspects {
            // Removed since, or removed and fetched anew.
            let row = self.metadata().read(|tx| tx.get(BLOBS, &digest.to_string()))?;
            let damage = row.map(|row| self.blob_damage(&digest, &row, options)).transpose()?;
            if damage.flatten().is_none() {
                continue;
            }
            let remedy = if options.repair { "pull or load its image again" } else { REPAIR };
            report.add(Severity::Broken, format!("content {digest}"), observed, "images that use it cannot be unpacked", remedy);
            report.refetch.push(digest.clone());
            bad.push(digest);
        }
        let known: BTreeSet<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
        for orphan in self.content_files().files()?.into_iter().filter(|digest| !known.contains(digest.to_string().as_str())) {
            report.add(Severity::Degraded, format!("content {orphan}"), "a file without record", "takes space", removed(options, REPAIR));
            if options.repair {
                fs::remove_file_if_there(&self.content_files().blob_path(&orphan))?;
            }
        }
        let strays = disagreements(&rows, &seen);
        for (namespace, name) in &strays {
            let observed = format!("namespace {namespace} and the blob's own record disagree");
            report.add(
                Severity::Degraded,
                format!("content {name}"),
                observed,
                "it could outlive its use, or vanish early",
                removed(options, REPAIR),
            );
        }
        if options.repair && !(bad.is_empty() && strays.is_empty()) {
            for digest in self.metadata().write(|tx| drop_rows(tx, &bad, &strays))? {
                fs::remove_file_if_there(&self.content_files().blob_path(&digest))?;
            }
        }
        drop(publishing);
        Ok(())
    }

    fn suspects(&self, options: &FsckOptions) -> Result<Vec<(Digest, String)>> {
        let mut suspects = Vec::new();
        for (name, row) in self.metadata().read(|tx| tx.list(BLOBS))? {
            let digest: Digest = name.parse()?;
            suspects.extend(self.blob_damage(&digest, &row, options)?.map(|observed| (digest, observed)));
        }
        Ok(suspects)
    }

    fn blob_damage(&self, digest: &Digest, row: &BlobRow, options: &FsckOptions) -> Result<Option<String>> {
        let path = self.content_files().blob_path(digest);
        match std::fs::metadata(&path) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Some("its file is gone".into())),
            Err(err) => return Err(fs::failed("stat", &path)(err)),
            Ok(found) if found.len() != row.size => return Ok(Some(format!("it has {} bytes instead of {}", found.len(), row.size))),
            Ok(_) => {}
        }
        if !options.digests {
            return Ok(None);
        }
        match self.content_files().hash(digest) {
            Ok(found) if found == *digest => Ok(None),
            Ok(found) => Ok(Some(format!("its bytes have digest {found}"))),
            Err(err) => Ok(Some(format!("it cannot be read: {err}"))),
        }
    }

    fn check_snapshots(&self, options: &FsckOptions, report: &mut FsckReport) -> Result<()> {
        for backend in self.backends() {
            let records: BTreeMap<String, SnapshotRecord> = backend.records()?.into_iter().collect();
            for (full_key, record) in &records {
                let lost = !backend.dir(record.dir).join("fs").is_dir();
                // A removal takes the record first.
                if lost && self.metadata().read(|tx| tx.get(SNAPSHOTS, full_key))?.is_some_and(|now| now.dir == record.dir) {
                    report.add(
                        Severity::Broken,
                        format!("snapshot {full_key}"),
                        "its directory is gone",
                        "it cannot be mounted",
                        removed(options, REPAIR),
                    );
                    if options.repair {
                        self.metadata().write(|tx| tx.delete(SNAPSHOTS, full_key))?;
                    }
                }
                if let Some(parent) = missing_parent(&records, full_key, record) {
                    let observed = format!("its parent {parent:?} is not a committed snapshot");
                    report.add(
                        Severity::Broken,
                        format!("snapshot {full_key}"),
                        observed,
                        "it cannot be mounted",
                        "remove it and pull its image again",
                    );
                }
            }
            self.check_snapshot_dirs(backend, options, report)?;
        }
        Ok(())
    }

    fn check_snapshot_dirs(&self, backend: &crate::snapshot::Shared, options: &FsckOptions, report: &mut FsckReport) -> Result<()> {
        backend.remove_leftover();
        let busy = |name: &str| name.starts_with("check-") || name.parse().is_ok_and(|number| backend.is_busy(number));
        let names: Vec<String> = fs::entry_names(backend.root())?.into_iter().filter(|name| !busy(name)).collect();
        // After the look at who is busy: what was being made then has its record now, what was being removed is gone.
        let known: BTreeSet<String> = backend.records()?.into_iter().map(|(_, record)| record.dir.to_string()).collect();
        for name in names.into_iter().filter(|name| !known.contains(name)) {
            if !backend.root().join(&name).exists() || busy(&name) {
                continue;
            }
            let subject = format!("{} directory {name}", backend.name());
            report.add(Severity::Degraded, subject, "no snapshot owns it", "takes space", removed(options, REPAIR));
            if options.repair {
                fs::remove_tree_if_there(&backend.root().join(&name))?;
            }
        }
        Ok(())
    }

    /// Images that lack parts.
    fn check_images(&self, report: &mut FsckReport) -> Result<()> {
        for (key, image) in self.metadata().read(|tx| tx.list(IMAGES))? {
            let namespace = key.split('/').next().unwrap_or_default();
            let Some(observed) = self.image_damage(namespace, &image.target)? else { continue };
            // Its content goes after the image has gone.
            if self.metadata().read(|tx| tx.get(IMAGES, &key))?.is_some_and(|now| now.target == image.target) {
                let subject = format!("image {} (namespace {namespace})", image.name);
                report.add(Severity::Broken, subject, observed, "containers cannot be made of it", "pull or load it again");
            }
        }
        Ok(())
    }

    /// Containers whose snapshot is gone: (namespace, id, snapshot). Whoever removes a container removes one before the other, so what is
    /// told here may be on its way out.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn containers_without_snapshot(&self) -> Result<Vec<(String, String, String)>> {
        let mut lacking = Vec::new();
        for (key, container) in self.metadata().read(|tx| tx.list(CONTAINER_LINKS))? {
            if container.snapshot_key.is_empty() {
                continue;
            }
            let namespace = key.split('/').next().unwrap_or_default();
            match self.snapshotter(namespace, &container.snapshotter)?.stat(&container.snapshot_key) {
                Ok(_) => {}
                Err(err) if err.kind() == ErrorKind::NotFound => {
                    lacking.push((namespace.to_owned(), container.id, container.snapshot_key));
                }
                Err(err) => return Err(err),
            }
        }
        Ok(lacking)
    }

    /// Names of a namespace's images that lack parts, or whose manifests cannot be read.
    ///
    /// # Errors
    /// When the database or a file cannot be read.
    pub fn damaged_images(&self, namespace: &str) -> Result<Vec<String>> {
        let mut damaged = Vec::new();
        for image in self.images(namespace).list()? {
            if self.image_damage(namespace, &image.target)?.is_some() {
                damaged.push(image.name);
            }
        }
        Ok(damaged)
    }

    /// An index needs one manifest that is here, a manifest that is here needs its config and its layers.
    fn image_damage(&self, namespace: &str, target: &crate::Descriptor) -> Result<Option<String>> {
        let content = self.content(namespace);
        if !content.contains(&target.digest)? {
            return Ok(Some(format!("its manifest {} is not in the store", target.digest)));
        }
        if !is_document(target) {
            return Ok(None);
        }
        let document = match content.read(&target.digest, DOCUMENT_MAX).and_then(|bytes| Document::parse(&bytes)) {
            Ok(document) => document,
            Err(err) if matches!(err.kind(), ErrorKind::DataLoss | ErrorKind::InvalidArgument) => {
                return Ok(Some(err.message().to_owned()));
            }
            Err(err) => return Err(err),
        };
        match document {
            Document::Manifest(manifest) => {
                for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
                    if !content.contains(&part.digest)? {
                        return Ok(Some(format!("its part {} is not in the store", part.digest)));
                    }
                }
                Ok(None)
            }
            Document::Index(index) => {
                let mut any = false;
                for child in &index.manifests {
                    if content.contains(&child.digest)? {
                        any = true;
                        if let Some(damage) = self.image_damage(namespace, child)? {
                            return Ok(Some(damage));
                        }
                    }
                }
                Ok((!any).then(|| "none of its platforms is in the store".to_owned()))
            }
        }
    }
}

fn removed<'a>(options: &FsckOptions, otherwise: &'a str) -> &'a str {
    if options.repair { "repaired" } else { otherwise }
}

fn missing_parent<'a>(records: &BTreeMap<String, SnapshotRecord>, full_key: &str, record: &'a SnapshotRecord) -> Option<&'a str> {
    let parent = record.parent.as_deref()?;
    let mut parts = full_key.splitn(3, '/');
    let (snapshotter, namespace) = (parts.next()?, parts.next()?);
    let found = records.get(&format!("{snapshotter}/{namespace}/{parent}"));
    (found.map(|found| found.kind) != Some(Kind::Committed)).then_some(parent)
}

/// (namespace, digest) that only one of the two tables knows.
fn disagreements(rows: &[(String, BlobRow)], seen: &[String]) -> Vec<(String, String)> {
    let by_blob: BTreeSet<String> =
        rows.iter().flat_map(|(name, row)| row.namespaces.iter().map(move |namespace| format!("{namespace}/{name}"))).collect();
    let by_content: BTreeSet<String> = seen.iter().cloned().collect();
    let strays = by_blob.symmetric_difference(&by_content);
    strays.filter_map(|key| key.split_once('/')).map(|(namespace, name)| (namespace.to_owned(), name.to_owned())).collect()
}

/// Makes the two tables agree: a blob that is bad goes from both, a stray record goes, a stray mention goes. Gives the blobs that
/// nobody sees any more, whose files are to be removed.
fn drop_rows(tx: &WriteTx<'_>, bad: &[Digest], strays: &[(String, String)]) -> Result<Vec<Digest>> {
    let mut gone = bad.to_vec();
    for digest in bad {
        let name = digest.to_string();
        let row = tx.get(BLOBS, &name)?.ok_or_else(|| Error::internal(format!("content {digest} vanished during the check")))?;
        for namespace in &row.namespaces {
            tx.delete(CONTENT, &crate::metadata::key(namespace, &name))?;
        }
        tx.delete(BLOBS, &name)?;
    }
    for (namespace, name) in strays {
        tx.delete(CONTENT, &crate::metadata::key(namespace, name))?;
        if let Some(mut row) = tx.get(BLOBS, name)? {
            row.namespaces.remove(namespace);
            if row.namespaces.is_empty() {
                tx.delete(BLOBS, name)?;
                gone.push(name.parse()?);
            } else {
                tx.put(BLOBS, name, &row)?;
            }
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests;
