//! Images of several platforms under one name: a name runs as one of them, the others are carried along.

use std::collections::BTreeMap;
use std::fmt::Display;

use rcontainerd_registry::Document;
use rcontainerd_registry::manifest::INDEX_DEPTH_MAX;
use rcontainerd_store::Content;
use rcontainerd_types::{Descriptor, Digest, Error, Platform, Result};

use super::catalog::{Catalog, ImageRow};
use super::model::{Image, LocalManifest};
use super::state::State;
use super::{document, list};

/// What a statement's entry in an index says of whom it is about (BuildKit).
const ATTESTS: &str = "vnd.docker.reference.digest";

/// In Docker's words.
pub(super) fn lacks(name: impl Display, platform: &Platform) -> Error {
    Error::not_found(format!("image with reference {name} was found but does not provide the specified platform ({platform})"))
}

/// The documents that an image's names stand for.
fn targets<'a>(catalog: &'a Catalog, image: &'a Digest) -> impl Iterator<Item = &'a Descriptor> {
    catalog.entries_of(image).map(|entry| &entry.record.target)
}

/// Image and layers of one platform under a name.
pub(super) fn image(state: &State, namespace: &str, name: &str, platform: &Platform) -> Result<(Image, ImageRow)> {
    let catalog = state.catalog(namespace)?;
    let content = state.store.content(namespace);
    let (id, _) = catalog.resolve(name)?;
    for target in targets(&catalog, &id) {
        if let Some((descriptor, manifest)) = document::of_platform(&content, target, platform)? {
            let (id, mut row) = document::row(&content, &descriptor, &Document::Manifest(manifest))?;
            document::measure(&state.store, namespace, &mut row);
            return Ok((list::image_of(&state.store, namespace, &catalog, &id, &row)?, row));
        }
    }
    Err(lacks(name, platform))
}

/// What a save of the image takes along: that platform; else the index, if more than one image of it is here; else the image.
pub(super) fn to_carry(
    catalog: &Catalog,
    content: &Content,
    image: &Digest,
    name: &str,
    platform: Option<&Platform>,
) -> Result<Descriptor> {
    for target in targets(catalog, image) {
        match platform {
            Some(platform) => {
                if let Some((descriptor, _)) = document::of_platform(content, target, platform)? {
                    return Ok(descriptor);
                }
            }
            None => {
                let mut whole = 0;
                for (descriptor, _) in document::manifests(content, target)? {
                    whole += usize::from(document::is_whole(content, &descriptor, INDEX_DEPTH_MAX)?);
                }
                if whole > 1 {
                    return Ok(target.clone());
                }
            }
        }
    }
    platform.map_or_else(|| Ok(catalog.row(image)?.manifest.clone()), |platform| Err(lacks(name, platform)))
}

/// The manifests of every image, as its index lists them.
pub(super) fn all(state: &State, namespace: &str) -> Result<BTreeMap<Digest, Vec<LocalManifest>>> {
    let catalog = state.catalog(namespace)?;
    let content = state.store.content(namespace);
    let mut found = BTreeMap::new();
    for (image, _) in catalog.images() {
        let mut manifests: Vec<LocalManifest> = Vec::new();
        for target in targets(&catalog, image) {
            for entry in entries(&content, target)? {
                if !manifests.iter().any(|known| known.descriptor.digest == entry.digest) {
                    manifests.push(manifest(state, namespace, &content, entry)?);
                }
            }
        }
        found.insert(image.clone(), manifests);
    }
    Ok(found)
}

/// The manifests that a target lists, nested indexes' too; itself if it is none.
fn entries(content: &Content, target: &Descriptor) -> Result<Vec<Descriptor>> {
    let mut listed = Vec::new();
    let mut todo = vec![(target.clone(), INDEX_DEPTH_MAX)];
    while let Some((descriptor, depth)) = todo.pop() {
        let here = depth > 0 && content.contains(&descriptor.digest)?;
        match if here { Some(document::read(content, &descriptor)?) } else { None } {
            Some(Document::Index(index)) => todo.extend(index.manifests.into_iter().rev().map(|entry| (entry, depth - 1))),
            _ => listed.push(descriptor),
        }
    }
    Ok(listed)
}

fn manifest(state: &State, namespace: &str, content: &Content, descriptor: Descriptor) -> Result<LocalManifest> {
    let attests = descriptor.annotations.get(ATTESTS).and_then(|digest| digest.parse().ok());
    let available = document::is_whole(content, &descriptor, INDEX_DEPTH_MAX)?;
    let size = |digest: &Digest| content.info(digest).map_or(0, |info| info.size);
    let held = document::closure(content, &descriptor)?.iter().map(size).sum();
    let mut found = LocalManifest { platform: descriptor.platform.clone(), descriptor, attests, available, content: held, unpacked: 0 };
    if available
        && let Ok(parsed @ Document::Manifest(_)) = document::read(content, &found.descriptor)
        && let Ok((id, row)) = document::row(content, &found.descriptor, &parsed)
    {
        found.platform = Some(document::read_config(content, &id)?.platform());
        let snapshots = state.store.snapshots(namespace);
        let unpacked = |layer: &super::catalog::LayerRow| snapshots.usage(&layer.chain_id.to_string()).map_or(0, |usage| usage.size);
        found.unpacked = row.layers.iter().map(unpacked).sum();
    }
    Ok(found)
}
