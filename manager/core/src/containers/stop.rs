//! Stop, kill, pause: signals to the process, and waiting for its end.

use std::sync::Arc;
use std::time::Duration;

use rcontainerd_task::ProcessStatus;
use rcontainerd_types::{Error, ErrorKind, Result};

use super::commands::{self, KillContainer, StopContainer};
use super::model::{State, Status};
use super::registry::Entry;
use crate::engine::{Engine, KILL_PATIENCE, container_event};
use crate::signal;

pub(super) async fn stop(engine: &Arc<Engine>, entry: &Arc<Entry>, command: &StopContainer) -> Result<()> {
    // A start under way comes first.
    drop(entry.operation.lock().await);
    let container = entry.view();
    if !container.state.status.is_running() {
        return Err(Error::new(ErrorKind::NotModified, format!("container {} is already stopped", entry.id)));
    }
    let own = [command.signal.as_deref(), Some(container.config.stop_signal.as_str())].into_iter().flatten().find(|name| !name.is_empty());
    let signal = own.map_or(Ok(signal::TERM), signal::parse)?;
    let patience = commands::stop_wait(command.timeout, container.config.stop_timeout);
    engine.update_volatile(entry, Vec::new(), |state| state.manually_stopped = true);
    if container.state.status == Status::Restarting {
        return cancel_restart(engine, entry).await;
    }
    let told = |signal: u32| engine.events.announce(container_event(&container, "kill", &[("signal", signal.to_string())]));
    told(signal);
    end_telling(entry, signal, patience, told).await?;
    engine.events.announce(container_event(&entry.view(), "stop", &[]));
    Ok(())
}

/// Between two runs there is no process: the restart just does not happen.
async fn cancel_restart(engine: &Arc<Engine>, entry: &Arc<Entry>) -> Result<()> {
    engine.update(entry, Vec::new(), |container| container.state.status = Status::Exited).await?;
    entry.phase.send_modify(|phase| phase.running = false);
    Ok(())
}

/// Asks with `signal`, waits, then kills. Returns once the process's remains are removed.
pub(super) async fn end(entry: &Arc<Entry>, signal: u32, patience: Option<Duration>) -> Result<()> {
    end_telling(entry, signal, patience, |_| {}).await
}

/// As [`end`]; `told` hears of the second signal, if there is one.
async fn end_telling(entry: &Arc<Entry>, signal: u32, patience: Option<Duration>, told: impl Fn(u32)) -> Result<()> {
    let mut phase = entry.phase.subscribe();
    let before = phase.borrow_and_update().exits;
    let Some(live) = entry.live() else {
        // An end under way holds it until nothing remains.
        drop(entry.operation.lock().await);
        return Ok(());
    };
    gone_is_fine(&live.task, live.task.kill(None, signal, false).await).await?;
    thaw(entry, &live.task).await;
    let ended = phase.wait_for(|phase| phase.exits > before);
    match patience {
        None => drop(ended.await),
        Some(patience) => {
            if tokio::time::timeout(patience, ended).await.is_ok() {
                return Ok(());
            }
            told(signal::KILL);
            gone_is_fine(&live.task, live.task.kill(None, signal::KILL, false).await).await?;
            let killed = tokio::time::timeout(KILL_PATIENCE, phase.wait_for(|phase| phase.exits > before));
            if killed.await.is_err() {
                return Err(Error::internal(format!(
                    "container {} does not end after SIGKILL: a process of it hangs in the kernel",
                    entry.id
                )));
            }
        }
    }
    Ok(())
}

/// A frozen process takes no signal.
async fn thaw(entry: &Entry, task: &rcontainerd_task::Task) {
    if entry.view().state.status == Status::Paused
        && let Err(err) = task.resume().await
    {
        tracing::warn!(container = entry.id, "resume before the end: {err}");
    }
}

/// A signal that meets the end may fail by anything that goes with it (the process, its cgroup, the runtime's state).
async fn gone_is_fine(task: &rcontainerd_task::Task, result: Result<()>) -> Result<()> {
    match result {
        Err(err) if err.kind() != ErrorKind::NotFound && !has_ended(task).await => Err(err),
        _ => Ok(()),
    }
}

pub(super) async fn has_ended(task: &rcontainerd_task::Task) -> bool {
    match task.state(None).await {
        Ok(state) => state.status == ProcessStatus::Stopped,
        Err(err) => err.kind() == ErrorKind::NotFound,
    }
}

/// What was asked of a running container and met its end failed because of that, whatever it was that was missing.
///
/// # Errors
/// `Conflict` in Docker's words then; else that of `result`.
pub(crate) async fn unless_ended<T>(entry: &Entry, task: &rcontainerd_task::Task, result: Result<T>) -> Result<T> {
    match result {
        Err(err) => Err(explained_by_end(entry, task, err).await.unwrap_or_else(|err| err)),
        done => done,
    }
}

/// `Ok`: what to tell when the container has ended; else the error again.
pub(crate) async fn explained_by_end(entry: &Entry, task: &rcontainerd_task::Task, err: Error) -> std::result::Result<Error, Error> {
    if !has_ended(task).await {
        return Err(err);
    }
    tracing::debug!(container = entry.id, "met the container's end: {err}");
    Ok(Error::conflict(format!("container {} is not running", entry.id)))
}

pub(super) async fn kill(engine: &Arc<Engine>, entry: &Arc<Entry>, command: &KillContainer) -> Result<()> {
    let signal = command.signal.as_deref().filter(|text| !text.is_empty()).map_or(Ok(signal::KILL), signal::parse)?;
    let container = entry.view();
    let not_running = || Error::conflict(format!("cannot kill container: {}: container {} is not running", command.id, entry.id));
    if container.state.status == Status::Restarting {
        engine.update_volatile(entry, Vec::new(), |state| state.manually_stopped = true);
        return cancel_restart(engine, entry).await;
    }
    let live = entry.live_once_started().await.ok_or_else(not_running)?;
    if signal == signal::KILL || signal == signal::TERM {
        engine.update_volatile(entry, Vec::new(), |state| state.manually_stopped = true);
    }
    if signal == signal::KILL {
        // Who asks for an end that cannot be refused finds it done.
        end(entry, signal, Some(KILL_PATIENCE)).await?;
    } else {
        match live.task.kill(None, signal, false).await {
            Err(_) if has_ended(&live.task).await => return Err(not_running()),
            other => other?,
        }
        resume_for_signal(engine, entry, &live.task).await;
    }
    engine.events.announce(container_event(&container, "kill", &[("signal", signal.to_string())]));
    Ok(())
}

/// A paused container takes a signal by running on, as Docker has it.
async fn resume_for_signal(engine: &Engine, entry: &Entry, task: &rcontainerd_task::Task) {
    let container = entry.view();
    if container.state.status == Status::Paused {
        thaw(entry, task).await;
        let event = container_event(&container, "unpause", &[]);
        engine.update_volatile(entry, vec![event], |state| state.status = Status::Running);
    }
}

pub(super) async fn pause(engine: &Arc<Engine>, entry: &Arc<Entry>, pause: bool) -> Result<()> {
    let _operation = entry.operation.lock().await;
    let container = entry.view();
    match (container.state.status, pause) {
        (Status::Running, true) | (Status::Paused, false) => {}
        (Status::Paused, true) => return Err(Error::conflict(format!("container {} is already paused", entry.id))),
        (Status::Running, false) => return Err(Error::conflict(format!("Container {} is not paused", entry.id))),
        _ => return Err(Error::conflict(format!("container {} is not running", entry.id))),
    }
    let task = entry.running_task()?;
    let (status, action) = if pause { (Status::Paused, "pause") } else { (Status::Running, "unpause") };
    let done = if pause { task.pause().await } else { task.resume().await };
    unless_ended(entry, &task, done).await?;
    let change = |state: &mut State| state.status = status;
    engine.update_volatile(entry, vec![container_event(&container, action, &[])], change);
    Ok(())
}
