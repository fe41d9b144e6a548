//! Reading an archive: every file goes straight from the stream into an ingest, and only what an image needs is published at the end,
//! all at once; so memory is bounded and a broken archive leaves nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufReader, Read};

use rcontainerd_types::{Digest, Error, ErrorKind, Reference, Result, id};

use super::{DockerImage, IMAGE_NAME, LoadedImage, REF_NAME};
use crate::content::{Content, Sealed};
use crate::descriptor::{Descriptor, media_type};
use crate::image::{DOCUMENT_MAX, Document, Index, Manifest, declared_diff_ids, is_document};
use crate::metadata::Labels;
use crate::unpack::Limits;
use crate::unpack::decompress::{self, Compression, SNIFFED};
use crate::unpack::tar::{Entry, EntryKind, TarReader, stream_error};

const BUFFER: usize = 256 * 1024;
/// Files that an archive may hold: each costs a descriptor's worth of memory.
const FILES_MAX: usize = 100_000;
/// Links that one name may lead through.
const LINKS_MAX: usize = 16;

/// Reads an archive (plain, gzip, zstd, xz or bzip2) from a stream into the content store with bounded memory. It is on the disk when
/// the store is settled.
///
/// # Errors
/// `InvalidArgument` for what is neither kind of archive or is cut short, `DataLoss` for a blob that does not have its digest,
/// `ResourceExhausted` on a full disk; then no blob that this call brought is kept.
pub fn load(content: &Content, stream: impl Read) -> Result<Vec<LoadedImage>> {
    load_held(content, stream, &mut |_| Ok(()))
}

/// As [`load`]; `hold` is told of the blobs before garbage collection can see them, and may refuse them.
///
/// # Errors
/// As [`load`], and those of `hold`.
pub fn load_held(content: &Content, stream: impl Read, hold: &mut dyn FnMut(BTreeSet<Digest>) -> Result<()>) -> Result<Vec<LoadedImage>> {
    let plain = BufReader::with_capacity(BUFFER, decompress::open(stream)?);
    let mut archive = Archive::read(content, &mut TarReader::new(plain))?;
    let images = archive.images(content)?;
    hold(archive.needed.clone())?;
    archive.publish(content)?;
    Ok(images)
}

/// What one file of the archive became.
struct Stored {
    digest: Digest,
    /// Bytes.
    size: u64,
    compression: Compression,
}

struct Archive {
    files: HashMap<String, Stored>,
    /// Symlinks and hard links: old archives share layers by them.
    links: HashMap<String, String>,
    /// Not yet published blobs.
    sealed: BTreeMap<Digest, Sealed>,
    /// Manifests made here.
    made: HashMap<Digest, Vec<u8>>,
    /// The archive's own documents.
    top: HashMap<String, Vec<u8>>,
    needed: BTreeSet<Digest>,
}

impl Archive {
    fn read<R: std::io::BufRead>(content: &Content, tar: &mut TarReader<R>) -> Result<Self> {
        let mut archive = Self {
            files: HashMap::new(),
            links: HashMap::new(),
            sealed: BTreeMap::new(),
            made: HashMap::new(),
            top: HashMap::new(),
            needed: BTreeSet::new(),
        };
        let session = id::generate()?;
        while let Some(entry) = tar.next().map_err(not_an_archive)? {
            let path = clean(&entry.path);
            if archive.files.len() + archive.links.len() >= FILES_MAX {
                return Err(Error::invalid(format!("archive holds more than {FILES_MAX} files")));
            }
            archive.entry(content, &session, path, &entry, tar)?;
        }
        Ok(archive)
    }

    fn entry<R: std::io::BufRead>(
        &mut self,
        content: &Content,
        session: &str,
        path: String,
        entry: &Entry,
        tar: &mut TarReader<R>,
    ) -> Result<()> {
        match entry.kind {
            EntryKind::Symlink => {
                let base = path.rsplit_once('/').map_or("", |(dir, _)| dir);
                let target = clean(format!("{base}/{}", String::from_utf8_lossy(&entry.link)).as_bytes());
                self.links.insert(path, target);
            }
            EntryKind::HardLink => {
                self.links.insert(path, clean(&entry.link));
            }
            EntryKind::Regular if entry.sparse.is_some() => {
                return Err(Error::unsupported(format!("archive member {path:?} is a sparse file: make the archive without --sparse")));
            }
            EntryKind::Regular if is_top_document(&path) => {
                let bytes = tar.read_small(DOCUMENT_MAX).map_err(|err| err.context(format!("archive member {path:?}")))?;
                self.top.insert(path, bytes);
            }
            // Docker's archives before 1.10 described each layer so; nobody needs it now.
            EntryKind::Regular if path.ends_with("/VERSION") || path.ends_with("/json") => {}
            EntryKind::Regular => self.store(content, session, path, tar)?,
            _ => {}
        }
        Ok(())
    }

    fn store<R: std::io::BufRead>(&mut self, content: &Content, session: &str, path: String, tar: &mut TarReader<R>) -> Result<()> {
        let expected = digest_of_path(&path);
        let mut ingest = content.ingest(&format!("load-{session}-{}", self.files.len()), None)?.ephemeral();
        let mut start = Vec::with_capacity(SNIFFED);
        loop {
            let chunk = tar.fill()?;
            if chunk.is_empty() {
                break;
            }
            start.extend(chunk.iter().take(SNIFFED - start.len()));
            ingest.append(chunk)?;
            let length = chunk.len();
            tar.consume(length);
        }
        let compression = Compression::sniff(&start);
        let sealed = ingest.seal_unsynced(None, expected.as_ref()).map_err(|err| err.context(format!("archive member {path:?}")))?;
        let digest = sealed.digest().clone();
        self.files.insert(path, Stored { digest: digest.clone(), size: sealed.size(), compression });
        self.sealed.insert(digest, sealed);
        Ok(())
    }

    /// A file of the archive that is to be a JSON document; `None` when there is none of that digest.
    fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        if let Some(made) = self.made.get(digest) {
            return Ok(Some(made.clone()));
        }
        let Some(sealed) = self.sealed.get(digest) else { return Ok(None) };
        if sealed.size() > DOCUMENT_MAX {
            let told = format!("archive: {digest} has {} bytes, a config or manifest at most {DOCUMENT_MAX}", sealed.size());
            return Err(Error::invalid(told));
        }
        sealed.read().map(Some)
    }

    fn file(&self, path: &str) -> Result<&Stored> {
        let mut path = clean(path.as_bytes());
        for _ in 0..LINKS_MAX {
            if let Some(stored) = self.files.get(&path) {
                return Ok(stored);
            }
            match self.links.get(&path) {
                Some(target) => path.clone_from(target),
                None => break,
            }
        }
        Err(Error::invalid(format!("archive lacks {path:?}, which its manifest names: is it complete?")))
    }

    fn images(&mut self, content: &Content) -> Result<Vec<LoadedImage>> {
        let docker = self.docker_images()?;
        let images = match self.top.get("index.json") {
            Some(bytes) => self.oci_images(&parse_index(bytes)?, &docker)?,
            None => docker.iter().map(|image| self.docker_image(content, image)).collect::<Result<_>>()?,
        };
        if images.is_empty() {
            let hint = if self.top.contains_key("repositories") {
                "made by Docker before 1.10"
            } else {
                "no `manifest.json` or `index.json` with an image"
            };
            return Err(Error::invalid(format!("archive holds no image: {hint}; expected the output of `docker save` or an OCI layout")));
        }
        Ok(merge(images))
    }

    fn docker_images(&self) -> Result<Vec<DockerImage>> {
        let Some(bytes) = self.top.get("manifest.json") else { return Ok(Vec::new()) };
        serde_json::from_slice(bytes).map_err(|err| Error::invalid(format!("archive member \"manifest.json\" is malformed: {err}")))
    }

    /// Images of an OCI layout, with the names that a `manifest.json` beside it may add.
    fn oci_images(&mut self, index: &Index, docker: &[DockerImage]) -> Result<Vec<LoadedImage>> {
        let mut by_config: HashMap<Digest, Vec<&DockerImage>> = HashMap::new();
        for (config, image) in docker.iter().filter_map(|image| Some((digest_of_path(&image.config)?, image))) {
            by_config.entry(config).or_default().push(image);
        }
        let mut images = Vec::new();
        for descriptor in &index.manifests {
            if !is_document(descriptor) || descriptor.annotations.contains_key("vnd.docker.reference.type") {
                self.needed.insert(descriptor.digest.clone());
                continue;
            }
            let mut configs = Vec::new();
            if !self.require(descriptor, 0, &mut configs)? {
                return Err(Error::invalid(format!("archive lacks the blobs of image {}: is it complete?", descriptor.digest)));
            }
            let mut names = annotated_names(descriptor);
            for image in configs.iter().filter_map(|config| by_config.get(config)).flatten() {
                names.extend(image.repo_tags.iter().flatten().filter(|name| !is_known(&names, name)).cloned().collect::<Vec<_>>());
            }
            let mut target = Descriptor::new(descriptor.media_type.clone(), descriptor.digest.clone(), descriptor.size);
            target.platform.clone_from(&descriptor.platform);
            images.push(LoadedImage { names, target });
        }
        Ok(images)
    }

    /// Notes what the image needs; `false` when a manifest is not in the archive (another platform's, say). A manifest that is there
    /// must be complete.
    fn require(&mut self, descriptor: &Descriptor, depth: usize, configs: &mut Vec<Digest>) -> Result<bool> {
        if depth > 4 {
            return Err(Error::invalid(format!("archive: indexes nest too deep at {}", descriptor.digest)));
        }
        let Some(bytes) = self.document(&descriptor.digest)? else { return Ok(false) };
        if bytes.len() as u64 != descriptor.size {
            return Err(Error::new(
                ErrorKind::DataLoss,
                format!("archive: {} has another size than its descriptor says", descriptor.digest),
            ));
        }
        let document = Document::parse(&bytes)?;
        self.needed.insert(descriptor.digest.clone());
        match document {
            Document::Index(index) => {
                let mut any = false;
                for child in &index.manifests {
                    any |= self.require(child, depth + 1, configs)?;
                }
                Ok(any)
            }
            Document::Manifest(manifest) => {
                for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
                    self.file(&super::blob_path(&part.digest))?;
                    self.needed.insert(part.digest.clone());
                }
                configs.push(manifest.config.digest);
                Ok(true)
            }
        }
    }

    /// A docker-archive's image has no manifest of its own: one is made of it, as containerd makes it.
    fn docker_image(&mut self, content: &Content, image: &DockerImage) -> Result<LoadedImage> {
        let config = self.file(&image.config)?;
        let (config_digest, config_size) = (config.digest.clone(), config.size);
        let named = image.config.strip_suffix(".json").and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
        if named.is_some_and(|named| named != config_digest) {
            return Err(Error::new(ErrorKind::DataLoss, format!("archive member {:?} has digest {config_digest}", image.config)));
        }
        let diff_ids = self.docker_config(&config_digest).map_err(|err| err.context(format!("archive member {:?}", image.config)))?;
        let named = image.layers.as_deref().unwrap_or_default();
        if diff_ids.len() != named.len() {
            let (ids, layers) = (diff_ids.len(), named.len());
            return Err(Error::invalid(format!("archive: image {config_digest} has {layers} layers, its config names {ids}")));
        }
        let mut layers = Vec::new();
        for (path, diff_id) in named.iter().zip(&diff_ids) {
            layers.push(self.docker_layer(content, path, diff_id)?);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::DOCKER_MANIFEST.into()),
            config: Descriptor::new(media_type::DOCKER_CONFIG, config_digest, config_size),
            layers,
        };
        self.needed.extend(std::iter::once(&manifest.config).chain(&manifest.layers).map(|part| part.digest.clone()));
        let bytes = serde_json::to_vec(&manifest).map_err(|err| Error::internal(format!("encode manifest: {err}")))?;
        let digest = Digest::sha256(&bytes);
        let target = Descriptor::new(media_type::DOCKER_MANIFEST, digest.clone(), bytes.len() as u64);
        self.needed.insert(digest.clone());
        self.made.insert(digest, bytes);
        Ok(LoadedImage { names: image.repo_tags.clone().unwrap_or_default(), target })
    }

    /// The DiffIDs of an image's config.
    fn docker_config(&self, digest: &Digest) -> Result<Vec<Digest>> {
        let bytes = self.document(digest)?.ok_or_else(|| Error::internal(format!("{digest} was read and is not there")))?;
        declared_diff_ids(&bytes)
    }

    fn docker_layer(&mut self, content: &Content, path: &str, diff_id: &Digest) -> Result<Descriptor> {
        let stored = self.file(path)?;
        if matches!(stored.compression, Compression::Bzip2 | Compression::Xz) {
            let packed = stored.digest.clone();
            return self.plain_layer(content, &packed, diff_id).map_err(|err| err.context(format!("archive member {path:?}")));
        }
        let media_type = match stored.compression {
            Compression::None if stored.digest != *diff_id => {
                let message = format!("archive member {path:?} has digest {}, the image's config says {diff_id}", stored.digest);
                return Err(Error::new(ErrorKind::DataLoss, message));
            }
            Compression::None => media_type::DOCKER_LAYER,
            Compression::Gzip => media_type::DOCKER_LAYER_GZIP,
            Compression::Zstd => media_type::DOCKER_LAYER_ZSTD,
            Compression::Bzip2 | Compression::Xz => return Err(Error::internal("a layer that is stored plain is not")),
        };
        Ok(Descriptor::new(media_type, stored.digest.clone(), stored.size))
    }

    /// No media type says xz or bzip2: such a layer is kept as the plain tar that it is.
    fn plain_layer(&mut self, content: &Content, packed: &Digest, diff_id: &Digest) -> Result<Descriptor> {
        let mut ingest = content.ingest(&format!("load-layer-{}", id::generate()?), None)?.ephemeral();
        let sealed = self.sealed.get(packed).ok_or_else(|| Error::internal(format!("{packed} was read and is not there")))?;
        let mut plain = decompress::open(sealed.open()?)?;
        let mut piece = Vec::with_capacity(BUFFER);
        while plain.by_ref().take(BUFFER as u64).read_to_end(&mut piece).map_err(stream_error)? > 0 {
            ingest.append(&piece)?;
            piece.clear();
            if ingest.offset() > Limits::default().stream {
                let told = format!("the layer unpacks to more than the limit of {} bytes", Limits::default().stream);
                return Err(Error::new(ErrorKind::ResourceExhausted, told));
            }
        }
        let sealed = ingest.seal_unsynced(None, Some(diff_id))?;
        let descriptor = Descriptor::new(media_type::DOCKER_LAYER, diff_id.clone(), sealed.size());
        self.sealed.insert(diff_id.clone(), sealed);
        Ok(descriptor)
    }

    fn publish(mut self, content: &Content) -> Result<()> {
        let mut blobs = Vec::new();
        for digest in &self.needed {
            if let Some(sealed) = self.sealed.remove(digest) {
                blobs.push(sealed);
            } else if let Some(made) = self.made.get(digest) {
                let mut ingest = content.ingest(&format!("load-manifest-{}", id::generate()?), None)?.ephemeral();
                ingest.append(made)?;
                blobs.push(ingest.seal_unsynced(None, Some(digest))?);
            }
        }
        content.publish(blobs, &Labels::new())?;
        Ok(())
    }
}

fn not_an_archive(err: Error) -> Error {
    if err.kind() == ErrorKind::InvalidArgument {
        err.context("archive cannot be read (expected the output of `docker save` or an OCI layout)")
    } else {
        err
    }
}

fn is_top_document(path: &str) -> bool {
    matches!(path, "manifest.json" | "index.json" | "oci-layout" | "repositories")
}

fn parse_index(bytes: &[u8]) -> Result<Index> {
    serde_json::from_slice(bytes).map_err(|err| Error::invalid(format!("archive member \"index.json\" is malformed: {err}")))
}

fn digest_of_path(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// Full names only: a bare tag says nothing of the repository.
fn annotated_names(descriptor: &Descriptor) -> Vec<String> {
    let full = descriptor.annotations.get(IMAGE_NAME);
    let reference = descriptor.annotations.get(REF_NAME).filter(|name| name.contains([':', '/']));
    full.or(reference).cloned().into_iter().collect()
}

/// Whether `name` is one of `names`, in short or long form.
fn is_known(names: &[String], name: &str) -> bool {
    let full = |name: &str| name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.or_latest().to_string());
    names.iter().any(|other| full(other) == full(name))
}

/// One image under several names is listed several times in an OCI layout.
fn merge(images: Vec<LoadedImage>) -> Vec<LoadedImage> {
    let mut merged: Vec<LoadedImage> = Vec::new();
    let mut places: HashMap<Digest, usize> = HashMap::new();
    for image in images {
        let place = *places.entry(image.target.digest.clone()).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(known) => {
                let fresh: Vec<String> = image.names.into_iter().filter(|name| !is_known(&known.names, name)).collect();
                known.names.extend(fresh);
            }
            None => merged.push(image),
        }
    }
    merged
}

/// Members are only ever names to look up, so `..` that leads out simply finds nothing.
fn clean(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let mut components: Vec<&str> = Vec::new();
    for component in text.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    components.join("/")
}
