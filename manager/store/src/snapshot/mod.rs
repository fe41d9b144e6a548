//! Snapshots: root file systems and their layers, with containerd's semantics (`core/snapshots`).
//!
//! A snapshot is *active* (writable, made by `prepare`), a *view* (read-only, made by `view`) or *committed* (immutable, the only kind
//! that can be a parent). Keys live in the handle's namespace.

mod backend;
mod copy;
mod native;
mod overlay;
mod usage;

use std::path::PathBuf;

use jiff::Timestamp;
use rcontainerd_types::{Finding, Result};
use serde::{Deserialize, Serialize};

use crate::metadata::{Labels, WriteTx};
use crate::mount::Mount;

pub use backend::Removal;
pub(crate) use backend::{SNAPSHOT_MARKS, SNAPSHOTS, Shared, SnapshotMark, SnapshotRecord, handle, open_all};
pub(crate) use copy::copy_entry;
pub(crate) use native::NAME as NATIVE;
pub(crate) use overlay::NAME as OVERLAY;
pub(crate) use usage::disk_usage;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    View,
    Active,
    Committed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    pub name: String,
    /// Key of the committed snapshot that this one builds on.
    pub parent: Option<String>,
    pub kind: Kind,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub labels: Labels,
}

/// What a snapshot takes of its own, without its parents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes allocated on disk, hard links counted once.
    pub size: u64,
    pub inodes: u64,
}

/// Whether overlay works on the file system of `dir`; what was tried there is removed again.
pub fn check_overlay(dir: &std::path::Path) -> Vec<Finding> {
    backend::Backend::check(&overlay::Overlay::new(dir.to_owned()))
}

/// How a layer's deletions are told to the file system below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// Character devices 0:0 and the xattr `trusted.overlay.opaque`.
    Overlay,
    /// The directory is the merged view: what is whited out is removed.
    Remove,
}

/// Where the content of an active snapshot lies, for the unpacker and for the diff: no mount is needed for either.
#[derive(Clone, Debug)]
pub struct LayerDirs {
    /// The directory that takes the layer.
    pub upper: PathBuf,
    /// The parents' directories, nearest first; empty when `upper` is already the merged view.
    pub lowers: Vec<PathBuf>,
    pub whiteouts: Whiteouts,
}

/// How much of an active snapshot a power loss may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing: its record is durable when it has been made.
    #[default]
    Durable,
    /// The record, until the next durable transaction: the one in which the caller writes what the snapshot is for.
    WithNext,
    /// All of it, and it is removed at the first open after a reboot. Its mounts need no syncs (overlayfs: `volatile`).
    Scratch,
}

/// One way to keep snapshots. `AlreadyExists`, `NotFound`, `Conflict` (wrong kind, has children) as in containerd.
pub trait Snapshotter: Send + Sync {
    /// The name that APIs use, such as `overlayfs`.
    fn name(&self) -> &'static str;

    /// # Errors
    /// `NotFound`.
    fn stat(&self, key: &str) -> Result<SnapshotInfo>;

    /// Replaces the labels.
    ///
    /// # Errors
    /// `NotFound`.
    fn set_labels(&self, key: &str, labels: Labels) -> Result<SnapshotInfo>;

    /// # Errors
    /// `NotFound`, or an I/O error while walking the directory.
    fn usage(&self, key: &str) -> Result<Usage>;

    /// The mounts that make an active snapshot or a view appear.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a committed snapshot.
    fn mounts(&self, key: &str) -> Result<Vec<Mount>>;

    /// A writable snapshot on top of `parent` (a committed one) or of nothing.
    ///
    /// # Errors
    /// `AlreadyExists` for the key, `NotFound` for the parent, `InvalidArgument` when the parent is not committed.
    fn prepare(&self, key: &str, parent: Option<&str>, labels: Labels) -> Result<Vec<Mount>> {
        self.prepare_as(Persistence::Durable, key, parent, labels)
    }

    /// As `prepare`, where less than durability will do.
    ///
    /// # Errors
    /// As `prepare`.
    fn prepare_as(&self, persistence: Persistence, key: &str, parent: Option<&str>, labels: Labels) -> Result<Vec<Mount>>;

    /// A read-only one.
    ///
    /// # Errors
    /// As `prepare`.
    fn view(&self, key: &str, parent: Option<&str>, labels: Labels) -> Result<Vec<Mount>>;

    /// Turns the active snapshot `key` into the committed `name`; its files are on disk when this returns.
    ///
    /// # Errors
    /// `AlreadyExists` for the name, `NotFound`, `Conflict` when `key` is not active.
    fn commit(&self, name: &str, key: &str, labels: Labels) -> Result<()>;

    /// As `commit`, but its files are on the disk only when the store is settled ([`crate::Store::settle`]); until then a power loss takes
    /// all of it.
    ///
    /// # Errors
    /// As `commit`.
    fn commit_unsettled(&self, name: &str, key: &str, labels: Labels) -> Result<()>;

    /// # Errors
    /// `NotFound`; `Conflict` while another snapshot has it as parent.
    fn remove(&self, key: &str) -> Result<()>;

    /// Removes what its maker could not finish. What cannot be removed now, since others still fill the disk, is remembered.
    fn discard(&self, key: &str);

    /// Removes what `discard` could not, now that nothing is written any more.
    ///
    /// # Errors
    /// Why something has to stay even now: the next open removes it.
    fn discard_again(&self) -> Result<()>;

    /// As `remove`, inside the transaction that removes what the snapshot was for: either both go or none.
    ///
    /// # Errors
    /// As `remove`.
    fn remove_in(&self, tx: &WriteTx<'_>, key: &str) -> Result<Removal>;

    /// All snapshots of the namespace, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn list(&self) -> Result<Vec<SnapshotInfo>>;

    /// Where an active snapshot's files lie.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is not active.
    fn layer_dirs(&self, key: &str) -> Result<LayerDirs>;

    /// What this host offers it.
    fn check(&self) -> Vec<Finding>;
}

#[cfg(test)]
mod conformance;
