//! Remove: snapshot, files, then the record; a removal cut short can be repeated.

use std::sync::Arc;

use rcontainerd_store::records;
use rcontainerd_types::{Error, ErrorKind, Result};

use super::commands::RemoveContainer;
use super::model::{Container, MountKind, Status};
use super::registry::{CONTAINERS, Entry};
use super::stop;
use crate::engine::{Engine, NAMESPACE, blocking, container_event, remove_dir};
use crate::signal;
use crate::volumes::RemoveVolume;

pub(super) async fn remove(engine: &Arc<Engine>, entry: &Arc<Entry>, command: &RemoveContainer) -> Result<()> {
    let state = entry.record().state;
    if state.status.is_running() {
        if !command.force {
            return Err(refusal(&entry.record()));
        }
        engine.update_volatile(entry, Vec::new(), |container| container.state.manually_stopped = true);
        stop::end(entry, signal::KILL, Some(crate::engine::KILL_PATIENCE)).await?;
    }
    let _operation = entry.operation.lock().await;
    if entry.phase.borrow().removed {
        return Ok(());
    }
    if entry.live().is_some() {
        return Err(refusal(&entry.record()));
    }
    discard(engine, entry, command.volumes).await
}

fn refusal(container: &Container) -> Error {
    let (state, advice) = match container.state.status {
        Status::Paused => ("paused", "unpause and then stop the container before removal or force remove"),
        Status::Restarting => ("restarting", "stop the container before removing or force remove"),
        _ => ("running", "stop the container before removing or force remove"),
    };
    Error::conflict(format!("cannot remove container \"/{}\": container is {state}: {advice}", container.name))
}

/// Removes a container whose process is gone; the caller holds its operation lock.
pub(super) async fn discard(engine: &Arc<Engine>, entry: &Arc<Entry>, volumes: bool) -> Result<()> {
    let exit_code = entry.record().state.exit_code;
    engine.update_volatile(entry, Vec::new(), |container| container.state.status = Status::Removing);
    drop(entry.take_pending());
    let (owner, container) = (Arc::clone(engine), entry.record());
    let removed = blocking(move || destroy(&owner, &container)).await;
    if let Err(err) = removed {
        let message = err.message().to_owned();
        let dead = move |container: &mut Container| {
            container.state.status = Status::Dead;
            container.state.error = message;
        };
        engine.update(entry, Vec::new(), dead).await?;
        return Err(err.context(format!("container {}", entry.id)));
    }
    let container = entry.record();
    engine.registry.remove(&entry.id);
    engine.execs.forget(&entry.id);
    if volumes {
        remove_volumes(engine, &container).await;
    }
    entry.phase.send_modify(|phase| {
        phase.running = false;
        phase.removed = true;
        phase.exit_code = exit_code;
    });
    Ok(())
}

fn destroy(engine: &Engine, container: &Container) -> Result<()> {
    match engine.store.snapshotter(NAMESPACE, &container.snapshotter)?.remove(&container.snapshot_key) {
        Err(err) if err.kind() != ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    remove_dir(&engine.container_dir(&container.id))?;
    let events = engine.store.metadata().write(|tx| {
        tx.delete(CONTAINERS, &container.id)?;
        tx.delete(records::CONTAINERS, &rcontainerd_store::metadata::key(NAMESPACE, &container.id))?;
        engine.record_all(tx, vec![container_event(container, "destroy", &[])])
    })?;
    events.into_iter().for_each(|event| engine.events.publish(event));
    Ok(())
}

/// Anonymous volumes that no other container uses.
async fn remove_volumes(engine: &Engine, container: &Container) {
    for mount in container.mounts.iter().filter(|mount| mount.kind == MountKind::Volume && mount.anonymous) {
        match engine.volumes.remove(RemoveVolume { name: mount.name.clone(), force: true }).await {
            Err(err) if err.kind() != ErrorKind::Conflict => {
                tracing::warn!(container = container.id, "remove volume {}: {err}", mount.name);
            }
            _ => {}
        }
    }
}
