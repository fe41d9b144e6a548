//! What an image has needed, given back: blobs and layers in one transaction.

use std::collections::HashMap;

use rcontainerd_types::{Digest, Result};

use crate::metadata::{Durability, WriteTx};
use crate::snapshot::{Removal, SNAPSHOTS, Shared};
use crate::store::Store;

/// What has gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Names of layers, in the order that they were given in.
    pub layers: Vec<String>,
}

impl Store {
    /// Takes blobs and layers of the default snapshotter from a namespace, in one transaction with what `work` does: all of it goes or
    /// nothing. Layers are given topmost first; the first that something stands on stays, with all below it. What is not there is fine.
    ///
    /// # Errors
    /// Those of `work` and the database.
    pub fn release<R>(
        &self,
        namespace: &str,
        content: &[Digest],
        layers: &[String],
        mut work: impl FnMut(&WriteTx<'_>) -> Result<R>,
    ) -> Result<(R, Released)> {
        let view = self.content(namespace);
        let mut publishing = self.content_files().hold_publishing();
        let (done, files, dirs) = self.metadata().write_freeing(Durability::Immediate, |tx| {
            let done = work(tx)?;
            let mut files = Vec::new();
            for digest in content {
                if view.delete_in(tx, digest)? {
                    files.push(digest.clone());
                }
            }
            Ok((done, files, self.release_layers(tx, namespace, layers)?))
        })?;
        files.into_iter().for_each(|digest| self.content_files().unlink(&mut publishing, digest));
        drop(publishing);
        let mut released = Released::default();
        for (name, removal) in dirs {
            removal.finish();
            released.layers.push(name);
        }
        Ok((done, released))
    }

    fn release_layers(&self, tx: &WriteTx<'_>, namespace: &str, layers: &[String]) -> Result<Vec<(String, Removal)>> {
        if layers.is_empty() {
            return Ok(Vec::new());
        }
        let backend = self.default_backend();
        let prefix = format!("{}/{namespace}/", backend.name());
        let records: HashMap<String, _> = tx.list_prefix(SNAPSHOTS, &prefix)?.into_iter().collect();
        let mut children: HashMap<&str, usize> = HashMap::new();
        for parent in records.values().filter_map(|record| record.parent.as_deref()) {
            *children.entry(parent).or_default() += 1;
        }
        let mut removed = Vec::new();
        for name in layers {
            let full_key = format!("{prefix}{name}");
            let Some(record) = records.get(&full_key) else { continue };
            if children.get(name.as_str()).is_some_and(|children| *children > 0) {
                break;
            }
            if let Some(siblings) = record.parent.as_deref().and_then(|parent| children.get_mut(parent)) {
                *siblings -= 1;
            }
            tx.delete(SNAPSHOTS, &full_key)?;
            removed.push((name.clone(), Removal::new(Shared::hold(backend, record.dir))));
        }
        Ok(removed)
    }
}
