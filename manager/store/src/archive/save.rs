//! Writing an archive that both worlds read: OCI layout (`index.json`, `oci-layout`, `blobs/`) and docker-archive (`manifest.json`,
//! `repositories`), as Docker 25 and later write it. Members are sorted, dates are the epoch: equal images give equal bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use rcontainerd_types::{Digest, Error, Platform, Reference, Result};
use serde::Serialize;
use tar::{Builder, EntryType, Header};

use super::{DockerImage, IMAGE_NAME, REF_NAME, SaveImage, blob_path};
use crate::content::Content;
use crate::descriptor::{Descriptor, media_type};
use crate::image::{Document, Index, is_document, read_document, resolve};

/// Writes images as one archive that is both docker-archive and OCI layout; the same images give the same bytes.
///
/// # Errors
/// `NotFound` for a missing blob (of a multi-platform image, at least one platform must be complete), or the writer's error.
pub fn save(content: &Content, images: &[SaveImage], output: impl Write) -> Result<()> {
    let mut plan = Plan::default();
    for image in images {
        plan.image(content, image)?;
    }
    plan.write(content, output)
}

/// Everything that goes into the archive, decided before the first byte.
#[derive(Default)]
struct Plan {
    blobs: BTreeSet<Digest>,
    index: Vec<Descriptor>,
    docker: Vec<DockerImage>,
    /// Repository → tag → id of the top layer's blob, for very old readers.
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

impl Plan {
    fn image(&mut self, content: &Content, image: &SaveImage) -> Result<()> {
        if !self.collect(content, &image.target)? {
            return Err(Error::not_found(format!("image {}: its content is not here: pull it again", image.target.digest)));
        }
        let references = image.names.iter().map(|name| name.parse::<Reference>()).collect::<Result<Vec<_>>>()?;
        self.index.extend(index_entries(&image.target, &references));
        let Ok((_, manifest)) = resolve(content, &image.target, &Platform::host()) else {
            // Another platform's image has no place in the older format; the OCI half carries it.
            return Ok(());
        };
        let layers: Vec<String> = manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect();
        let tags: Vec<String> = references.iter().filter(|reference| reference.tag().is_some()).map(Reference::familiar).collect();
        if let Some(top) = manifest.layers.last() {
            for reference in &references {
                if let Some(tag) = reference.tag() {
                    let repository = self.repositories.entry(reference.familiar_name()).or_default();
                    repository.insert(tag.to_owned(), top.digest.hex().to_owned());
                }
            }
        }
        self.docker_image(DockerImage { config: blob_path(&manifest.config.digest), repo_tags: Some(tags), layers: Some(layers) });
        Ok(())
    }

    /// One entry per image, however many names it is saved under.
    fn docker_image(&mut self, image: DockerImage) {
        match self.docker.iter_mut().find(|known| known.config == image.config && known.layers == image.layers) {
            Some(known) => known.repo_tags.get_or_insert_default().extend(image.repo_tags.unwrap_or_default()),
            None => self.docker.push(image),
        }
    }

    /// Adds the blob and all below it; `false` when a manifest is not here or not complete.
    fn collect(&mut self, content: &Content, descriptor: &Descriptor) -> Result<bool> {
        if !content.contains(&descriptor.digest)? {
            return Ok(false);
        }
        if !is_document(descriptor) {
            self.blobs.insert(descriptor.digest.clone());
            return Ok(true);
        }
        let document = read_document(content, &descriptor.digest)?;
        let before = self.blobs.clone();
        self.blobs.insert(descriptor.digest.clone());
        let here = document.children().into_iter().map(|child| self.collect(content, child)).collect::<Result<Vec<_>>>()?;
        let complete = match document {
            Document::Manifest(_) => here.iter().all(|here| *here),
            Document::Index(_) => here.iter().any(|here| *here),
        };
        if !complete {
            self.blobs = before;
        }
        Ok(complete)
    }

    fn write(self, content: &Content, output: impl Write) -> Result<()> {
        let mut tar = Builder::new(io::BufWriter::with_capacity(256 * 1024, output));
        directory(&mut tar, "blobs/")?;
        let mut algorithm = "";
        for digest in &self.blobs {
            if algorithm != digest.algorithm().as_str() {
                algorithm = digest.algorithm().as_str();
                directory(&mut tar, &format!("blobs/{algorithm}/"))?;
            }
            let blob = content.reader(digest)?;
            let size = blob.size();
            member(&mut tar, &blob_path(digest), size, Verified::new(blob, digest))?;
        }
        let index = Index { schema_version: 2, media_type: Some(media_type::OCI_INDEX.into()), manifests: self.index };
        document(&mut tar, "index.json", &index)?;
        if !self.docker.is_empty() {
            document(&mut tar, "manifest.json", &self.docker)?;
        }
        let layout = BTreeMap::from([("imageLayoutVersion", "1.0.0")]);
        document(&mut tar, "oci-layout", &layout)?;
        if !self.repositories.is_empty() {
            document(&mut tar, "repositories", &self.repositories)?;
        }
        let mut output = tar.into_inner().map_err(write_failed)?;
        output.flush().map_err(write_failed)
    }
}

/// One per name, as containerd and Docker write them; an unnamed image has one without annotations.
fn index_entries(target: &Descriptor, references: &[Reference]) -> Vec<Descriptor> {
    let mut bare = target.clone();
    bare.annotations = BTreeMap::new();
    if references.is_empty() {
        return vec![bare];
    }
    let entry = |reference: &Reference| {
        let mut entry = bare.clone();
        entry.annotations.insert(IMAGE_NAME.into(), reference.to_string());
        if let Some(tag) = reference.tag() {
            entry.annotations.insert(REF_NAME.into(), tag.to_owned());
        }
        entry
    };
    references.iter().map(entry).collect()
}

fn write_failed(err: io::Error) -> Error {
    Error::io("write archive", err)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn directory<W: Write>(tar: &mut Builder<W>, path: &str) -> Result<()> {
    let mut header = header(EntryType::Directory, 0o755, 0);
    tar.append_data(&mut header, path, io::empty()).map_err(write_failed)
}

fn member<W: Write>(tar: &mut Builder<W>, path: &str, size: u64, data: impl Read) -> Result<()> {
    let mut header = header(EntryType::Regular, 0o644, size);
    tar.append_data(&mut header, path, data).map_err(write_failed)
}

fn document<W: Write>(tar: &mut Builder<W>, path: &str, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|err| Error::internal(format!("encode {path}: {err}")))?;
    member(tar, path, bytes.len() as u64, bytes.as_slice())
}

/// Hashes what is read, and fails at the end instead of passing damaged bytes on.
struct Verified<R> {
    inner: R,
    hasher: Option<rcontainerd_types::digest::Hasher>,
    digest: Digest,
}

impl<R: Read> Verified<R> {
    fn new(inner: R, digest: &Digest) -> Self {
        Self { inner, hasher: Some(digest.algorithm().hasher()), digest: digest.clone() }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        if length > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..length]);
            }
        } else if !buffer.is_empty()
            && let Some(hasher) = self.hasher.take()
            && hasher.finish() != self.digest
        {
            let message = format!("content {} is damaged on disk: pull or load the image again", self.digest);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(length)
    }
}
