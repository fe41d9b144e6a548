//! The image service of one namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rcontainerd_registry::{Credentials, Match, RegistryConfig};
use rcontainerd_store::gc::{GcOptions, GcReport};
use rcontainerd_store::{Labels, Persistence, Store};
use rcontainerd_types::{Digest, Error, ErrorKind, Platform, Reference, Result};
use tokio_util::sync::CancellationToken;

use super::caps::{self, Caps};
use super::catalog::{self, ImageRow, NameRow};
use super::list::Listing;
use super::model::{
    ExtendImage, HistoryLine, Image, ImageEvent, ImageFilters, ImageUser, ImportImage, LoadedImage, LocalManifest, PreparedRootfs,
    PruneImages, PrunedImages, PullImage, PushImage, RemoteImage, RemoteManifest, RemoveImage, Removed,
};
use super::progress::{Feed, Pull};
use super::pull::{Naming, Puller, commit_names};
use super::state::{State, blocking};
use super::{fetch, lease, list, make, platforms, prune, push, remote, remove, shipped, transfer};

/// What the composition root gives.
#[derive(Clone)]
pub struct ImagesConfig {
    /// Layers fetched at a time, over all pulls.
    pub max_concurrent_downloads: usize,
    pub registry: RegistryConfig,
    pub caps: Caps,
    /// Whether a container was made from the image.
    pub in_use: Arc<dyn Fn(&Digest) -> bool + Send + Sync>,
    /// Told of every change after it is durable.
    pub on_event: Arc<dyn Fn(ImageEvent) + Send + Sync>,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            max_concurrent_downloads: 3,
            registry: RegistryConfig::default(),
            caps: Caps::default(),
            in_use: Arc::new(|_| true),
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
        let service = Self { namespace: namespace.to_owned(), state: Arc::new(State::new(store, config)) };
        if let Err(err) = lease::drop_stale(&service.state, namespace) {
            tracing::warn!("leases of what an earlier manager was making stay until they expire: {err}");
        }
        service
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

    /// Starts a push; read its events, the last of which may be its failure. Dropping them ends it. Must be called within a tokio runtime.
    pub fn push(&self, request: PushImage) -> push::PushEvents {
        push::start(&self.state, &self.namespace, request)
    }

    /// Whether the registry at `server` (a host, or a URL as clients keep it) takes the credentials; gives the token that is to be kept
    /// in the password's place, if the registry offers one.
    ///
    /// # Errors
    /// `Unauthenticated`, `Unavailable`.
    pub async fn login(&self, server: &str, credentials: &Credentials) -> Result<Option<String>> {
        remote::login(&self.state, server, credentials).await
    }

    /// Repositories that match `term`, which may begin with a registry's host; at most `limit`.
    ///
    /// # Errors
    /// `Unsupported` when the registry has no search; as it says otherwise.
    pub async fn search(&self, term: &str, limit: u32, credentials: &Credentials) -> Result<Vec<Match>> {
        remote::search(&self.state, term, limit, credentials).await
    }

    /// A manifest or index as its registry has it, with the images that an index leads to.
    ///
    /// # Errors
    /// As the registry says.
    pub async fn remote_manifest(&self, reference: &Reference, credentials: &Credentials) -> Result<RemoteManifest> {
        remote::manifest(&self.state, reference, credentials).await
    }

    /// What a name stands for at its registry, without a pull.
    ///
    /// # Errors
    /// As the registry says.
    pub async fn remote(&self, reference: &Reference, credentials: &Credentials) -> Result<RemoteImage> {
        remote::inspect(&self.state, reference, credentials).await
    }

    /// The id that a name, digest, id or id prefix stands for.
    ///
    /// # Errors
    /// `NotFound` (`No such image: x`), `InvalidArgument` for an ambiguous prefix or a malformed name.
    pub async fn resolve(&self, name: &str) -> Result<Digest> {
        let name = name.to_owned();
        self.with(move |state, namespace| Ok(state.catalog(namespace)?.resolve(&name)?.0)).await
    }

    /// What each of many names stands for; those that stand for nothing are left out. One look at the catalogue, however many they are.
    pub async fn resolve_all(&self, names: BTreeSet<String>) -> BTreeMap<String, Digest> {
        let resolved = self.with(move |state, namespace| {
            let catalog = state.catalog(namespace)?;
            Ok(names.into_iter().filter_map(|name| catalog.resolve(&name).ok().map(|(id, _)| (name, id))).collect())
        });
        resolved.await.unwrap_or_else(|err| {
            tracing::warn!("look up the names of images: {err}");
            BTreeMap::new()
        })
    }

    /// # Errors
    /// As `resolve`.
    pub async fn inspect(&self, name: &str) -> Result<Image> {
        let name = name.to_owned();
        self.with(move |state, namespace| {
            let catalog = state.catalog(namespace)?;
            let (id, _) = catalog.resolve(&name)?;
            list::image(&state.store, namespace, &catalog, &id)
        })
        .await
    }

    /// All images that pass the filters, newest first.
    ///
    /// # Errors
    /// When a filter names an image that does not exist, or the store fails.
    pub async fn list(&self, filters: ImageFilters) -> Result<Listing> {
        self.with(move |state, namespace| list::list(state, namespace, filters)).await
    }

    /// As `inspect`, of one of several platforms that are here.
    ///
    /// # Errors
    /// As `resolve`; `NotFound` when that platform is not here.
    pub async fn inspect_platform(&self, name: &str, platform: Platform) -> Result<Image> {
        let name = name.to_owned();
        self.with(move |state, namespace| Ok(platforms::image(state, namespace, &name, &platform)?.0)).await
    }

    /// The manifests that each image's names lead to, by image.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn manifests(&self) -> Result<BTreeMap<Digest, Vec<LocalManifest>>> {
        self.with(platforms::all).await
    }

    /// # Errors
    /// As `resolve` and `inspect_platform`.
    pub async fn history(&self, name: &str, platform: Option<Platform>) -> Result<Vec<HistoryLine>> {
        let name = name.to_owned();
        self.with(move |state, namespace| {
            if let Some(platform) = platform {
                let (image, row) = platforms::image(state, namespace, &name, &platform)?;
                return Ok(list::history(&image, &row.sizes(), &[]));
            }
            let catalog = state.catalog(namespace)?;
            let (id, _) = catalog.resolve(&name)?;
            let image = list::image(&state.store, namespace, &catalog, &id)?;
            let parents = list::parents(&state.store, namespace, &catalog, &image)?;
            Ok(list::history(&image, &catalog.row(&id)?.sizes(), &parents))
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
        target.check_unambiguous()?;
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
        U: Fn(&Digest) -> Result<Vec<ImageUser>> + Send + 'static,
    {
        self.with(move |state, namespace| remove::remove(state, namespace, &request, users)).await
    }

    /// Removes every image that passes and that `users` says is not used.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn prune<U>(&self, request: PruneImages, users: U) -> Result<PrunedImages>
    where
        U: Fn(&Digest) -> Result<Vec<ImageUser>> + Send + 'static,
    {
        self.with(move |state, namespace| prune::prune(state, namespace, &request, users)).await
    }

    /// For a start: lets go of all that nothing refers to, however fresh, and of what is old elsewhere.
    ///
    /// # Errors
    /// `DataLoss` for a damaged store; then nothing goes.
    pub async fn collect_at_start(&self) -> Result<GcReport> {
        self.with(|state, namespace| state.store.gc_at_start(namespace, &GcOptions::default())).await
    }

    /// Removes what may go until the caps are kept.
    ///
    /// # Errors
    /// `ResourceExhausted` when too little may go.
    pub async fn keep_caps(&self) -> Result<()> {
        self.with(|state, namespace| caps::admit(state, namespace, "anything more", 0)).await
    }

    /// Bytes of blobs that nothing refers to: what a collection would take, but for layers that are unpacked.
    ///
    /// # Errors
    /// As [`Self::collect_at_start`].
    pub async fn unreferenced_blobs(&self) -> Result<u64> {
        self.with(|state, namespace| state.store.gc_namespace(namespace, true).map(|report| report.content_bytes)).await
    }

    /// Bytes of each image's layers that other images have too.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn shared_sizes(&self) -> Result<BTreeMap<Digest, u64>> {
        self.with(prune::shared_sizes).await
    }

    /// Makes an image of another one and the layer (a tar) that `write` writes.
    ///
    /// # Errors
    /// `NotFound` for the base; those of `write`; a full disk. Nothing is named then.
    pub async fn extend<W>(&self, request: ExtendImage, write: W) -> Result<Digest>
    where
        W: FnOnce(&mut dyn Write) -> Result<()> + Send + 'static,
    {
        make::extend(&self.state, &self.namespace, request, write).await
    }

    /// Makes an image of a tar (plain, gzip, zstd, xz or bzip2).
    ///
    /// # Errors
    /// `InvalidArgument` for a change or an archive that is malformed or hostile; nothing is named then.
    pub async fn import(&self, request: ImportImage, tar: impl Read + Send + 'static) -> Result<Digest> {
        let (state, namespace) = (Arc::clone(&self.state), self.namespace.clone());
        match tokio::spawn(async move { make::import(&state, &namespace, request, tar).await }).await {
            Ok(imported) => imported,
            Err(err) => Err(Error::internal(format!("import failed: {err}"))),
        }
    }

    /// Reads a docker-archive or OCI-layout tar (plain, gzip, zstd, xz or bzip2). Of an image with several platforms, names stand for
    /// `platform`, or the one that fits this host best.
    ///
    /// # Errors
    /// `InvalidArgument` for an archive that is neither, cut short or hostile, `NotFound` for one without that platform; nothing of it is
    /// kept.
    pub async fn load(&self, archive: impl Read + Send + 'static, platform: Option<Platform>) -> Result<Vec<LoadedImage>> {
        let (state, namespace) = (Arc::clone(&self.state), self.namespace.clone());
        // In a task: a caller that hangs up after the archive is complete leaves no image half named.
        match tokio::spawn(async move { transfer::load(&state, &namespace, archive, platform).await }).await {
            Ok(loaded) => loaded,
            Err(err) => Err(Error::internal(format!("load failed: {err}"))),
        }
    }

    /// Writes the named images as one tar that `docker load` reads (docker-archive with an OCI layout in it); of images with several
    /// platforms all that are here, or the one that is asked for.
    ///
    /// # Errors
    /// As `resolve`, before the first byte is written; `NotFound` when the platform is not here; I/O errors of `out`.
    pub async fn save(&self, names: Vec<String>, platform: Option<Platform>, out: impl Write + Send + 'static) -> Result<()> {
        self.with(move |state, namespace| transfer::save(state, namespace, &names, platform.as_ref(), out)).await
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
            let here = shipped::is_here(&state.store, namespace, &built)?;
            Ok((built, here))
        });
        let (built, here) = built.await?;
        fetch::unpack(&self.state, &self.namespace, &built.row.layers).await?;
        let id = built.config.clone();
        if !here {
            self.with(move |state, namespace| {
                let (name, target, image) = (shipped::NAME.to_owned(), built.target, built.config);
                commit_names(state, namespace, vec![Naming { name, target, image, row: built.row, pulled: false }], None).map(drop)
            })
            .await?;
        }
        Ok(id)
    }

    /// A writable snapshot named `key` on top of the image, unpacking its layers first if need be.
    ///
    /// # Errors
    /// `NotFound` if the image is gone; `AlreadyExists` if `key` is taken.
    pub async fn prepare_rootfs(&self, image: &Digest, key: &str, persistence: Persistence) -> Result<PreparedRootfs> {
        loop {
            let (id, key) = (image.clone(), key.to_owned());
            match self.with(move |state, namespace| try_prepare(state, namespace, &id, &key, persistence)).await? {
                Ok(rootfs) => return Ok(rootfs),
                Err(row) => fetch::unpack(&self.state, &self.namespace, &row.layers).await?,
            };
        }
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

/// The snapshot, or the layers that must be unpacked before.
fn try_prepare(
    state: &State,
    namespace: &str,
    id: &Digest,
    key: &str,
    persistence: Persistence,
) -> Result<std::result::Result<PreparedRootfs, ImageRow>> {
    let _changing = state.changing();
    let catalog = state.catalog(namespace)?;
    let row = catalog.row(id)?;
    if let Some(artifact) = &row.artifact {
        return Err(Error::unsupported(format!(
            "{id} is no image but an artifact of type {}: there is nothing in it to run",
            artifact.kind
        )));
    }
    let top = row.layers.last().map(|layer| layer.chain_id.to_string());
    let snapshots = state.store.snapshots(namespace);
    if let Some(top) = &top {
        match snapshots.stat(top) {
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Err(row.clone())),
            found => found?,
        };
    }
    // Garbage collection knows of no container yet that would hold it.
    let labels = Labels::from([("containerd.io/gc.root".to_owned(), Timestamp::now().to_string())]);
    snapshots.prepare_as(persistence, key, top.as_deref(), labels)?;
    Ok(Ok(PreparedRootfs { snapshotter: snapshots.name().to_owned(), key: key.to_owned() }))
}

fn tag(state: &State, namespace: &str, name: &str, target: &Reference) -> Result<()> {
    let _changing = state.changing();
    let catalog = state.catalog(namespace)?;
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
