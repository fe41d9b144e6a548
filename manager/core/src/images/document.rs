//! Manifests, indexes and configs in the content store: kept with the labels that garbage collection follows, read back with limits.

use std::collections::BTreeMap;

use rcontainerd_registry::manifest::{self, INDEX_DEPTH_MAX, MANIFEST_MAX};
use rcontainerd_registry::{Document, Index, Manifest};
use rcontainerd_store::unpack::chain_ids;
use rcontainerd_store::{Content, Expected, Labels, Store};
use rcontainerd_types::{Descriptor, Digest, Error, ErrorKind, Platform, Result, id};

use super::catalog::{ImageRow, LayerRow};
use super::config::{CONFIG_MAX, ImageFile};

/// containerd's label for "this blob needs that one".
const GC_CONTENT: &str = "containerd.io/gc.ref.content";

/// Stores a verified document; the labels are added to those that it may have.
pub(super) fn keep(content: &Content, descriptor: &Descriptor, bytes: &[u8], labels: Labels) -> Result<()> {
    let expected = Expected { digest: descriptor.digest.clone(), size: descriptor.size };
    // A key of its own: two pulls of one image may write the same document at once.
    let key = format!("document-{}-{}", descriptor.digest, id::short(&id::generate()?));
    match content.ingest(&key, Some(&expected)) {
        Ok(mut ingest) => {
            ingest.append(bytes)?;
            ingest.commit(Some(descriptor.size), Some(&descriptor.digest), labels)?;
            Ok(())
        }
        Err(err) if err.kind() == ErrorKind::AlreadyExists => add_labels(content, &descriptor.digest, labels),
        Err(err) => Err(err),
    }
}

/// Adds labels where any of them is new.
pub(super) fn add_labels(content: &Content, digest: &Digest, labels: Labels) -> Result<()> {
    let mut all = content.info(digest)?.labels;
    if labels.iter().all(|(key, value)| all.get(key) == Some(value)) {
        return Ok(());
    }
    all.extend(labels);
    content.set_labels(digest, all).map(drop)
}

/// The labels of a document: what it needs.
pub(super) fn references(document: &Document) -> Labels {
    match document {
        Document::Index(index) => {
            let label = |(n, entry): (usize, &Descriptor)| (format!("{GC_CONTENT}.m.{n}"), entry.digest.to_string());
            index.manifests.iter().enumerate().map(label).collect()
        }
        Document::Manifest(manifest) => {
            let label = |(n, layer): (usize, &Descriptor)| (format!("{GC_CONTENT}.l.{n}"), layer.digest.to_string());
            let config = (format!("{GC_CONTENT}.config"), manifest.config.digest.to_string());
            manifest.layers.iter().enumerate().map(label).chain([config]).collect()
        }
    }
}

/// The label of a config: the unpacked image.
pub(super) fn snapshot_reference(snapshotter: &str, chain_id: &Digest) -> Labels {
    BTreeMap::from([(format!("containerd.io/gc.ref.snapshot.{snapshotter}"), chain_id.to_string())])
}

/// Reads a stored manifest or index.
pub(super) fn read(content: &Content, descriptor: &Descriptor) -> Result<Document> {
    let bytes = content.read(&descriptor.digest, MANIFEST_MAX as u64)?;
    manifest::parse(Some(&descriptor.media_type), &bytes).map(|(_, document)| document)
}

/// Reads a stored config.
pub(super) fn read_config(content: &Content, digest: &Digest) -> Result<ImageFile> {
    parse_config(&content.read(digest, CONFIG_MAX)?)
}

pub(super) fn parse_config(bytes: &[u8]) -> Result<ImageFile> {
    let file: ImageFile = serde_json::from_slice(bytes).map_err(|err| Error::invalid(format!("invalid image config: {err}")))?;
    match file.rootfs.kind.as_str() {
        "layers" => Ok(file),
        other => Err(Error::unsupported(format!("image config: root filesystem of type {other:?} (only \"layers\" is known)"))),
    }
}

/// The layers of an image: blobs from the manifest, names from the config.
pub(super) fn image_row(descriptor: &Descriptor, manifest: &Manifest, file: &ImageFile) -> Result<ImageRow> {
    let (blobs, diff_ids) = (&manifest.layers, &file.rootfs.diff_ids);
    if blobs.len() != diff_ids.len() {
        let told = format!("invalid image {}: {} layers in its manifest, {} in its config", descriptor.digest, blobs.len(), diff_ids.len());
        return Err(Error::invalid(told));
    }
    let layer = |((blob, diff_id), chain_id): ((&Descriptor, &Digest), Digest)| LayerRow {
        blob: blob.clone(),
        diff_id: diff_id.clone(),
        chain_id,
        size: 0,
    };
    let layers = blobs.iter().zip(diff_ids).zip(chain_ids(diff_ids)).map(layer).collect();
    Ok(ImageRow { manifest: descriptor.clone(), layers })
}

/// The image that a stored target stands for here: the host's platform if its manifest is here, else the first that is.
/// `None` when none is, or it is no image.
pub(super) fn derive(store: &Store, namespace: &str, target: &Descriptor) -> Result<Option<(Digest, ImageRow)>> {
    let content = store.content(namespace);
    let found = match local_manifest(&content, target, INDEX_DEPTH_MAX) {
        Ok(found) => found,
        Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::InvalidArgument | ErrorKind::Unsupported) => None,
        Err(err) => return Err(err),
    };
    let Some((descriptor, manifest)) = found else { return Ok(None) };
    if !content.contains(&manifest.config.digest)? {
        return Ok(None);
    }
    let Ok(file) = read_config(&content, &manifest.config.digest) else { return Ok(None) };
    let Ok(mut row) = image_row(&descriptor, &manifest, &file) else { return Ok(None) };
    measure(store, namespace, &mut row);
    Ok(Some((manifest.config.digest, row)))
}

/// Fills in what the layers take: unpacked if they are, else their blobs' sizes.
pub(super) fn measure(store: &Store, namespace: &str, row: &mut ImageRow) {
    let snapshots = store.snapshots(namespace);
    for layer in &mut row.layers {
        layer.size = snapshots.usage(&layer.chain_id.to_string()).map_or(layer.blob.size, |usage| usage.size);
    }
}

/// The manifest that is here, below `target`.
pub(super) fn local_manifest(content: &Content, target: &Descriptor, depth: usize) -> Result<Option<(Descriptor, Manifest)>> {
    if depth == 0 || !content.contains(&target.digest)? {
        return Ok(None);
    }
    match read(content, target)? {
        Document::Manifest(manifest) => Ok(Some((target.clone(), manifest))),
        Document::Index(index) => {
            for entry in by_preference(&index) {
                if let Some(found) = local_manifest(content, entry, depth - 1)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        }
    }
}

fn by_preference(index: &Index) -> Vec<&Descriptor> {
    let first = index.choose(&Platform::host()).ok();
    let rest = index.manifests.iter().filter(|entry| Some(*entry) != first);
    first.into_iter().chain(rest).collect()
}

/// Every blob below `target` that is here, `target` included.
pub(super) fn closure(content: &Content, target: &Descriptor) -> Result<Vec<Digest>> {
    let mut found = Vec::new();
    let mut todo = vec![(target.clone(), INDEX_DEPTH_MAX)];
    while let Some((descriptor, depth)) = todo.pop() {
        if depth == 0 || found.contains(&descriptor.digest) || !content.contains(&descriptor.digest)? {
            continue;
        }
        found.push(descriptor.digest.clone());
        match read(content, &descriptor) {
            Ok(Document::Index(index)) => todo.extend(index.manifests.into_iter().map(|entry| (entry, depth - 1))),
            Ok(Document::Manifest(manifest)) => {
                found.push(manifest.config.digest);
                found.extend(manifest.layers.into_iter().map(|layer| layer.digest));
            }
            // What is no image document needs nothing.
            Err(err) if matches!(err.kind(), ErrorKind::InvalidArgument | ErrorKind::Unsupported) => {}
            Err(err) => return Err(err),
        }
    }
    Ok(found)
}
