//! Images in and out of archives.

use std::io::{Read, Write};
use std::sync::Arc;

use rcontainerd_registry::manifest::INDEX_DEPTH_MAX;
use rcontainerd_store::archive::{self, SaveImage};
use rcontainerd_types::{Descriptor, Digest, Error, Reference, Result};

use super::catalog::{Catalog, ImageRow, dangling_name, no_such_image};
use super::document;
use super::fetch;
use super::model::{ImageEvent, LoadedImage};
use super::pull::commit_name;
use super::state::{State, blocking};

/// An image of the archive whose blobs are stored.
struct Arrived {
    names: Vec<Reference>,
    target: Descriptor,
    config: Digest,
    row: ImageRow,
}

pub(super) async fn load(state: &Arc<State>, namespace: &str, archive: impl Read + Send + 'static) -> Result<Vec<LoadedImage>> {
    let arrived = {
        let (state, namespace) = (Arc::clone(state), namespace.to_owned());
        blocking(move || arrive(&state, &namespace, archive)).await?
    };
    let mut loaded = Vec::new();
    for image in arrived {
        for position in 0..image.row.layers.len() {
            fetch::unpack(state, namespace, &image.row.layers[..=position]).await?;
        }
        let (state, namespace) = (Arc::clone(state), namespace.to_owned());
        loaded.extend(blocking(move || name(&state, &namespace, &image)).await?);
    }
    Ok(loaded)
}

fn arrive(state: &State, namespace: &str, stream: impl Read) -> Result<Vec<Arrived>> {
    let content = state.store.content(namespace);
    let mut arrived = Vec::new();
    for image in archive::load(&content, stream)? {
        let none = || Error::not_found(format!("the archive's image {} has no manifest in it", image.target.digest));
        let (descriptor, manifest) = document::local_manifest(&content, &image.target, INDEX_DEPTH_MAX)?.ok_or_else(none)?;
        let file = document::read_config(&content, &manifest.config.digest)?;
        let row = document::image_row(&descriptor, &manifest, &file)?;
        let names = image.names.iter().map(|name| name.parse::<Reference>().map(Reference::or_latest)).collect::<Result<_>>()?;
        label(&content, &image.target)?;
        arrived.push(Arrived { names, target: image.target, config: manifest.config.digest, row });
    }
    Ok(arrived)
}

/// Ties the documents together for garbage collection.
fn label(content: &rcontainerd_store::Content, target: &Descriptor) -> Result<()> {
    let mut todo = vec![(target.clone(), INDEX_DEPTH_MAX)];
    while let Some((descriptor, depth)) = todo.pop() {
        if depth == 0 || !content.contains(&descriptor.digest)? {
            continue;
        }
        let document = document::read(content, &descriptor)?;
        document::add_labels(content, &descriptor.digest, document::references(&document))?;
        if let rcontainerd_registry::Document::Index(index) = document {
            todo.extend(index.manifests.into_iter().map(|entry| (entry, depth - 1)));
        }
    }
    Ok(())
}

fn name(state: &State, namespace: &str, image: &Arrived) -> Result<Vec<LoadedImage>> {
    let id = image.config.clone();
    if image.names.is_empty() {
        if Catalog::read(&state.store, namespace)?.entries_of(&id).next().is_none() {
            let held = dangling_name(&image.target.digest);
            commit_name(state, namespace, &held, &image.target, &id, image.row.clone(), false)?;
        }
        state.tell(ImageEvent::Load { id: id.clone(), name: id.to_string() });
        return Ok(vec![LoadedImage { id, name: None }]);
    }
    let mut loaded = Vec::new();
    for name in &image.names {
        commit_name(state, namespace, &name.to_string(), &image.target, &id, image.row.clone(), false)?;
        state.tell(ImageEvent::Load { id: id.clone(), name: name.familiar() });
        loaded.push(LoadedImage { id: id.clone(), name: Some(name.clone()) });
    }
    Ok(loaded)
}

pub(super) fn save(state: &State, namespace: &str, names: &[String], out: impl Write) -> Result<()> {
    if names.is_empty() {
        return Err(Error::invalid("no image to save: name one or more"));
    }
    let catalog = Catalog::read(&state.store, namespace)?;
    let mut images: Vec<(Digest, SaveImage)> = Vec::new();
    for name in names {
        for (image, reference) in chosen(&catalog, name)? {
            let target = catalog.row(&image)?.manifest.clone();
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
    archive::save(&state.store.content(namespace), &images, out)?;
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
        let tagged = |found: &&Reference| found.name() == reference.name() && found.tag().is_some();
        let all: Vec<_> = catalog
            .entries
            .iter()
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
