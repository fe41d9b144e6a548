//! The image service of one namespace.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rcontainerd_registry::RegistryConfig;
use rcontainerd_store::{Labels, Store};
use rcontainerd_types::{Digest, Error, ErrorKind, Reference, Result};
use tokio_util::sync::CancellationToken;

use super::catalog::{self, Catalog, NameRow};
use super::model::{HistoryLine, Image, ImageEvent, ImageFilters, ImageUser, LoadedImage, PreparedRootfs, PullImage, RemoveImage, Removed};
use super::progress::{Feed, Pull};
use super::pull::{Puller, commit_name};
use super::state::{State, blocking};
use super::{fetch, list, remove, shipped, transfer};

/// What the composition root gives.
#[derive(Clone)]
pub struct ImagesConfig {
    /// Registries spoken to over plain http or with unverified certificates, as `host[:port]`; loopback is always allowed plain http.
    pub insecure_registries: Vec<String>,
    /// Pull-through mirrors of docker.io, tried in order before the registry itself, such as `http://127.0.0.1:5000`.
    pub registry_mirrors: Vec<String>,
    /// Layers fetched at a time, over all pulls.
    pub max_concurrent_downloads: usize,
    /// Directories of certificates and limits of the registry client.
    pub registry: RegistryConfig,
    /// Told of every change after it is durable.
    pub on_event: Arc<dyn Fn(ImageEvent) + Send + Sync>,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            insecure_registries: Vec::new(),
            registry_mirrors: Vec::new(),
            max_concurrent_downloads: 3,
            registry: RegistryConfig::default(),
            on_event: Arc::new(|_| {}),
        }
    }
}

/// Cheap to clone. All methods are safe to call at once; blocking work runs on blocking threads.
#[derive(Clone)]
pub struct ImageService {
    namespace: String,
    state: Arc<State>,
}

impl ImageService {
    /// Docker's images live in namespace `moby`. There must be one service per store; `for_namespace` gives its other faces.
    pub fn open(store: Store, namespace: &str, config: ImagesConfig) -> Self {
        Self { namespace: namespace.to_owned(), state: Arc::new(State::new(store, config)) }
    }

    /// The same service seen from another namespace; content is shared.
    #[must_use]
    pub fn for_namespace(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), state: Arc::clone(&self.state) }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Starts a pull; read its events, then `finish` it. Must be called within a tokio runtime.
    pub fn pull(&self, request: PullImage) -> Pull {
        let feed = Arc::new(Feed::default());
        let cancel = CancellationToken::new();
        let (state, namespace) = (Arc::clone(&self.state), self.namespace.clone());
        let puller = Puller { state, namespace, feed: Arc::clone(&feed), cancel: cancel.clone() };
        Pull::new(feed, cancel, tokio::spawn(puller.run(request)))
    }

    /// The id that a name, digest, id or id prefix stands for.
    ///
    /// # Errors
    /// `NotFound` (`No such image: x`), `InvalidArgument` for an ambiguous prefix or a malformed name.
    pub async fn resolve(&self, name: &str) -> Result<Digest> {
        let name = name.to_owned();
        self.with(move |state, namespace| Ok(Catalog::read(&state.store, namespace)?.resolve(&name)?.0)).await
    }

    /// # Errors
    /// As `resolve`.
    pub async fn inspect(&self, name: &str) -> Result<Image> {
        let name = name.to_owned();
        self.with(move |state, namespace| {
            let catalog = Catalog::read(&state.store, namespace)?;
            let (id, _) = catalog.resolve(&name)?;
            list::image(&state.store, namespace, &catalog, &id)
        })
        .await
    }

    /// All images that pass the filters, newest first.
    ///
    /// # Errors
    /// When a filter names an image that does not exist, or the store fails.
    pub async fn list(&self, filters: ImageFilters) -> Result<Vec<Image>> {
        self.with(move |state, namespace| list::list(&state.store, namespace, &filters)).await
    }

    /// # Errors
    /// As `resolve`.
    pub async fn history(&self, name: &str) -> Result<Vec<HistoryLine>> {
        let name = name.to_owned();
        self.with(move |state, namespace| {
            let catalog = Catalog::read(&state.store, namespace)?;
            let (id, _) = catalog.resolve(&name)?;
            let image = list::image(&state.store, namespace, &catalog, &id)?;
            let sizes: Vec<u64> = catalog.row(&id)?.layers.iter().map(|layer| layer.size).collect();
            Ok(list::history(&image, &sizes))
        })
        .await
    }

    /// Gives the image `name` the further name `target` (moved if another image had it).
    ///
    /// # Errors
    /// As `resolve`; `InvalidArgument` if `target` has a digest.
    pub async fn tag(&self, name: &str, target: Reference) -> Result<()> {
        if target.digest().is_some() {
            return Err(Error::invalid(format!("refusing to create a tag with a digest reference: {}", target.familiar())));
        }
        let (name, target) = (name.to_owned(), target.or_latest());
        self.with(move |state, namespace| tag(state, namespace, &name, &target)).await
    }

    /// Untags, and deletes the image when no name is left. `users` gives the containers made from the image with that id; it is
    /// called under the lock that `prepare_rootfs` takes too, on a blocking thread.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` in Docker's words when containers use the image.
    pub async fn remove<U>(&self, request: RemoveImage, users: U) -> Result<Vec<Removed>>
    where
        U: FnOnce(&Digest) -> Result<Vec<ImageUser>> + Send + 'static,
    {
        self.with(move |state, namespace| remove::remove(state, namespace, &request, users)).await
    }

    /// Reads a docker-archive or OCI-layout tar (plain, gzip or zstd).
    ///
    /// # Errors
    /// `InvalidArgument` for an archive that is neither, cut short or hostile; nothing of it is kept.
    pub async fn load(&self, archive: impl Read + Send + 'static) -> Result<Vec<LoadedImage>> {
        let (state, namespace) = (Arc::clone(&self.state), self.namespace.clone());
        // In a task: a caller that hangs up after the archive is complete leaves no image half named.
        match tokio::spawn(async move { transfer::load(&state, &namespace, archive).await }).await {
            Ok(loaded) => loaded,
            Err(err) => Err(Error::internal(format!("load failed: {err}"))),
        }
    }

    /// Writes the named images as one tar that `docker load` reads (docker-archive with an OCI layout in it).
    ///
    /// # Errors
    /// As `resolve`, before the first byte is written; I/O errors of `out`.
    pub async fn save(&self, names: Vec<String>, out: impl Write + Send + 'static) -> Result<()> {
        self.with(move |state, namespace| transfer::save(state, namespace, &names, out)).await
    }

    /// Makes the image that ships with the project, `docker.io/rcontainerd/hello:latest`, from the static program at `program`, if it
    /// is not here yet or was made from another build.
    ///
    /// # Errors
    /// When the program cannot be read or the store fails.
    pub async fn ensure_shipped(&self, program: &Path) -> Result<Digest> {
        let program: PathBuf = program.to_owned();
        let built = self.with(move |state, namespace| {
            let built = shipped::build(&state.store.content(namespace), &program)?;
            let here = shipped::is_here(&Catalog::read(&state.store, namespace)?, &built);
            Ok((built, here))
        });
        let (built, here) = built.await?;
        fetch::unpack(&self.state, &self.namespace, &built.row.layers).await?;
        let id = built.config.clone();
        if !here {
            self.with(move |state, namespace| {
                commit_name(state, namespace, shipped::NAME, &built.target, &built.config, built.row, false).map(drop)
            })
            .await?;
        }
        Ok(id)
    }

    /// A writable snapshot named `key` on top of the image, unpacking its layers first if need be.
    ///
    /// # Errors
    /// `NotFound` if the image is gone; `AlreadyExists` if `key` is taken.
    pub async fn prepare_rootfs(&self, image: &Digest, key: &str) -> Result<PreparedRootfs> {
        let (id, key) = (image.clone(), key.to_owned());
        let row = {
            let id = id.clone();
            self.with(move |state, namespace| Catalog::read(&state.store, namespace)?.row(&id).cloned()).await?
        };
        let top = row.layers.last().map(|layer| layer.chain_id.to_string());
        let unpacked = {
            let top = top.clone();
            self.with(move |state, namespace| {
                let Some(top) = top else { return Ok(true) };
                match state.store.snapshots(namespace).stat(&top) {
                    Ok(_) => Ok(true),
                    Err(err) if err.kind() == ErrorKind::NotFound => Ok(false),
                    Err(err) => Err(err),
                }
            })
        };
        if !unpacked.await? {
            fetch::unpack(&self.state, &self.namespace, &row.layers).await?;
        }
        self.with(move |state, namespace| {
            let _changing = state.changing();
            Catalog::read(&state.store, namespace)?.row(&id)?;
            let snapshots = state.store.snapshots(namespace);
            // Garbage collection knows of no container yet that would hold it.
            let labels = Labels::from([("containerd.io/gc.root".to_owned(), Timestamp::now().to_string())]);
            snapshots.prepare(&key, top.as_deref(), labels)?;
            Ok(PreparedRootfs { snapshotter: snapshots.name().to_owned(), key })
        })
        .await
    }

    async fn with<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&State, &str) -> Result<T> + Send + 'static,
    {
        let (state, namespace) = (Arc::clone(&self.state), self.namespace.clone());
        blocking(move || work(&state, &namespace)).await
    }
}

fn tag(state: &State, namespace: &str, name: &str, target: &Reference) -> Result<()> {
    let _changing = state.changing();
    let catalog = Catalog::read(&state.store, namespace)?;
    let (image, found) = catalog.resolve(name)?;
    let source = found.or_else(|| catalog.entries_of(&image).next()).ok_or_else(|| catalog::no_such_image(name))?;
    // A name of the repository that it was pulled from is served under its digest there too.
    let served = |entry: &catalog::Entry| entry.row.pulled && entry.reference.as_ref().is_some_and(|known| known.name() == target.name());
    let pulled = catalog.entries_of(&image).any(|entry| served(entry) && entry.row.target == source.row.target);
    let names = NameRow { target: source.row.target.clone(), image: image.clone(), pulled, tagged: Timestamp::now() };
    let row = catalog.row(&image)?;
    state.store.metadata().write(|tx| catalog::point(tx, namespace, &target.to_string(), &source.record.target, &names, row))?;
    state.tell(ImageEvent::Tag { id: image, name: target.familiar() });
    Ok(())
}
