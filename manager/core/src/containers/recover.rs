//! After a restart of the manager: every container that lives is taken up again, the end of every other is recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use rcontainerd_network::Attachment;
use rcontainerd_task::{ExitStatus, ProcessStatus, Task};
use rcontainerd_types::Result;

use super::model::{Container, Status};
use super::registry::{Entry, Live};
use super::runstate::RunState;
use super::{exit, remove, start};
use crate::engine::{Engine, NAMESPACE, container_event, remove_dir};

/// Takes up what an earlier manager left. Problems of one container are logged and do not stop the others.
///
/// # Errors
/// When STATE cannot be read.
pub(crate) async fn recover(engine: &Arc<Engine>) -> Result<()> {
    let mut bundles: BTreeMap<String, ()> =
        engine.tasks.list().await?.into_iter().filter(|key| key.namespace == NAMESPACE).map(|key| (key.id, ())).collect();
    let mut alive: Vec<Attachment> = Vec::new();
    let mut ended = Vec::new();
    for entry in engine.registry.all() {
        let state = read_state(engine, &entry);
        let task = match bundles.remove(&entry.id) {
            Some(()) => reattach(engine, &entry).await,
            None => None,
        };
        match (task, state) {
            (Some((task, status)), Some(state)) => {
                alive.extend(state.attachment.clone());
                take_up(engine, &entry, &state, &task, status);
                exit::watch(engine, &entry, state.run, task);
            }
            (task, state) => ended.push((entry, task.map(|(task, _)| task), state)),
        }
    }
    restore_network(engine, alive).await;
    for (entry, task, state) in ended {
        settle(engine, &entry, task, state).await;
    }
    for id in bundles.into_keys() {
        orphan(engine, &id).await;
    }
    Ok(())
}

fn read_state(engine: &Engine, entry: &Entry) -> Option<RunState> {
    RunState::read(&engine.run_dir(&entry.id)).unwrap_or_else(|err| {
        tracing::warn!(container = entry.id, "state of its run: {err}");
        None
    })
}

/// The task and its status, if its shim still answers. A process that has ended meanwhile is found by `wait`.
async fn reattach(engine: &Engine, entry: &Entry) -> Option<(Task, ProcessStatus)> {
    let task = match engine.tasks.reattach(&engine.task_key(&entry.id)).await {
        Ok(task) => task?,
        Err(err) => {
            tracing::warn!(container = entry.id, "reattach: {err}");
            return None;
        }
    };
    match task.state(None).await {
        // The manager died between create and start: nobody will start it.
        Ok(state) if state.status == ProcessStatus::Created => {
            if let Err(err) = task.kill(None, crate::signal::KILL, true).await {
                tracing::warn!(container = entry.id, "end a half-made start: {err}");
            }
            Some((task, ProcessStatus::Stopped))
        }
        Ok(state) => Some((task, state.status)),
        Err(err) => {
            tracing::warn!(container = entry.id, "ask for its state: {err}");
            None
        }
    }
}

fn take_up(engine: &Engine, entry: &Entry, state: &RunState, task: &Task, status: ProcessStatus) {
    let live = Live { task: task.clone(), run: state.run, netns: state.netns.clone(), attachment: state.attachment.clone() };
    entry.set_live(Some(live));
    engine.update_volatile(entry, Vec::new(), |container| {
        start::apply(container, state, task.pid());
        if status == ProcessStatus::Paused {
            container.state.status = Status::Paused;
        }
    });
    entry.phase.send_modify(|phase| phase.running = true);
}

async fn restore_network(engine: &Engine, alive: Vec<Attachment>) {
    let network = Arc::clone(&engine.network);
    if let Err(err) = crate::engine::blocking(move || network.restore(&alive)).await {
        tracing::error!("restore the networks of running containers: {err}");
    }
}

/// A container without a process: what its last run left is removed, its end recorded, the policy applied.
async fn settle(engine: &Arc<Engine>, entry: &Arc<Entry>, task: Option<Task>, state: Option<RunState>) {
    let container = entry.record();
    let recorded_running = container.state.status.is_running();
    let status = match (&task, &state) {
        (None, None) => ExitStatus::unknown(),
        _ => remains(engine, entry, task, state.as_ref()).await,
    };
    if let Some(state) = &state {
        engine.update_volatile(entry, Vec::new(), |container| start::apply(container, state, 0));
        exit_recorded(engine, entry, status).await;
    } else if recorded_running {
        exit_recorded(engine, entry, status).await;
    }
    let container = entry.record();
    let unfinished = matches!(container.state.status, Status::Removing | Status::Dead);
    if unfinished || (container.host_config.auto_remove && container.state.status == Status::Exited) {
        let _operation = entry.operation.lock().await;
        if let Err(err) = remove::discard(engine, entry, container.host_config.auto_remove).await {
            tracing::warn!(container = entry.id, "finish its removal: {err}");
        }
        return;
    }
    boot_start(engine, entry, &container);
}

/// Removes the bundle, network and run files of a dead run.
async fn remains(engine: &Arc<Engine>, entry: &Arc<Entry>, task: Option<Task>, state: Option<&RunState>) -> ExitStatus {
    if let Some(task) = &task {
        // No run file: a start that was cut short.
        drop(task.kill(None, crate::signal::KILL, true).await);
    }
    let status = engine.tasks.cleanup_dead(&engine.task_key(&entry.id)).await.unwrap_or_else(|_| ExitStatus::unknown());
    if let Some(state) = state {
        let released = start::release_network(engine, state.netns.clone(), state.attachment.clone()).await;
        if let Err(err) = released {
            tracing::warn!(container = entry.id, "release its network: {err}");
        }
    }
    if let Err(err) = remove_dir(&engine.run_dir(&entry.id)) {
        tracing::warn!(container = entry.id, "remove run files: {err}");
    }
    status
}

async fn exit_recorded(engine: &Arc<Engine>, entry: &Arc<Entry>, status: ExitStatus) {
    let event = container_event(&entry.record(), "die", &[("exitCode", status.code.to_string())]);
    let finished = Timestamp::try_from(status.exited_at).unwrap_or_else(|_| Timestamp::now());
    let code = i64::from(status.code);
    let change = move |container: &mut Container| {
        container.state.status = Status::Exited;
        container.state.pid = 0;
        container.state.exit_code = code;
        container.state.finished_at = Some(finished);
        container.state.networks.clear();
        container.state.ports.clear();
    };
    if let Err(err) = engine.update(entry, vec![event], change).await {
        tracing::error!(container = entry.id, "record its end: {err}");
    }
    entry.phase.send_modify(|phase| phase.exit_code = code);
}

/// `always` starts again with the manager; `unless-stopped` too unless a client had stopped it.
fn boot_start(engine: &Arc<Engine>, entry: &Arc<Entry>, container: &Container) {
    let wanted = match container.host_config.restart_policy.name.as_str() {
        "always" => container.state.run > 0,
        "unless-stopped" => container.state.run > 0 && !container.state.manually_stopped,
        "on-failure" => container.state.status == Status::Exited && container.state.exit_code != 0 && !container.state.manually_stopped,
        _ => false,
    };
    if !wanted {
        return;
    }
    let (engine, entry) = (Arc::clone(engine), Arc::clone(entry));
    tokio::spawn(async move {
        let _operation = entry.operation.lock().await;
        if let Err(err) = start::start(&engine, &entry, None).await {
            tracing::warn!(container = entry.id, "start by its restart policy: {err}");
        }
    });
}

/// A bundle without a record: its container was removed, or never recorded.
async fn orphan(engine: &Engine, id: &str) {
    let key = engine.task_key(id);
    tracing::warn!(container = id, "a task without a container: removed");
    if let Ok(Some(task)) = engine.tasks.reattach(&key).await {
        drop(task.kill(None, crate::signal::KILL, true).await);
    }
    if let Err(err) = engine.tasks.cleanup_dead(&key).await {
        tracing::warn!(container = id, "remove the task: {err}");
    }
}
