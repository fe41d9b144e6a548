//! What names stand for. The primitive record (name → descriptor, containerd's image) is the truth; beside it stand rows that save
//! reading manifests again. A row is believed only while its target is the record's: a containerd client may move a name beneath us.
//!
//! ```text
//! images                ns/name → ImageRecord                      (the store's; also what garbage collection starts from)
//! docker.images.names   ns/name → NameRow { target, image, … }
//! docker.images         ns/<image id> → ImageRow { manifest, layers with sizes }
//! ```
//! An image without a name is held by a record called `moby-dangling@<digest>`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rcontainerd_store::metadata::{Table, key, prefix};
use rcontainerd_store::records::{IMAGES, ImageRecord};
use rcontainerd_store::{Store, WriteTx};
use rcontainerd_types::{Descriptor, Digest, Error, Reference, Result, id};
use serde::{Deserialize, Serialize};

use super::document;

pub(super) const NAMES: Table<NameRow> = Table::new("docker.images.names", 1);
pub(super) const ROWS: Table<ImageRow> = Table::new("docker.images", 1);
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
    pub layers: Vec<LayerRow>,
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
    pub(super) fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
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
pub(super) struct Catalog {
    pub entries: Vec<Entry>,
    pub images: BTreeMap<Digest, ImageRow>,
}

pub(super) fn dangling_name(target: &Digest) -> String {
    format!("{DANGLING}{target}")
}

impl Catalog {
    /// Reads the namespace; records whose content is not here (yet) are not in it.
    pub(super) fn read(store: &Store, namespace: &str) -> Result<Self> {
        let prefix = prefix(namespace);
        let (records, mut names, rows) = store.metadata().read(|tx| {
            let names: BTreeMap<String, NameRow> = tx.list_prefix(NAMES, &prefix)?.into_iter().collect();
            Ok((tx.list_prefix(IMAGES, &prefix)?, names, tx.list_prefix(ROWS, &prefix)?))
        })?;
        let mut images = BTreeMap::new();
        for (key, row) in rows {
            images.insert(key[prefix.len()..].parse::<Digest>()?, row);
        }
        let mut entries = Vec::new();
        for (key, record) in records {
            let known = names.remove(&key).filter(|row| row.target == record.target.digest && images.contains_key(&row.image));
            let row = match known {
                Some(row) => row,
                None => match document::derive(store, namespace, &record.target)? {
                    Some((image, row)) => {
                        images.entry(image.clone()).or_insert(row);
                        NameRow { target: record.target.digest.clone(), image, pulled: false, tagged: record.updated }
                    }
                    None => continue,
                },
            };
            let reference = if record.name.starts_with(DANGLING) { None } else { record.name.parse().ok() };
            entries.push(Entry { record, row, reference });
        }
        images.retain(|id, _| entries.iter().any(|entry| entry.row.image == *id));
        Ok(Self { entries, images })
    }

    /// All names of an image, those that only hold it included.
    pub(super) fn entries_of<'a>(&'a self, image: &'a Digest) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.row.image == *image)
    }

    /// Names of an image that people gave.
    pub(super) fn references_of(&self, image: &Digest) -> Vec<Reference> {
        let mut references: Vec<Reference> = self.entries_of(image).filter_map(|entry| entry.reference.clone()).collect();
        references.sort_by_key(Reference::familiar);
        references
    }

    pub(super) fn row(&self, image: &Digest) -> Result<&ImageRow> {
        self.images.get(image).ok_or_else(|| Error::not_found(format!("No such image: {image}")))
    }

    /// What people typed → image, and the name it was found by (`None` when it was an id).
    pub(super) fn resolve(&self, name: &str) -> Result<(Digest, Option<&Entry>)> {
        if let Ok(digest) = name.parse::<Digest>() {
            return self.by_digest(&digest).ok_or_else(|| no_such_image(name)).map(|image| (image, None));
        }
        if let Ok(reference) = name.parse::<Reference>()
            && let Some(found) = self.by_reference(&reference)
        {
            return Ok((found.row.image.clone(), Some(found)));
        }
        self.by_prefix(name).map(|image| (image, None))
    }

    pub(super) fn by_reference(&self, reference: &Reference) -> Option<&Entry> {
        if let Some(digest) = reference.digest() {
            let same = |entry: &&Entry| {
                let found = entry.reference.as_ref().is_some_and(|found| found.name() == reference.name());
                found && entry.row.target == *digest
            };
            let exact = |entry: &&Entry| entry.reference.as_ref().is_some_and(|found| found.digest() == Some(digest));
            let here = || self.entries.iter().filter(same);
            return here().find(exact).or_else(|| here().next());
        }
        let wanted = reference.clone().or_latest();
        self.entries.iter().find(|entry| entry.reference.as_ref() == Some(&wanted))
    }

    /// A full digest may be the image's id, or that of its manifest or index.
    fn by_digest(&self, digest: &Digest) -> Option<Digest> {
        if self.images.contains_key(digest) {
            return Some(digest.clone());
        }
        let by_manifest = self.images.iter().find(|(_, row)| row.manifest.digest == *digest).map(|(image, _)| image.clone());
        by_manifest.or_else(|| self.entries.iter().find(|entry| entry.row.target == *digest).map(|entry| entry.row.image.clone()))
    }

    fn by_prefix(&self, name: &str) -> Result<Digest> {
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        if hex.is_empty() || hex.len() > id::ID_LEN || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            name.parse::<Reference>()?;
            return Err(no_such_image(name));
        }
        let mut found = self.images.keys().filter(|image| image.hex().starts_with(hex));
        match (found.next(), found.next()) {
            (Some(image), None) => Ok(image.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!("image id prefix {name} is ambiguous: give more digits"))),
            (None, _) => Err(no_such_image(name)),
        }
    }
}

pub(super) fn no_such_image(name: &str) -> Error {
    let shown = match name.parse::<Reference>() {
        Ok(reference) => reference.or_latest().familiar(),
        Err(_) => name.to_owned(),
    };
    Error::not_found(format!("No such image: {shown}"))
}

/// Points `name` at an image, in the caller's transaction; what thereby loses its last name is held as dangling.
pub(super) fn point(tx: &WriteTx<'_>, namespace: &str, name: &str, target: &Descriptor, row: &NameRow, image: &ImageRow) -> Result<()> {
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
