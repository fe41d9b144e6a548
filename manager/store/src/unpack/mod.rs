//! From a layer's stream to a snapshot, in one pass: decompress, hash (DiffID), apply. Verified before it can be seen.
//!
//! ```text
//! blob ─decompress→ tar ─entries→ Applier ─openat/mkdirat/…→ upper directory ─DiffID right→ commit as ChainID
//! ```

pub mod xattr;

use std::io::Read;

use rcontainerd_types::{Digest, Error, Result};

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
}

impl Default for Limits {
    /// Far above any honest image, far below what hurts a host: 1 TiB, 20 million entries, Linux's PATH_MAX.
    fn default() -> Self {
        Self { stream: 1 << 40, entries: 20_000_000, path: 4096 }
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
    let _ = (content, snapshots, layers, progress, Labels::new());
    Err(Error::unsupported("unpack is being written"))
}

/// Applies a layer's stream to the directories of an active snapshot.
///
/// # Errors
/// As `unpack`.
pub fn apply(stream: impl Read, media_type: &str, dirs: &LayerDirs, limits: &Limits) -> Result<Applied> {
    let _ = (stream, media_type, dirs, limits);
    Err(Error::unsupported("apply is being written"))
}
