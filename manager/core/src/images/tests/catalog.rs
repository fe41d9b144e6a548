//! The catalogue that is kept says what one that is read anew says.

use jiff::Timestamp;
use rcontainerd_store::records::{IMAGES, ImageRecord};
use rcontainerd_store::{Labels, Store};
use rcontainerd_types::{Descriptor, Digest, media_type};

use super::super::catalog::{Catalog, Catalogs, ImageRow, NAMES, NameRow, ROWS};

const NAMESPACE: &str = "moby";

fn digest(number: u64) -> Digest {
    Digest::sha256(&number.to_le_bytes())
}

fn manifest(number: u64) -> Descriptor {
    Descriptor::new(media_type::OCI_MANIFEST, digest(100 + number), 2)
}

/// Everything that callers can see of it.
fn told(catalog: &Catalog) -> String {
    let mut lines = Vec::new();
    for entry in catalog.entries() {
        lines.push(format!("{} {} {:?}", entry.record.name, entry.row.image, entry.reference));
        if let Some(reference) = &entry.reference {
            let found = catalog.by_reference(reference).map(|found| &found.record.name);
            lines.push(format!("{reference:?} {found:?}"));
        }
    }
    for (image, row) in catalog.images() {
        lines.push(format!("{image} {row:?} {:?}", catalog.references_of(image)));
    }
    lines.join("\n")
}

/// One change of many kinds; `dice` chooses.
fn change(store: &Store, dice: u64) {
    let (kind, name, image) = (dice % 7, (dice >> 8) % 5, (dice >> 16) % 4);
    let name = format!("{NAMESPACE}/registry.example/repository{}:tag{name}", name % 2);
    let row_key = format!("{NAMESPACE}/{}", digest(image));
    let now = Timestamp::now();
    let record = ImageRecord {
        name: name[NAMESPACE.len() + 1..].to_owned(),
        target: manifest(image),
        labels: Labels::new(),
        created: now,
        updated: now,
    };
    let names = NameRow { target: manifest(image).digest, image: digest(image), pulled: dice & 64 == 0, tagged: now };
    let row = ImageRow { manifest: manifest(image), parent: None, artifact: None, layers: Vec::new(), brief: None };
    let written = store.metadata().write(|tx| match kind {
        0 => tx.put(IMAGES, &name, &record),
        1 => tx.put(NAMES, &name, &names),
        2 => tx.put(ROWS, &row_key, &row),
        3 => tx.delete(IMAGES, &name).map(drop),
        4 => tx.delete(ROWS, &row_key).map(drop),
        _ => {
            tx.put(IMAGES, &name, &record)?;
            tx.put(NAMES, &name, &names)?;
            tx.put(ROWS, &row_key, &row)
        }
    });
    written.expect("write");
}

#[test]
fn a_catalogue_that_follows_changes_says_what_the_database_says() {
    let dir = tempfile::tempdir().expect("directory");
    let store = Store::open(dir.path()).expect("store");
    let kept = Catalogs::default();
    let mut dice: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut seen = std::collections::BTreeSet::new();
    for step in 0..400 {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        change(&store, dice);
        if step % 3 != 0 {
            let anew = Catalogs::default().read(&store, NAMESPACE).expect("read anew");
            assert_eq!(told(&kept.read(&store, NAMESPACE).expect("read")), told(&anew), "after step {step}");
            seen.insert(told(&anew));
        }
    }
    assert!(seen.len() > 50, "the changes changed too little to show anything: {}", seen.len());
}

#[test]
fn who_holds_a_catalogue_keeps_what_he_saw() {
    let dir = tempfile::tempdir().expect("directory");
    let store = Store::open(dir.path()).expect("store");
    let kept = Catalogs::default();
    // Name 0 and image 0: record and rows.
    change(&store, 5);
    let before = kept.read(&store, NAMESPACE).expect("read");
    let shown = told(&before);
    change(&store, 3);
    assert_eq!(kept.read(&store, NAMESPACE).expect("read").entries().count(), 0);
    assert_eq!(told(&before), shown);
}
