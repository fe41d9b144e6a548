//! Namespaces: those that someone made, and those that have anything in them.

use std::collections::BTreeMap;

use rcontainerd_store::Store;
use rcontainerd_store::content::CONTENT;
use rcontainerd_store::metadata::{Labels, ReadTx, Table};
use rcontainerd_store::records::{CONTAINERS, IMAGES, LEASES};
use rcontainerd_types::{Error, Result, id};

/// Labels of namespaces that were made or labelled by a client.
pub const NAMESPACES: Table<Labels> = Table::new("namespaces", 1);

/// All namespaces with their labels.
///
/// # Errors
/// When the database cannot be read.
pub fn list(store: &Store) -> Result<BTreeMap<String, Labels>> {
    store.metadata().read(|tx| {
        let mut all: BTreeMap<String, Labels> = BTreeMap::from([(crate::NAMESPACE.to_owned(), Labels::new())]);
        for name in names(tx, IMAGES)?.into_iter().chain(names(tx, CONTAINERS)?).chain(names(tx, CONTENT)?).chain(names(tx, LEASES)?) {
            all.entry(name).or_default();
        }
        all.extend(tx.list(NAMESPACES)?);
        Ok(all)
    })
}

/// The namespaces of a table's keys (`namespace/…`).
fn names<T>(tx: &ReadTx<'_>, table: Table<T>) -> Result<Vec<String>> {
    let mut names: Vec<String> =
        tx.keys(table, "")?.iter().filter_map(|key| key.split_once('/')).map(|(namespace, _)| namespace.to_owned()).collect();
    names.dedup();
    Ok(names)
}

/// # Errors
/// `AlreadyExists`; `InvalidArgument` for a malformed name.
pub fn create(store: &Store, name: &str, labels: &Labels) -> Result<()> {
    id::validate_identifier(name)?;
    store.metadata().write(|tx| match tx.contains(NAMESPACES, name)? {
        true => Err(Error::already_exists(format!("namespace {name:?} already exists"))),
        false => tx.put(NAMESPACES, name, labels),
    })
}

/// Replaces the labels; clients label a namespace before anything is in it, which makes it.
///
/// # Errors
/// `InvalidArgument` for a malformed name.
pub fn set_labels(store: &Store, name: &str, labels: &Labels) -> Result<()> {
    id::validate_identifier(name)?;
    store.metadata().write(|tx| tx.put(NAMESPACES, name, labels))
}

/// Forgets an empty namespace.
///
/// # Errors
/// `NotFound`; `Conflict` while anything is in it.
pub fn delete(store: &Store, name: &str) -> Result<()> {
    if !list(store)?.contains_key(name) {
        return Err(not_found(name));
    }
    store.metadata().write(|tx| {
        let prefix = format!("{name}/");
        for (what, empty) in [
            ("images", tx.list_prefix(IMAGES, &prefix)?.is_empty()),
            ("containers", tx.list_prefix(CONTAINERS, &prefix)?.is_empty()),
            ("blobs", tx.list_prefix(CONTENT, &prefix)?.is_empty()),
        ] {
            if !empty {
                return Err(Error::conflict(format!("namespace {name:?} must be empty, but it still has {what}")));
            }
        }
        tx.delete(NAMESPACES, name).map(drop)
    })
}

fn not_found(name: &str) -> Error {
    Error::not_found(format!("namespace {name:?} not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_there_when_made_or_used() {
        let dir = tempfile::tempdir().expect("directory");
        let store = Store::open(dir.path()).expect("store");
        create(&store, "made", &Labels::from([("a".into(), "b".into())])).expect("create");
        assert!(create(&store, "made", &Labels::new()).is_err());
        assert!(create(&store, "a/b", &Labels::new()).is_err());
        store.content("used").put(b"x", Labels::new()).expect("content");
        let names: Vec<String> = list(&store).expect("list").into_keys().collect();
        assert_eq!(names, ["made", "moby", "used"]);
        assert!(delete(&store, "used").expect_err("not empty").message().contains("still has blobs"));
        delete(&store, "made").expect("delete");
        assert!(delete(&store, "made").is_err());
        set_labels(&store, "labelled", &Labels::from([("a".into(), "b".into())])).expect("label");
        assert!(list(&store).expect("list").contains_key("labelled"));
        assert!(set_labels(&store, "../x", &Labels::new()).is_err());
    }
}
