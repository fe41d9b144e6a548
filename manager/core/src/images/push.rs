//! Push: layers that the registry lacks, the config, the manifest; told of as it goes.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use futures_util::{TryStreamExt, stream};
use rcontainerd_registry::manifest::{INDEX_DEPTH_MAX, MANIFEST_MAX};
use rcontainerd_registry::{Document as Stored, Pusher, Upload};
use rcontainerd_store::Content;
use rcontainerd_store::metadata::key;
use rcontainerd_types::{Descriptor, Digest, Error, ErrorKind, Platform, Reference, Result, id};
use tokio::sync::mpsc;

use super::catalog::{Catalog, Entry, NAMES};
use super::model::PushImage;
use super::state::{State, blocking};
use super::{document, platforms};

/// Events under way; a reader that does not keep up slows the push down, one that is gone ends it.
const QUEUE: usize = 64;
/// Bytes read from the store in one go.
const CHUNK: usize = 1 << 20;
/// Blobs on their way at once (dockerd's `max-concurrent-uploads`).
const UPLOADS: usize = 5;
/// Beginnings of one blob's upload.
const UPLOAD_ATTEMPTS: u32 = 3;

/// What happens to one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushStep {
    Preparing,
    AlreadyExists,
    /// Bytes that the registry has, bytes in all.
    Pushing(u64, u64),
    /// From this repository of the same registry.
    MountedFrom(String),
    Pushed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushEvent {
    /// The repository's name as people write it.
    Refers(String),
    /// `id`: the first twelve digits of the layer's DiffID.
    Layer { id: String, step: PushStep },
    /// The tag stands for the manifest of that digest and size.
    Tagged { tag: String, digest: Digest, size: u64 },
}

pub type PushEvents = mpsc::Receiver<Result<PushEvent>>;

/// Starts a push in a task of its own; a failure is the last thing told.
pub(super) fn start(state: &Arc<State>, namespace: &str, request: PushImage) -> PushEvents {
    let (events, receiver) = mpsc::channel(QUEUE);
    let push = Push { state: Arc::clone(state), namespace: namespace.to_owned(), events: events.clone() };
    tokio::spawn(async move {
        if let Err(err) = push.run(&request).await {
            // Nobody is left to be told.
            drop(events.send(Err(err)).await);
        }
    });
    receiver
}

struct Push {
    state: Arc<State>,
    namespace: String,
    events: mpsc::Sender<Result<PushEvent>>,
}

/// One tag, as it is here.
struct Local {
    reference: Reference,
    /// Documents, what they refer to first; the last is what the tag stands for.
    documents: Vec<Document>,
    /// Every blob once.
    blobs: Vec<Blob>,
    /// Repositories of the same registry that have blobs, by blob.
    elsewhere: Vec<(Digest, String)>,
}

/// A manifest or an index as it is stored.
struct Document {
    descriptor: Descriptor,
    bytes: Vec<u8>,
}

struct Blob {
    descriptor: Descriptor,
    /// What people know it by: the DiffID of a layer; nothing for a config.
    shown: Option<Digest>,
}

impl Push {
    async fn run(&self, request: &PushImage) -> Result<()> {
        let repository = request.reference.name();
        self.tell(PushEvent::Refers(repository)).await?;
        let locals = self.locals(request).await?;
        let pusher = self.state.registry.pusher(&request.reference, &request.credentials).await?;
        for local in &locals {
            self.one(&pusher, local).await?;
        }
        Ok(())
    }

    /// The tag, or all tags of the repository.
    async fn locals(&self, request: &PushImage) -> Result<Vec<Local>> {
        let (state, namespace) = (Arc::clone(&self.state), self.namespace.clone());
        let (wanted, platform) = (request.reference.clone(), request.platform.clone());
        blocking(move || {
            let catalog = state.catalog(&namespace)?;
            let content = state.store.content(&namespace);
            let is_meant = |reference: &Reference| {
                reference.name() == wanted.name()
                    && reference.tag().is_some()
                    && (wanted.tag().is_none() || reference.tag() == wanted.tag())
            };
            let mut locals = Vec::new();
            for entry in catalog.entries_in(&wanted.name()) {
                let Some(reference) = entry.reference.clone().filter(is_meant) else { continue };
                locals.push(local(&catalog, &content, entry, reference, platform.as_ref())?);
            }
            if locals.is_empty() {
                let is_known = catalog.entries_in(&wanted.name()).next().is_some();
                let told = match wanted.tag().filter(|_| is_known) {
                    Some(tag) => format!("tag does not exist: {}:{tag}", wanted.familiar_name()),
                    None => format!("An image does not exist locally with the tag: {}", wanted.familiar_name()),
                };
                return Err(Error::not_found(told));
            }
            Ok(locals)
        })
        .await
    }

    async fn one(&self, pusher: &Pusher, local: &Local) -> Result<()> {
        for shown in local.blobs.iter().filter_map(|blob| blob.shown.as_ref()) {
            self.layer(shown, PushStep::Preparing).await?;
        }
        let upload = async |blob: &Blob| {
            let step = self.blob(pusher, local, &blob.descriptor, blob.shown.as_ref()).await?;
            match &blob.shown {
                Some(shown) => self.layer(shown, step).await,
                None => Ok(()),
            }
        };
        stream::iter(local.blobs.iter().map(Ok)).try_for_each_concurrent(UPLOADS, upload).await?;
        let Some((top, below)) = local.documents.split_last() else { return Ok(()) };
        for document in below {
            let Document { descriptor, bytes } = document;
            pusher.manifest(&descriptor.digest.to_string(), &descriptor.media_type, bytes.clone()).await?;
        }
        let tag = local.reference.tag().unwrap_or("latest").to_owned();
        pusher.manifest(&tag, &top.descriptor.media_type, top.bytes.clone()).await?;
        self.remember(&local.reference, &top.descriptor.digest).await?;
        self.tell(PushEvent::Tagged { tag, digest: top.descriptor.digest.clone(), size: top.descriptor.size }).await
    }

    /// Makes the registry have a blob; says how.
    async fn blob(&self, pusher: &Pusher, local: &Local, blob: &Descriptor, shown: Option<&Digest>) -> Result<PushStep> {
        if pusher.has(&blob.digest).await? {
            return Ok(PushStep::AlreadyExists);
        }
        let mut upload = match local.elsewhere.iter().find(|(digest, _)| *digest == blob.digest) {
            None => pusher.upload(blob).await?,
            Some((_, from)) => match pusher.mount(blob, from).await? {
                None => return Ok(PushStep::MountedFrom(from.clone())),
                Some(upload) => upload,
            },
        };
        for _ in 1..UPLOAD_ATTEMPTS {
            match self.send(upload, blob, shown).await {
                // The registry has lost what it had: from the beginning.
                Err(err) if matches!(err.kind(), ErrorKind::Unavailable | ErrorKind::NotFound) => {
                    tracing::debug!(blob = %blob.digest, error = %err, "upload begun anew");
                    upload = pusher.upload(blob).await?;
                }
                sent => return sent.map(|()| PushStep::Pushed),
            }
        }
        self.send(upload, blob, shown).await.map(|()| PushStep::Pushed)
    }

    async fn send(&self, mut upload: Upload, blob: &Descriptor, shown: Option<&Digest>) -> Result<()> {
        let content = self.state.store.content(&self.namespace);
        let digest = blob.digest.clone();
        let mut reader = blocking(move || content.reader(&digest)).await?;
        loop {
            let (back, chunk) = blocking(move || {
                let mut chunk = Vec::with_capacity(CHUNK);
                let read = reader.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
                read.map_err(|err| Error::io("read a blob to push", err))?;
                Ok((reader, chunk))
            })
            .await?;
            reader = back;
            if chunk.is_empty() {
                return upload.finish().await;
            }
            upload.write(&chunk).await?;
            if let Some(diff_id) = shown {
                self.layer(diff_id, PushStep::Pushing(upload.sent(), blob.size)).await?;
            }
        }
    }

    /// The repository serves the image from now on: `repo@digest` is one of its names.
    async fn remember(&self, reference: &Reference, target: &Digest) -> Result<()> {
        let (state, name) = (Arc::clone(&self.state), key(&self.namespace, &reference.to_string()));
        let target = target.clone();
        blocking(move || {
            let _changing = state.changing();
            state.store.metadata().write(|tx| match tx.get(NAMES, &name)? {
                Some(mut row) if row.target == target => {
                    row.pulled = true;
                    tx.put(NAMES, &name, &row)
                }
                _ => Ok(()),
            })
        })
        .await
    }

    async fn layer(&self, diff_id: &Digest, step: PushStep) -> Result<()> {
        self.tell(PushEvent::Layer { id: id::short(diff_id.hex()).to_owned(), step }).await
    }

    async fn tell(&self, event: PushEvent) -> Result<()> {
        let gone = |_| Error::new(ErrorKind::Cancelled, "push cancelled: its client has gone");
        self.events.send(Ok(event)).await.map_err(gone)
    }
}

/// What is to be sent of a name: the index, if all that it lists is here; else the one image of the platform that is asked for, or that
/// the name stands for here.
fn local(catalog: &Catalog, content: &Content, entry: &Entry, reference: Reference, platform: Option<&Platform>) -> Result<Local> {
    let row = catalog.row(&entry.row.image)?;
    let target = &entry.record.target;
    let top = match platform {
        Some(platform) => {
            document::of_platform(content, target, platform)?.ok_or_else(|| platforms::lacks(reference.familiar(), platform))?.0
        }
        None if document::is_whole(content, target, INDEX_DEPTH_MAX)? => target.clone(),
        None => row.manifest.clone(),
    };
    let mut local = Local { reference, documents: Vec::new(), blobs: Vec::new(), elsewhere: Vec::new() };
    collect(content, &top, INDEX_DEPTH_MAX, &mut local)?;
    local.elsewhere = elsewhere(catalog, &local);
    Ok(local)
}

/// Adds a document, after what it refers to.
fn collect(content: &Content, descriptor: &Descriptor, depth: usize, local: &mut Local) -> Result<()> {
    if depth == 0 || local.documents.iter().any(|known| known.descriptor.digest == descriptor.digest) {
        return Ok(());
    }
    let bytes = content.read(&descriptor.digest, MANIFEST_MAX as u64)?;
    match document::read(content, descriptor)? {
        Stored::Index(index) => index.manifests.iter().try_for_each(|entry| collect(content, entry, depth - 1, local))?,
        Stored::Artifact(artifact) => {
            for blob in artifact.blobs {
                add(local, blob.clone(), Some(blob.digest));
            }
            add(local, artifact.config, None);
        }
        Stored::Manifest(manifest) => {
            let diff_ids = document::read_config(content, &manifest.config.digest)?.rootfs.diff_ids;
            for (blob, diff_id) in manifest.layers.into_iter().zip(diff_ids) {
                add(local, blob, Some(diff_id));
            }
            add(local, manifest.config, None);
        }
    }
    local.documents.push(Document { descriptor: descriptor.clone(), bytes });
    Ok(())
}

fn add(local: &mut Local, descriptor: Descriptor, shown: Option<Digest>) {
    if !local.blobs.iter().any(|known| known.descriptor.digest == descriptor.digest) {
        local.blobs.push(Blob { descriptor, shown });
    }
}

/// Other repositories of the same registry that serve layers of the image.
fn elsewhere(catalog: &Catalog, local: &Local) -> Vec<(Digest, String)> {
    let wanted: BTreeSet<&Digest> = local.blobs.iter().map(|blob| &blob.descriptor.digest).collect();
    let reference = &local.reference;
    let mut found = Vec::new();
    for entry in catalog.entries().filter(|entry| entry.row.pulled) {
        let Some(other) = &entry.reference else { continue };
        if other.domain() != reference.domain() || other.path() == reference.path() {
            continue;
        }
        let layers = catalog.image(&entry.row.image).map(|row| row.layers.as_slice()).unwrap_or_default();
        let shared = layers.iter().filter(|layer| wanted.contains(&layer.blob.digest));
        found.extend(shared.map(|layer| (layer.blob.digest.clone(), other.path().to_owned())));
    }
    found
}
