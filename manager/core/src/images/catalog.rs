//! What names stand for. The primitive record (name → descriptor, containerd's image) is the truth; beside it stand rows that save
//! reading manifests again. A row is believed only while its target is the record's: a containerd client may move a name beneath us.
//!
//! ```text
//! images                ns/name → ImageRecord                      (the store's; also what garbage collection starts from)
//! docker.images.names   ns/name → NameRow { target, image, … }
//! docker.images         ns/<image id> → ImageRow { manifest, layers with sizes }
//! ```
//! An image without a name is held by a record called `moby-dangling@<digest>`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rcontainerd_store::metadata::{Followed, Table, Touched, key, prefix};
use rcontainerd_store::records::{IMAGES, ImageRecord};
use rcontainerd_store::{ReadTx, Store, WriteTx};
use rcontainerd_types::{Descriptor, Digest, Error, Reference, Result, id};
use serde::{Deserialize, Serialize};

use super::document;

pub(super) const NAMES: Table<NameRow> = Table::new("docker.images.names", 1).followed();
pub(super) const ROWS: Table<ImageRow> = Table::new("docker.images", 1).followed();
/// Prefix of records that hold what has no name.
const DANGLING: &str = "moby-dangling@";

/// What a name stands for in Docker's view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NameRow {
    /// The record's target when this row was written.
    pub target: Digest,
    /// Digest of the config: Docker's image id.
    pub image: Digest,
    /// Whether the name's repository serves the target (then `repo@digest` is shown).
    pub pulled: bool,
    pub tagged: Timestamp,
}

/// An image of one platform, unpacked or to be unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageRow {
    pub manifest: Descriptor,
    /// The image that it was made from here, by commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Digest>,
    /// Set for what is no image: it is carried, not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<ArtifactRow>,
    pub layers: Vec<LayerRow>,
    /// What a list tells of its config. Earlier versions did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brief: Option<Brief>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Brief {
    /// Seconds since the epoch; `None` where the config has no date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ArtifactRow {
    /// Its media type.
    pub kind: String,
    /// Bytes of all its blobs.
    pub size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerRow {
    pub blob: Descriptor,
    pub diff_id: Digest,
    /// Name of the committed snapshot.
    pub chain_id: Digest,
    /// Bytes on disk when unpacked.
    pub size: u64,
}

impl ImageRow {
    /// Of the layers, lowest first.
    pub(super) fn sizes(&self) -> Vec<u64> {
        self.layers.iter().map(|layer| layer.size).collect()
    }

    pub(super) fn size(&self) -> u64 {
        self.artifact.as_ref().map_or(0, |artifact| artifact.size) + self.layers.iter().map(|layer| layer.size).sum::<u64>()
    }
}

/// One name with all that is known of it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub record: ImageRecord,
    pub row: NameRow,
    /// `None` for what holds a dangling image, and for names of containerd clients that are no references.
    pub reference: Option<Reference>,
}

/// A consistent view of one namespace.
#[derive(Clone, Default)]
pub(super) struct Catalog {
    /// By the record's name.
    entries: BTreeMap<String, Arc<Entry>>,
    /// Rows of the database; those that nothing names are not images.
    rows: BTreeMap<Digest, Arc<ImageRow>>,
    /// Rows of images that only records lead to.
    derived: BTreeMap<Digest, Arc<ImageRow>>,
    /// Of each image, by the record's name.
    named: HashMap<Digest, Named>,
    /// Of each repository, by the record's name.
    repositories: HashMap<String, Named>,
}

/// Entries in the order of their names: nearly always one.
type Named = Vec<Arc<Entry>>;

/// The catalogues of the namespaces as they were last read. What has changed since is read again, not all.
#[derive(Default)]
pub(super) struct Catalogs(Mutex<HashMap<String, Kept>>);

/// Records without a row, by name: what they stand for depends on content that may come or go.
type Underived = BTreeMap<String, ImageRecord>;

struct Kept {
    followed: Followed,
    catalog: Arc<Catalog>,
    underived: Underived,
}

pub(super) fn dangling_name(target: &Digest) -> String {
    format!("{DANGLING}{target}")
}

impl Catalogs {
    /// The namespace as it is; records whose content is not here (yet) are not in it.
    pub(super) fn read(&self, store: &Store, namespace: &str) -> Result<Arc<Catalog>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.remove(namespace);
        let since = kept.as_ref().map(|kept| kept.followed);
        let ((mut catalog, underived), followed) = store.metadata().read_since(since, |tx, touched| match (kept, touched) {
            (Some(Kept { mut catalog, mut underived, .. }), Some(touched)) => {
                let changed = Changed::of(namespace, &touched);
                if !(changed.is_empty() && underived.is_empty()) {
                    Arc::make_mut(&mut catalog).follow(tx, namespace, changed, &mut underived)?;
                }
                Ok((catalog, underived))
            }
            _ => Catalog::load(tx, namespace).map(|(catalog, underived)| (Arc::new(catalog), underived)),
        })?;
        if !underived.is_empty() {
            Arc::make_mut(&mut catalog).derive(store, namespace, &underived)?;
        }
        all.insert(namespace.to_owned(), Kept { followed, catalog: Arc::clone(&catalog), underived });
        Ok(catalog)
    }
}

/// Which names and rows of a namespace changed.
struct Changed {
    names: BTreeSet<String>,
    rows: BTreeSet<Digest>,
}

impl Changed {
    fn of(namespace: &str, touched: &[Touched]) -> Self {
        let prefix = prefix(namespace);
        let mut changed = Self { names: BTreeSet::new(), rows: BTreeSet::new() };
        for touched in touched {
            let Some(name) = touched.key.strip_prefix(&prefix) else { continue };
            if touched.table == ROWS.name() {
                changed.rows.extend(name.parse::<Digest>());
            } else if [IMAGES.name(), NAMES.name()].contains(&touched.table) {
                changed.names.insert(name.to_owned());
            }
        }
        changed
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.rows.is_empty()
    }
}

impl Catalog {
    fn load(tx: &ReadTx<'_>, namespace: &str) -> Result<(Self, Underived)> {
        let prefix = prefix(namespace);
        let (mut catalog, mut underived) = (Self::default(), Underived::new());
        for (key, row) in tx.list_prefix(ROWS, &prefix)? {
            catalog.rows.insert(key[prefix.len()..].parse()?, Arc::new(row));
        }
        let mut names: HashMap<String, NameRow> = tx.list_prefix(NAMES, &prefix)?.into_iter().collect();
        for (key, record) in tx.list_prefix(IMAGES, &prefix)? {
            let row = names.remove(&key);
            catalog.enter(record, row, &mut underived);
        }
        Ok((catalog, underived))
    }

    /// Reads again what has changed.
    fn follow(&mut self, tx: &ReadTx<'_>, namespace: &str, changed: Changed, underived: &mut Underived) -> Result<()> {
        let Changed { mut names, rows } = changed;
        for image in rows {
            names.extend(self.named.get(&image).into_iter().flatten().map(|entry| entry.record.name.clone()));
            match tx.get(ROWS, &key(namespace, &image.to_string()))? {
                Some(row) => drop(self.rows.insert(image, Arc::new(row))),
                None => drop(self.rows.remove(&image)),
            }
        }
        // What had no row may have one now.
        names.extend(std::mem::take(underived).into_keys());
        for name in names {
            self.leave(&name);
            let key = key(namespace, &name);
            if let Some(record) = tx.get(IMAGES, &key)? {
                self.enter(record, tx.get(NAMES, &key)?, underived);
            }
        }
        Ok(())
    }

    fn enter(&mut self, record: ImageRecord, row: Option<NameRow>, underived: &mut Underived) {
        match row.filter(|row| row.target == record.target.digest && self.rows.contains_key(&row.image)) {
            Some(row) => self.insert(record, row),
            None => drop(underived.insert(record.name.clone(), record)),
        }
    }

    fn insert(&mut self, record: ImageRecord, row: NameRow) {
        let reference: Option<Reference> = if record.name.starts_with(DANGLING) { None } else { record.name.parse().ok() };
        let name = record.name.clone();
        let entry = Arc::new(Entry { record, row, reference });
        put_in(self.named.entry(entry.row.image.clone()).or_default(), &entry);
        if let Some(reference) = &entry.reference {
            put_in(self.repositories.entry(reference.name()).or_default(), &entry);
        }
        self.entries.insert(name, entry);
    }

    fn leave(&mut self, name: &str) {
        let Some(entry) = self.entries.remove(name) else { return };
        forget_in(&mut self.named, &entry.row.image, name);
        if let Some(reference) = &entry.reference {
            forget_in(&mut self.repositories, &reference.name(), name);
        }
    }

    /// Looks anew what records without a row stand for.
    fn derive(&mut self, store: &Store, namespace: &str, underived: &Underived) -> Result<()> {
        self.derived.clear();
        for (name, record) in underived {
            self.leave(name);
            if let Some((image, row)) = document::derive(store, namespace, &record.target)? {
                self.derived.insert(image.clone(), Arc::new(row));
                let row = NameRow { target: record.target.digest.clone(), image, pulled: false, tagged: record.updated };
                self.insert(record.clone(), row);
            }
        }
        Ok(())
    }

    /// By the record's name.
    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name).map(AsRef::as_ref)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().map(AsRef::as_ref)
    }

    /// By id.
    pub(super) fn images(&self) -> impl Iterator<Item = (&Digest, &ImageRow)> {
        self.shared_images().map(|(image, row)| (image, row.as_ref()))
    }

    /// As [`Self::images`], for who keeps rows.
    pub(super) fn shared_images(&self) -> impl Iterator<Item = (&Digest, &Arc<ImageRow>)> {
        let derived = self.derived.iter().filter(|(image, _)| !self.rows.contains_key(*image));
        let mut all: Vec<_> = self.rows.iter().chain(derived).filter(|(image, _)| self.named.contains_key(*image)).collect();
        if !self.derived.is_empty() {
            all.sort_by_key(|(image, _)| *image);
        }
        all.into_iter()
    }

    pub(super) fn image(&self, image: &Digest) -> Option<&ImageRow> {
        let row = self.rows.get(image).or_else(|| self.derived.get(image));
        row.filter(|_| self.named.contains_key(image)).map(AsRef::as_ref)
    }

    /// All names of an image, those that only hold it included.
    pub(super) fn entries_of<'a>(&'a self, image: &Digest) -> impl Iterator<Item = &'a Entry> + use<'a> {
        self.named.get(image).into_iter().flatten().map(AsRef::as_ref)
    }

    /// All names in a repository.
    pub(super) fn entries_in<'a>(&'a self, repository: &str) -> impl Iterator<Item = &'a Entry> + use<'a> {
        self.repositories.get(repository).into_iter().flatten().map(AsRef::as_ref)
    }

    /// Names of an image that people gave.
    pub(super) fn references_of(&self, image: &Digest) -> Vec<Reference> {
        let mut references: Vec<Reference> = self.entries_of(image).filter_map(|entry| entry.reference.clone()).collect();
        references.sort_by_cached_key(Reference::familiar);
        references
    }

    pub(super) fn row(&self, image: &Digest) -> Result<&ImageRow> {
        self.image(image).ok_or_else(|| Error::not_found(format!("No such image: {image}")))
    }

    /// What people typed → image, and the name it was found by (`None` when it was an id).
    pub(super) fn resolve(&self, name: &str) -> Result<(Digest, Option<&Entry>)> {
        if let Ok(digest) = name.parse::<Digest>() {
            return self.by_digest(&digest).ok_or_else(|| no_such_image(name)).map(|image| (image, None));
        }
        if let Ok(reference) = name.parse::<Reference>()
            && reference.check_unambiguous().is_ok()
            && let Some(found) = self.by_reference(&reference)
        {
            return Ok((found.row.image.clone(), Some(found)));
        }
        self.by_prefix(name).map(|image| (image, None))
    }

    pub(super) fn by_reference(&self, reference: &Reference) -> Option<&Entry> {
        let repository = reference.name();
        let here = || self.entries_in(&repository);
        if let Some(digest) = reference.digest() {
            let same = |entry: &&Entry| entry.row.target == *digest;
            let exact = |entry: &&Entry| entry.reference.as_ref().is_some_and(|found| found.digest() == Some(digest));
            return here().filter(same).find(exact).or_else(|| here().find(same));
        }
        let wanted = reference.clone().or_latest();
        // Records are named so, but those of containerd's clients, who may write a name in another form.
        if let Some(found) = self.entry(&wanted.to_string()).filter(|entry| entry.reference.as_ref() == Some(&wanted)) {
            return Some(found);
        }
        here().find(|entry| entry.reference.as_ref() == Some(&wanted))
    }

    /// A full digest may be the image's id, or that of its manifest or index.
    fn by_digest(&self, digest: &Digest) -> Option<Digest> {
        if self.image(digest).is_some() {
            return Some(digest.clone());
        }
        let by_manifest = self.images().find(|(_, row)| row.manifest.digest == *digest).map(|(image, _)| image.clone());
        by_manifest.or_else(|| self.entries().find(|entry| entry.row.target == *digest).map(|entry| entry.row.image.clone()))
    }

    fn by_prefix(&self, name: &str) -> Result<Digest> {
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        if hex.is_empty() || hex.len() > id::ID_LEN || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            name.parse::<Reference>()?;
            return Err(no_such_image(name));
        }
        let mut found = self.images().map(|(image, _)| image).filter(|image| image.hex().starts_with(hex));
        match (found.next(), found.next()) {
            (Some(image), None) => Ok(image.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!("image id prefix {name} is ambiguous: give more digits"))),
            (None, _) => Err(no_such_image(name)),
        }
    }
}

/// Puts an entry in its place, in that of one with the same name.
fn put_in(names: &mut Named, entry: &Arc<Entry>) {
    match names.binary_search_by(|known| known.record.name.cmp(&entry.record.name)) {
        Ok(place) => names[place] = Arc::clone(entry),
        Err(place) => names.insert(place, Arc::clone(entry)),
    }
}

/// Takes `name` from the set under `key`, and the set with its last name.
fn forget_in<K: Eq + std::hash::Hash>(sets: &mut HashMap<K, Named>, key: &K, name: &str) {
    if let Some(names) = sets.get_mut(key) {
        if let Ok(place) = names.binary_search_by(|known| known.record.name.as_str().cmp(name)) {
            names.remove(place);
        }
        if names.is_empty() {
            sets.remove(key);
        }
    }
}

pub(super) fn no_such_image(name: &str) -> Error {
    let shown = match name.parse::<Reference>() {
        Ok(reference) if reference.check_unambiguous().is_ok() => reference.or_latest().familiar(),
        _ => name.to_owned(),
    };
    Error::not_found(format!("No such image: {shown}"))
}

/// Points `name` at an image, in the caller's transaction, if images may have it; what thereby loses its last name is held as dangling.
pub(super) fn point(tx: &WriteTx<'_>, namespace: &str, name: &str, target: &Descriptor, row: &NameRow, image: &ImageRow) -> Result<()> {
    if let Ok(reference) = name.parse::<Reference>() {
        reference.check_unambiguous()?;
    }
    let old: Option<(ImageRecord, NameRow)> = match (tx.get(IMAGES, &key(namespace, name))?, tx.get(NAMES, &key(namespace, name))?) {
        (Some(record), Some(names)) if names.image != row.image => Some((record, names)),
        _ => None,
    };
    rcontainerd_store::records::put_image(tx, namespace, name, target.clone(), std::collections::BTreeMap::new())?;
    tx.put(NAMES, &key(namespace, name), row)?;
    tx.put(ROWS, &key(namespace, &row.image.to_string()), image)?;
    if let Some((record, names)) = old
        && !has_name(tx, namespace, &names.image)?
    {
        hold(tx, namespace, &record.target, &names)?;
    }
    if !name.starts_with(DANGLING) {
        release(tx, namespace, &row.image)?;
    }
    Ok(())
}

/// Keeps an image that has lost its last name.
pub(super) fn hold(tx: &WriteTx<'_>, namespace: &str, target: &Descriptor, names: &NameRow) -> Result<()> {
    let name = dangling_name(&target.digest);
    rcontainerd_store::records::put_image(tx, namespace, &name, target.clone(), std::collections::BTreeMap::new())?;
    tx.put(NAMES, &key(namespace, &name), &NameRow { pulled: false, ..names.clone() })
}

/// Whether any row names the image.
pub(super) fn has_name(tx: &WriteTx<'_>, namespace: &str, image: &Digest) -> Result<bool> {
    let rows = tx.list_prefix(NAMES, &prefix(namespace))?;
    Ok(rows.iter().any(|(_, row)| row.image == *image))
}

/// Drops the dangling records of an image that has a name again.
fn release(tx: &WriteTx<'_>, namespace: &str, image: &Digest) -> Result<()> {
    let held = key(namespace, DANGLING);
    for (key, row) in tx.list_prefix(NAMES, &held)? {
        if row.image == *image {
            forget(tx, &key)?;
        }
    }
    Ok(())
}

/// Removes the record and the row under a full key (`ns/name`).
pub(super) fn forget(tx: &WriteTx<'_>, key: &str) -> Result<()> {
    tx.delete(IMAGES, key)?;
    tx.delete(NAMES, key)?;
    Ok(())
}
