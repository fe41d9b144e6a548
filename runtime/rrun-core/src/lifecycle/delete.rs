//! Kill and delete.

use std::time::Duration;

use rrun_cgroup::Cgroup;
use rrun_sys::process;

use super::cgroup_of;
use crate::hooks::{self, HookState};
use crate::state::{Entry, State, Status};
use crate::{Context, Error, Result, log};

/// How long the kernel may take to reap killed processes.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Sends a signal to the first process, or to every process of the container.
pub fn kill(entry: &Entry, signal: i32, all: bool) -> Result<()> {
    let state = entry.load()?;
    if all {
        // 0 only asks; with -a nobody is an answer, too.
        return if signal == 0 { Ok(()) } else { cgroup_of(&state)?.signal_all(signal).doing(|| "signal every process".to_string()) };
    }
    if signal == libc::SIGKILL && state.shares_pid_namespace && kill_everyone(&state)? {
        return Ok(());
    }
    let not_running = || Error::state("container not running");
    let pidfd = state.init.open()?.ok_or_else(not_running)?;
    match process::pidfd_signal(&pidfd, signal) {
        Err(e) if e.is(libc::ESRCH) => Err(not_running()),
        Err(e) => Err(e.into()),
        // A stopped process does not see a fatal signal until it is thawed (v1 freezer).
        Ok(()) if signal == libc::SIGKILL => thaw(&state),
        Ok(()) => Ok(()),
    }
}

/// Without a pid namespace of the container's own, the end of its first process ends no other. False: there was nobody.
fn kill_everyone(state: &State) -> Result<bool> {
    let Some(location) = &state.cgroup else { return Ok(false) };
    let cgroup = Cgroup::open(location)?;
    if cgroup.pids()?.is_empty() {
        return Ok(false);
    }
    cgroup.signal_all(libc::SIGKILL).doing(|| "signal every process".to_string())?;
    Ok(true)
}

fn thaw(state: &State) -> Result<()> {
    match &state.cgroup {
        Some(location) if location.v1().next().is_some() => {
            let cgroup = Cgroup::open(location)?;
            if cgroup.freezer_state()? == rrun_cgroup::FreezerState::Thawed { Ok(()) } else { Ok(cgroup.thaw()?) }
        }
        _ => Ok(()),
    }
}

/// Removes a container that has ended; with `force`, ends it first and also removes what was only half made.
pub fn delete(entry: &Entry, force: bool) -> Result<()> {
    let state = match entry.load() {
        Err(_) if force => return entry.remove(),
        done => done?,
    };
    match entry.status(&state)? {
        Status::Stopped => {}
        // Never started: nothing of it has run, so nothing is lost.
        Status::Created => end(&state)?,
        _ if force => end(&state)?,
        other => return Err(Error::state(format!("cannot delete container {} that is not stopped: {}", state.id, other.name()))),
    }
    if let Some(location) = &state.cgroup {
        // Processes that share the first one's pid namespace only by path, or not at all, may have outlived it.
        Cgroup::open(location)?.remove(PATIENCE)?;
    }
    if let Some(group) = &state.rdt {
        group.remove()?;
    }
    if let Some(root) = &state.host_root {
        root.detach()?;
    }
    log::failpoint("delete")?;
    let told = hook_state(&state).with("stopped", 0);
    let stopped = hooks::run_all("poststop", &state.hooks.poststop, &told, Some(&state.bundle));
    entry.remove()?;
    // The specification: log the failure of a poststop hook and go on.
    if let Err(e) = stopped {
        log::warn(&e.to_string());
    }
    Ok(())
}

pub(super) fn end(state: &State) -> Result<()> {
    let Some(pidfd) = state.init.open()? else { return Ok(()) };
    match process::pidfd_signal(&pidfd, libc::SIGKILL) {
        Err(e) if e.is(libc::ESRCH) => return Ok(()),
        done => done?,
    }
    thaw(state)?;
    if !process::pidfd_exited(&pidfd, Some(PATIENCE))? {
        return Err(Error::state(format!("process {} does not end: it may hang in the kernel", state.init.pid)));
    }
    Ok(())
}

pub(super) fn hook_state(state: &State) -> HookState {
    HookState {
        oci_version: state.oci_version.clone(),
        id: state.id.clone(),
        bundle: state.bundle.clone(),
        annotations: state.annotations.clone(),
    }
}
