//! Create: judge everything, then make everything, and take back everything if one part fails.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rrun_cgroup::{Cgroup, Driver, Host, PlanOptions};
use rrun_sys::{process, socket};

use super::{seccomp, write_pid_file};
use crate::hooks::{self, HookState};
use crate::init::Child;
use crate::parent::{self, Ready, Request, Undo};
use crate::plan::{CgroupView, CreateOptions, HostFacts, Plan, plan};
use crate::spec::{Spec, parse_spec, validate};
use crate::state::{Entry, ProcessId, State, Store, rfc3339_now};
use crate::{Context, Error, Result, log};

/// What the command line says.
#[derive(Debug, Default)]
pub struct CreateRequest {
    pub options: CreateOptions,
    /// Another name for bundle/config.json.
    pub config: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    /// `run` in the foreground: the terminal's master comes back instead of going to a socket.
    pub keep_terminal: bool,
    /// `run`: the caller starts it, no socket for `start` is needed.
    pub start_by_caller: bool,
    pub pid_file: Option<PathBuf>,
    pub systemd_cgroup: bool,
    pub rootless: bool,
}

/// A container that waits for its start.
#[derive(Debug)]
pub struct Created {
    pub entry: Entry,
    pub state: State,
    pub ready: Ready,
    pub terminal_master: Option<OwnedFd>,
    pub is_terminal: bool,
}

/// Creates a container up to the point where `start` lets its program run.
pub fn create(store: &Store, request: &CreateRequest) -> Result<Created> {
    let (text, spec) = read_config(request)?;
    check_terminal(&spec, request)?;
    let (cgroup_location, host) = host_facts(&spec, request)?;
    let plan = plan(&spec, &host, &request.options)?;
    plan.warnings.iter().for_each(|w| log::warn(w));
    let filter = seccomp(spec.linux.seccomp.as_ref(), store.root())?;
    // Modes of what is made from here on are exact.
    process::set_umask(0);
    let entry = store.reserve(&request.options.id)?;
    let mut undo = Undo::default();
    undo.push(|| entry.remove());
    let made =
        make(&entry, request, &Decided { text: &text, spec: &spec, plan: &plan, cgroup: cgroup_location.as_ref(), filter }, &mut undo);
    match made {
        Ok((state, ready, terminal_master)) => {
            drop(undo);
            let is_terminal = spec.process.as_ref().is_some_and(|p| p.terminal);
            Ok(Created { entry, state, ready, terminal_master, is_terminal })
        }
        Err(e) => {
            let e = undo.roll_back(e);
            drop(undo);
            Err(e)
        }
    }
}

struct Decided<'a> {
    text: &'a [u8],
    spec: &'a Spec,
    plan: &'a Plan,
    cgroup: Option<&'a rrun_cgroup::Location>,
    filter: (Option<crate::seccomp::Program>, Option<crate::seccomp::Profile>),
}

fn read_config(request: &CreateRequest) -> Result<(Vec<u8>, Spec)> {
    let path = request.config.clone().unwrap_or_else(|| request.options.bundle.join("config.json"));
    let text = std::fs::read(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::invalid(format!("JSON specification file {} not found", path.display())),
        _ => Error::io("read", &path, &e),
    })?;
    let spec = parse_spec(&text)?;
    validate(&spec)?;
    let rootfs = crate::plan::rootfs_path(&spec, &request.options.bundle);
    if !rootfs.is_dir() {
        return Err(Error::invalid(format!("config.json: root.path: {:?}: is no directory", rootfs.display().to_string())));
    }
    Ok((text, spec))
}

fn check_terminal(spec: &Spec, request: &CreateRequest) -> Result<()> {
    let terminal = spec.process.as_ref().is_some_and(|p| p.terminal);
    match (terminal, &request.console_socket) {
        (true, None) if !request.keep_terminal => {
            Err(Error::invalid("cannot allocate tty if rrun will detach without setting console socket"))
        }
        (false, Some(_)) => Err(Error::invalid("cannot use console socket if rrun will not detach or allocate tty")),
        _ => Ok(()),
    }
}

fn host_facts(spec: &Spec, request: &CreateRequest) -> Result<(Option<rrun_cgroup::Location>, HostFacts)> {
    let driver = if request.systemd_cgroup { Driver::Systemd } else { Driver::Cgroupfs };
    let location = match Host::detect().and_then(|h| h.locate(spec.linux.cgroups_path.as_deref(), &request.options.id, driver)) {
        Ok(location) => Some(location),
        Err(e) if request.rootless && !request.systemd_cgroup => {
            log::warn(&format!("going on without a cgroup: {e}"));
            None
        }
        Err(e) => return Err(e.into()),
    };
    let cgroups = CgroupView { location: location.clone().unwrap_or_default() };
    let host = HostFacts {
        capabilities: process::permitted_capabilities()?,
        rootless: request.rootless,
        cgroups,
        has_kcore: Path::new("/proc/kcore").exists(),
    };
    Ok((location, host))
}

type Made = (State, Ready, Option<OwnedFd>);

fn make<'a>(entry: &'a Entry, request: &CreateRequest, decided: &Decided<'_>, undo: &mut Undo<'a>) -> Result<Made> {
    // From here on a runtime that is killed leaves a record that `delete --force` can follow: first of the cgroup to come,
    // then of the process.
    let nobody = ProcessId { pid: 0, start_time: 0, boot_id: String::new() };
    entry.save(&new_state(decided, request, nobody, decided.cgroup))?;
    let cgroup = make_cgroup(request, decided, undo)?;
    log::failpoint("cgroup")?;
    let (terminal_ours, console_socket) = console_socket(decided.spec, request)?;
    let start_socket = if request.start_by_caller { None } else { Some(socket::listen(&entry.socket_path())?) };
    let hook_state = HookState {
        oci_version: decided.spec.oci_version.clone(),
        id: request.options.id.clone(),
        bundle: request.options.bundle.clone(),
        annotations: decided.spec.annotations.clone(),
    };
    let listener = decided.filter.1.as_ref().and_then(|p| {
        let metadata = serde_json::json!({"ociVersion": decided.spec.oci_version, "fds": ["seccompFd"], "metadata": p.listener_metadata});
        Some((p.listener_path.clone()?, metadata.to_string().into_bytes()))
    });
    let in_cgroup = cgroup.as_ref().and_then(Cgroup::unified_fd);
    let spawn =
        Request { spawn: &decided.plan.spawn, steps: &decided.plan.steps, cgroup: in_cgroup, container: None, lock: entry.dir.as_fd() };
    let spawned = parent::spawn(&spawn, |channel| Child {
        channel,
        start_socket,
        console_socket,
        seccomp: decided.filter.0.clone(),
        seccomp_listener: listener,
        hook_state: hook_state.clone(),
        container: None,
    })?;
    let init = ProcessId::of(spawned.pid())?;
    let state = new_state(decided, request, init, cgroup.as_ref().map(Cgroup::location));
    log::failpoint("spawned")?;
    let entered = spawned.enter(decided.plan.spawn.maps.as_ref(), cgroup.as_ref(), request.rootless)?;
    entry.save(&state)?;
    entry.save_config(decided.text)?;
    let hooks = &decided.spec.hooks;
    let ready = entered.until_ready(|pid| {
        let told = hook_state.with("creating", pid);
        hooks::run_all("prestart", &hooks.prestart, &told, Some(&request.options.bundle))?;
        hooks::run_all("createRuntime", &hooks.create_runtime, &told, Some(&request.options.bundle))
    });
    let ready = ready.inspect_err(|_| run_poststop(&state))?;
    log::failpoint("ready")?;
    if let Some(path) = &request.pid_file {
        write_pid_file(path, ready.pid())?;
    }
    let master = terminal_ours.map(|ours| receive_master(&ours)).transpose()?;
    Ok((state, ready, master))
}

fn make_cgroup(request: &CreateRequest, decided: &Decided<'_>, undo: &mut Undo<'_>) -> Result<Option<Cgroup>> {
    let Some(location) = decided.cgroup else { return Ok(None) };
    let resources = decided.spec.linux.resources.clone().unwrap_or_default();
    let writes = rrun_cgroup::Plan::for_create(location, &resources, PlanOptions { rootless: request.rootless })?;
    writes.warnings.iter().for_each(|w| log::warn(w));
    let cgroup = match Cgroup::create(location) {
        Err(e) if request.rootless && e.is_permission() => {
            log::warn(&format!("going on without a cgroup: {e}"));
            return Ok(None);
        }
        done => done?,
    };
    let location = location.clone();
    undo.push(move || Ok(Cgroup::open(&location)?.remove(super::delete::PATIENCE)?));
    cgroup.apply(&writes)?;
    Ok(Some(cgroup))
}

/// (our end if the master is to come here, the child's end)
fn console_socket(spec: &Spec, request: &CreateRequest) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    if !spec.process.as_ref().is_some_and(|p| p.terminal) {
        return Ok((None, None));
    }
    match &request.console_socket {
        Some(path) => Ok((None, Some(socket::connect_stream(path).doing(|| "--console-socket".to_string())?))),
        None => socket::pair().map(|(ours, theirs)| (Some(ours), Some(theirs))).map_err(Error::from),
    }
}

fn receive_master(ours: &OwnedFd) -> Result<OwnedFd> {
    socket::receive_fd(ours.as_fd())?.1.ok_or_else(|| Error::state("the container sent no terminal"))
}

fn new_state(decided: &Decided<'_>, request: &CreateRequest, init: ProcessId, cgroup: Option<&rrun_cgroup::Location>) -> State {
    State {
        written_by: State::FORMAT,
        min_reader: State::FORMAT,
        id: request.options.id.clone(),
        oci_version: decided.spec.oci_version.clone(),
        bundle: request.options.bundle.clone(),
        rootfs: crate::plan::rootfs_path(decided.spec, &request.options.bundle),
        created: rfc3339_now(),
        init,
        cgroup: cgroup.cloned(),
        annotations: decided.spec.annotations.clone(),
        hooks: decided.spec.hooks.clone(),
        namespaces: decided.spec.linux.namespaces.iter().fold(0, |all, n| all | crate::plan::namespace_flag(&n.kind)),
    }
}

/// poststop hooks run after a failed create, too; what they fail with is told, not followed.
fn run_poststop(state: &State) {
    let told = super::delete::hook_state(state).with("stopped", 0);
    if let Err(e) = hooks::run_all("poststop", &state.hooks.poststop, &told, Some(&state.bundle)) {
        log::warn(&e.to_string());
    }
}
