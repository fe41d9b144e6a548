//! Garbage: what nothing refers to any more (blobs of cut-off pulls, layers of removed images) is collected at start and every hour; so is
//! the room that the database no longer needs.

use std::time::Duration;

use rcontainerd_core::images::ImageService;
use rcontainerd_store::Store;
use rcontainerd_store::gc::{GcOptions, GcReport};
use rcontainerd_types::Result;

const EVERY: Duration = Duration::from_secs(3600);

/// Runs until the runtime ends. What a pull is just making is safe: it holds a lease, and fresh objects have a grace period.
pub fn spawn(store: Store, images: ImageService) {
    tokio::spawn(async move {
        // What an earlier manager was making is of no use to anybody.
        tell(images.collect_at_start().await);
        settle(&images).await;
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + EVERY, EVERY);
        loop {
            ticks.tick().await;
            let store = store.clone();
            if let Ok(collected) = tokio::task::spawn_blocking(move || store.gc(&GcOptions::default())).await {
                tell(collected);
            }
            settle(&images).await;
        }
    });
}

async fn settle(images: &ImageService) {
    if let Err(err) = images.keep_caps().await {
        tracing::warn!("{err}");
    }
    // The start is over, or an hour's work: what it took of the program and of memory is not needed by a manager that waits.
    rrun_sys::memory::release_heap();
    if let Err(err) = rrun_sys::memory::release_code() {
        tracing::debug!("give up the pages of code that wait in memory: {err}");
    }
}

fn tell(collected: Result<GcReport>) {
    match collected {
        Ok(report) if report == GcReport::default() => {}
        Ok(report) => tracing::info!(
            blobs = report.content.len(),
            snapshots = report.snapshots.len(),
            ingests = report.ingests.len(),
            bytes = report.bytes(),
            "collected garbage"
        ),
        Err(err) => tracing::warn!("collect garbage: {err}"),
    }
}
