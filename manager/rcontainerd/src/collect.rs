//! Garbage: what nothing refers to any more (blobs of cut-off pulls, layers of removed images) is collected at start and every hour.

use std::time::Duration;

use rcontainerd_store::Store;
use rcontainerd_store::gc::{GcOptions, GcReport};
use rcontainerd_types::Result;

const EVERY: Duration = Duration::from_secs(3600);

/// Runs until the runtime ends. What a pull is just making is safe: it holds a lease, and fresh objects have a grace period.
pub fn spawn(store: Store) {
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            let store = store.clone();
            let collected = tokio::task::spawn_blocking(move || store.gc(&GcOptions::default())).await;
            if let Ok(collected) = collected {
                tell(collected);
            }
        }
    });
}

fn tell(collected: Result<GcReport>) {
    match collected {
        Ok(report) if report == GcReport::default() => {}
        Ok(report) => tracing::info!(
            blobs = report.content.len(),
            snapshots = report.snapshots.len(),
            ingests = report.ingests.len(),
            bytes = report.content_bytes + report.snapshot_bytes,
            "collected garbage"
        ),
        Err(err) => tracing::warn!("collect garbage: {err}"),
    }
}
