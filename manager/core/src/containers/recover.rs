//! After a restart of the manager: every container that lives is taken up again, the end of every other is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;
use jiff::Timestamp;
use rcontainerd_task::{ExitStatus, ProcessStatus, Task, TaskKey};
use rcontainerd_types::{ErrorKind, Result};

use super::model::{Container, State, Status};
use super::outline::Outline;
use super::registry::{Entry, Live};
use super::runstate::RunState;
use super::{exit, health, membership, network, remove, runstate, start};
use crate::engine::{Engine, NAMESPACE, blocking, container_event};
use crate::networks::DisconnectNetwork;

/// Shims that are asked at a time.
const AT_ONCE: usize = 64;

/// Takes up what an earlier manager left. Problems of one container are logged and do not stop the others.
///
/// # Errors
/// When STATE, or the record of a container that runs, cannot be read.
pub(crate) async fn recover(engine: &Arc<Engine>) -> Result<()> {
    let mut bundles: BTreeMap<String, ()> =
        engine.tasks.list().await?.into_iter().filter(|key| key.namespace == NAMESPACE).map(|key| (key.id, ())).collect();
    let (mut alive, mut ended) = (Vec::new(), Vec::new());
    let entries = engine.registry.all().into_iter().map(|entry| (bundles.remove(&entry.id).is_some(), entry)).collect::<Vec<_>>();
    // Each shim answers in its own time; in turn, hundreds would have us wait for the sum.
    let found = futures_util::stream::iter(entries).map(|(has_bundle, entry)| async move {
        let state = read_state(engine, &entry);
        let task = if has_bundle { reattach(engine, &entry).await } else { None };
        (entry, task, state)
    });
    let mut found = std::pin::pin!(found.buffered(AT_ONCE));
    while let Some((entry, task, state)) = found.next().await {
        match (task, state) {
            (Some((task, status)), Some(state)) => {
                // What runs and cannot be taken up would be taken for rubbish.
                let container = engine.record(&entry).await?;
                alive.push(Alive { entry, container, state, task, status });
            }
            (task, state) => ended.push((entry, task.map(|(task, _)| task), state)),
        }
    }
    // Before anybody watches for an end: it would give back what is only taken up afterwards.
    network::restore(engine, alive.iter().map(|alive| (alive.container.clone(), alive.state.connections())).collect()).await;
    let mut running = BTreeSet::new();
    for Alive { entry, container, state, task, status } in alive {
        if matches!(status, ProcessStatus::Running | ProcessStatus::Paused) {
            running.insert(entry.id.clone());
        }
        take_up(engine, &entry, &state, &task, status);
        health::watch(engine, &entry, state.run, &container.config);
        exit::watch(engine, &entry, state.run, task);
    }
    finish_disconnects(engine, &running).await;
    for (entry, task, state) in ended {
        settle(engine, &entry, task, state).await;
    }
    for id in bundles.into_keys() {
        let key = engine.task_key(&id);
        if let Err(err) = orphan(engine, &key).await {
            tracing::warn!(container = id, "remove the task: {err}");
        }
    }
    Ok(())
}

/// A container whose shim answers.
struct Alive {
    entry: Arc<Entry>,
    container: Container,
    state: RunState,
    task: Task,
    status: ProcessStatus,
}

/// An interface goes first when a container leaves a network; a manager that was killed then has not told anybody yet.
async fn finish_disconnects(engine: &Arc<Engine>, running: &BTreeSet<String>) {
    let worker = Arc::clone(engine);
    let lost = match blocking(move || worker.network.lost()).await {
        Ok(lost) => lost,
        Err(err) => return tracing::warn!("look for interfaces of running containers: {err}"),
    };
    for attachment in lost.into_iter().filter(|attachment| running.contains(&attachment.container)) {
        let command = DisconnectNetwork { network: attachment.network, container: attachment.container.clone(), force: true };
        if let Err(err) = membership::disconnect(engine, command).await {
            tracing::warn!(container = attachment.container, "finish its leaving of a network: {err}");
        }
    }
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
        Ok(state) => {
            let status = end_own_pause(engine, entry, &task, state.status).await;
            Some((task, status))
        }
        Err(err) => {
            tracing::warn!(container = entry.id, "ask for its state: {err}");
            None
        }
    }
}

/// The manager died while it held the container still itself, for a commit: no client would wake it.
async fn end_own_pause(engine: &Engine, entry: &Entry, task: &Task, status: ProcessStatus) -> ProcessStatus {
    let dir = engine.run_dir(&entry.id);
    if !runstate::is_held(&dir) {
        return status;
    }
    if status == ProcessStatus::Paused
        && let Err(err) = task.resume().await
    {
        tracing::warn!(container = entry.id, "unpause after a commit that was cut short: {err}");
        return status;
    }
    // Else the next pause, a client's, would be taken for the manager's own.
    if let Err(err) = runstate::let_go(&dir) {
        tracing::warn!(container = entry.id, "after a commit that was cut short: {err}");
    }
    if status == ProcessStatus::Paused { ProcessStatus::Running } else { status }
}

fn take_up(engine: &Engine, entry: &Entry, state: &RunState, task: &Task, status: ProcessStatus) {
    let live = Live { task: task.clone(), run: state.run, connections: state.connections() };
    entry.set_live(Some(live));
    engine.update_volatile(entry, Vec::new(), |own| {
        start::apply(own, state, task.pid());
        if status == ProcessStatus::Paused {
            own.status = Status::Paused;
        }
    });
    entry.phase.send_modify(|phase| phase.running = true);
}

/// A container without a process: what its last run left is removed, its end recorded, the policy applied.
async fn settle(engine: &Arc<Engine>, entry: &Arc<Entry>, task: Option<Task>, state: Option<RunState>) {
    let container = entry.view();
    let recorded_running = container.state.status.is_running();
    let status = match (&task, &state) {
        (None, None) => ExitStatus::unknown(),
        _ => remains(engine, entry, task, state.as_ref()).await,
    };
    if let Some(state) = &state {
        engine.update_volatile(entry, Vec::new(), |own| start::apply(own, state, 0));
        exit_recorded(engine, entry, status).await;
    } else if container.state.status == Status::Restarting {
        // Its end was recorded before; only the restart has not come.
        engine.update_volatile(entry, Vec::new(), |own| own.status = Status::Exited);
    } else if recorded_running {
        exit_recorded(engine, entry, status).await;
    }
    let container = entry.view();
    let unfinished = matches!(container.state.status, Status::Removing | Status::Dead);
    let over = container.host_config.auto_remove && (container.state.status == Status::Exited || lost_its_files(engine, &container));
    if unfinished || over {
        let _operation = entry.operation.lock().await;
        if let Err(err) = remove::discard(engine, entry, container.host_config.auto_remove).await {
            tracing::warn!(container = entry.id, "finish its removal: {err}");
        }
        return;
    }
    boot_start(engine, entry, &container);
}

/// The snapshot of a container that is removed at its end does not outlive a reboot.
fn lost_its_files(engine: &Engine, container: &Outline) -> bool {
    let found = engine.store.snapshotter(NAMESPACE, &container.snapshotter).and_then(|snapshots| snapshots.stat(&container.snapshot_key));
    found.is_err_and(|err| err.kind() == ErrorKind::NotFound)
}

/// Removes the bundle, network and run files of a dead run.
async fn remains(engine: &Arc<Engine>, entry: &Arc<Entry>, task: Option<Task>, state: Option<&RunState>) -> ExitStatus {
    if let Some(task) = &task {
        // No run file: a start that was cut short.
        drop(task.kill(None, crate::signal::KILL, true).await);
    }
    let status = engine.tasks.cleanup_dead(&engine.task_key(&entry.id)).await.unwrap_or_else(|_| ExitStatus::unknown());
    if let Some(state) = state {
        let released = network::release(engine, &entry.id, state.connections()).await;
        if let Err(err) = released {
            tracing::warn!(container = entry.id, "release its network: {err}");
        }
    }
    if let Err(err) = runstate::discard(&engine.run_dir(&entry.id)) {
        tracing::warn!(container = entry.id, "remove run files: {err}");
    }
    status
}

async fn exit_recorded(engine: &Arc<Engine>, entry: &Arc<Entry>, status: ExitStatus) {
    let event = container_event(&entry.view(), "die", &[("exitCode", status.code.to_string())]);
    let finished = Timestamp::try_from(status.exited_at).unwrap_or_else(|_| Timestamp::now());
    let code = i64::from(status.code);
    let change = move |state: &mut State| {
        state.status = Status::Exited;
        state.pid = 0;
        state.exit_code = code;
        state.finished_at = Some(finished);
        state.networks.clear();
        state.ports.clear();
    };
    if let Err(err) = engine.update(entry, vec![event], move |container| change(&mut container.state)).await {
        tracing::error!(container = entry.id, "record its end: {err}");
    }
    entry.phase.send_modify(|phase| phase.exit_code = code);
}

/// `always` starts again with the manager; `unless-stopped` too unless a client had stopped it.
fn boot_start(engine: &Arc<Engine>, entry: &Arc<Entry>, container: &Outline) {
    let wanted = match container.host_config.restart_policy.name.as_str() {
        "always" => container.state.run > 0,
        "unless-stopped" => container.state.run > 0 && !container.state.manually_stopped,
        "on-failure" => {
            let policy = &container.host_config.restart_policy;
            let is_left = policy.maximum_retry_count == 0 || i64::from(container.state.restart_count) < policy.maximum_retry_count;
            container.state.status == Status::Exited && container.state.exit_code != 0 && !container.state.manually_stopped && is_left
        }
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
pub(crate) async fn orphan(engine: &Engine, key: &TaskKey) -> Result<()> {
    tracing::warn!(task = key.id, namespace = key.namespace, "a task without a container: removed");
    if let Ok(Some(task)) = engine.tasks.reattach(key).await {
        drop(task.kill(None, crate::signal::KILL, true).await);
    }
    engine.tasks.cleanup_dead(key).await.map(drop)
}
