//! One manager's store: the root directory under one lock, and handles to what is in it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcontainerd_types::{Error, ErrorKind, Finding, Result};

use crate::content::{self, Content};
use crate::found::Found;
use crate::fs::{self, failed};
use crate::lock::RootLock;
use crate::metadata::{Metadata, WriteTx};
use crate::records::{Containers, Images, Leases};
use crate::settle::{Waiting, one_of_each_file_system};
use crate::snapshot::{self, Snapshotter};

/// Which snapshotter new root file systems use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotterChoice {
    /// Overlay where the host can mount it on this root, native copies elsewhere.
    #[default]
    Auto,
    Overlay,
    Native,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub snapshotter: SnapshotterChoice,
}

/// The open store; clones share it. Dropping the last one gives the root free.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    metadata: Arc<Metadata>,
    waiting: Arc<Waiting>,
    content: Arc<content::Shared>,
    backends: Vec<Arc<snapshot::Shared>>,
    default_backend: usize,
    /// Last: the root is given free when everything else is closed.
    lock: RootLock,
}

impl Store {
    /// Opens (or makes) the store at `root`, with the snapshotter that the host is good for.
    ///
    /// # Errors
    /// `Conflict` naming the process that has the root; `Unsupported` for a store that a newer version wrote; I/O errors.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, &Options::default())
    }

    /// As `open`, with choices.
    ///
    /// # Errors
    /// As `open`; `Unsupported` when overlay was asked for and the host cannot mount it there.
    pub fn open_with(root: &Path, options: &Options) -> Result<Self> {
        // 0711: containers' user namespaces must traverse to their rootfs; nobody may list.
        DirBuilder::new().recursive(true).mode(0o711).create(root).map_err(failed("create directory", root))?;
        let root = root.canonicalize().map_err(failed("resolve", root))?;
        let lock = RootLock::acquire(&root)?;
        refuse_lost_database(&root)?;
        let metadata = Arc::new(Metadata::open(&root.join("meta.redb"))?);
        let (blobs, layers) = (root.join("content"), root.join("snapshots"));
        fs::make_private_dir(&blobs)?;
        fs::make_private_dir(&layers)?;
        let mut found = Found::read(&metadata)?;
        let waiting = Arc::new(Waiting::open(&metadata, one_of_each_file_system(&[&blobs, &layers])?, &mut found)?);
        let content = Arc::new(content::Shared::open(blobs, metadata.clone(), Arc::clone(&waiting), &found)?);
        let backends = snapshot::open_all(&layers, &metadata, &waiting, &mut found)?;
        clean_what_is_lost(&waiting, &content, &backends);
        let default_backend = choose(&backends, options.snapshotter)?;
        Ok(Self { inner: Arc::new(Inner { root, metadata, waiting, content, backends, default_backend, lock }) })
    }

    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Whether whoever had the root before ended without [`Self::say_farewell`]: killed, or with the host.
    pub fn was_abandoned(&self) -> bool {
        self.inner.lock.was_abandoned()
    }

    /// Tells the next one that this was an orderly end.
    ///
    /// # Errors
    /// I/O errors.
    pub fn say_farewell(&self) -> Result<()> {
        self.inner.lock.say_farewell()
    }

    pub fn metadata(&self) -> &Metadata {
        &self.inner.metadata
    }

    /// Brings blobs and layers to the disk that were brought without a sync of their own, and runs `work` in the transaction that says
    /// so: what an image's name leads to is safe when the name is.
    ///
    /// # Errors
    /// The I/O error of the sync (then all that waited for it is gone), those of `work` and the database.
    pub fn settle<R>(&self, work: impl FnOnce(&WriteTx<'_>) -> Result<R>) -> Result<R> {
        self.inner.waiting.settle(work)
    }

    /// Forgets what a failed sync may have lost: to be called before something is brought that might be taken for present.
    ///
    /// # Errors
    /// Those of the database.
    pub fn forget_lost(&self) -> Result<()> {
        self.inner.waiting.forget_lost()
    }

    pub fn content(&self, namespace: &str) -> Content {
        Content::new(self.inner.content.clone(), namespace)
    }

    /// The default snapshotter.
    pub fn snapshots(&self, namespace: &str) -> Arc<dyn Snapshotter> {
        snapshot::handle(self.default_backend(), namespace)
    }

    /// The snapshotter of that name; `""` is the default one.
    ///
    /// # Errors
    /// `NotFound` naming those there are.
    pub fn snapshotter(&self, namespace: &str, name: &str) -> Result<Arc<dyn Snapshotter>> {
        if name.is_empty() {
            return Ok(self.snapshots(namespace));
        }
        match self.inner.backends.iter().find(|backend| backend.name() == name) {
            Some(backend) => Ok(snapshot::handle(backend, namespace)),
            None => Err(Error::not_found(format!("snapshotter {name:?} not found: there are {}", self.snapshotter_names().join(" and ")))),
        }
    }

    pub fn snapshotter_names(&self) -> Vec<&'static str> {
        self.inner.backends.iter().map(|backend| backend.name()).collect()
    }

    pub fn images(&self, namespace: &str) -> Images {
        Images::new(self.inner.metadata.clone(), namespace)
    }

    pub fn leases(&self, namespace: &str) -> Leases {
        Leases::new(self.inner.metadata.clone(), namespace)
    }

    pub fn containers(&self, namespace: &str) -> Containers {
        Containers::new(self.inner.metadata.clone(), namespace)
    }

    /// What this host offers the store, in plain words.
    pub fn check(&self) -> Vec<Finding> {
        self.inner.backends.iter().flat_map(|backend| backend.check()).collect()
    }

    pub(crate) fn content_files(&self) -> &content::Shared {
        &self.inner.content
    }

    pub(crate) fn default_backend(&self) -> &Arc<snapshot::Shared> {
        &self.inner.backends[self.inner.default_backend]
    }

    pub(crate) fn backends(&self) -> &[Arc<snapshot::Shared>] {
        &self.inner.backends
    }
}

/// Files go after their records; whoever has them holds what waits, not the other way round.
fn clean_what_is_lost(waiting: &Arc<Waiting>, content: &Arc<content::Shared>, backends: &[Arc<snapshot::Shared>]) {
    let content = Arc::downgrade(content);
    let backends: Vec<_> = backends.iter().map(Arc::downgrade).collect();
    waiting.clean_with(Box::new(move |forgotten| {
        if let Some(content) = content.upgrade() {
            content.remove_strays(forgotten.blobs);
        }
        for backend in backends.iter().filter_map(std::sync::Weak::upgrade) {
            let of_backend = |(key, dir): &(String, u64)| (key.split('/').next() == Some(backend.name())).then_some(*dir);
            backend.remove_dirs(forgotten.snapshots.iter().filter_map(of_backend));
        }
    }));
}

/// Without its records everything on disk would look like rubbish and be swept; a database that went missing must not cost the rest.
fn refuse_lost_database(root: &Path) -> Result<()> {
    if root.join("meta.redb").exists() {
        return Ok(());
    }
    for dir in ["snapshots/overlayfs", "snapshots/native", "content/blobs/sha256", "content/blobs/sha512"] {
        if !fs::entry_names(&root.join(dir))?.is_empty() {
            let message = format!(
                "{} is gone but {dir} is not empty: restore the database, or remove content/ and snapshots/ to begin anew",
                root.join("meta.redb").display()
            );
            return Err(Error::new(ErrorKind::DataLoss, message));
        }
    }
    Ok(())
}

fn choose(backends: &[Arc<snapshot::Shared>], choice: SnapshotterChoice) -> Result<usize> {
    let position = |name: &str| {
        let found = backends.iter().position(|backend| backend.name() == name);
        found.ok_or_else(|| Error::internal(format!("snapshotter {name:?} is not built in")))
    };
    let overlay = position(snapshot::OVERLAY)?;
    match (choice, backends[overlay].usable()) {
        (SnapshotterChoice::Native, _) => position(snapshot::NATIVE),
        (SnapshotterChoice::Overlay | SnapshotterChoice::Auto, Ok(())) => Ok(overlay),
        (SnapshotterChoice::Auto, Err(why)) => {
            tracing::warn!(%why, "overlay cannot be used here: snapshots will be copies");
            position(snapshot::NATIVE)
        }
        (SnapshotterChoice::Overlay, Err(why)) => {
            Err(Error::unsupported(format!("{why}: choose the native snapshotter, or another --root")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Labels;

    #[test]
    fn a_second_store_on_one_root_is_refused_until_the_first_closes() {
        let root = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(root.path()).expect("open");
        let handle = store.clone();
        drop(store);
        let err = Store::open(root.path()).err().expect("in use");
        assert_eq!(err.kind(), ErrorKind::Conflict);
        drop(handle);
        Store::open(root.path()).expect("free");
    }

    #[test]
    fn a_lost_database_does_not_cost_the_content() {
        let root = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(root.path()).expect("open");
        let digest = store.content("test").put(b"precious", Labels::new()).expect("put").digest;
        let file = store.content_files().blob_path(&digest);
        drop(store);
        let (database, aside) = (root.path().join("meta.redb"), root.path().join("aside"));
        std::fs::rename(&database, &aside).expect("lose it");
        let err = Store::open(root.path()).err().expect("refused");
        assert!(err.message().contains("meta.redb is gone"), "{err}");
        assert!(file.exists());
        std::fs::rename(&aside, &database).expect("restore");
        assert_eq!(Store::open(root.path()).expect("open").content("test").read(&digest, 100).expect("read"), b"precious");
    }

    #[test]
    fn an_open_reads_each_blob_and_each_snapshot_once() {
        let root = tempfile::tempdir().expect("temporary directory");
        let options = Options { snapshotter: SnapshotterChoice::Native };
        let opened = || {
            let store = Store::open_with(root.path(), &options).expect("open");
            let decoded = store.metadata().decoded();
            (store, decoded)
        };
        drop(opened().0);
        let (store, empty) = opened();
        for n in 0..20 {
            store.content("test").put(format!("blob {n}").as_bytes(), Labels::new()).expect("put");
            store.snapshots("test").prepare(&format!("s{n}"), None, Labels::new()).expect("prepare");
        }
        drop(store);
        let (store, full) = opened();
        // Beside them the schema's rows, one for each table that is there now.
        let tables = store.metadata().read(|tx| tx.tables().map(|tables| tables.len() as u64)).expect("tables");
        assert!((40..=40 + tables).contains(&(full - empty)), "{full} records decoded, {empty} of an empty store, {tables} tables");
    }

    #[test]
    fn snapshotters_are_found_by_name() {
        let root = tempfile::tempdir().expect("temporary directory");
        let store = Store::open_with(root.path(), &Options { snapshotter: SnapshotterChoice::Native }).expect("open");
        assert_eq!(store.snapshots("test").name(), "native");
        assert_eq!(store.snapshotter("test", "").expect("default").name(), "native");
        assert_eq!(store.snapshotter("test", "overlayfs").expect("by name").name(), "overlayfs");
        let err = store.snapshotter("test", "zfs").err().expect("unknown");
        assert!(err.message().contains("overlayfs and native"), "{err}");
        assert_eq!(store.check().len(), 2);
    }
}
