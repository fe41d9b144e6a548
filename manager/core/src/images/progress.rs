//! A pull as its caller sees it: events, then the outcome. The queue is bounded by coalescing: a layer's newer numbers replace
//! its older ones, so a reader that is slow sees fewer, never stale, lines and never holds the pull up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use rcontainerd_types::{Digest, Error, ErrorKind, Reference, Result};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::model::PulledImage;

/// What happens to one layer, in this order (repeats and leaps allowed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerStep {
    AlreadyExists,
    PullingFsLayer,
    Waiting,
    /// Bytes so far, bytes in all.
    Downloading(u64, u64),
    /// The line broke; the next attempt starts in that many seconds.
    Retrying(u64),
    VerifyingChecksum,
    DownloadComplete,
    /// Compressed bytes read so far, in all.
    Extracting(u64, u64),
    PullComplete,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullEvent {
    /// `Pulling from library/busybox`, under the tag (or digest).
    Started {
        reference: Reference,
    },
    /// `id`: the first twelve digits of the layer's digest.
    Layer {
        id: String,
        step: LayerStep,
    },
    Digest(Digest),
    /// `Status: Downloaded newer image for …` if `is_new`, else `Status: Image is up to date for …`.
    Finished {
        reference: Reference,
        is_new: bool,
    },
}

/// A pull under way, in a task of its own. Dropping it, like `cancel`, stops the pull at the next step border; what was
/// half made is removed, complete blobs stay for the next attempt.
#[derive(Debug)]
pub struct Pull {
    feed: Arc<Feed>,
    cancel: CancellationToken,
    task: Option<JoinHandle<Result<Vec<PulledImage>>>>,
}

impl Pull {
    pub(super) fn new(feed: Arc<Feed>, cancel: CancellationToken, task: JoinHandle<Result<Vec<PulledImage>>>) -> Self {
        Self { feed, cancel, task: Some(task) }
    }

    /// The next event, `None` after the last. Cancel-safe.
    pub async fn next(&mut self) -> Option<PullEvent> {
        self.feed.next().await
    }

    /// Stops the pull at the next step border; `finish` then gives `Cancelled`.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// The outcome: one image, or one per tag with `all_tags`.
    ///
    /// # Errors
    /// As the registry or the store said, in Docker's words where Docker has them.
    pub async fn finish(mut self) -> Result<Vec<PulledImage>> {
        match self.task.take() {
            Some(task) => task.await.map_err(|err| Error::internal(format!("pull task failed: {err}")))?,
            None => Err(Error::new(ErrorKind::Cancelled, "pull cancelled")),
        }
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        if self.task.is_some() {
            self.cancel.cancel();
        }
    }
}

/// The queue between the pull and its reader.
#[derive(Debug, Default)]
pub(super) struct Feed {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<PullEvent>,
    closed: bool,
}

impl Feed {
    pub(super) fn send(&self, event: PullEvent) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match queue.events.iter_mut().rev().find(|queued| same_layer(queued, &event)) {
            Some(queued) if supersedes(&event, queued) => *queued = event,
            _ => queue.events.push_back(event),
        }
        drop(queue);
        self.wake.notify_one();
    }

    pub(super) fn layer(&self, id: &str, step: LayerStep) {
        self.send(PullEvent::Layer { id: id.to_owned(), step });
    }

    pub(super) fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.wake.notify_one();
    }

    async fn next(&self) -> Option<PullEvent> {
        loop {
            {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                match queue.events.pop_front() {
                    Some(event) => return Some(event),
                    None if queue.closed => return None,
                    None => {}
                }
            }
            self.wake.notified().await;
        }
    }
}

fn same_layer(a: &PullEvent, b: &PullEvent) -> bool {
    matches!((a, b), (PullEvent::Layer { id: a, .. }, PullEvent::Layer { id: b, .. }) if a == b)
}

/// Newer numbers of the same step replace those not yet read.
fn supersedes(new: &PullEvent, old: &PullEvent) -> bool {
    let step = |event: &PullEvent| match event {
        PullEvent::Layer { step, .. } => Some(std::mem::discriminant(step)),
        _ => None,
    };
    step(new) == step(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn newer_numbers_replace_unread_ones_and_steps_keep_their_order() {
        let feed = Feed::default();
        feed.layer("a", LayerStep::PullingFsLayer);
        feed.layer("b", LayerStep::PullingFsLayer);
        for now in 0..1000 {
            feed.layer("a", LayerStep::Downloading(now, 1000));
        }
        feed.layer("a", LayerStep::DownloadComplete);
        feed.close();
        let mut seen = Vec::new();
        while let Some(event) = feed.next().await {
            seen.push(event);
        }
        let layer = |id: &str, step| PullEvent::Layer { id: id.into(), step };
        assert_eq!(
            seen,
            [
                layer("a", LayerStep::PullingFsLayer),
                layer("b", LayerStep::PullingFsLayer),
                layer("a", LayerStep::Downloading(999, 1000)),
                layer("a", LayerStep::DownloadComplete),
            ]
        );
    }
}
