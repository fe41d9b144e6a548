//! A pull: name → manifest → config → layers (fetched side by side, unpacked in order as they arrive) → name.
//!
//! A lease holds everything that the pull brings until the name does.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use rcontainerd_registry::manifest::INDEX_DEPTH_MAX;
use rcontainerd_registry::{Artifact, Credentials, Document, Fetched, Manifest, Repository};
use rcontainerd_store::Labels;
use rcontainerd_store::metadata::key;
use rcontainerd_types::{Descriptor, Digest, Error, ErrorKind, Platform, Reference, Result};
use tokio_util::sync::CancellationToken;

use super::caps;
use super::catalog::{self, ImageRow, NameRow};
use super::config::{CONFIG_MAX, ImageFile};
use super::document;
use super::fetch::{self, Fetch};
use super::lease::{Holder, Lease, Purpose};
use super::model::{ImageEvent, PullImage, PulledImage};
use super::progress::{Feed, PullEvent};
use super::state::{State, blocking};

pub(super) struct Puller {
    pub state: Arc<State>,
    pub namespace: String,
    pub feed: Arc<Feed>,
    pub cancel: CancellationToken,
}

/// What the name stands for, before any layer is here.
struct Found {
    /// The index or manifest that the name points at.
    target: Descriptor,
    /// Documents from the target down to the manifest.
    documents: Vec<Fetched>,
    descriptor: Descriptor,
    what: What,
}

enum What {
    Image(Manifest),
    Artifact(Artifact),
}

impl Found {
    /// Of all blobs that the image has.
    fn digests(&self) -> Vec<Digest> {
        let documents = self.documents.iter().map(|document| &document.descriptor);
        let (config, blobs) = match &self.what {
            What::Image(manifest) => (&manifest.config, &manifest.layers),
            What::Artifact(artifact) => (&artifact.config, &artifact.blobs),
        };
        documents.chain([config]).chain(blobs).map(|descriptor| descriptor.digest.clone()).collect()
    }
}

impl Puller {
    /// Runs the request to its end; the feed is closed in any case.
    pub(super) async fn run(self, request: PullImage) -> Result<Vec<PulledImage>> {
        let pulled = tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::new(ErrorKind::Cancelled, "pull cancelled")),
            pulled = self.pull_all(&request) => pulled,
        };
        self.feed.close();
        pulled
    }

    async fn pull_all(&self, request: &PullImage) -> Result<Vec<PulledImage>> {
        if !request.all_tags {
            return Ok(vec![self.pull(request, request.reference.clone().or_latest()).await?]);
        }
        if request.reference.tag().is_some() || request.reference.digest().is_some() {
            return Err(Error::invalid("tag can't be used with --all-tags/-a"));
        }
        let tags = self.state.registry.repository(&request.reference, &request.credentials)?.tags().await?;
        let mut pulled = Vec::new();
        for tag in tags {
            pulled.push(self.pull(request, request.reference.with_tag(&tag)?).await?);
        }
        Ok(pulled)
    }

    async fn pull(&self, request: &PullImage, reference: Reference) -> Result<PulledImage> {
        // With tag and digest, the digest alone counts, as in Docker.
        let reference = match reference.digest().cloned() {
            Some(digest) => reference.with_digest(digest),
            None => reference,
        };
        reference.check_unambiguous()?;
        let repository = self.state.registry.repository(&reference, &request.credentials)?;
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        if let Some(pulled) = self.already_here(&repository, &reference, &platform).await? {
            self.feed.send(PullEvent::Started { reference: reference.clone() });
            return Ok(self.finish(reference, pulled));
        }
        let found = self.find(&repository, &reference, &platform).await?;
        self.feed.send(PullEvent::Started { reference: reference.clone() });
        let lease = Lease::take(&self.state, &self.namespace, Purpose::Pull, found.digests()).await?;
        let brought = self.bring(&repository, &reference, request.platform.as_ref(), &found, lease.holder()).await;
        let pulled = lease.settle(brought).await?;
        Ok(self.finish(reference, pulled))
    }

    fn finish(&self, reference: Reference, pulled: PulledImage) -> PulledImage {
        self.feed.send(PullEvent::Digest(pulled.digest.clone()));
        self.state.tell(ImageEvent::Pull { id: pulled.id.clone(), name: reference.familiar() });
        self.feed.send(PullEvent::Finished { reference, is_new: pulled.is_new });
        pulled
    }

    /// Whether the registry's present answer is what the name stands for already, complete and unpacked.
    async fn already_here(&self, repository: &Repository, reference: &Reference, platform: &Platform) -> Result<Option<PulledImage>> {
        let digest = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Some(digest.clone()),
            (None, Some(tag)) => repository.peek(tag).await?,
            (None, None) => None,
        };
        let Some(digest) = digest else { return Ok(None) };
        let (state, namespace, name, platform) = (Arc::clone(&self.state), self.namespace.clone(), reference.clone(), platform.clone());
        blocking(move || {
            let catalog = state.catalog(&namespace)?;
            let Some(entry) = catalog.by_reference(&name).filter(|entry| entry.row.target == digest && entry.row.pulled) else {
                return Ok(None);
            };
            let row = catalog.row(&entry.row.image)?;
            let content = state.store.content(&namespace);
            let fits = row.artifact.is_some()
                || document::read_config(&content, &entry.row.image).is_ok_and(|file| platform.matches(&file.platform()));
            if !fits || !is_complete(&state, &namespace, row)? {
                return Ok(None);
            }
            Ok(Some(PulledImage { id: entry.row.image.clone(), digest, is_new: false }))
        })
        .await
    }

    /// Follows the name through indexes to one manifest.
    async fn find(&self, repository: &Repository, reference: &Reference, platform: &Platform) -> Result<Found> {
        let mut current = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => repository.manifest_by_digest(digest, None).await?,
            (None, tag) => repository.manifest_by_tag(tag.unwrap_or(rcontainerd_types::reference::DEFAULT_TAG)).await?,
        };
        let target = current.descriptor.clone();
        let mut documents = Vec::new();
        for _ in 0..=INDEX_DEPTH_MAX {
            let what = match &current.document {
                Document::Manifest(manifest) => Ok(What::Image(manifest.clone())),
                Document::Artifact(artifact) => Ok(What::Artifact(artifact.clone())),
                Document::Index(index) => Err(index.choose(platform)?.clone()),
            };
            let descriptor = current.descriptor.clone();
            let next = match what {
                Err(next) => next,
                Ok(what) => {
                    documents.push(current);
                    return Ok(Found { target, documents, descriptor, what });
                }
            };
            documents.push(current);
            current = repository.manifest_by_digest(&next.digest, Some(&next)).await?;
        }
        Err(Error::invalid(format!("invalid image {}: indexes are nested more than {INDEX_DEPTH_MAX} deep", reference.familiar())))
    }

    async fn bring(
        &self,
        repository: &Repository,
        reference: &Reference,
        wanted: Option<&Platform>,
        found: &Found,
        lease: Arc<Holder>,
    ) -> Result<PulledImage> {
        let fetch = Fetch {
            state: &self.state,
            namespace: &self.namespace,
            repository,
            feed: &self.feed,
            cancel: &self.cancel,
            stop: CancellationToken::new(),
        };
        let manifest = match &found.what {
            What::Image(manifest) => manifest,
            What::Artifact(artifact) => {
                let row = document::artifact_row(&found.descriptor, artifact);
                fetch::blobs(&fetch, artifact.blobs.iter().chain([&artifact.config])).await?;
                let referrers = self.referrers(&fetch, found, &lease).await?;
                return self.commit(reference, found, found.descriptor.digest.clone(), row, referrers, lease).await;
            }
        };
        let file = self.config(&fetch, &manifest.config).await?;
        if let Some(wanted) = wanted.filter(|wanted| !wanted.matches(&file.platform())) {
            let (name, actual) = (reference.familiar(), file.platform());
            return Err(Error::not_found(format!(
                "image with reference {name} was found but does not match the specified platform: wanted {wanted}, actual: {actual}"
            )));
        }
        let row = document::image_row(&found.descriptor, manifest, &file)?;
        let held = row.clone();
        let holder = Arc::clone(&lease);
        let (state, namespace, name) = (Arc::clone(&self.state), self.namespace.clone(), reference.familiar());
        blocking(move || {
            holder.layers([&held])?;
            let content = state.store.content(&namespace);
            let missing = held.layers.iter().map(|layer| &layer.blob).filter(|blob| !content.contains(&blob.digest).unwrap_or(false));
            let more = missing.map(|blob| blob.size).fold(0, u64::saturating_add);
            caps::admit(&state, &namespace, &name, more)
        })
        .await?;
        fetch::layers(&fetch, &row).await?;
        let referrers = self.referrers(&fetch, found, &lease).await?;
        self.commit(reference, found, manifest.config.digest.clone(), row, referrers, lease).await
    }

    /// Brings what refers to the documents, where that is wanted; gives its labels, by document.
    async fn referrers(&self, fetch: &Fetch<'_>, found: &Found, lease: &Arc<Holder>) -> Result<BTreeMap<Digest, Labels>> {
        let mut labels = BTreeMap::new();
        if !self.state.config.registry.referrers {
            return Ok(labels);
        }
        for subject in &found.documents {
            let mut brought = Vec::new();
            for entry in fetch.repository.referrers(&subject.descriptor.digest).await? {
                let referrer = fetch.repository.manifest_by_digest(&entry.digest, Some(&entry)).await?;
                self.carry(fetch, referrer, lease).await?;
                brought.push(entry.digest);
            }
            labels.insert(subject.descriptor.digest.clone(), document::referrers(&brought));
        }
        Ok(labels)
    }

    /// Fetches a document's blobs and keeps all of it.
    async fn carry(&self, fetch: &Fetch<'_>, fetched: Fetched, lease: &Arc<Holder>) -> Result<()> {
        let blobs = match &fetched.document {
            Document::Artifact(artifact) => [std::slice::from_ref(&artifact.config), &artifact.blobs].concat(),
            Document::Manifest(manifest) => [std::slice::from_ref(&manifest.config), &manifest.layers].concat(),
            Document::Index(_) => Vec::new(),
        };
        let held: Vec<Digest> = blobs.iter().chain([&fetched.descriptor]).map(|blob| blob.digest.clone()).collect();
        let lease = Arc::clone(lease);
        blocking(move || lease.content(held)).await?;
        fetch::blobs(fetch, blobs.iter()).await?;
        let content = self.state.store.content(&self.namespace);
        blocking(move || document::keep(&content, &fetched.descriptor, &fetched.bytes, document::references(&fetched.document))).await
    }

    /// The config is small: fetched whole, before the layers, since it names them.
    async fn config(&self, fetch: &Fetch<'_>, descriptor: &Descriptor) -> Result<ImageFile> {
        if descriptor.size > CONFIG_MAX {
            return Err(Error::invalid(format!(
                "invalid image: its config has {} bytes, more than the {CONFIG_MAX} allowed",
                descriptor.size
            )));
        }
        fetch.blob(descriptor, None, None).await?;
        let (content, digest) = (self.state.store.content(&self.namespace), descriptor.digest.clone());
        blocking(move || document::read_config(&content, &digest)).await
    }

    /// Keeps the documents and points the name at the image.
    async fn commit(
        &self,
        reference: &Reference,
        found: &Found,
        config: Digest,
        row: ImageRow,
        mut referrers: BTreeMap<Digest, Labels>,
        lease: Arc<Holder>,
    ) -> Result<PulledImage> {
        let (documents, target) = (found.documents.clone(), found.target.clone());
        let (state, namespace, name) = (Arc::clone(&self.state), self.namespace.clone(), reference.to_string());
        blocking(move || {
            let content = state.store.content(&namespace);
            for document in documents.iter().rev() {
                let mut labels = document::references(&document.document);
                labels.extend(referrers.remove(&document.descriptor.digest).unwrap_or_default());
                document::keep(&content, &document.descriptor, &document.bytes, labels)?;
            }
            let naming = Naming { name, target: target.clone(), image: config.clone(), row, pulled: true };
            let is_new = commit_names(&state, &namespace, vec![naming], Some(&lease))?;
            Ok(PulledImage { id: config, digest: target.digest, is_new })
        })
        .await
    }
}

/// A name for an unpacked image whose documents are stored.
pub(super) struct Naming {
    pub name: String,
    pub target: Descriptor,
    pub image: Digest,
    pub row: ImageRow,
    /// Whether the name's repository serves the target.
    pub pulled: bool,
}

/// Brings all that was made to the disk and gives the names, in one transaction, with which `lease` ends; says whether any is news.
pub(super) fn commit_names(state: &State, namespace: &str, mut namings: Vec<Naming>, lease: Option<&Holder>) -> Result<bool> {
    let content = state.store.content(namespace);
    let snapshotter = state.store.snapshots(namespace).name();
    if let Some(first) = namings.first() {
        caps::admit(state, namespace, &first.name, 0)?;
    }
    for naming in &mut namings {
        document::measure(&state.store, namespace, &mut naming.row);
    }
    let _changing = state.changing();
    state.store.settle(|tx| {
        let mut news = false;
        for Naming { name, target, image, row, pulled } in &namings {
            if let Some(top) = row.layers.last() {
                content.add_labels_in(tx, image, document::snapshot_reference(snapshotter, &top.chain_id))?;
            }
            let names = NameRow { target: target.digest.clone(), image: image.clone(), pulled: *pulled, tagged: Timestamp::now() };
            let before = tx.get(catalog::NAMES, &key(namespace, name))?;
            catalog::point(tx, namespace, name, target, &names, row)?;
            news |= before.is_none_or(|before| before.image != names.image || before.target != names.target);
        }
        lease.map_or(Ok(()), |lease| lease.let_go_in(tx))?;
        Ok(news)
    })
}

/// Whether all blobs and the unpacked image are here.
fn is_complete(state: &State, namespace: &str, row: &ImageRow) -> Result<bool> {
    let content = state.store.content(namespace);
    if row.artifact.is_some() {
        let needed = document::closure(&content, &row.manifest)?;
        return needed.iter().try_fold(!needed.is_empty(), |complete, blob| Ok(complete && content.contains(blob)?));
    }
    for layer in &row.layers {
        if !content.contains(&layer.blob.digest)? {
            return Ok(false);
        }
    }
    let Some(top) = row.layers.last() else { return Ok(true) };
    Ok(state.store.snapshots(namespace).stat(&top.chain_id.to_string()).is_ok())
}

/// For a caller that has no credentials.
impl PullImage {
    pub fn anonymous(reference: Reference) -> Self {
        Self { reference, platform: None, credentials: Credentials::Anonymous, all_tags: false }
    }
}
