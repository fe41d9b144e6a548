//! Manifests, indexes and configs in the content store: kept with the labels that garbage collection follows, read back with limits.

use std::collections::BTreeMap;

use rcontainerd_registry::manifest::{self, INDEX_DEPTH_MAX, MANIFEST_MAX};
use rcontainerd_registry::{Artifact, Document, Index, Manifest};
use rcontainerd_store::unpack::chain_ids;
use rcontainerd_store::{Content, Expected, Labels, Store};
use rcontainerd_types::{Descriptor, Digest, Error, ErrorKind, Platform, Result, id, media_type};

use super::catalog::{ArtifactRow, ImageRow, LayerRow};
use super::config::{CONFIG_MAX, ImageFile};
use super::list;

/// containerd's label for "this blob needs that one".
const GC_CONTENT: &str = "containerd.io/gc.ref.content";
const GC_REFERRER: &str = "containerd.io/gc.ref.content.referrer.";

/// Stores a verified document, to be settled with what leads to it; the labels are added to those that it may have.
pub(super) fn keep(content: &Content, descriptor: &Descriptor, bytes: &[u8], labels: Labels) -> Result<()> {
    let expected = Expected { digest: descriptor.digest.clone(), size: descriptor.size };
    // A key of its own: two pulls of one image may write the same document at once.
    let key = format!("document-{}-{}", descriptor.digest, id::short(&id::generate()?));
    match content.ingest(&key, Some(&expected)) {
        Ok(mut ingest) => {
            ingest.append(bytes)?;
            ingest.commit_unsettled(Some(descriptor.size), Some(&descriptor.digest), &labels)?;
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
        Document::Artifact(artifact) => {
            let label = |(n, blob): (usize, &Descriptor)| (format!("{GC_CONTENT}.l.{n}"), blob.digest.to_string());
            let config = (format!("{GC_CONTENT}.config"), artifact.config.digest.to_string());
            artifact.blobs.iter().enumerate().map(label).chain([config]).collect()
        }
    }
}

/// The label of a document that others refer to (signatures, lists of parts): they stay as long as it does.
pub(super) fn referrers(digests: &[Digest]) -> Labels {
    digests.iter().enumerate().map(|(n, digest)| (format!("{GC_REFERRER}{n}"), digest.to_string())).collect()
}

/// Whether a document is here that others which are here refer to.
pub(super) fn has_referrers(content: &Content, digest: &Digest) -> Result<bool> {
    match content.info(digest) {
        Ok(info) => Ok(info.labels.keys().any(|label| label.starts_with(GC_REFERRER))),
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(false),
        Err(err) => Err(err),
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
    Ok(ImageRow { manifest: descriptor.clone(), parent: None, artifact: None, layers, brief: Some(list::brief(file)) })
}

/// What is no image has no layers: its id is that of its manifest.
pub(super) fn artifact_row(descriptor: &Descriptor, artifact: &Artifact) -> ImageRow {
    let size = artifact.blobs.iter().chain([&artifact.config]).map(|blob| blob.size).fold(0, u64::saturating_add);
    let artifact = Some(ArtifactRow { kind: artifact.kind.clone(), size });
    ImageRow { manifest: descriptor.clone(), parent: None, artifact, layers: Vec::new(), brief: None }
}

/// Image id and row of a manifest that is here.
pub(super) fn row(content: &Content, descriptor: &Descriptor, document: &Document) -> Result<(Digest, ImageRow)> {
    match document {
        Document::Manifest(manifest) => {
            let file = read_config(content, &manifest.config.digest)?;
            Ok((manifest.config.digest.clone(), image_row(descriptor, manifest, &file)?))
        }
        Document::Artifact(artifact) => Ok((descriptor.digest.clone(), artifact_row(descriptor, artifact))),
        Document::Index(_) => Err(Error::internal("a manifest that was looked for in an index is one")),
    }
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
    let Some((descriptor, document)) = found else { return Ok(None) };
    let Ok((id, mut row)) = row(&content, &descriptor, &document) else { return Ok(None) };
    measure(store, namespace, &mut row);
    Ok(Some((id, row)))
}

/// Fills in what the layers take: unpacked if they are, else their blobs' sizes.
pub(super) fn measure(store: &Store, namespace: &str, row: &mut ImageRow) {
    let snapshots = store.snapshots(namespace);
    for layer in &mut row.layers {
        layer.size = snapshots.usage(&layer.chain_id.to_string()).map_or(layer.blob.size, |usage| usage.size);
    }
}

/// The manifest that is here, below `target`.
pub(super) fn local_manifest(content: &Content, target: &Descriptor, depth: usize) -> Result<Option<(Descriptor, Document)>> {
    if depth == 0 || !content.contains(&target.digest)? {
        return Ok(None);
    }
    match read(content, target)? {
        manifest @ (Document::Manifest(_) | Document::Artifact(_)) => Ok(Some((target.clone(), manifest))),
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

/// The manifest for a platform below `target`, if it is here with its config.
pub(super) fn of_platform(content: &Content, target: &Descriptor, platform: &Platform) -> Result<Option<(Descriptor, Manifest)>> {
    let all = manifests(content, target)?;
    for (descriptor, manifest) in all {
        let here = content.contains(&manifest.config.digest)?;
        if here && platform.matches(&read_config(content, &manifest.config.digest)?.platform()) {
            return Ok(Some((descriptor, manifest)));
        }
    }
    Ok(None)
}

/// The images below `target` whose manifests are here, in the index's order.
pub(super) fn manifests(content: &Content, target: &Descriptor) -> Result<Vec<(Descriptor, Manifest)>> {
    let mut found = Vec::new();
    let mut todo = vec![(target.clone(), INDEX_DEPTH_MAX)];
    while let Some((descriptor, depth)) = todo.pop() {
        if depth == 0 || !content.contains(&descriptor.digest)? {
            continue;
        }
        match read(content, &descriptor)? {
            Document::Manifest(manifest) => found.push((descriptor, manifest)),
            Document::Index(index) => todo.extend(index.manifests.into_iter().rev().map(|entry| (entry, depth - 1))),
            Document::Artifact(_) => {}
        }
    }
    Ok(found)
}

/// Whether all that `target` leads to is here.
pub(super) fn is_whole(content: &Content, target: &Descriptor, depth: usize) -> Result<bool> {
    if depth == 0 || !content.contains(&target.digest)? {
        return Ok(false);
    }
    let all_here = |blobs: &[Descriptor]| blobs.iter().try_fold(true, |all, blob| Ok(all && content.contains(&blob.digest)?));
    match read(content, target)? {
        Document::Index(index) => index.manifests.iter().try_fold(true, |all, entry| Ok(all && is_whole(content, entry, depth - 1)?)),
        Document::Manifest(manifest) => Ok(content.contains(&manifest.config.digest)? && all_here(&manifest.layers)?),
        Document::Artifact(artifact) => Ok(content.contains(&artifact.config.digest)? && all_here(&artifact.blobs)?),
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
        let referrers = content.info(&descriptor.digest)?.labels.into_iter().filter(|(label, _)| label.starts_with(GC_REFERRER));
        for digest in referrers.filter_map(|(_, digest)| digest.parse::<Digest>().ok()) {
            let size = content.info(&digest).map_or(0, |info| info.size);
            todo.push((Descriptor::new(media_type::OCI_MANIFEST, digest, size), depth - 1));
        }
        match read(content, &descriptor) {
            Ok(Document::Index(index)) => todo.extend(index.manifests.into_iter().map(|entry| (entry, depth - 1))),
            Ok(Document::Manifest(manifest)) => {
                found.push(manifest.config.digest);
                found.extend(manifest.layers.into_iter().map(|layer| layer.digest));
            }
            Ok(Document::Artifact(artifact)) => {
                found.push(artifact.config.digest);
                found.extend(artifact.blobs.into_iter().map(|blob| blob.digest));
            }
            // What is no image document needs nothing.
            Err(err) if matches!(err.kind(), ErrorKind::InvalidArgument | ErrorKind::Unsupported) => {}
            Err(err) => return Err(err),
        }
    }
    Ok(found)
}
