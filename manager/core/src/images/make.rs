//! New images from here: a container's changes on top of its image (commit), or a root filesystem alone (import).

use std::io::{BufReader, Read, Write};
use std::sync::Arc;

use rcontainerd_registry::Document;
use rcontainerd_store::unpack::Decompressed;
use rcontainerd_store::{Content, Labels};
use rcontainerd_types::{Descriptor, Digest, Error, Reference, Result, id, media_type};
use serde_json::json;

use super::catalog::{ImageRow, dangling_name};
use super::config::{HistoryEntry, ImageConfig, ImageFile, RootFs};
use super::lease::{Holder, Lease, Purpose};
use super::model::{ExtendImage, ImageEvent, ImportImage};
use super::pull::{Naming, commit_names};
use super::state::{State, blocking};
use super::{document, fetch, instructions};

/// Bytes of a tar without entries: zeros.
const EMPTY_TAR: u64 = 1024;
/// Bytes between a stream and the disk.
const CHUNK: usize = 64 << 10;

/// An image whose blobs are stored, not unpacked and without a name yet.
struct Made {
    target: Descriptor,
    config: Digest,
    row: ImageRow,
}

/// Adds a layer, as `write` makes it, to an image.
pub(super) async fn extend<W>(state: &Arc<State>, namespace: &str, request: ExtendImage, write: W) -> Result<Digest>
where
    W: FnOnce(&mut dyn Write) -> Result<()> + Send + 'static,
{
    let reference = request.reference.clone();
    check_name(reference.as_ref())?;
    let lease = Lease::take(state, namespace, Purpose::Make, Vec::new()).await?;
    let made = {
        let (state, namespace, lease) = (Arc::clone(state), namespace.to_owned(), lease.holder());
        blocking(move || {
            let content = state.store.content(&namespace);
            let catalog = state.catalog(&namespace)?;
            let base = document::read_config(&content, &request.base)?;
            let mut layers: Vec<Descriptor> = catalog.row(&request.base)?.layers.iter().map(|layer| as_oci(&layer.blob)).collect();
            let added = store_layer(&content, &lease, write)?;
            let mut diff_ids = base.rootfs.diff_ids.clone();
            diff_ids.extend(added.iter().map(|added| added.digest.clone()));
            let empty_layer = added.is_none();
            layers.extend(added);
            let created = jiff::Timestamp::now().to_string();
            let origin = HistoryEntry {
                created: Some(created.clone()),
                created_by: request.created_by,
                author: request.author.clone(),
                comment: request.comment.clone(),
                empty_layer,
            };
            let file = ImageFile {
                created: Some(created),
                author: request.author,
                comment: request.comment,
                config: request.config,
                rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
                history: told(&base).into_iter().chain([origin]).collect(),
                ..base
            };
            let mut made = store_image(&content, &lease, &layers, &file)?;
            made.row.parent = Some(request.base);
            Ok(made)
        })
        .await
    };
    settle(state, namespace, made, reference.as_ref(), lease).await
}

fn check_name(reference: Option<&Reference>) -> Result<()> {
    reference.map_or(Ok(()), Reference::check_unambiguous)
}

async fn settle(state: &Arc<State>, namespace: &str, made: Result<Made>, reference: Option<&Reference>, lease: Lease) -> Result<Digest> {
    let finished = match made {
        Ok(made) => finish(state, namespace, made, reference).await,
        Err(err) => Err(err),
    };
    lease.settle(finished).await
}

/// The base's history with a line for every layer of it, so that the new layer's line is the new layer's.
fn told(base: &ImageFile) -> Vec<HistoryEntry> {
    let lines = base.history.iter().filter(|line| !line.empty_layer).count();
    let untold = base.rootfs.diff_ids.len().saturating_sub(lines);
    base.history.iter().cloned().chain(std::iter::repeat_n(HistoryEntry::default(), untold)).collect()
}

/// An image of one layer: a tar (plain, gzip, zstd, xz or bzip2).
pub(super) async fn import(state: &Arc<State>, namespace: &str, request: ImportImage, tar: impl Read + Send + 'static) -> Result<Digest> {
    let reference = request.reference.clone();
    check_name(reference.as_ref())?;
    let lease = Lease::take(state, namespace, Purpose::Make, Vec::new()).await?;
    let made = {
        let (state, namespace, lease) = (Arc::clone(state), namespace.to_owned(), lease.holder());
        blocking(move || {
            let mut config = ImageConfig::default();
            instructions::apply(&mut config, &request.changes)?;
            let content = state.store.content(&namespace);
            let layer = store_layer(&content, &lease, |out| {
                let mut plain = BufReader::with_capacity(CHUNK, Decompressed::open(tar)?);
                std::io::copy(&mut plain, out).map(drop).map_err(|err| Error::io("read the archive", err))
            })?;
            let diff_ids = layer.iter().map(|layer| layer.digest.clone()).collect();
            let empty_layer = layer.is_none();
            let created = jiff::Timestamp::now().to_string();
            let platform = request.platform.unwrap_or_else(rcontainerd_types::Platform::host);
            let origin =
                HistoryEntry { created: Some(created.clone()), comment: request.message.clone(), empty_layer, ..HistoryEntry::default() };
            let file = ImageFile {
                created: Some(created),
                comment: request.message,
                architecture: platform.architecture,
                variant: platform.variant.unwrap_or_default(),
                os: platform.os,
                config,
                rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
                history: vec![origin],
                ..ImageFile::default()
            };
            store_image(&content, &lease, layer.as_slice(), &file)
        })
        .await
    };
    settle(state, namespace, made, reference.as_ref(), lease).await
}

/// An uncompressed layer: its digest is its DiffID. `None` for one that changes nothing, which no image has, as with dockerd.
fn store_layer(content: &Content, lease: &Holder, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Option<Descriptor>> {
    let ingest = content.ingest(&format!("layer-{}", id::generate()?), None)?.ephemeral();
    let mut sink = Sink { ingest, failure: None };
    let written = write(&mut sink);
    // A full disk is the cause, the writer's complaint its consequence.
    if let Some(failure) = sink.failure {
        return Err(failure);
    }
    written?;
    let sealed = sink.ingest.seal_unsynced(None, None)?;
    if sealed.size() == EMPTY_TAR && *sealed.digest() == Digest::sha256(&[0; EMPTY_TAR as usize]) {
        return Ok(None);
    }
    let layer = Descriptor::new(media_type::OCI_LAYER, sealed.digest().clone(), sealed.size());
    lease.content([layer.digest.clone()])?;
    content.publish(vec![sealed], &Labels::new())?;
    Ok(Some(layer))
}

/// A writer into the content store.
pub(crate) struct Sink {
    pub ingest: rcontainerd_store::Ingest,
    /// Why a write failed, which an I/O error cannot say.
    pub failure: Option<Error>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.ingest.append(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(err) => {
                self.failure = Some(err);
                Err(std::io::Error::other("the layer cannot be stored"))
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A manifest has the media types of one family.
fn as_oci(layer: &Descriptor) -> Descriptor {
    let media_type = match layer.media_type.as_str() {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::DOCKER_LAYER_ZSTD => media_type::OCI_LAYER_ZSTD,
        own => own,
    };
    Descriptor::new(media_type, layer.digest.clone(), layer.size)
}

fn store_image(content: &Content, lease: &Holder, layers: &[Descriptor], file: &ImageFile) -> Result<Made> {
    let encode = |what: &str, err: serde_json::Error| Error::internal(format!("encode {what}: {err}"));
    let config = serde_json::to_vec(file).map_err(|err| encode("an image's config", err))?;
    let config_descriptor = Descriptor::new(media_type::OCI_CONFIG, Digest::sha256(&config), config.len() as u64);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config_descriptor,
        "layers": layers,
    });
    let manifest = serde_json::to_vec(&manifest).map_err(|err| encode("an image's manifest", err))?;
    let target = Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256(&manifest), manifest.len() as u64);
    let (_, document) = rcontainerd_registry::manifest::parse(Some(media_type::OCI_MANIFEST), &manifest)?;
    let Document::Manifest(parsed) = &document else { return Err(Error::internal("a manifest of ours is not a manifest")) };
    let row = document::image_row(&target, parsed, file)?;
    lease.content([config_descriptor.digest.clone(), target.digest.clone()])?;
    lease.layers([&row])?;
    document::keep(content, &config_descriptor, &config, Labels::new())?;
    document::keep(content, &target, &manifest, document::references(&document))?;
    Ok(Made { target, config: config_descriptor.digest, row })
}

/// Unpacks, which verifies, and names; without a name it is dangling.
async fn finish(state: &Arc<State>, namespace: &str, made: Made, reference: Option<&Reference>) -> Result<Digest> {
    for position in 0..made.row.layers.len() {
        fetch::unpack(state, namespace, &made.row.layers[..=position]).await?;
    }
    let name = reference.map_or_else(|| dangling_name(&made.target.digest), ToString::to_string);
    let told = reference.map(Reference::familiar);
    let (state, namespace) = (Arc::clone(state), namespace.to_owned());
    blocking(move || {
        let naming = Naming { name, target: made.target, image: made.config.clone(), row: made.row, pulled: false };
        commit_names(&state, &namespace, vec![naming], None)?;
        if let Some(name) = told {
            state.tell(ImageEvent::Tag { id: made.config.clone(), name });
        }
        Ok(made.config)
    })
    .await
}
