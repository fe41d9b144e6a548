//! Layers: fetched a few at a time, each by one fetcher even when several pulls want it, unpacked in order as soon as they can be.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join_all, try_join};
use rcontainerd_registry::{Chunk, Repository};
use rcontainerd_store::unpack::{self, LayerState};
use rcontainerd_store::{Content, Expected, Labels};
use rcontainerd_types::{Descriptor, Digest, Error, ErrorKind, Result, id};
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::catalog::{ImageRow, LayerRow};
use super::progress::{Feed, LayerStep};
use super::state::{State, blocking};

/// Chunks between the socket and the disk.
const IN_FLIGHT: usize = 16;

/// What a fetch needs to know.
pub(super) struct Fetch<'a> {
    pub state: &'a Arc<State>,
    pub namespace: &'a str,
    pub repository: &'a Repository,
    pub feed: &'a Feed,
    pub cancel: &'a CancellationToken,
}

/// How people know a layer.
fn shown(digest: &Digest) -> &str {
    id::short(digest.hex())
}

/// Fetches and unpacks all layers of an image.
pub(super) async fn layers(fetch: &Fetch<'_>, row: &ImageRow) -> Result<()> {
    let mut arrivals = Vec::new();
    let mut downloads = Vec::new();
    for layer in &row.layers {
        fetch.feed.layer(shown(&layer.blob.digest), LayerStep::PullingFsLayer);
        let (arrived, arrival) = oneshot::channel();
        arrivals.push(arrival);
        downloads.push(download(fetch, &layer.blob, arrived));
    }
    let fetched = async { join_all(downloads).await.into_iter().collect::<Result<Vec<()>>>().map(drop) };
    let unpacked = async {
        for (position, arrival) in arrivals.into_iter().enumerate() {
            // A layer that will not come is told of by its download.
            let Ok(already) = arrival.await else { return Ok(()) };
            unpack_one(fetch.state, fetch.namespace, &row.layers[..=position], already, fetch.feed).await?;
        }
        Ok(())
    };
    try_join(fetched, unpacked).await.map(drop)
}

async fn download(fetch: &Fetch<'_>, blob: &Descriptor, arrived: oneshot::Sender<bool>) -> Result<()> {
    let name = shown(&blob.digest);
    let permit = match fetch.state.downloads.try_acquire() {
        Ok(permit) => permit,
        Err(_) => {
            fetch.feed.layer(name, LayerStep::Waiting);
            fetch.state.downloads.acquire().await.map_err(|_| Error::internal("the download queue is closed"))?
        }
    };
    let already = !fetch.blob(blob, Some(name)).await?;
    drop(permit);
    // The receiver is gone only when the pull has failed already.
    arrived.send(already).unwrap_or_default();
    Ok(())
}

impl Fetch<'_> {
    /// Brings a blob into the content store, verified; `false` if it was there. Steps are told of under `name`.
    pub(super) async fn blob(&self, blob: &Descriptor, name: Option<&str>) -> Result<bool> {
        let alone = self.state.alone(format!("blob {}", blob.digest)).await;
        let (offset_sender, offset) = oneshot::channel();
        let (sender, chunks) = mpsc::channel(IN_FLIGHT);
        let content = self.state.store.content(self.namespace);
        let writer = Writer { content, blob: blob.clone(), cancel: self.cancel.clone(), _alone: alone };
        let written = tokio::task::spawn_blocking(move || writer.run(offset_sender, chunks));
        let read = match offset.await {
            Ok(offset) => self.read(blob, offset, sender, name).await,
            // There is nothing to fetch, or the writer says why not.
            Err(_) => Ok(()),
        };
        let written = written.await.map_err(|err| Error::internal(format!("write {}: {err}", blob.digest)))?;
        // A full disk is the cause, the end of reading its consequence.
        let fresh = written?;
        read?;
        if fresh {
            self.tell(name, LayerStep::DownloadComplete);
        }
        Ok(fresh)
    }

    /// Socket to channel.
    async fn read(&self, blob: &Descriptor, offset: u64, sink: mpsc::Sender<Bytes>, name: Option<&str>) -> Result<()> {
        let mut source = self.repository.blob(blob, offset);
        while let Some(chunk) = source.next().await? {
            match chunk {
                Chunk::Data(bytes) => {
                    if sink.send(bytes).await.is_err() {
                        return Ok(());
                    }
                    self.tell(name, LayerStep::Downloading(source.offset(), blob.size));
                }
                Chunk::Retrying(seconds) => self.tell(name, LayerStep::Retrying(seconds)),
            }
        }
        self.tell(name, LayerStep::VerifyingChecksum);
        Ok(())
    }

    fn tell(&self, name: Option<&str>, step: LayerStep) {
        if let Some(name) = name {
            self.feed.layer(name, step);
        }
    }
}

/// Channel to disk, on a thread of its own: whatever becomes of the pull, the ingest ends in one of three ways.
struct Writer {
    content: Content,
    blob: Descriptor,
    cancel: CancellationToken,
    _alone: OwnedMutexGuard<()>,
}

impl Writer {
    /// Complete: verified and published (`true`). Cut short by a failure: kept, the next attempt goes on from there. Cancelled: removed.
    fn run(self, offset: oneshot::Sender<u64>, mut chunks: mpsc::Receiver<Bytes>) -> Result<bool> {
        let expected = Expected { digest: self.blob.digest.clone(), size: self.blob.size };
        let mut ingest = match self.content.ingest(&format!("pull-{}", self.blob.digest), Some(&expected)) {
            Err(err) if err.kind() == ErrorKind::AlreadyExists => return Ok(false),
            opened => opened?,
        };
        if ingest.offset() > self.blob.size {
            ingest.restart()?;
        }
        // A reader that is gone has dropped the other channel too.
        offset.send(ingest.offset()).unwrap_or_default();
        while let Some(bytes) = chunks.blocking_recv() {
            ingest.append(&bytes)?;
        }
        if ingest.offset() == self.blob.size {
            return ingest.commit(Some(self.blob.size), Some(&self.blob.digest), Labels::new()).map(|_| true);
        }
        if self.cancel.is_cancelled() {
            ingest.abort()?;
        }
        Ok(true)
    }
}

/// Unpacks the last of `layers` on top of the others, which are unpacked already.
async fn unpack_one(state: &Arc<State>, namespace: &str, layers: &[LayerRow], already: bool, feed: &Feed) -> Result<()> {
    let Some(top) = layers.last() else { return Ok(()) };
    let name = shown(&top.blob.digest).to_owned();
    feed.layer(&name, LayerStep::Extracting(0, top.blob.size));
    let fresh = unpack(state, namespace, layers).await?;
    let step = if already && !fresh { LayerStep::AlreadyExists } else { LayerStep::PullComplete };
    feed.layer(&name, step);
    Ok(())
}

/// Makes the snapshots of `layers` exist; says whether the topmost was made now.
pub(super) async fn unpack(state: &Arc<State>, namespace: &str, layers: &[LayerRow]) -> Result<bool> {
    let Some(top) = layers.last() else { return Ok(false) };
    let _alone = state.alone(format!("layer {}", top.chain_id)).await;
    let (state, namespace, layers) = (Arc::clone(state), namespace.to_owned(), layers.to_vec());
    blocking(move || unpack_blocking(&state, &namespace, &layers)).await
}

fn unpack_blocking(state: &State, namespace: &str, layers: &[LayerRow]) -> Result<bool> {
    let content = state.store.content(namespace);
    let snapshots = state.store.snapshots(namespace);
    let layer = |row: &LayerRow| unpack::Layer {
        blob: row.blob.digest.clone(),
        media_type: row.blob.media_type.clone(),
        diff_id: row.diff_id.clone(),
    };
    let layers: Vec<unpack::Layer> = layers.iter().map(layer).collect();
    let mut fresh = false;
    let last = layers.len().saturating_sub(1);
    unpack::unpack(&content, &*snapshots, &layers, &mut |position, state| {
        fresh |= position == last && state == LayerState::Done;
    })?;
    Ok(fresh)
}
