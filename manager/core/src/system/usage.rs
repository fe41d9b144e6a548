//! What `df` tells: what du(1) says of the root directory, each byte under one heading.
//!
//! ```text
//! containers   ROOT/containers/<id> (logs) and its writable layer
//! volumes      ROOT/volumes/<name>
//! layers       all the rest: layers, blobs as they travel, what is arriving, the database; of all namespaces
//! ```

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rcontainerd_types::Result;

use super::DiskUsage;
use crate::containers::{Containers, ListContainers};
use crate::engine::{Engine, NAMESPACE, blocking};
use crate::filters::Filters;
use crate::images::ImageFilters;
use crate::volumes;

pub(super) async fn measure(engine: &Arc<Engine>) -> Result<DiskUsage> {
    let images = engine.images.list(ImageFilters::default()).await?.collect();
    let shared = engine.images.shared_sizes().await?;
    let list = ListContainers { all: true, size: true, ..ListContainers::default() };
    let mut containers = Containers::new(Arc::clone(engine)).list(list).await?;
    let owner = Arc::clone(engine);
    let mut space = blocking(move || owner.store.space()).await?;
    let root = engine.store.root();
    let mut layers_size = space.kept + own_blocks(&root.join("containers")) + own_blocks(&root.join("volumes"));
    for summary in &mut containers {
        let container = &summary.container;
        let key = (container.snapshotter.clone(), NAMESPACE.to_owned(), container.snapshot_key.clone());
        let layer = space.writable.remove(&key).unwrap_or(0);
        let dir = engine.container_dir(&container.id);
        summary.size_rw = Some(layer + blocking(move || Ok(volumes::disk_usage(&dir))).await?);
    }
    // Of containerd's clients, or of a layer that is just being unpacked.
    layers_size += space.writable.values().sum::<u64>();
    let references = engine.registry.volume_references();
    let mut measured = Vec::new();
    for volume in engine.volumes.list(Filters::default()).await? {
        let used = engine.volumes.usage(&volume).await?;
        layers_size += volume.mountpoint.parent().map_or(0, own_blocks);
        let users = references.get(&volume.name).map_or(0, Vec::len) as u64;
        measured.push((volume, used, users));
    }
    Ok(DiskUsage { layers_size, images, shared, containers, volumes: measured })
}

/// Bytes of a directory without what is in it.
fn own_blocks(path: &Path) -> u64 {
    path.symlink_metadata().map_or(0, |found| found.blocks() * 512)
}
