//! What the image service shares between its handles: the store, the registry client, the locks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rcontainerd_registry::Registry;
use rcontainerd_store::Store;
use rcontainerd_types::{Error, Result};
use tokio::sync::{OwnedMutexGuard, Semaphore};

use super::catalog::{Catalog, Catalogs};
use super::model::ImageEvent;
use super::service::ImagesConfig;

pub(super) struct State {
    pub store: Store,
    pub registry: Registry,
    pub config: ImagesConfig,
    /// Bounds the layers in flight, over all pulls.
    pub downloads: Semaphore,
    keyed: KeyedLocks,
    catalogs: Catalogs,
    /// Held while names change and while a new root filesystem is put on an image: an image in use cannot vanish in between.
    /// No other lock is taken under it but the store's own.
    changes: Mutex<()>,
}

impl State {
    pub(super) fn new(store: Store, config: ImagesConfig) -> Self {
        let registry = Registry::new(config.registry.clone());
        let downloads = Semaphore::new(config.max_concurrent_downloads.max(1));
        Self { store, registry, config, downloads, keyed: KeyedLocks::default(), catalogs: Catalogs::default(), changes: Mutex::new(()) }
    }

    /// What names stand for at this moment.
    pub(super) fn catalog(&self, namespace: &str) -> Result<Arc<Catalog>> {
        self.catalogs.read(&self.store, namespace)
    }

    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, event: ImageEvent) {
        (self.config.on_event)(event);
    }

    /// One user of a blob or a layer at a time, by name.
    pub(super) async fn alone(&self, key: String) -> OwnedMutexGuard<()> {
        self.keyed.lock(key).await
    }
}

/// Locks that exist as long as somebody holds or awaits them.
#[derive(Default)]
struct KeyedLocks {
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl KeyedLocks {
    async fn lock(&self, key: String) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            match locks.get(&key).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(tokio::sync::Mutex::new(()));
                    locks.insert(key, Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }
}

/// Runs blocking work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(err) => Err(Error::internal(format!("image work failed: {err}"))),
    }
}
