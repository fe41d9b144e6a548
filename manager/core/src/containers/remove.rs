//! Remove: the records of container and snapshot at once, then the files; a removal cut short is none, or leaves only rubbish.

use std::sync::Arc;

use rcontainerd_store::{Durability, records};
use rcontainerd_types::{Error, ErrorKind, Result};

use super::commands::RemoveContainer;
use super::model::{MountKind, State, Status};
use super::outline::Outline;
use super::registry::{CONTAINERS, Entry};
use super::stop;
use crate::engine::{Engine, NAMESPACE, blocking, container_event, remove_dir};
use crate::signal;
use crate::volumes::RemoveVolume;

pub(super) async fn remove(engine: &Arc<Engine>, entry: &Arc<Entry>, command: &RemoveContainer) -> Result<()> {
    loop {
        if entry.view().state.status.is_running() || entry.live().is_some() {
            if !command.force {
                return Err(refusal(&entry.view()));
            }
            engine.update_volatile(entry, Vec::new(), |state| state.manually_stopped = true);
            stop::end(entry, signal::KILL, Some(crate::engine::KILL_PATIENCE)).await?;
        }
        let _operation = entry.operation.lock().await;
        if entry.phase.borrow().removed {
            return Ok(());
        }
        // A start that was under way, by a client or a policy, came first.
        if entry.live().is_none() {
            return discard(engine, entry, command.volumes).await;
        }
    }
}

fn refusal(container: &Outline) -> Error {
    let (state, advice) = match container.state.status {
        Status::Paused => ("paused", "unpause and then stop the container before removal or force remove"),
        Status::Restarting => ("restarting", "stop the container before removing or force remove"),
        _ => ("running", "stop the container before removing or force remove"),
    };
    Error::conflict(format!("cannot remove container \"/{}\": container is {state}: {advice}", container.name))
}

/// Removes a container whose process is gone; the caller holds its operation lock.
pub(super) async fn discard(engine: &Arc<Engine>, entry: &Arc<Entry>, volumes: bool) -> Result<()> {
    let _files = entry.files.write().await;
    let exit_code = entry.view().state.exit_code;
    engine.update_volatile(entry, Vec::new(), |state| state.status = Status::Removing);
    entry.phase.send_modify(|phase| phase.removal_failed = None);
    drop(entry.take_pending());
    let (owner, container) = (Arc::clone(engine), entry.view());
    let removed = blocking(move || destroy(&owner, &container)).await;
    if let Err(err) = removed {
        let message = err.message().to_owned();
        let dead = |message: String| {
            move |state: &mut State| {
                state.status = Status::Dead;
                state.error = message;
            }
        };
        let change = dead(message.clone());
        if let Err(unwritten) = engine.update(entry, Vec::new(), move |container| change(&mut container.state)).await {
            tracing::warn!(container = entry.id, "record that it could not be removed: {unwritten}");
            engine.update_volatile(entry, Vec::new(), dead(message.clone()));
        }
        entry.phase.send_modify(|phase| phase.removal_failed = Some(message));
        return Err(err.context(format!("container {}", entry.id)));
    }
    let container = entry.view();
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

/// The container and its snapshot go in one transaction; what they have on the disk is nobody's then.
fn destroy(engine: &Engine, container: &Outline) -> Result<()> {
    let snapshots = engine.store.snapshotter(NAMESPACE, &container.snapshotter)?;
    let durability = if container.host_config.auto_remove { Durability::Volatile } else { Durability::Immediate };
    let (removal, events) = engine.store.metadata().write_freeing(durability, |tx| {
        let removal = match snapshots.remove_in(tx, &container.snapshot_key) {
            Err(err) if err.kind() == ErrorKind::NotFound => None,
            other => Some(other?),
        };
        tx.delete(CONTAINERS, &container.id)?;
        tx.delete(records::CONTAINERS, &rcontainerd_store::metadata::key(NAMESPACE, &container.id))?;
        Ok((removal, engine.record_all(tx, vec![container_event(container, "destroy", &[])])?))
    })?;
    events.into_iter().for_each(|event| engine.events.publish(event));
    if let Some(removal) = removal {
        removal.finish();
    }
    if let Err(err) = remove_dir(&engine.container_dir(&container.id)) {
        tracing::warn!(container = container.id, "removed, but not all of it is off the disk (rcontainerd fsck --repair): {err}");
    }
    Ok(())
}

/// Anonymous volumes that no other container uses.
async fn remove_volumes(engine: &Engine, container: &Outline) {
    for mount in container.mounts.iter().filter(|mount| mount.kind == MountKind::Volume && mount.anonymous) {
        match engine.volumes.remove(RemoveVolume { name: mount.name.clone(), force: true }).await {
            Err(err) if err.kind() != ErrorKind::Conflict => {
                tracing::warn!(container = container.id, "remove volume {}: {err}", mount.name);
            }
            _ => {}
        }
    }
}
