//! Images between registry, image store and archive in any namespace, for clients that leave the work to the server.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use rcontainerd_registry::Credentials;
use rcontainerd_store::archive::{self, SaveImage};
use rcontainerd_store::gc::GcOptions;
use rcontainerd_store::{Labels, Store};
use rcontainerd_types::{Platform, Reference, Result};
use tokio::sync::RwLock;

use crate::engine::{NAMESPACE, blocking};
use crate::images::{ImageService, ImagesConfig, LoadedImage, Pull, PullImage};

/// Cheap to clone.
#[derive(Clone)]
pub struct Transfers {
    store: Store,
    /// Docker's own namespace has its service already: its locks are then shared.
    docker: ImageService,
    config: ImagesConfig,
    /// Read while an import brings what nothing refers to yet, written while garbage goes that has no grace.
    importing: Arc<RwLock<()>>,
}

/// A pull into the image store.
#[derive(Clone, Debug)]
pub struct PullInto {
    pub namespace: String,
    pub reference: String,
    /// Records that are to point at it; none: one named by the reference.
    pub names: Vec<String>,
    pub labels: Labels,
    /// `None`: the host's.
    pub platform: Option<Platform>,
    pub credentials: Credentials,
    pub plain_http: bool,
    /// Directory of certificates and `hosts.toml`, asked before the usual ones.
    pub host_dir: Option<PathBuf>,
}

impl Transfers {
    pub(crate) fn new(store: Store, docker: ImageService, config: ImagesConfig) -> Self {
        Self { store, docker, config, importing: Arc::default() }
    }

    fn images(&self, namespace: &str) -> ImageService {
        match namespace {
            NAMESPACE => self.docker.clone(),
            _ => ImageService::open(self.store.clone(), namespace, self.config.clone()),
        }
    }

    /// Starts a pull; read its events, `finish` it, then [`Self::name`] it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed reference.
    pub fn pull(&self, request: &PullInto) -> Result<Pull> {
        let reference: Reference = request.reference.parse()?;
        let mut config = self.config.clone();
        if request.plain_http {
            config.registry.insecure_registries.push(reference.domain().to_owned());
        }
        if let Some(dir) = &request.host_dir {
            config.registry.host_dirs.insert(0, dir.clone());
        }
        let usual = !request.plain_http && request.host_dir.is_none();
        let images = match usual {
            true => self.images(&request.namespace),
            false => ImageService::open(self.store.clone(), &request.namespace, config),
        };
        let (platform, credentials) = (request.platform.clone(), request.credentials.clone());
        Ok(images.pull(PullImage { reference, platform, credentials, all_tags: false }))
    }

    /// Gives a pulled image the names and labels that were asked for.
    ///
    /// # Errors
    /// `NotFound` when the image was removed meanwhile.
    pub async fn name(&self, request: &PullInto) -> Result<()> {
        let (images, request) = (self.store.images(&request.namespace), request.clone());
        blocking(move || {
            let pulled = request.reference.parse::<Reference>()?.or_latest().to_string();
            if !request.labels.is_empty() {
                images.update(&pulled, |record| {
                    record.labels.extend(request.labels.clone());
                    Ok(())
                })?;
            }
            if request.names.is_empty() || request.names.contains(&pulled) {
                return Ok(());
            }
            let record = images.get(&pulled)?;
            for name in &request.names {
                images.put(name, record.target.clone(), record.labels.clone())?;
            }
            images.delete(&pulled)
        })
        .await
    }

    /// Points further names at an image.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for an empty name.
    pub async fn tag(&self, namespace: &str, source: String, names: Vec<String>) -> Result<()> {
        let images = self.store.images(namespace);
        blocking(move || {
            let record = images.get(&source)?;
            names.iter().try_for_each(|name| images.put(name, record.target.clone(), record.labels.clone()).map(drop))
        })
        .await
    }

    /// Reads a docker-archive or OCI-layout tar.
    ///
    /// # Errors
    /// `InvalidArgument` for an archive that is neither, cut short or hostile.
    pub async fn import(&self, namespace: &str, archive: impl Read + Send + 'static) -> Result<Vec<LoadedImage>> {
        let _importing = self.importing.read().await;
        self.images(namespace).load(archive, None).await
    }

    /// Lets go of what nothing refers to: at once, since clients hold by leases what they are about to use. Docker's namespace, where
    /// nobody does, keeps what is fresh; so do all while an import is under way.
    ///
    /// # Errors
    /// `DataLoss` for a damaged store.
    pub async fn collect(&self) -> Result<()> {
        let alone = Arc::clone(&self.importing).try_write_owned();
        let graced = alone.is_ok().then_some(NAMESPACE);
        let store = self.store.clone();
        blocking(move || {
            let collected = store.gc(&GcOptions { graced, ..GcOptions::default() });
            drop(alone);
            collected.map(drop)
        })
        .await
    }

    /// Writes images as one tar.
    ///
    /// # Errors
    /// `NotFound` before the first byte; I/O errors of `out`.
    pub async fn export(&self, namespace: &str, names: Vec<String>, out: impl Write + Send + 'static) -> Result<()> {
        let (store, namespace) = (self.store.clone(), namespace.to_owned());
        blocking(move || {
            let records = names.iter().map(|name| store.images(&namespace).get(name)).collect::<Result<Vec<_>>>()?;
            let images: Vec<SaveImage> =
                records.into_iter().map(|record| SaveImage { names: vec![record.name], target: record.target }).collect();
            archive::save(&store.content(&namespace), &images, out)
        })
        .await
    }
}
