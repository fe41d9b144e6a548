//! From a layer's stream to a snapshot, in one pass: decompress, hash (DiffID), apply. Verified before it can be seen.
//!
//! ```text
//! blob ─decompress→ tar ─entries→ Applier ─openat/mkdirat/…→ upper directory ─DiffID right→ commit as ChainID
//! ```

pub(crate) mod apply;
pub(crate) mod decompress;
pub(crate) mod dirs;
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
use crate::snapshot::{LayerDirs, Persistence, Snapshotter};

/// A stream's plain bytes, whatever compresses it (gzip, zstd, xz, bzip2, nothing).
pub struct Decompressed<'a>(Box<dyn Read + 'a>);

impl<'a> Decompressed<'a> {
    /// # Errors
    /// When the first bytes cannot be read.
    pub fn open(stream: impl Read + 'a) -> Result<Self> {
        decompress::open(stream).map(Self)
    }
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

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
/// layers). Layers that are there are skipped; the others are on the disk when the store is settled.
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
    match fill(content.reader(&layer.blob)?, snapshots, layer, name, parent)? {
        Some(filled) => filled.commit(snapshots),
        None => Ok(()),
    }
}

/// Label of a snapshot that is being filled here: no use to anyone when the process that fills it is gone, so it goes at the next open.
pub const IN_PROGRESS: &str = "rcontainerd.io/unpack";

/// A layer whose files are in place and have the right DiffID; nobody sees it before its commit.
#[derive(Debug)]
#[must_use = "commit or discard it"]
pub struct Filled {
    key: String,
    name: String,
}

/// Fills a new snapshot on `parent` with a layer's stream, which need not be verified yet; `None` when the layer is there already.
///
/// # Errors
/// As `unpack`; then nothing is left.
pub fn fill(
    stream: impl Read + Send,
    snapshots: &dyn Snapshotter,
    layer: &Layer,
    name: &str,
    parent: Option<&str>,
) -> Result<Option<Filled>> {
    if exists(snapshots, name)? {
        return Ok(None);
    }
    let filled = Filled { key: format!("extract-{} {name}", id::generate()?), name: name.to_owned() };
    let labels = Labels::from([(IN_PROGRESS.to_owned(), String::new())]);
    snapshots.prepare_as(Persistence::WithNext, &filled.key, parent, labels)?;
    match apply_verified(stream, snapshots, layer, &filled.key) {
        Ok(()) => Ok(Some(filled)),
        Err(err) => {
            filled.discard(snapshots);
            Err(err.context(format!("unpack layer {}", layer.blob)))
        }
    }
}

impl Filled {
    /// Makes the layer visible; it is on the disk when the store is settled. Another pull that was quicker is fine.
    ///
    /// # Errors
    /// `ResourceExhausted` on a full disk, I/O errors; then nothing is left.
    pub fn commit(self, snapshots: &dyn Snapshotter) -> Result<()> {
        let Err(err) = snapshots.commit_unsettled(&self.name, &self.key, Labels::new()) else { return Ok(()) };
        self.discard(snapshots);
        if err.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(err) }
    }

    /// Removes it.
    pub fn discard(self, snapshots: &dyn Snapshotter) {
        snapshots.discard(&self.key);
    }
}

fn apply_verified(stream: impl Read + Send, snapshots: &dyn Snapshotter, layer: &Layer, key: &str) -> Result<()> {
    let applied = apply_hashed(stream, &layer.media_type, &snapshots.layer_dirs(key)?, &Limits::default(), layer.diff_id.algorithm())?;
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
