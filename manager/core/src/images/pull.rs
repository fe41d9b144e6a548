//! A pull: name → manifest → config → layers (fetched side by side, unpacked in order as they arrive) → name.
//!
//! A lease holds everything that the pull brings until the name does.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rcontainerd_registry::manifest::INDEX_DEPTH_MAX;
use rcontainerd_registry::{Credentials, Document, Fetched, Manifest, Repository};
use rcontainerd_store::metadata::key;
use rcontainerd_store::records::{LEASES, LeaseRecord};
use rcontainerd_types::{Descriptor, Digest, Error, ErrorKind, Platform, Reference, Result, id};
use tokio_util::sync::CancellationToken;

use super::catalog::{self, Catalog, ImageRow, NameRow};
use super::config::{CONFIG_MAX, ImageFile};
use super::document;
use super::fetch::{self, Fetch};
use super::model::{ImageEvent, PullImage, PulledImage};
use super::progress::{Feed, PullEvent};
use super::state::{State, blocking};

/// A crashed manager's pull lets go of what it brought after this long.
const LEASE_HOURS: i64 = 24;

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
    manifest: Manifest,
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
        let repository = self.state.registry.repository(&reference, &request.credentials)?;
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        if let Some(pulled) = self.already_here(&repository, &reference, &platform).await? {
            self.feed.send(PullEvent::Started { reference: reference.clone() });
            return Ok(self.finish(reference, pulled));
        }
        let found = self.find(&repository, &reference, &platform).await?;
        self.feed.send(PullEvent::Started { reference: reference.clone() });
        let lease = Lease::take(&self.state, &self.namespace, &found).await?;
        let brought = self.bring(&repository, &reference, request.platform.as_ref(), &found, &lease).await;
        lease.release().await?;
        let pulled = brought?;
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
            let catalog = Catalog::read(&state.store, &namespace)?;
            let Some(entry) = catalog.by_reference(&name).filter(|entry| entry.row.target == digest && entry.row.pulled) else {
                return Ok(None);
            };
            let row = catalog.row(&entry.row.image)?;
            let content = state.store.content(&namespace);
            let fits = document::read_config(&content, &entry.row.image).is_ok_and(|file| platform.matches(&file.platform()));
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
            let next = match &current.document {
                Document::Manifest(manifest) => {
                    let (descriptor, manifest) = (current.descriptor.clone(), manifest.clone());
                    documents.push(current);
                    return Ok(Found { target, documents, descriptor, manifest });
                }
                Document::Index(index) => index.choose(platform)?.clone(),
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
        lease: &Lease,
    ) -> Result<PulledImage> {
        let fetch = Fetch { state: &self.state, namespace: &self.namespace, repository, feed: &self.feed, cancel: &self.cancel };
        let file = self.config(&fetch, &found.manifest.config).await?;
        if let Some(wanted) = wanted.filter(|wanted| !wanted.matches(&file.platform())) {
            let (name, actual) = (reference.familiar(), file.platform());
            return Err(Error::not_found(format!(
                "image with reference {name} was found but does not match the specified platform: wanted {wanted}, actual: {actual}"
            )));
        }
        let row = document::image_row(&found.descriptor, &found.manifest, &file)?;
        lease.hold_layers(&row).await?;
        fetch::layers(&fetch, &row).await?;
        self.commit(reference, found, row).await
    }

    /// The config is small: fetched whole, before the layers, since it names them.
    async fn config(&self, fetch: &Fetch<'_>, descriptor: &Descriptor) -> Result<ImageFile> {
        if descriptor.size > CONFIG_MAX {
            return Err(Error::invalid(format!(
                "invalid image: its config has {} bytes, more than the {CONFIG_MAX} allowed",
                descriptor.size
            )));
        }
        fetch.blob(descriptor, None).await?;
        let (content, digest) = (self.state.store.content(&self.namespace), descriptor.digest.clone());
        blocking(move || document::read_config(&content, &digest)).await
    }

    /// Keeps the documents and points the name at the image.
    async fn commit(&self, reference: &Reference, found: &Found, row: ImageRow) -> Result<PulledImage> {
        let documents: Vec<_> = found.documents.clone();
        let (target, config) = (found.target.clone(), found.manifest.config.digest.clone());
        let (state, namespace, name) = (Arc::clone(&self.state), self.namespace.clone(), reference.to_string());
        blocking(move || {
            let content = state.store.content(&namespace);
            for document in documents.iter().rev() {
                document::keep(&content, &document.descriptor, &document.bytes, document::references(&document.document))?;
            }
            let is_new = commit_name(&state, &namespace, &name, &target, &config, row, true)?;
            Ok(PulledImage { id: config, digest: target.digest, is_new })
        })
        .await
    }
}

/// Points `name` at an unpacked image; says whether that is news. The documents are stored already.
pub(super) fn commit_name(
    state: &State,
    namespace: &str,
    name: &str,
    target: &Descriptor,
    config: &Digest,
    mut row: ImageRow,
    pulled: bool,
) -> Result<bool> {
    let content = state.store.content(namespace);
    if let Some(top) = row.layers.last() {
        let snapshotter = state.store.snapshots(namespace).name();
        document::add_labels(&content, config, document::snapshot_reference(snapshotter, &top.chain_id))?;
    }
    document::measure(&state.store, namespace, &mut row);
    let names = NameRow { target: target.digest.clone(), image: config.clone(), pulled, tagged: Timestamp::now() };
    let _changing = state.changing();
    state.store.metadata().write(|tx| {
        let before = tx.get(catalog::NAMES, &key(namespace, name))?;
        catalog::point(tx, namespace, name, target, &names, &row)?;
        Ok(before.is_none_or(|before| before.image != names.image || before.target != names.target))
    })
}

/// Whether all blobs and the unpacked image are here.
fn is_complete(state: &State, namespace: &str, row: &ImageRow) -> Result<bool> {
    let content = state.store.content(namespace);
    for layer in &row.layers {
        if !content.contains(&layer.blob.digest)? {
            return Ok(false);
        }
    }
    let Some(top) = row.layers.last() else { return Ok(true) };
    Ok(state.store.snapshots(namespace).stat(&top.chain_id.to_string()).is_ok())
}

/// Holds what a pull brings.
struct Lease {
    state: Arc<State>,
    namespace: String,
    id: String,
}

impl Lease {
    async fn take(state: &Arc<State>, namespace: &str, found: &Found) -> Result<Self> {
        let lease_id = format!("pull-{}", id::short(&id::generate()?));
        let digest = |document: &Fetched| document.descriptor.digest.clone();
        let layers = found.manifest.layers.iter().map(|layer| layer.digest.clone());
        let now = Timestamp::now();
        let record = LeaseRecord {
            id: lease_id.clone(),
            labels: [("rcontainerd.io/purpose".to_owned(), "pull".to_owned())].into(),
            created: now,
            expires: Some(now + SignedDuration::from_hours(LEASE_HOURS)),
            content: found.documents.iter().map(digest).chain([found.manifest.config.digest.clone()]).chain(layers).collect(),
            snapshots: std::collections::BTreeMap::new(),
            ingests: Vec::new(),
        };
        let (namespace, shared) = (namespace.to_owned(), Arc::clone(state));
        let lease = Self { state: Arc::clone(state), namespace: namespace.clone(), id: lease_id };
        blocking(move || shared.store.metadata().write(|tx| tx.put(LEASES, &key(&namespace, &record.id), &record))).await?;
        Ok(lease)
    }

    /// The names that the layers will have once unpacked, known when the config is.
    async fn hold_layers(&self, row: &ImageRow) -> Result<()> {
        let (state, namespace, id) = (Arc::clone(&self.state), self.namespace.clone(), self.id.clone());
        let chain: Vec<String> = row.layers.iter().map(|layer| layer.chain_id.to_string()).collect();
        blocking(move || {
            let snapshotter = state.store.snapshots(&namespace).name().to_owned();
            state.store.metadata().write(|tx| {
                let key = key(&namespace, &id);
                let held = tx.get(LEASES, &key)?;
                let mut record = held.ok_or_else(|| Error::internal(format!("lease {id:?} of a pull is gone")))?;
                record.snapshots.insert(snapshotter, chain);
                tx.put(LEASES, &key, &record)
            })
        })
        .await
    }

    async fn release(mut self) -> Result<()> {
        let (state, namespace, id) = (Arc::clone(&self.state), self.namespace.clone(), std::mem::take(&mut self.id));
        blocking(move || state.store.leases(&namespace).delete(&id)).await
    }
}

impl Drop for Lease {
    /// A cancelled pull never reaches `release`.
    fn drop(&mut self) {
        if self.id.is_empty() {
            return;
        }
        let (state, namespace, id) = (Arc::clone(&self.state), self.namespace.clone(), std::mem::take(&mut self.id));
        tokio::task::spawn_blocking(move || {
            if let Err(err) = state.store.leases(&namespace).delete(&id) {
                tracing::warn!(lease = %id, error = %err, "lease of a cancelled pull stays until it expires");
            }
        });
    }
}

/// For a caller that has no credentials.
impl PullImage {
    pub fn anonymous(reference: Reference) -> Self {
        Self { reference, platform: None, credentials: Credentials::Anonymous, all_tags: false }
    }
}
