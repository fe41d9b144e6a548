//! Images in and out of archives.

use std::io::{Read, Write};
use std::sync::Arc;

use rcontainerd_registry::Document;
use rcontainerd_registry::manifest::INDEX_DEPTH_MAX;
use rcontainerd_store::archive::{self, SaveImage};
use rcontainerd_store::{Durability, Labels};
use rcontainerd_types::{Descriptor, Digest, Error, Platform, Reference, Result};

use super::catalog::{Catalog, ImageRow, dangling_name, no_such_image};
use super::lease::{Holder, Lease, Purpose};
use super::model::{ImageEvent, LoadedImage};
use super::pull::{Naming, commit_names};
use super::state::{State, blocking};
use super::{document, fetch, platforms};

/// An image of the archive whose blobs are stored.
struct Arrived {
    names: Vec<Reference>,
    target: Descriptor,
    config: Digest,
    row: ImageRow,
}

pub(super) async fn load(
    state: &Arc<State>,
    namespace: &str,
    archive: impl Read + Send + 'static,
    platform: Option<Platform>,
) -> Result<Vec<LoadedImage>> {
    let lease = Lease::take(state, namespace, Purpose::Make, Vec::new()).await?;
    let loaded = load_held(state, namespace, archive, platform, lease.holder()).await;
    lease.settle(loaded).await
}

async fn load_held(
    state: &Arc<State>,
    namespace: &str,
    archive: impl Read + Send + 'static,
    platform: Option<Platform>,
    lease: Arc<Holder>,
) -> Result<Vec<LoadedImage>> {
    let arrived = {
        let (state, namespace) = (Arc::clone(state), namespace.to_owned());
        blocking(move || arrive(&state, &namespace, archive, platform.as_ref(), &lease)).await?
    };
    for image in &arrived {
        for position in 0..image.row.layers.len() {
            fetch::unpack(state, namespace, &image.row.layers[..=position]).await?;
        }
    }
    let (state, namespace) = (Arc::clone(state), namespace.to_owned());
    blocking(move || name_all(&state, &namespace, arrived)).await
}

fn arrive(state: &State, namespace: &str, stream: impl Read, platform: Option<&Platform>, lease: &Holder) -> Result<Vec<Arrived>> {
    let content = state.store.content(namespace);
    let (mut arrived, mut labels) = (Vec::new(), Vec::new());
    for image in archive::load_held(&content, stream, &mut |digests| lease.content(digests))? {
        let none = || Error::not_found(format!("the archive's image {} has no manifest in it", image.target.digest));
        let (descriptor, document) = match platform {
            None => document::local_manifest(&content, &image.target, INDEX_DEPTH_MAX)?.ok_or_else(none)?,
            Some(platform) => {
                let found = document::of_platform(&content, &image.target, platform)?;
                let (descriptor, manifest) = found.ok_or_else(|| platforms::lacks(&image.target.digest, platform))?;
                (descriptor, Document::Manifest(manifest))
            }
        };
        let (id, row) = document::row(&content, &descriptor, &document)?;
        let names = image.names.iter().map(|name| nameable(name)).collect::<Result<_>>()?;
        labels.extend(references(&content, &image.target)?);
        arrived.push(Arrived { names, target: image.target, config: id, row });
    }
    lease.layers(arrived.iter().map(|image| &image.row))?;
    state.store.metadata().write_as(Durability::Volatile, |tx| {
        labels.into_iter().try_for_each(|(digest, labels)| content.add_labels_in(tx, &digest, labels))
    })?;
    Ok(arrived)
}

fn nameable(name: &str) -> Result<Reference> {
    let reference = name.parse::<Reference>()?.or_latest();
    reference.check_unambiguous().map(|()| reference)
}

/// What ties the documents together for garbage collection, by document.
fn references(content: &rcontainerd_store::Content, target: &Descriptor) -> Result<Vec<(Digest, Labels)>> {
    let mut found = Vec::new();
    let mut todo = vec![(target.clone(), INDEX_DEPTH_MAX)];
    while let Some((descriptor, depth)) = todo.pop() {
        if depth == 0 || !content.contains(&descriptor.digest)? {
            continue;
        }
        let document = document::read(content, &descriptor)?;
        found.push((descriptor.digest, document::references(&document)));
        if let Document::Index(index) = document {
            todo.extend(index.manifests.into_iter().map(|entry| (entry, depth - 1)));
        }
    }
    Ok(found)
}

/// All or none of them get their names.
fn name_all(state: &State, namespace: &str, arrived: Vec<Arrived>) -> Result<Vec<LoadedImage>> {
    let catalog = state.catalog(namespace)?;
    let (mut namings, mut loaded) = (Vec::new(), Vec::new());
    for Arrived { names, target, config, row } in arrived {
        let naming = |name: String| Naming { name, target: target.clone(), image: config.clone(), row: row.clone(), pulled: false };
        if names.is_empty() && catalog.entries_of(&config).next().is_none() {
            namings.push(naming(dangling_name(&target.digest)));
        }
        namings.extend(names.iter().map(|name| naming(name.to_string())));
        let names = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
        loaded.extend(names.into_iter().map(|name| LoadedImage { id: config.clone(), name }));
    }
    commit_names(state, namespace, namings, None)?;
    for LoadedImage { id, name } in &loaded {
        let name = name.as_ref().map_or_else(|| id.to_string(), Reference::familiar);
        state.tell(ImageEvent::Load { id: id.clone(), name });
    }
    Ok(loaded)
}

pub(super) fn save(state: &State, namespace: &str, names: &[String], platform: Option<&Platform>, out: impl Write) -> Result<()> {
    if names.is_empty() {
        return Err(Error::invalid("no image to save: name one or more"));
    }
    let catalog = state.catalog(namespace)?;
    let content = state.store.content(namespace);
    let mut images: Vec<(Digest, SaveImage)> = Vec::new();
    for name in names {
        for (image, reference) in chosen(&catalog, name)? {
            let target = platforms::to_carry(&catalog, &content, &image, name, platform)?;
            let position = images.iter().position(|(known, _)| *known == image).unwrap_or_else(|| {
                images.push((image.clone(), SaveImage { names: Vec::new(), target }));
                images.len() - 1
            });
            let names = &mut images[position].1.names;
            if let Some(reference) = reference.filter(|reference| !names.contains(reference)) {
                names.push(reference);
            }
        }
    }
    let (ids, images): (Vec<Digest>, Vec<SaveImage>) = images.into_iter().unzip();
    archive::save(&content, &images, out)?;
    for id in ids {
        state.tell(ImageEvent::Save { name: id.to_string(), id });
    }
    Ok(())
}

/// The images that a name stands for, each with the tag to write: a repository without tag means all its tags, an id none.
fn chosen(catalog: &Catalog, name: &str) -> Result<Vec<(Digest, Option<String>)>> {
    if let Ok(reference) = name.parse::<Reference>()
        && reference.tag().is_none()
        && reference.digest().is_none()
    {
        let tagged = |found: &&Reference| found.tag().is_some();
        let all: Vec<_> = catalog
            .entries_in(&reference.name())
            .filter_map(|entry| entry.reference.as_ref().filter(tagged).map(|found| (entry.row.image.clone(), Some(found.to_string()))))
            .collect();
        if !all.is_empty() {
            return Ok(all);
        }
    }
    let (image, entry) = catalog.resolve(name).map_err(|err| match err.kind() {
        rcontainerd_types::ErrorKind::NotFound => no_such_image(name),
        _ => err,
    })?;
    let tag = entry.and_then(|entry| entry.reference.as_ref()).filter(|reference| reference.tag().is_some()).map(ToString::to_string);
    Ok(vec![(image, tag)])
}
