//! From a layer's stream to a snapshot, in one pass: decompress, hash (DiffID), apply. Verified before it can be seen.
//!
//! ```text
//! blob ─decompress→ tar ─entries→ Applier ─openat/mkdirat/…→ upper directory ─DiffID right→ commit as ChainID
//! ```

mod apply;
pub(crate) mod decompress;
mod dirs;
mod pax;
mod sparse;
pub(crate) mod tar;
pub(crate) mod xattr;

use std::io::Read;

use rcontainerd_types::digest::Algorithm;
use rcontainerd_types::{Digest, Error, ErrorKind, Result, id};

use self::apply::Applier;
use self::tar::TarReader;

use crate::content::Content;
use crate::metadata::Labels;
use crate::snapshot::{LayerDirs, Snapshotter};

/// One layer of an image, from its manifest and its config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the blob, as stored in the content store.
    pub blob: Digest,
    pub media_type: String,
    /// Digest of the uncompressed tar (`rootfs.diff_ids` of the config).
    pub diff_id: Digest,
}

/// What bounds a hostile layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed stream.
    pub stream: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of a path.
    pub path: usize,
    /// Components of a path.
    pub depth: usize,
}

impl Default for Limits {
    /// Far above any honest image, far below what hurts a host: 1 TiB, 20 million entries, Linux's PATH_MAX, 512 levels.
    fn default() -> Self {
        Self { stream: 1 << 40, entries: 20_000_000, path: 4096, depth: 512 }
    }
}

/// What applying a layer did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub diff_id: Digest,
    /// Bytes of the uncompressed stream.
    pub size: u64,
    pub entries: u64,
}

/// Told after each layer that is in place: its index, and whether it was there already.
pub type Progress<'a> = &'a mut dyn FnMut(usize, LayerState);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerState {
    Extracting,
    Done,
    AlreadyExists,
}

/// The ChainID of each prefix of `diff_ids` (image-spec, "Layer ChainID"): the names of the committed snapshots.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            Some(parent) => Digest::sha256(format!("{parent} {diff_id}").as_bytes()),
            None => diff_id.clone(),
        };
        chain.push(next);
    }
    chain
}

/// Unpacks all layers, lowest first, each into a committed snapshot named by its ChainID; gives the topmost's name (`None` without
/// layers). Layers that are there are skipped.
///
/// # Errors
/// `NotFound` for a missing blob, `DataLoss` when a DiffID does not match or the stream is damaged, `InvalidArgument` for a tar that
/// is malformed or hostile, `ResourceExhausted` on a full disk; then nothing of that layer is kept.
pub fn unpack(content: &Content, snapshots: &dyn Snapshotter, layers: &[Layer], progress: Progress<'_>) -> Result<Option<String>> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let mut parent: Option<String> = None;
    for (index, (layer, chain_id)) in layers.iter().zip(chain_ids(&diff_ids)).enumerate() {
        let name = chain_id.to_string();
        if exists(snapshots, &name)? {
            progress(index, LayerState::AlreadyExists);
        } else {
            progress(index, LayerState::Extracting);
            unpack_layer(content, snapshots, layer, &name, parent.as_deref())?;
            progress(index, LayerState::Done);
        }
        parent = Some(name);
    }
    Ok(parent)
}

fn exists(snapshots: &dyn Snapshotter, name: &str) -> Result<bool> {
    match snapshots.stat(name) {
        Ok(_) => Ok(true),
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(false),
        Err(err) => Err(err),
    }
}

fn unpack_layer(content: &Content, snapshots: &dyn Snapshotter, layer: &Layer, name: &str, parent: Option<&str>) -> Result<()> {
    let key = format!("extract-{} {name}", id::generate()?);
    snapshots.prepare(&key, parent, Labels::new())?;
    let done = fill(content, snapshots, layer, &key).and_then(|()| snapshots.commit(name, &key, Labels::new()));
    let Err(err) = done else { return Ok(()) };
    if let Err(also) = snapshots.remove(&key) {
        tracing::warn!(%also, key, "remove a snapshot that could not be filled");
    }
    // Another pull of the same layer was quicker.
    if err.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(err.context(format!("unpack layer {}", layer.blob))) }
}

fn fill(content: &Content, snapshots: &dyn Snapshotter, layer: &Layer, key: &str) -> Result<()> {
    let blob = content.reader(&layer.blob)?;
    let applied = apply_hashed(blob, &layer.media_type, &snapshots.layer_dirs(key)?, &Limits::default(), layer.diff_id.algorithm())?;
    if applied.diff_id != layer.diff_id {
        let message = format!("its content has the DiffID {}, the image's config says {}", applied.diff_id, layer.diff_id);
        return Err(Error::new(ErrorKind::DataLoss, message));
    }
    Ok(())
}

/// Applies a layer's stream to the directories of an active snapshot; its DiffID is a SHA-256.
///
/// # Errors
/// As `unpack`.
pub fn apply(stream: impl Read + Send, media_type: &str, dirs: &LayerDirs, limits: &Limits) -> Result<Applied> {
    apply_hashed(stream, media_type, dirs, limits, Algorithm::Sha256)
}

fn apply_hashed(stream: impl Read + Send, media_type: &str, dirs: &LayerDirs, limits: &Limits, algorithm: Algorithm) -> Result<Applied> {
    decompress::check_media_type(media_type)?;
    std::thread::scope(|scope| {
        let (pieces, worker) = decompress::start(scope, stream, algorithm, limits.stream);
        let applied = {
            let mut reader = TarReader::new(pieces);
            Applier::new(dirs, limits).and_then(|applier| applier.run(&mut reader))
        };
        let hashed = worker.join().map_err(|_| Error::internal("the decompressing thread panicked"))?;
        match (applied, hashed) {
            (Ok(entries), Ok(hashed)) => Ok(Applied { diff_id: hashed.diff_id, size: hashed.size, entries }),
            // The stream's own failure is the cause of what the applier saw, unless the applier gave up first.
            (_, Err(err)) if err.kind() != ErrorKind::Cancelled => Err(err),
            (Err(err), _) | (_, Err(err)) => Err(err),
        }
    })
}

#[cfg(test)]
mod tests;
