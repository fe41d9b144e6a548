//! The end of the host: nothing may be left that its init would wait for.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future;
use rcontainerd_task::Task;
use rcontainerd_types::{ErrorKind, Result};

use super::registry::Entry;
use super::{commands, stop};
use crate::engine::{Engine, KILL_PATIENCE, NAMESPACE};
use crate::signal;

/// For tasks of other namespaces: nothing says how long theirs need.
const FOREIGN_PATIENCE: Duration = Duration::from_secs(10);

/// Ends every container with its own stop signal and timeout, all at once. None counts as stopped by a client: restart policies apply when
/// the manager starts again, and not before. What does not end is logged.
pub(crate) async fn end_all(engine: &Arc<Engine>) {
    engine.host_ends.cancel();
    let own = engine.registry.all().into_iter().map(|entry| async move {
        if let Err(err) = end(&entry).await {
            tracing::error!(container = entry.id, "end it with the host: {err}");
        }
    });
    let foreign = foreign_tasks(engine).await.into_iter().map(|task| async move {
        if let Err(err) = end_foreign(&task).await {
            tracing::error!(container = task.key().id, namespace = task.key().namespace, "end it with the host: {err}");
        }
    });
    future::join(future::join_all(own), future::join_all(foreign)).await;
}

async fn end(entry: &Arc<Entry>) -> Result<()> {
    // A start under way comes first.
    drop(entry.operation.lock().await);
    let outline = entry.view();
    let config = &outline.config;
    let signal = if config.stop_signal.is_empty() { signal::TERM } else { signal::parse(&config.stop_signal)? };
    // Who waits without end (`--stop-timeout -1`) cannot: the host does not.
    let patience = commands::stop_wait(None, config.stop_timeout).unwrap_or(FOREIGN_PATIENCE);
    stop::end(entry, signal, Some(patience)).await
}

async fn foreign_tasks(engine: &Arc<Engine>) -> Vec<Task> {
    let keys = engine.tasks.list().await.unwrap_or_else(|err| {
        tracing::error!("end the tasks of other namespaces: {err}");
        Vec::new()
    });
    keys.iter().filter(|key| key.namespace != NAMESPACE).filter_map(|key| engine.tasks.get(key)).collect()
}

/// A shim lives as long as its task is not deleted, ended or not.
async fn end_foreign(task: &Task) -> Result<()> {
    for (signal, patience) in [(signal::TERM, FOREIGN_PATIENCE), (signal::KILL, KILL_PATIENCE)] {
        match task.kill(None, signal, false).await {
            Err(err) if err.kind() == ErrorKind::NotFound => break,
            sent => sent?,
        }
        if tokio::time::timeout(patience, task.wait(None)).await.is_ok() {
            break;
        }
    }
    match task.delete(None).await {
        // Its client was quicker.
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(()),
        deleted => deleted.map(drop),
    }
}
