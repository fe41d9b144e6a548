//! Pruning: images that no container uses, dangling ones or all; and what images share.

use std::collections::{BTreeMap, BTreeSet};

use rcontainerd_types::{Digest, ErrorKind, Reference, Result};

use super::caps;
use super::list;
use super::model::{ImageFilters, ImageUser, PruneImages, PrunedImages, RemoveImage, Removed};
use super::remove;
use super::state::State;

pub(super) fn prune(
    state: &State,
    namespace: &str,
    request: &PruneImages,
    users: impl Fn(&Digest) -> Result<Vec<ImageUser>>,
) -> Result<PrunedImages> {
    let mut report = PrunedImages::default();
    let filters = ImageFilters { dangling: request.dangling_only.then_some(true), ..ImageFilters::default() };
    // All before the first goes: what holds on to a catalogue that changes has it copied.
    for image in list::list(state, namespace, filters)?.collect::<Vec<_>>() {
        let old = request.until.is_none_or(|until| image.created.unwrap_or(0) < until);
        let is_pinned = caps::pin(&*state.catalog(namespace)?, &image.id).is_some();
        if is_pinned || !old || !request.labels.labels(&image.labels) || !users(&image.id)?.is_empty() {
            continue;
        }
        let sizes: BTreeMap<Digest, u64> =
            state.catalog(namespace)?.row(&image.id)?.layers.iter().map(|layer| (layer.chain_id.clone(), layer.size)).collect();
        for name in names(&image.repo_tags, &image.repo_digests, &image.id) {
            match remove::remove(state, namespace, &RemoveImage { name, force: false, keep_parents: false }, &users) {
                Ok(removed) => report.removed.extend(removed),
                // In use by now, or gone with another of its names.
                Err(err) if matches!(err.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {}
                Err(err) => return Err(err),
            }
        }
        let freed = |removed: &Removed| match removed {
            Removed::Deleted(digest) => sizes.get(digest).copied().unwrap_or(0),
            Removed::Untagged(_) => 0,
        };
        report.space_reclaimed += report.removed[report.measured..].iter().map(freed).sum::<u64>();
        report.measured = report.removed.len();
    }
    // Of what failed or was cut off, no filter can say that it is meant to stay.
    if request.until.is_none() && !request.labels.has("label") && !request.labels.has("label!") {
        let collected = state.store.gc_namespace(namespace, false)?;
        report.space_reclaimed += collected.bytes();
    }
    Ok(report)
}

/// Every name; the id where there is none.
fn names(tags: &[Reference], digests: &[Reference], id: &Digest) -> Vec<String> {
    let mut all: Vec<String> = tags.iter().map(Reference::familiar).collect();
    if all.is_empty() {
        all.extend(digests.iter().map(Reference::familiar));
    }
    if all.is_empty() {
        all.push(id.to_string());
    }
    all
}

/// Bytes of each image's layers that other images have too.
pub(super) fn shared_sizes(state: &State, namespace: &str) -> Result<BTreeMap<Digest, u64>> {
    let catalog = state.catalog(namespace)?;
    let mut holders: BTreeMap<&Digest, BTreeSet<&Digest>> = BTreeMap::new();
    for (image, row) in catalog.images() {
        for layer in &row.layers {
            holders.entry(&layer.chain_id).or_default().insert(image);
        }
    }
    let shared = |row: &super::catalog::ImageRow| {
        row.layers.iter().filter(|layer| holders.get(&layer.chain_id).is_some_and(|images| images.len() > 1)).map(|layer| layer.size).sum()
    };
    Ok(catalog.images().map(|(image, row)| (image.clone(), shared(row))).collect())
}
