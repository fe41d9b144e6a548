//! Exec: another process in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rrun_cgroup::Cgroup;
use rrun_sys::{process, socket};

use super::{seccomp, write_pid_file};
use crate::host_root::HostRoot;
use crate::init::Child;
use crate::parent::{self, Request};
use crate::plan::{ExecPlan, ProcessPlan, Spawn, Staged, entrances, exec_steps, keyring_name, plan_process};
use crate::spec::{Linux, Process, Spec, parse_spec, validate_process};
use crate::state::{Entry, State, Status, Store};
use crate::{Context, Error, Result, log};

/// What the command line says.
#[derive(Debug)]
pub struct ExecRequest {
    pub process: Process,
    pub console_socket: Option<PathBuf>,
    pub keep_terminal: bool,
    pub pid_file: Option<PathBuf>,
    /// Who is sent a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
    pub preserve_fds: u32,
    pub ignore_paused: bool,
    /// Below the container's cgroup: `[controller:]path`.
    pub cgroup: Vec<String>,
    pub rootless: bool,
    pub in_user_namespace: bool,
}

/// A process that runs.
#[derive(Debug)]
pub struct Executed {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub terminal_master: Option<OwnedFd>,
}

/// The container's own configuration, whose process is the base for exec.
pub fn configuration(entry: &Entry) -> Result<Spec> {
    parse_spec(&entry.load_config()?)
}

/// Starts a process in a container. `linux`: of its configuration.
pub fn exec(store: &Store, entry: &Entry, linux: &Linux, request: &ExecRequest) -> Result<Executed> {
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
    let filter = seccomp(linux.seccomp.as_deref(), store.root())?;
    let container = state.init.open()?.ok_or_else(|| Error::state("cannot exec in a stopped container"))?;
    let available = if state.namespaces & libc::CLONE_NEWUSER != 0 { u64::MAX } else { process::permitted_capabilities()? };
    let mut warnings = Vec::new();
    let planned = plan_process(&request.process, available, &mut warnings);
    warnings.iter().for_each(|w| log::warn(w));
    let umask = process::set_umask(0);
    if !request.process.selinux_label.is_empty() && !super::selinux_is_active() {
        return Err(Error::invalid("selinux label is specified in config, but selinux is disabled or not supported: remove it"));
    }
    let profile = &request.process.apparmor_profile;
    if !profile.is_empty() && !super::apparmor_is_active() {
        return Err(Error::invalid(format!("process.apparmorProfile: {profile:?}: apparmor is not enabled on this host: remove it")));
    }
    start(entry, &state, request, &mut Decided { planned, filter, linux, umask }, &container)
}

struct Decided<'a> {
    planned: ProcessPlan,
    filter: (Option<crate::seccomp::Program>, Option<crate::seccomp::Profile>),
    linux: &'a Linux,
    /// The caller's.
    umask: u32,
}

fn start(entry: &Entry, state: &State, request: &ExecRequest, decided: &mut Decided<'_>, container: &OwnedFd) -> Result<Executed> {
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
    // An ordinary user has rights over the container in its user namespace alone; root of a user namespace may go into the container's
    // pid namespace, but not back to one that belongs to a user namespace above.
    let user = request.rootless && state.namespaces & libc::CLONE_NEWUSER != 0;
    let apart = user || (request.in_user_namespace && state.namespaces & libc::CLONE_NEWPID != 0);
    let staged = apart.then(|| Staged {
        container: Some(libc::CLONE_NEWPID | if user { libc::CLONE_NEWUSER } else { 0 }),
        oom_score_adj: decided.planned.oom_score_adj.take(),
        ..Staged::default()
    });
    let alone = staged.is_none() && !request.rootless && state.namespaces & libc::CLONE_NEWUSER == 0;
    let location = cgroup.as_ref().map(Cgroup::location).filter(|location| alone && location.unit.as_ref().is_none_or(|unit| !unit.user));
    let entrances = location.map(entrances).unwrap_or_default();
    let child_waits =
        cgroup.as_ref().is_some_and(|c| (entrances.is_empty() && c.wants_attach()) || staged.is_some()) || state.rdt.is_some();
    let joined = libc::CLONE_NEWPID | if user { libc::CLONE_NEWUSER } else { 0 };
    let exec = ExecPlan {
        linux: decided.linux,
        namespaces: state.namespaces & !joined,
        user_namespace: state.namespaces & libc::CLONE_NEWUSER != 0,
        filter: super::filter_kind(decided.filter.0.as_ref()),
        preserve_fds: request.preserve_fds,
        change_root: state.host_root.is_some(),
        child_waits,
        entrances: entrances.clone(),
        keyring: (!state.no_new_keyring).then(|| keyring_name(&state.id)),
    };
    let steps = exec_steps(&decided.planned, &exec);
    let hook_state = super::delete::hook_state(state);
    let root = state.host_root.as_ref().map(HostRoot::open).transpose()?;
    let spawn = Spawn { child_waits, staged, entrances, ..Spawn::default() };
    let to_join = container.try_clone().map_err(|e| Error::io("dup", Path::new("pidfd"), &e))?;
    let spawned = parent::spawn(
        &Request {
            spawn: &spawn,
            steps: &steps,
            cgroup: cgroup.as_ref().and_then(Cgroup::unified_fd),
            container: (in_pid_namespace || spawn.staged.is_some()).then(|| container.as_fd()),
            lock: entry.dir.as_fd(),
            supervisor: super::supervisor(decided.filter.1.as_ref(), &hook_state, "running", Some(state.init.pid)),
            rootless: request.rootless,
        },
        |channel| Child {
            channel,
            start_socket: None,
            console_socket: console,
            console_keeps_line_ends: ours.is_some(),
            seccomp: decided.filter.0.clone(),
            sends_listener: request.rootless,
            hook_state: hook_state.clone(),
            container: Some(to_join),
            root,
        },
    )?;
    if let Some(group) = &state.rdt {
        group.enter(spawned.pid())?;
    }
    let entered = spawned.enter(None, cgroup.as_ref(), request.rootless)?;
    let (pid, pidfd) = entered.until_started()?;
    if let Some(path) = &request.pid_file {
        write_pid_file(path, pid, decided.umask)?;
    }
    if let Some(path) = &request.pidfd_socket {
        super::send_pidfd(path, "setns", pidfd.as_fd())?;
    }
    let terminal_master = ours.map(|o| socket::receive_fd(&o)).transpose()?.and_then(|(_, fd)| fd);
    Ok(Executed { pid, pidfd, terminal_master })
}

fn for_exec(location: &rrun_cgroup::Location, init_pid: i32, request: &ExecRequest) -> Result<Cgroup> {
    Cgroup::for_exec(location, init_pid, &request.cgroup).doing(|| "the container's cgroup".to_string())
}
