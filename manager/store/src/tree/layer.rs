//! The layer that an active snapshot makes of its parent, as a tar with AUFS whiteouts (image-spec, "Representing Changes").

use std::io::Write;
use std::path::PathBuf;

use jiff::Timestamp;
use rcontainerd_types::Result;

use super::changes::{ChangeKind, Walk};
use super::write::{TarWriter, Times};
use crate::snapshot::Snapshotter;

/// Writes the changes of snapshot `key` but for the `places` that a runtime makes to mount on; gives the output back. The same changes give the same bytes.
///
/// # Errors
/// As [`super::changes`], and those of the output.
pub fn write_layer<W: Write>(snapshots: &dyn Snapshotter, key: &str, places: &[&str], out: W) -> Result<W> {
    write(&Walk::open(snapshots, key)?, places, TarWriter::new(out, Times::Nanoseconds))
}

/// Writes what one stack of layers has otherwise than another; both are told as overlayfs is, nearest first, and may be empty. No time in
/// it is later than `latest`.
///
/// # Errors
/// As [`write_layer`].
pub fn write_difference<W: Write>(left: &[PathBuf], right: &[PathBuf], latest: Option<Timestamp>, out: W) -> Result<W> {
    write(&Walk::between(left, right)?, &[], TarWriter::new(out, Times::Nanoseconds).no_later_than(latest))
}

fn write<W: Write>(walk: &Walk, places: &[&str], mut writer: TarWriter<W>) -> Result<W> {
    walk.run(true, places, &mut |change, dir, name| match change.kind {
        ChangeKind::Deleted => writer.whiteout(&change.path),
        ChangeKind::Added | ChangeKind::Modified => writer.object(dir, name, &change.path).map(drop),
    })?;
    writer.finish()
}
