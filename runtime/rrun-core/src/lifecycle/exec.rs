//! Exec: another process in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rrun_cgroup::Cgroup;
use rrun_sys::{process, socket};

use super::{seccomp, write_pid_file};
use crate::init::Child;
use crate::parent::{self, Request};
use crate::plan::{Spawn, exec_steps, plan_process};
use crate::spec::{Process, parse_spec, validate_process};
use crate::state::{Entry, State, Status, Store};
use crate::{Context, Error, Result, log};

/// What the command line says.
#[derive(Debug)]
pub struct ExecRequest {
    pub process: Process,
    pub console_socket: Option<PathBuf>,
    pub keep_terminal: bool,
    pub pid_file: Option<PathBuf>,
    pub preserve_fds: u32,
    pub ignore_paused: bool,
    /// Below the container's cgroup.
    pub cgroup: Option<String>,
    pub rootless: bool,
}

/// A process that runs.
#[derive(Debug)]
pub struct Executed {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub terminal_master: Option<OwnedFd>,
}

/// The process of the container's own configuration, as a base for exec.
pub fn process_from_config(entry: &Entry) -> Result<Process> {
    parse_spec(&entry.load_config()?)?.process.ok_or_else(|| Error::state("the container's configuration has no process"))
}

/// Starts a process in a container.
pub fn exec(store: &Store, entry: &Entry, request: &ExecRequest) -> Result<Executed> {
    let state = entry.load()?;
    match entry.status(&state)? {
        Status::Stopped => return Err(Error::state("cannot exec in a stopped container")),
        Status::Paused if !request.ignore_paused => {
            return Err(Error::state("cannot exec in a paused container (use --ignore-paused to override)"));
        }
        _ => {}
    }
    validate_process(&request.process)?;
    match (request.process.terminal, &request.console_socket) {
        (true, None) if !request.keep_terminal => {
            return Err(Error::invalid("cannot allocate tty if rrun will detach without setting console socket"));
        }
        (false, Some(_)) => return Err(Error::invalid("cannot use console socket if rrun will not detach or allocate tty")),
        _ => {}
    }
    let config = parse_spec(&entry.load_config()?)?;
    let filter = seccomp(config.linux.seccomp.as_ref(), store.root())?.0;
    let container = state.init.open()?.ok_or_else(|| Error::state("cannot exec in a stopped container"))?;
    let available = if state.namespaces & libc::CLONE_NEWUSER != 0 { u64::MAX } else { process::permitted_capabilities()? };
    let mut warnings = Vec::new();
    let planned = plan_process(&request.process, available, &mut warnings);
    warnings.iter().for_each(|w| log::warn(w));
    process::set_umask(0);
    start(entry, &state, request, &planned, filter, &container)
}

fn start(
    entry: &Entry,
    state: &State,
    request: &ExecRequest,
    planned: &crate::plan::ProcessPlan,
    filter: Option<crate::seccomp::Program>,
    container: &OwnedFd,
) -> Result<Executed> {
    let cgroup = match &state.cgroup {
        Some(location) => Some(for_exec(location, state.init.pid, request)?),
        None => None,
    };
    let (ours, console) = match (&request.console_socket, request.process.terminal) {
        (_, false) => (None, None),
        (Some(path), true) => (None, Some(socket::connect_stream(path).doing(|| "--console-socket".to_string())?)),
        (None, true) => socket::pair().map(|(a, b)| (Some(a), Some(b)))?,
    };
    let in_pid_namespace = state.namespaces & libc::CLONE_NEWPID != 0;
    let child_waits = cgroup.as_ref().is_some_and(|c| c.location().v1().next().is_some());
    let steps = exec_steps(planned, state.namespaces & !libc::CLONE_NEWPID, filter.is_some(), request.preserve_fds, child_waits);
    let spawn = Spawn { child_waits, ..Spawn::default() };
    let to_join = container.try_clone().map_err(|e| Error::io("dup", Path::new("pidfd"), &e))?;
    let spawned = parent::spawn(
        &Request {
            spawn: &spawn,
            steps: &steps,
            cgroup: cgroup.as_ref().and_then(Cgroup::unified_fd),
            container: in_pid_namespace.then(|| container.as_fd()),
            lock: entry.dir.as_fd(),
        },
        |channel| Child {
            channel,
            start_socket: None,
            console_socket: console,
            seccomp: filter,
            seccomp_listener: None,
            hook_state: super::delete::hook_state(state),
            container: Some(to_join),
        },
    )?;
    let entered = spawned.enter(None, cgroup.as_ref(), request.rootless)?;
    let (pid, pidfd) = entered.until_started()?;
    if let Some(path) = &request.pid_file {
        write_pid_file(path, pid)?;
    }
    let terminal_master = ours.map(|o| socket::receive_fd(&o)).transpose()?.and_then(|(_, fd)| fd);
    Ok(Executed { pid, pidfd, terminal_master })
}

fn for_exec(location: &rrun_cgroup::Location, init_pid: i32, request: &ExecRequest) -> Result<Cgroup> {
    Cgroup::for_exec(location, init_pid, request.cgroup.as_deref()).doing(|| "the container's cgroup".to_string())
}
