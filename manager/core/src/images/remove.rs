//! Untag and delete, by Docker's rules: who may still need the image decides.
//!
//! A name: it goes; the image goes with its last name. An id: all its names go, if they are in one repository or force is given.
//! A running container forbids deletion always, a stopped one unless forced. Images without a name that it was made from, and that
//! nothing else was made from, go along.

use std::collections::BTreeSet;

use rcontainerd_store::metadata::{Durability, key};
use rcontainerd_store::records::ImageRecord;
use rcontainerd_store::{Content, WriteTx};
use rcontainerd_types::{Digest, Error, Reference, Result, id};

use super::caps;
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
    users: impl Fn(&Digest) -> Result<Vec<ImageUser>>,
) -> Result<Vec<Removed>> {
    let _changing = state.changing();
    let catalog = state.catalog(namespace)?;
    let (image, entry) = catalog.resolve(&request.name)?;
    let using = users(&image)?.into_iter().filter(|user| user.image_id == image).collect();
    let mut removal = Removal { state, namespace, request, catalog: &catalog, image: image.clone(), users: using, done: Vec::new() };
    match entry {
        Some(entry) => removal.by_name(entry)?,
        None => removal.by_id()?,
    }
    let mut done = removal.done;
    let mut parent = catalog.row(&image)?.parent.clone().filter(|_| !request.keep_parents && done.contains(&Removed::Deleted(image)));
    while let Some(image) = parent.take() {
        let catalog = state.catalog(namespace)?;
        let Some(row) = catalog.image(&image) else { break };
        let has_children = catalog.images().any(|(_, other)| other.parent.as_ref() == Some(&image));
        if has_children || !catalog.references_of(&image).is_empty() || users(&image)?.iter().any(|user| user.image_id == image) {
            break;
        }
        parent.clone_from(&row.parent);
        let mut removal = Removal { state, namespace, request, catalog: &catalog, image, users: Vec::new(), done };
        removal.by_id()?;
        done = removal.done;
    }
    Ok(done)
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
        if remains || kept { self.untag(&going, kept) } else { self.delete(&going) }
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
        if let Some(hard) = self.conflict(true) {
            return Err(hard);
        }
        if let Some(name) = caps::pin(self.catalog, &self.image) {
            let id = id::short(self.image.hex());
            return Err(Error::conflict(format!("conflict: unable to delete {id} (must be named) - image is pinned: remove it as {name}")));
        }
        if !self.request.force && !references.is_empty() && !is_single(&references) {
            return Err(self.refuse("must be forced", "image is referenced in multiple repositories"));
        }
        if let Some(conflict) = self.conflict(self.request.force) {
            return Err(conflict);
        }
        let named: Vec<Entry> = self.catalog.entries_of(&self.image).filter(|entry| entry.reference.is_some()).cloned().collect();
        self.delete(&named)
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
        self.state.store.metadata().write_freeing(Durability::Immediate, |tx| {
            self.forget(tx, entries)?;
            match entries.first().filter(|_| hold) {
                Some(entry) => catalog::hold(tx, self.namespace, &entry.record.target, &entry.row),
                None => self.forget_unnamed(tx),
            }
        })?;
        self.tell_untagged(entries);
        Ok(())
    }

    fn forget(&self, tx: &WriteTx<'_>, entries: &[Entry]) -> Result<()> {
        entries.iter().try_for_each(|entry| catalog::forget(tx, &key(self.namespace, &entry.record.name)))
    }

    fn tell_untagged(&mut self, entries: &[Entry]) {
        for entry in entries {
            let name = entry.reference.as_ref().map_or_else(|| entry.record.name.clone(), Reference::familiar);
            self.state.tell(ImageEvent::Untag { id: self.image.clone(), name: name.clone() });
            self.done.push(Removed::Untagged(name));
        }
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

    /// Takes the last names away, and with them, in one transaction, what only this image needed.
    fn delete(&mut self, entries: &[Entry]) -> Result<()> {
        let row = self.catalog.row(&self.image)?;
        let (content, layers) = (self.own_content(row)?, self.own_layers(row));
        let ((), released) = self.state.store.release(self.namespace, &content, &layers, |tx| {
            self.forget(tx, entries)?;
            self.forget_unnamed(tx)
        })?;
        self.tell_untagged(entries);
        self.state.tell(ImageEvent::Delete { id: self.image.clone() });
        self.done.push(Removed::Deleted(self.image.clone()));
        for layer in released.layers {
            self.done.push(Removed::Deleted(layer.parse()?));
        }
        Ok(())
    }

    /// Blobs that nothing else leads to.
    fn own_content(&self, row: &ImageRow) -> Result<Vec<Digest>> {
        let content = self.state.store.content(self.namespace);
        let mut going: BTreeSet<Digest> = document::closure(&content, &row.manifest)?.into_iter().collect();
        let mut leaving = BTreeSet::new();
        for entry in self.catalog.entries_of(&self.image) {
            going.extend(document::closure(&content, &entry.record.target)?);
            leaving.extend([entry.record.name.clone(), dangling_name(&entry.row.target)]);
        }
        for record in self.state.store.images(self.namespace).list()?.iter().filter(|record| !leaving.contains(&record.name)) {
            if self.may_need(&content, record, &going)? {
                for digest in document::closure(&content, &record.target)? {
                    going.remove(&digest);
                }
            }
        }
        for digest in self.state.store.leases(self.namespace).list()?.iter().flat_map(|lease| &lease.content) {
            going.remove(digest);
        }
        Ok(going.into_iter().collect())
    }

    /// Whether it is worth looking into another record's documents: not where its row says all that they say.
    fn may_need(&self, content: &Content, record: &ImageRecord, going: &BTreeSet<Digest>) -> Result<bool> {
        let Some(entry) = self.catalog.entry(&record.name) else { return Ok(true) };
        let row = self.catalog.image(&entry.row.image).filter(|row| row.manifest.digest == record.target.digest);
        let Some(row) = row.filter(|row| row.artifact.is_none()) else { return Ok(true) };
        let layers = row.layers.iter().map(|layer| &layer.blob.digest);
        let shared = layers.chain([&entry.row.image, &record.target.digest]).any(|digest| going.contains(digest));
        Ok(shared || document::has_referrers(content, &record.target.digest)?)
    }

    /// Layers that no other image has, topmost first.
    fn own_layers(&self, row: &ImageRow) -> Vec<String> {
        let own: BTreeSet<&Digest> = row.layers.iter().map(|layer| &layer.chain_id).collect();
        let others = self.catalog.images().filter(|(image, _)| **image != self.image).flat_map(|(_, other)| &other.layers);
        let kept: BTreeSet<&Digest> = others.map(|layer| &layer.chain_id).filter(|chain_id| own.contains(*chain_id)).collect();
        let going = row.layers.iter().rev().map(|layer| &layer.chain_id).take_while(|chain_id| !kept.contains(*chain_id));
        going.map(ToString::to_string).collect()
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
