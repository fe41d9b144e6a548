//! Untag and delete, by Docker's rules: who may still need the image decides.
//!
//! A name: it goes; the image goes with its last name. An id: all its names go, if they are in one repository or force is given.
//! A running container forbids deletion always, a stopped one unless forced.

use rcontainerd_store::WriteTx;
use rcontainerd_store::metadata::key;
use rcontainerd_types::{Digest, Error, ErrorKind, Reference, Result, id};

use super::catalog::{self, Catalog, Entry, ImageRow, dangling_name};
use super::document;
use super::model::{ImageEvent, ImageUser, RemoveImage, Removed};
use super::state::State;

/// One removal, under the lock on names.
struct Removal<'a> {
    state: &'a State,
    namespace: &'a str,
    request: &'a RemoveImage,
    catalog: &'a Catalog,
    image: Digest,
    users: Vec<ImageUser>,
    done: Vec<Removed>,
}

pub(super) fn remove(
    state: &State,
    namespace: &str,
    request: &RemoveImage,
    users: impl FnOnce(&Digest) -> Result<Vec<ImageUser>>,
) -> Result<Vec<Removed>> {
    let _changing = state.changing();
    let catalog = Catalog::read(&state.store, namespace)?;
    let (image, entry) = catalog.resolve(&request.name)?;
    let users = users(&image)?.into_iter().filter(|user| user.image_id == image).collect();
    let mut removal = Removal { state, namespace, request, catalog: &catalog, image, users, done: Vec::new() };
    match entry {
        Some(entry) => removal.by_name(entry)?,
        None => removal.by_id()?,
    }
    Ok(removal.done)
}

impl Removal<'_> {
    fn by_name(&mut self, entry: &Entry) -> Result<()> {
        let references = self.catalog.references_of(&self.image);
        if !self.request.force
            && is_single(&references)
            && let Some(user) = self.users.first()
        {
            return Err(Error::conflict(format!(
                "conflict: unable to remove repository reference \"{}\" (must force) - container {} is using its referenced image {}",
                self.request.name,
                id::short(&user.container_id),
                id::short(self.image.hex())
            )));
        }
        let mut going = vec![entry.clone()];
        going.extend(self.orphaned_digests(entry));
        let remains = references.len() > going.len();
        // The last name of an image that runs is taken, the image stays (force only: refused above otherwise).
        let kept = !remains && self.conflict(self.request.force).is_some();
        self.untag(&going, kept)?;
        if remains || kept { Ok(()) } else { self.delete() }
    }

    /// `repo@digest` names go with the last tag of their repository.
    fn orphaned_digests(&self, entry: &Entry) -> Vec<Entry> {
        let Some(gone) = entry.reference.as_ref().filter(|reference| reference.digest().is_none()) else { return Vec::new() };
        let same_repository = |other: &&Entry| {
            other.record.name != entry.record.name && other.reference.as_ref().is_some_and(|reference| reference.name() == gone.name())
        };
        let others: Vec<&Entry> = self.catalog.entries_of(&self.image).filter(same_repository).collect();
        let is_digest = |other: &&Entry| other.reference.as_ref().is_some_and(|reference| reference.digest().is_some());
        if others.iter().all(is_digest) { others.into_iter().cloned().collect() } else { Vec::new() }
    }

    fn by_id(&mut self) -> Result<()> {
        let references = self.catalog.references_of(&self.image);
        if !self.request.force && !references.is_empty() && !is_single(&references) {
            return Err(self.refuse("must be forced", "image is referenced in multiple repositories"));
        }
        if let Some(conflict) = self.conflict(self.request.force) {
            return Err(conflict);
        }
        let named: Vec<Entry> = self.catalog.entries_of(&self.image).filter(|entry| entry.reference.is_some()).cloned().collect();
        self.untag(&named, false)?;
        self.delete()
    }

    /// Why the image itself may not go.
    fn conflict(&self, force: bool) -> Option<Error> {
        if let Some(user) = self.users.iter().find(|user| user.running) {
            let told = format!("image is being used by running container {}", id::short(&user.container_id));
            return Some(self.refuse("cannot be forced", &told));
        }
        let user = self.users.first().filter(|_| !force)?;
        let told = format!("image is being used by stopped container {}", id::short(&user.container_id));
        Some(self.refuse("must be forced", &told))
    }

    fn refuse(&self, remedy: &str, why: &str) -> Error {
        Error::conflict(format!("conflict: unable to delete {} ({remedy}) - {why}", id::short(self.image.hex())))
    }

    /// Takes names away, in one transaction; `hold` keeps the image as a dangling one.
    fn untag(&mut self, entries: &[Entry], hold: bool) -> Result<()> {
        self.state.store.metadata().write(|tx| {
            for entry in entries {
                catalog::forget(tx, &key(self.namespace, &entry.record.name))?;
            }
            match entries.first().filter(|_| hold) {
                Some(entry) => catalog::hold(tx, self.namespace, &entry.record.target, &entry.row),
                None => self.forget_unnamed(tx),
            }
        })?;
        for entry in entries {
            let name = entry.reference.as_ref().map_or_else(|| entry.record.name.clone(), Reference::familiar);
            self.state.tell(ImageEvent::Untag { id: self.image.clone(), name: name.clone() });
            self.done.push(Removed::Untagged(name));
        }
        Ok(())
    }

    /// With the last name goes what holds a dangling image, and the row.
    fn forget_unnamed(&self, tx: &WriteTx<'_>) -> Result<()> {
        if self.catalog.entries_of(&self.image).any(|entry| entry.reference.is_some() && is_there(tx, self.namespace, entry)) {
            return Ok(());
        }
        for entry in self.catalog.entries_of(&self.image).filter(|entry| entry.reference.is_none()) {
            catalog::forget(tx, &key(self.namespace, &entry.record.name))?;
        }
        for target in self.catalog.entries_of(&self.image).map(|entry| &entry.row.target) {
            catalog::forget(tx, &key(self.namespace, &dangling_name(target)))?;
        }
        tx.delete(catalog::ROWS, &key(self.namespace, &self.image.to_string())).map(drop)
    }

    /// Frees what only this image needed; its names are gone already.
    fn delete(&mut self) -> Result<()> {
        self.state.tell(ImageEvent::Delete { id: self.image.clone() });
        self.done.push(Removed::Deleted(self.image.clone()));
        let row = self.catalog.row(&self.image)?;
        self.free_content(row)?;
        self.free_layers(row)
    }

    fn free_content(&self, row: &ImageRow) -> Result<()> {
        let content = self.state.store.content(self.namespace);
        let mut going = document::closure(&content, &row.manifest)?;
        for entry in self.catalog.entries_of(&self.image) {
            going.extend(document::closure(&content, &entry.record.target)?);
        }
        going.sort();
        going.dedup();
        let mut kept: Vec<Digest> = Vec::new();
        for record in self.state.store.images(self.namespace).list()? {
            kept.extend(document::closure(&content, &record.target)?);
        }
        for lease in self.state.store.leases(self.namespace).list()? {
            kept.extend(lease.content);
        }
        for digest in going.iter().filter(|digest| !kept.contains(digest)) {
            match content.delete(digest) {
                Err(err) if err.kind() != ErrorKind::NotFound => return Err(err),
                _ => {}
            }
        }
        Ok(())
    }

    /// Layers from the top down, as far as no other image or container stands on them.
    fn free_layers(&mut self, row: &ImageRow) -> Result<()> {
        let snapshots = self.state.store.snapshots(self.namespace);
        let others: Vec<&ImageRow> =
            self.catalog.images.iter().filter(|(image, _)| **image != self.image).map(|(_, other)| other).collect();
        for layer in row.layers.iter().rev() {
            if others.iter().any(|other| other.layers.iter().any(|kept| kept.chain_id == layer.chain_id)) {
                return Ok(());
            }
            match snapshots.remove(&layer.chain_id.to_string()) {
                Ok(()) => self.done.push(Removed::Deleted(layer.chain_id.clone())),
                // Something stands on it: so does all below.
                Err(err) if err.kind() == ErrorKind::Conflict => return Ok(()),
                Err(err) if err.kind() == ErrorKind::NotFound => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }
}

fn is_there(tx: &WriteTx<'_>, namespace: &str, entry: &Entry) -> bool {
    tx.contains(rcontainerd_store::records::IMAGES, &key(namespace, &entry.record.name)).unwrap_or(true)
}

/// Whether all names are in one repository, with at most one tag.
fn is_single(references: &[Reference]) -> bool {
    let tags = references.iter().filter(|reference| reference.digest().is_none()).count();
    let first = references.first().map(Reference::name);
    tags <= 1 && references.iter().all(|reference| Some(reference.name()) == first)
}
