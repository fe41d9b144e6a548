//! How much the store may take, and what goes when it is to take more.
//!
//! ```text
//! what is brought is admitted when      used + more ≤ max_used_space      free - more ≥ min_free_space
//! else, in this order, until it is:     garbage → images without a name → (collect = "unused") named ones, the longest ago named first
//! never:                                pinned images, images that a container was made from, anything while used ≤ reserved_space
//! ```
//! A pull is looked at before its layers come, by what they have packed, and everything again before it gets its name, by what it takes.

use rcontainerd_store::gc::GcOptions;
use rcontainerd_store::records::ImageRecord;
use rcontainerd_types::units::human_size;
use rcontainerd_types::{Digest, Error, ErrorKind, Result};

use super::catalog::Catalog;
use super::model::{ImageUser, RemoveImage};
use super::remove;
use super::state::State;

/// containerd's label of an image that is to stay.
const PINNED_LABEL: &str = "io.cri-containerd.pinned";
const PINNED: &str = "pinned";

/// A size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Bytes(u64),
    /// Of the file system that the store lies on; at most 100.
    Percent(u8),
}

impl Amount {
    fn of(self, disk: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => disk / 100 * u64::from(percent),
        }
    }
}

/// What may go to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Collect {
    /// What nothing refers to.
    Garbage,
    /// Also images without a name that no container uses.
    #[default]
    Dangling,
    /// Also images with a name that no container uses.
    Unused,
}

/// `None`: no such limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// What images may take.
    pub max_used: Option<Amount>,
    /// What is to stay free on the store's file system.
    pub min_free: Option<Amount>,
    /// What images may always take: below it nothing is removed to make room.
    pub reserved: Option<Amount>,
    pub collect: Collect,
}

/// How it stands.
struct Room {
    /// Bytes of blobs, layers and the database.
    used: u64,
    free: u64,
    disk: u64,
}

/// Whether the record says that its image is to stay.
pub(super) fn is_pinned(record: &ImageRecord) -> bool {
    record.labels.get(PINNED_LABEL).is_some_and(|value| value == PINNED)
}

/// The name by which an image is pinned.
pub(super) fn pin<'a>(catalog: &'a Catalog, image: &Digest) -> Option<&'a str> {
    catalog.entries_of(image).find(|entry| is_pinned(&entry.record)).map(|entry| entry.record.name.as_str())
}

/// Makes room for `more` bytes of `what`, if there are caps.
///
/// # Errors
/// `ResourceExhausted` when there is not enough that may go; those of the store.
pub(super) fn admit(state: &State, namespace: &str, what: &str, more: u64) -> Result<()> {
    let caps = &state.config.caps;
    if caps.max_used.is_none() && caps.min_free.is_none() {
        return Ok(());
    }
    let mut room = Room::of(state)?;
    if room.lacks(caps, more).is_none() {
        return Ok(());
    }
    let mut victims: Option<Vec<Digest>> = None;
    while let Some(lack) = room.lacks(caps, more) {
        let refused = || Error::new(ErrorKind::ResourceExhausted, format!("no room for {what}: {lack}"));
        if caps.reserved.is_some_and(|reserved| room.used <= reserved.of(room.disk)) {
            return Err(refused());
        }
        match &mut victims {
            None => {
                state.store.gc(&GcOptions { grace: std::time::Duration::ZERO, ..GcOptions::default() })?;
                victims = Some(candidates(state, namespace)?);
            }
            Some(left) => {
                let Some(image) = left.pop() else { return Err(refused()) };
                evict(state, namespace, &image)?;
            }
        }
        room = Room::of(state)?;
    }
    Ok(())
}

impl Room {
    fn of(state: &State) -> Result<Self> {
        let disk = rustix::fs::statvfs(state.store.root()).map_err(|err| Error::io(state.store.root().display(), err.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Self { used: state.store.recorded_space()?, free: bytes(disk.f_bavail), disk: bytes(disk.f_blocks) })
    }

    /// Which limit is in the way, with its remedy.
    fn lacks(&self, caps: &Caps, more: u64) -> Option<String> {
        let max = caps.max_used.map(|max| max.of(self.disk)).filter(|max| self.used.saturating_add(more) > *max);
        if let Some(max) = max {
            let used = human_size(self.used);
            return Some(format!(
                "images take {used}, {} more are needed and max_used_space is {}: remove images (rdocker image prune -a) or raise the limit",
                human_size(more),
                human_size(max)
            ));
        }
        let min = caps.min_free.map(|min| min.of(self.disk)).filter(|min| self.free.saturating_sub(more) < *min)?;
        Some(format!(
            "the disk has {} free, {} are needed and min_free_space is {}: remove what is not needed (rdocker system prune) or lower the limit",
            human_size(self.free),
            human_size(more),
            human_size(min)
        ))
    }
}

/// Images that may go, the first to go last.
fn candidates(state: &State, namespace: &str) -> Result<Vec<Digest>> {
    let catalog = state.catalog(namespace)?;
    let mut found = Vec::new();
    for (image, _) in catalog.images() {
        let is_dangling = catalog.entries_of(image).all(|entry| entry.reference.is_none());
        let may_go = match state.config.caps.collect {
            Collect::Garbage => false,
            Collect::Dangling => is_dangling,
            Collect::Unused => true,
        };
        if may_go && pin(&catalog, image).is_none() && !(state.config.in_use)(image) {
            let named = catalog.entries_of(image).map(|entry| entry.row.tagged).max();
            found.push((!is_dangling, named, image.clone()));
        }
    }
    found.sort();
    Ok(found.into_iter().rev().map(|(_, _, image)| image).collect())
}

/// Removes an image, unless it came into use in between.
fn evict(state: &State, namespace: &str, image: &Digest) -> Result<()> {
    let used = |id: &Digest| -> Result<Vec<ImageUser>> {
        let user = || ImageUser { container_id: String::new(), image_id: id.clone(), image_name: String::new(), running: true };
        Ok((state.config.in_use)(id).then(user).into_iter().collect())
    };
    let request = RemoveImage { name: image.to_string(), force: true, keep_parents: true };
    match remove::remove(state, namespace, &request, used) {
        Ok(_) => {
            tracing::info!(%image, "removed to make room: no container uses it and a cap is reached");
            Ok(())
        }
        Err(err) if matches!(err.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => Ok(()),
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_in_the_way_is_named_with_its_remedy() {
        let room = Room { used: 900, free: 500, disk: 10_000 };
        let caps = |max_used, min_free| Caps { max_used, min_free, ..Caps::default() };
        assert_eq!(room.lacks(&caps(Some(Amount::Bytes(1000)), None), 100), None);
        let told = room.lacks(&caps(Some(Amount::Bytes(1000)), None), 101).expect("too much");
        assert!(told.starts_with("images take 900B, 101B more are needed and max_used_space is 1kB: remove"), "{told}");
        assert_eq!(room.lacks(&caps(None, Some(Amount::Percent(4))), 100), None);
        let told = room.lacks(&caps(None, Some(Amount::Percent(4))), 101).expect("too much");
        assert!(told.starts_with("the disk has 500B free, 101B are needed and min_free_space is 400B: remove"), "{told}");
    }
}
