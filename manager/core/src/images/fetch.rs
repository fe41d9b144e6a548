//! Layers: fetched a few at a time, each by one fetcher even when several pulls want it, unpacked in order while they come.
//!
//! ```text
//! socket → hash → ingest file → (follower) decompress → hash → files          blob verified ∧ DiffID right → visible
//! ```
//! What is in flight is bounded: a few chunks before the disk, a few pieces after it; between the two lies the ingest file itself.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use rcontainerd_registry::{Chunk, Repository};
use rcontainerd_store::content::Follower;
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
    /// Cancelled when a part has failed: the others end in order, and whatever they wrote is at rest when the failure is told.
    pub stop: CancellationToken,
}

/// The key under which a blob is fetched, by whichever pull.
pub(super) fn ingest_key(digest: &Digest) -> String {
    format!("pull-{digest}")
}

/// How people know a layer.
fn shown(digest: &Digest) -> &str {
    id::short(digest.hex())
}

/// A layer's blob, as soon as there is something to unpack.
pub(super) enum Arrival {
    /// It is in the store; `true`: it was there before.
    Stored(bool),
    /// It can be read while it comes; the receiver is told when it is in the store.
    Coming(Follower, oneshot::Receiver<()>),
}

/// Fetches all layers of an image side by side, each unpacked while it comes as soon as the one below it is in place.
pub(super) async fn layers(fetch: &Fetch<'_>, row: &ImageRow) -> Result<()> {
    let mut arrivals = Vec::new();
    let mut downloads = Vec::new();
    let known = known(fetch, row).await?;
    for (layer, known) in row.layers.iter().zip(&known) {
        fetch.feed.layer(shown(&layer.blob.digest), if *known { LayerStep::AlreadyExists } else { LayerStep::PullingFsLayer });
        let (arrived, arrival) = oneshot::channel();
        arrivals.push(arrival);
        downloads.push(download(fetch, &layer.blob, arrived));
    }
    let downloads = join_all(downloads.into_iter().map(|download| stopping(&fetch.stop, download)));
    // All are awaited, so that nothing is half made any more when a failure is told.
    let (fetched, unpacked) = join(downloads, stopping(&fetch.stop, unpack_all(fetch, row, arrivals, &known))).await;
    fetched.into_iter().collect::<Result<()>>().and(unpacked)
}

/// Fetches blobs that are no layers side by side.
pub(super) async fn blobs(fetch: &Fetch<'_>, blobs: impl Iterator<Item = &Descriptor>) -> Result<()> {
    let mut downloads = Vec::new();
    for blob in blobs {
        fetch.feed.layer(shown(&blob.digest), LayerStep::PullingFsLayer);
        // Nobody waits for it but this function.
        let (arrived, _) = oneshot::channel();
        downloads.push(stopping(&fetch.stop, download(fetch, blob, arrived)));
    }
    join_all(downloads).await.into_iter().collect()
}

/// One part of a pull: its failure ends the others.
async fn stopping(stop: &CancellationToken, part: impl Future<Output = Result<()>>) -> Result<()> {
    part.await.inspect_err(|_| stop.cancel())
}

/// Which layers are here, unpacked. They go the way of the others all the same: a removal beside this pull may take them.
async fn known(fetch: &Fetch<'_>, row: &ImageRow) -> Result<Vec<bool>> {
    let (state, namespace, layers) = (Arc::clone(fetch.state), fetch.namespace.to_owned(), row.layers.clone());
    blocking(move || {
        let (content, snapshots) = (state.store.content(&namespace), state.store.snapshots(&namespace));
        let known = |layer: &LayerRow| Ok(content.contains(&layer.blob.digest)? && snapshots.stat(&layer.chain_id.to_string()).is_ok());
        layers.iter().map(known).collect()
    })
    .await
}

async fn unpack_all(fetch: &Fetch<'_>, row: &ImageRow, arrivals: Vec<oneshot::Receiver<Arrival>>, known: &[bool]) -> Result<()> {
    for (position, arrival) in arrivals.into_iter().enumerate() {
        // A layer that will not come is told of by its download.
        let Ok(arrival) = arrival.await else { return Ok(()) };
        if !unpack_one(fetch, &row.layers[..=position], arrival, known[position]).await? {
            return Ok(());
        }
    }
    Ok(())
}

async fn download(fetch: &Fetch<'_>, blob: &Descriptor, arrived: oneshot::Sender<Arrival>) -> Result<()> {
    let name = shown(&blob.digest);
    let permit = match fetch.state.downloads.try_acquire() {
        Ok(permit) => permit,
        Err(_) => {
            fetch.feed.layer(name, LayerStep::Waiting);
            let Some(permit) = fetch.stop.run_until_cancelled(fetch.state.downloads.acquire()).await else { return Ok(()) };
            permit.map_err(|_| Error::internal("the download queue is closed"))?
        }
    };
    fetch.blob(blob, Some(name), Some(arrived)).await?;
    drop(permit);
    Ok(())
}

impl Fetch<'_> {
    /// Brings a blob into the content store, verified. Steps are told of under `name`, and who waits for it is given it as it comes.
    /// Ends early, and well, when it is stopped: why is told by what failed.
    pub(super) async fn blob(&self, blob: &Descriptor, name: Option<&str>, arrived: Option<oneshot::Sender<Arrival>>) -> Result<()> {
        let Some(alone) = self.stop.run_until_cancelled(self.state.alone(format!("blob {}", blob.digest))).await else { return Ok(()) };
        let (begun_sender, begun) = oneshot::channel();
        let (sender, chunks) = mpsc::channel(IN_FLIGHT);
        let content = self.state.store.content(self.namespace);
        let writer = Writer { content, blob: blob.clone(), cancel: self.cancel.clone(), _alone: alone };
        let written = tokio::task::spawn_blocking(move || writer.run(begun_sender, chunks));
        let Ok(Begun { offset, follower }) = begun.await else {
            // There is nothing to fetch, or the writer says why not.
            let fresh = written.await.map_err(|err| Error::internal(format!("write {}: {err}", blob.digest)))??;
            tell_arrival(arrived, Arrival::Stored(!fresh));
            return Ok(());
        };
        let (stored, stored_receiver) = oneshot::channel();
        tell_arrival(arrived, Arrival::Coming(follower, stored_receiver));
        let read = self.stop.run_until_cancelled(self.read(blob, offset, sender, name)).await;
        let written = written.await.map_err(|err| Error::internal(format!("write {}: {err}", blob.digest)))?;
        // A full disk is the cause, the end of reading its consequence.
        written?;
        let Some(read) = read else { return Ok(()) };
        read?;
        self.tell(name, LayerStep::DownloadComplete);
        // Nobody waits for it when the pull has failed elsewhere.
        stored.send(()).unwrap_or_default();
        Ok(())
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

/// A download that can begin.
struct Begun {
    /// Bytes that are here from an earlier attempt.
    offset: u64,
    follower: Follower,
}

fn tell_arrival(arrived: Option<oneshot::Sender<Arrival>>, arrival: Arrival) {
    if let Some(arrived) = arrived {
        // The receiver is gone only when the pull has failed already.
        drop(arrived.send(arrival));
    }
}

impl Writer {
    /// Complete: verified and published (`true`). Cut short by a failure: kept, the next attempt goes on from there. Cancelled: removed.
    fn run(self, begun: oneshot::Sender<Begun>, mut chunks: mpsc::Receiver<Bytes>) -> Result<bool> {
        let expected = Expected { digest: self.blob.digest.clone(), size: self.blob.size };
        let mut ingest = match self.content.ingest(&ingest_key(&self.blob.digest), Some(&expected)) {
            Err(err) if err.kind() == ErrorKind::AlreadyExists => return Ok(false),
            opened => opened?,
        };
        if ingest.offset() > self.blob.size {
            ingest.restart()?;
        }
        let follower = ingest.follow()?;
        // A reader that is gone has dropped the other channel too.
        drop(begun.send(Begun { offset: ingest.offset(), follower }));
        while let Some(bytes) = chunks.blocking_recv() {
            ingest.append(&bytes)?;
        }
        if ingest.offset() == self.blob.size {
            return ingest.commit_unsettled(Some(self.blob.size), Some(&self.blob.digest), &Labels::new()).map(|_| true);
        }
        if self.cancel.is_cancelled() {
            ingest.abort()?;
        }
        Ok(true)
    }
}

/// Unpacks the last of `layers` on top of the others, which are unpacked already; `false` when it did not arrive.
async fn unpack_one(fetch: &Fetch<'_>, layers: &[LayerRow], arrival: Arrival, known: bool) -> Result<bool> {
    let Some(top) = layers.last() else { return Ok(true) };
    let name = shown(&top.blob.digest).to_owned();
    let step = match arrival {
        Arrival::Stored(_) if known && !unpack(fetch.state, fetch.namespace, layers).await? => return Ok(true),
        Arrival::Stored(already) => {
            fetch.feed.layer(&name, LayerStep::Extracting(0, top.blob.size));
            let fresh = unpack(fetch.state, fetch.namespace, layers).await?;
            if already && !fresh { LayerStep::AlreadyExists } else { LayerStep::PullComplete }
        }
        Arrival::Coming(follower, stored) => {
            if !unpack_coming(fetch, layers, follower, stored).await? {
                return Ok(false);
            }
            LayerStep::PullComplete
        }
    };
    fetch.feed.layer(&name, step);
    Ok(true)
}

/// Unpacks a layer that is still being written, and makes it visible when its blob has been verified.
async fn unpack_coming(fetch: &Fetch<'_>, layers: &[LayerRow], follower: Follower, stored: oneshot::Receiver<()>) -> Result<bool> {
    let Some((top, below)) = layers.split_last() else { return Ok(true) };
    let alone = fetch.state.alone(format!("layer {}", top.chain_id)).await;
    let (state, namespace) = (Arc::clone(fetch.state), fetch.namespace.to_owned());
    let (layer, name, parent) = (layer_of(top), top.chain_id.to_string(), below.last().map(|below| below.chain_id.to_string()));
    let (verified_sender, verified) = oneshot::channel();
    // On a thread that goes on when the pull is cancelled: what was filled is committed or removed in any case.
    let unpacked = blocking(move || {
        let _alone = alone;
        let snapshots = state.store.snapshots(&namespace);
        let filled = unpack::fill(follower, &*snapshots, &layer, &name, parent.as_deref());
        let verified = verified.blocking_recv().is_ok();
        match (filled, verified) {
            (Ok(Some(filled)), true) => filled.commit(&*snapshots)?,
            (Ok(Some(filled)), false) => filled.discard(&*snapshots),
            // A blob that did not arrive, or with a wrong digest, is told of by its download: the better reason for what is wrong in it.
            (Ok(None), _) | (Err(_), false) => {}
            (Err(err), true) => return Err(err),
        }
        Ok(verified)
    });
    let announced = async {
        if stored.await.is_ok() {
            fetch.feed.layer(shown(&top.blob.digest), LayerStep::Extracting(top.blob.size, top.blob.size));
            verified_sender.send(()).unwrap_or_default();
        }
    };
    join(unpacked, announced).await.0
}

/// Makes the snapshots of `layers` exist, to be settled with what needs them; says whether the topmost was made now.
pub(super) async fn unpack(state: &Arc<State>, namespace: &str, layers: &[LayerRow]) -> Result<bool> {
    let Some(top) = layers.last() else { return Ok(false) };
    let _alone = state.alone(format!("layer {}", top.chain_id)).await;
    let (state, namespace, layers) = (Arc::clone(state), namespace.to_owned(), layers.to_vec());
    blocking(move || unpack_blocking(&state, &namespace, &layers)).await
}

fn layer_of(row: &LayerRow) -> unpack::Layer {
    unpack::Layer { blob: row.blob.digest.clone(), media_type: row.blob.media_type.clone(), diff_id: row.diff_id.clone() }
}

fn unpack_blocking(state: &State, namespace: &str, layers: &[LayerRow]) -> Result<bool> {
    let content = state.store.content(namespace);
    let snapshots = state.store.snapshots(namespace);
    let layers: Vec<unpack::Layer> = layers.iter().map(layer_of).collect();
    let mut fresh = false;
    let last = layers.len().saturating_sub(1);
    unpack::unpack(&content, &*snapshots, &layers, &mut |position, state| {
        fresh |= position == last && state == LayerState::Done;
    })?;
    Ok(fresh)
}
