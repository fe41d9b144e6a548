//! What follows the end of a process: its remains are removed, the code is recorded, waiters wake, the restart policy speaks.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcontainerd_task::{ExitStatus, Task};
use rcontainerd_types::ErrorKind;

use super::model::{Container, State, Status};
use super::outline::Outline;
use super::registry::{Entry, Live};
use super::{health, network, remove, runstate, start};
use crate::engine::{Engine, container_event};

/// The first pause before a restart; doubles with each restart that did not hold for [`SETTLED`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const SETTLED: Duration = Duration::from_secs(10);

/// Follows a run to its end, in a task of its own.
pub(super) fn watch(engine: &Arc<Engine>, entry: &Arc<Entry>, run: u64, task: Task) {
    let (engine, entry) = (Arc::clone(engine), Arc::clone(entry));
    tokio::spawn(async move {
        let status = match engine.closing.run_until_cancelled(task.wait(None)).await {
            None => return,
            Some(Ok(status)) => status,
            Some(Err(err)) => {
                tracing::warn!(container = entry.id, "wait for the end: {err}");
                ExitStatus::unknown()
            }
        };
        ended(&engine, &entry, run, status).await;
    });
}

/// Deals with the end of run number `run`.
pub(super) async fn ended(engine: &Arc<Engine>, entry: &Arc<Entry>, run: u64, status: ExitStatus) {
    let operation = entry.operation.lock().await;
    if entry.live().is_none_or(|live| live.run != run) {
        return;
    }
    let Some(live) = entry.set_live(None) else { return };
    clean_up(engine, entry, live).await;
    let code = i64::from(status.code);
    let container = entry.view();
    let again = restarts(&container, code).filter(|_| !engine.host_ends.is_cancelled());
    record_exit(engine, entry, &container, &status, again.is_some()).await;
    entry.phase.send_modify(|phase| {
        phase.running = again.is_some();
        phase.exits += 1;
        phase.exit_code = code;
    });
    if container.host_config.auto_remove {
        if let Err(err) = remove::discard(engine, entry, true).await {
            tracing::error!(container = entry.id, "remove after its end: {err}");
        }
        return;
    }
    drop(operation);
    if let Some(pause) = again {
        restart_later(engine, entry, run, pause);
    }
}

/// Removes what a run leaves in the system.
pub(super) async fn clean_up(engine: &Arc<Engine>, entry: &Entry, live: Live) {
    let complain = |what: &str, err: rcontainerd_types::Error| {
        if err.kind() != ErrorKind::NotFound {
            tracing::warn!(container = entry.id, "after the end: {what}: {err}");
        }
    };
    let disconnected = network::release(engine, &entry.id, live.connections);
    let task = async {
        if live.task.delete(None).await.is_err()
            && let Err(err) = engine.tasks.cleanup_dead(&engine.task_key(&entry.id)).await
        {
            complain("remove the task", err);
        }
    };
    let (released, ()) = futures_util::future::join(disconnected, task).await;
    if let Err(err) = released {
        complain("disconnect the network", err);
    }
    if let Err(err) = runstate::discard(&engine.run_dir(&entry.id)) {
        complain("remove run files", err);
    }
}

async fn record_exit(engine: &Arc<Engine>, entry: &Arc<Entry>, container: &Outline, status: &ExitStatus, again: bool) {
    let finished = Timestamp::try_from(status.exited_at).unwrap_or_else(|_| Timestamp::now());
    let duration = container.state.started_at.map_or(0, |started| finished.duration_since(started).as_secs());
    let extra = [("exitCode", status.code.to_string()), ("execDuration", duration.to_string())];
    let mut events = vec![container_event(container, "die", &extra)];
    events.extend(network::events("disconnect", &container.id, &container.state.networks));
    let code = i64::from(status.code);
    let change = move |state: &mut State| {
        state.status = if again { Status::Restarting } else { Status::Exited };
        state.pid = 0;
        state.exit_code = code;
        state.finished_at = Some(finished);
        state.networks.clear();
        state.ports.clear();
        health::ended(state);
    };
    if container.host_config.auto_remove {
        // Its record goes away in a moment: writing the code first would only cost a sync.
        engine.update_volatile(entry, events, change);
        return;
    }
    if let Err(err) = engine.update(entry, events, move |container| change(&mut container.state)).await {
        tracing::error!(container = entry.id, "record the exit code {code}: {err}");
        engine.update_volatile(entry, Vec::new(), change_again(code, finished));
    }
}

fn change_again(code: i64, finished: Timestamp) -> impl FnOnce(&mut State) {
    move |state| {
        state.status = Status::Exited;
        state.pid = 0;
        state.exit_code = code;
        state.finished_at = Some(finished);
    }
}

/// The pause before the restart that the policy orders, if it does.
fn restarts(container: &Outline, code: i64) -> Option<Duration> {
    let policy = &container.host_config.restart_policy;
    let count = container.state.restart_count;
    let wanted = match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => code != 0 && (policy.maximum_retry_count == 0 || i64::from(count) < policy.maximum_retry_count),
        _ => false,
    };
    if !wanted || container.state.manually_stopped {
        return None;
    }
    let ran = container.state.started_at.map(|started| Timestamp::now().duration_since(started));
    let settled = ran.is_some_and(|ran| ran.as_millis() >= i128::try_from(SETTLED.as_millis()).unwrap_or(i128::MAX));
    if settled {
        return Some(FIRST_PAUSE);
    }
    Some(FIRST_PAUSE.saturating_mul(1 << count.min(16)).min(LONGEST_PAUSE))
}

fn restart_later(engine: &Arc<Engine>, entry: &Arc<Entry>, run: u64, pause: Duration) {
    let (engine, entry) = (Arc::clone(engine), Arc::clone(entry));
    tokio::spawn(async move {
        if engine.closing.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        let _operation = entry.operation.lock().await;
        let state = entry.view().state.clone();
        if state.status != Status::Restarting || state.run != run || engine.host_ends.is_cancelled() {
            return;
        }
        if let Err(err) = start::run(&engine, &entry, None, state.restart_count + 1).await {
            tracing::warn!(container = entry.id, "restart: {err}");
            give_up(&engine, &entry, err.message().to_owned()).await;
        }
    });
}

async fn give_up(engine: &Arc<Engine>, entry: &Arc<Entry>, message: String) {
    let told = message.clone();
    let change = move |container: &mut Container| {
        container.state.status = Status::Exited;
        container.state.error = message;
    };
    if let Err(err) = engine.update(entry, Vec::new(), change).await {
        tracing::error!(container = entry.id, "record a failed restart: {err}");
    }
    entry.phase.send_modify(|phase| {
        phase.running = false;
        phase.error = Some(told);
    });
}
