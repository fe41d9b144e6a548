//! The image service of one namespace.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use rcontainerd_types::{Digest, Error, Reference, Result};
use tokio_util::sync::CancellationToken;

use super::model::{
    HistoryLine, Image, ImageEvent, ImageFilters, ImageUser, LoadedImage, PreparedRootfs, PullImage, PulledImage, RemoveImage, Removed,
};
use super::progress::{Feed, Pull, PullEvent};

/// What the composition root gives.
#[derive(Clone)]
pub struct ImagesConfig {
    /// Registries spoken to over plain http or with unverified certificates, as `host[:port]`; loopback is always allowed plain http.
    pub insecure_registries: Vec<String>,
    /// Pull-through mirrors of docker.io, tried in order before the registry itself, such as `http://127.0.0.1:5000`.
    pub registry_mirrors: Vec<String>,
    /// Layers of one pull fetched at a time.
    pub max_concurrent_downloads: usize,
    /// Told of every change after it is durable.
    pub on_event: Arc<dyn Fn(ImageEvent) + Send + Sync>,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self { insecure_registries: Vec::new(), registry_mirrors: Vec::new(), max_concurrent_downloads: 3, on_event: Arc::new(|_| {}) }
    }
}

/// Cheap to clone. All methods are safe to call at once; blocking work runs on blocking threads.
#[derive(Clone)]
pub struct ImageService {
    namespace: String,
    config: ImagesConfig,
}

impl ImageService {
    /// Docker's images live in namespace `moby`.
    pub fn open(namespace: &str, config: ImagesConfig) -> Result<Self> {
        Ok(Self { namespace: namespace.to_owned(), config })
    }

    /// The same service seen from another namespace; content and unpacked layers are shared.
    #[must_use]
    pub fn for_namespace(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self.clone() }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Starts a pull; read its events, then `finish` it. Must be called within a tokio runtime.
    pub fn pull(&self, request: PullImage) -> Pull {
        let feed = Arc::new(Feed::default());
        let cancel = CancellationToken::new();
        feed.send(PullEvent::Started { reference: request.reference.clone().or_latest() });
        feed.close();
        Pull::new(feed, cancel, tokio::spawn(async { Err::<Vec<PulledImage>, _>(not_yet()) }))
    }

    /// The id that a name, digest, id or id prefix stands for.
    ///
    /// # Errors
    /// `NotFound` (`No such image: x`), `InvalidArgument` for an ambiguous prefix or a malformed name.
    pub async fn resolve(&self, name: &str) -> Result<Digest> {
        self.inspect(name).await.map(|image| image.id)
    }

    /// # Errors
    /// As `resolve`.
    pub async fn inspect(&self, _name: &str) -> Result<Image> {
        Err(not_yet())
    }

    /// All images that pass the filters, newest first.
    ///
    /// # Errors
    /// When a filter names an image that does not exist, or the store fails.
    pub async fn list(&self, _filters: ImageFilters) -> Result<Vec<Image>> {
        Err(not_yet())
    }

    /// # Errors
    /// As `resolve`.
    pub async fn history(&self, _name: &str) -> Result<Vec<HistoryLine>> {
        Err(not_yet())
    }

    /// Gives the image `name` the further name `target` (moved if another image had it).
    ///
    /// # Errors
    /// As `resolve`; `InvalidArgument` if `target` has a digest.
    pub async fn tag(&self, _name: &str, _target: Reference) -> Result<()> {
        Err(not_yet())
    }

    /// Untags, and deletes the image when no name is left. `users` gives the containers made from the image with that id; it is
    /// called under the lock that `prepare_rootfs` takes too, on a blocking thread.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` in Docker's words when containers use the image.
    pub async fn remove<U>(&self, _request: RemoveImage, _users: U) -> Result<Vec<Removed>>
    where
        U: FnOnce(&Digest) -> Result<Vec<ImageUser>> + Send + 'static,
    {
        Err(not_yet())
    }

    /// Reads a docker-archive or OCI-layout tar (plain, gzip or zstd).
    ///
    /// # Errors
    /// `InvalidArgument` for an archive that is neither, cut short or hostile; nothing of it is kept.
    pub async fn load(&self, _archive: impl Read + Send + 'static) -> Result<Vec<LoadedImage>> {
        Err(not_yet())
    }

    /// Writes the named images as one tar that `docker load` reads (docker-archive with an OCI layout in it).
    ///
    /// # Errors
    /// As `resolve`, before the first byte is written; I/O errors of `out`.
    pub async fn save(&self, _names: Vec<String>, _out: impl Write + Send + 'static) -> Result<()> {
        Err(not_yet())
    }

    /// Makes the image that ships with the project, `docker.io/rcontainerd/hello:latest`, from the static program at `program`, if it
    /// is not here yet or was made from another build.
    ///
    /// # Errors
    /// When the program cannot be read or the store fails.
    pub async fn ensure_shipped(&self, _program: &Path) -> Result<Digest> {
        Err(not_yet())
    }

    /// A writable snapshot named `key` on top of the image, unpacking its layers first if need be.
    ///
    /// # Errors
    /// `NotFound` if the image is gone; `AlreadyExists` if `key` is taken.
    pub async fn prepare_rootfs(&self, _image: &Digest, _key: &str) -> Result<PreparedRootfs> {
        Err(not_yet())
    }
}

fn not_yet() -> Error {
    Error::unsupported("image store is not connected yet")
}
