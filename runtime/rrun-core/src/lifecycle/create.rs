//! Create: judge everything, then make everything, and take back everything if one part fails.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rrun_cgroup::{Cgroup, Driver};
use rrun_sys::fs::{self, OFlags};
use rrun_sys::{process, socket};

use super::cgroup::Place;
use super::{seccomp, write_pid_file};
use crate::hooks::{self, HookState};
use crate::host_root::{self, HostRoot};
use crate::init::Child;
use crate::netdev::Given;
use crate::notify::Relay;
use crate::parent::{self, Ready, Request, Undo};
use crate::plan::{CgroupView, CreateOptions, HostFacts, Plan, plan};
use crate::procfs::{Part, ProcFs};
use crate::rdt::Group;
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
    /// Who is sent a pidfd of the first process.
    pub pidfd_socket: Option<PathBuf>,
    pub cgroups: CgroupManagement,
    /// The runtime's user is not root, not even in a user namespace.
    pub rootless: bool,
    /// A cgroup that this user may not have is done without, if nothing depends on it.
    pub rootless_cgroups: bool,
    /// Not in the first user namespace: the kernel takes no device rules from here, and who leaves its pid namespace may not be let
    /// back in.
    pub in_user_namespace: bool,
    /// systemd means the user's, not the system's.
    pub users_systemd: bool,
    /// The caller's service manager (`NOTIFY_SOCKET`), which the container may notify.
    pub notify: Option<OsString>,
}

/// Who makes the container's cgroup, if it gets one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupManagement {
    Driver(Driver),
    /// It stays where the runtime is.
    None,
}

impl Default for CgroupManagement {
    fn default() -> Self {
        CgroupManagement::Driver(Driver::default())
    }
}

/// A container that waits for its start.
#[derive(Debug)]
pub struct Created {
    pub entry: Entry,
    pub state: State,
    pub ready: Ready,
    pub terminal_master: Option<OwnedFd>,
    pub is_terminal: bool,
    /// What the container tells, if the caller starts it.
    pub relay: Option<Relay>,
}

/// Creates a container up to the point where `start` lets its program run.
pub fn create(store: &Store, request: &CreateRequest) -> Result<Created> {
    let (text, mut spec) = read_config(request)?;
    if request.notify.is_some() {
        crate::notify::offer(&mut spec, &store.root().join(&request.options.id));
    }
    check_terminal(&spec, request)?;
    let (place, host) = host_facts(&spec, request)?;
    let filter = seccomp(spec.linux.seccomp.as_deref(), store.root())?;
    let options = CreateOptions { filter: super::filter_kind(filter.0.as_ref()), ..request.options.clone() };
    let plan = plan(&spec, &host, &options)?;
    plan.warnings.iter().for_each(|w| log::warn(w));
    // An earlier mount may bring something into the container's root; the socket to notify at is made with the container.
    let later = [crate::plan::rootfs_path(&spec, &options.bundle), store.root().join(&options.id)];
    super::known::judge(&spec, &plan, &host, &later.each_ref().map(PathBuf::as_path))?;
    if !spec.linux.has("mount") {
        host_root::is_alone(store, &later[0])?;
    }
    let rdt = plan.rdt.as_ref().map(|wanted| Group::find(wanted, &request.options.id)).transpose()?;
    // Modes of what is made from here on are exact.
    let umask = process::set_umask(0);
    let entry = store.reserve(&request.options.id)?;
    let mut undo = Undo::default();
    undo.push(|| entry.remove());
    let made = make(&entry, request, &Decided { text: &text, spec: &spec, plan: &plan, rdt, filter, umask }, place, &mut undo);
    match made {
        Ok((state, ready, terminal_master, relay)) => {
            drop(undo);
            let is_terminal = spec.process.as_ref().is_some_and(|p| p.terminal);
            Ok(Created { entry, state, ready, terminal_master, is_terminal, relay })
        }
        Err(e) => {
            let e = undo.roll_back(e);
            drop(undo);
            Err(e)
        }
    }
}

pub(super) struct Decided<'a> {
    pub text: &'a [u8],
    pub spec: &'a Spec,
    pub plan: &'a Plan,
    pub rdt: Option<Group>,
    pub filter: (Option<crate::seccomp::Program>, Option<crate::seccomp::Profile>),
    /// The caller's.
    pub umask: u32,
}

/// As much of it as `exec` reads again.
const LARGEST_CONFIG: usize = 16 << 20;

pub(super) fn read_config(request: &CreateRequest) -> Result<(Vec<u8>, Spec)> {
    let path = request.config.clone().unwrap_or_else(|| request.options.bundle.join("config.json"));
    let text = fs::read_file(&path, LARGEST_CONFIG).map_err(|e| match e.errno() {
        libc::ENOENT => Error::invalid(format!("JSON specification file {} not found", path.display())),
        _ => e.into(),
    })?;
    let spec = parse_spec(&text)?;
    validate(&spec)?;
    let rootfs = crate::plan::rootfs_path(&spec, &request.options.bundle);
    let shown = rootfs.display().to_string();
    if !rootfs.is_dir() {
        return Err(Error::invalid(format!("config.json: root.path: {shown:?}: is no directory")));
    }
    // A bundle that somebody else made may not choose a directory of the host by a link.
    if rootfs.canonicalize().ok().as_deref() != Some(&crate::plan::normal_path(&rootfs)) {
        return Err(Error::invalid(format!(
            "config.json: root.path: {shown:?}: invalid rootfs: not an absolute path, or a symlink: name the directory itself"
        )));
    }
    Ok((text, spec))
}

pub(super) fn check_terminal(spec: &Spec, request: &CreateRequest) -> Result<()> {
    let terminal = spec.process.as_ref().is_some_and(|p| p.terminal);
    match (terminal, &request.console_socket) {
        (true, None) if !request.keep_terminal => {
            Err(Error::invalid("cannot allocate tty if rrun will detach without setting console socket"))
        }
        (false, Some(_)) => Err(Error::invalid("cannot use console socket if rrun will not detach or allocate tty")),
        _ => Ok(()),
    }
}

pub(super) fn host_facts(spec: &Spec, request: &CreateRequest) -> Result<(Place, HostFacts)> {
    namespaces_exist(spec)?;
    let place = Place::find(spec, request)?;
    let cgroups = CgroupView { location: place.view.clone(), ours: place.location.is_some() && !request.rootless_cgroups };
    let host = HostFacts {
        capabilities: process::permitted_capabilities()?,
        rootless: request.rootless,
        in_user_namespace: request.in_user_namespace,
        cgroups,
        has_kcore: Path::new("/proc/kcore").exists(),
        selinux: names_label(spec) && super::selinux_is_active(),
        apparmor: spec.process.as_ref().is_some_and(|p| !p.apparmor_profile.is_empty()) && super::apparmor_is_active(),
    };
    Ok((place, host))
}

/// Namespaces that are joined must be there, and be what config.json says.
fn namespaces_exist(spec: &Spec) -> Result<()> {
    let named = spec.linux.namespaces.iter().enumerate().filter(|(_, ns)| !ns.path.as_os_str().is_empty());
    for (n, ns) in named {
        let told = || format!("config.json: linux.namespaces[{n}].path: {:?}", ns.path);
        let file = fs::openat(fs::CWD, &ns.path, OFlags::RDONLY, 0).doing(told)?;
        if process::namespace_kind(&file).ok() != Some(crate::plan::namespace_flag(&ns.kind)) {
            return Err(Error::invalid(format!("{}: is no {} namespace", told(), ns.kind)));
        }
    }
    Ok(())
}

fn names_label(spec: &Spec) -> bool {
    !spec.linux.mount_label.is_empty() || spec.process.as_ref().is_some_and(|p| !p.selinux_label.is_empty())
}

type Made = (State, Ready, Option<OwnedFd>, Option<Relay>);

fn make<'a>(entry: &'a Entry, request: &CreateRequest, decided: &Decided<'_>, place: Place, undo: &mut Undo<'a>) -> Result<Made> {
    // From here on a runtime that is killed leaves a record that `delete --force` can follow: first of the cgroup to come,
    // then of the process.
    let nobody = ProcessId { pid: 0, start_time: 0, boot_id: String::new() };
    let host_root = match decided.spec.linux.has("mount") {
        true => None,
        false => Some(HostRoot::prepare(&crate::plan::rootfs_path(decided.spec, &request.options.bundle))?),
    };
    let (host_root, tree) = host_root.unzip();
    let state_of = |init, cgroup: Option<&rrun_cgroup::Location>| new_state(decided, request, init, cgroup, host_root.as_ref());
    entry.save_intent(&state_of(nobody, place.location.as_ref()))?;
    let root = attach_root(host_root.as_ref(), tree.as_ref(), undo)?;
    let cgroup = place.make(decided.spec, request, undo)?;
    log::failpoint("cgroup")?;
    let relay = offer_notify(entry, request)?;
    let (terminal_ours, console_socket) = console_socket(decided.spec, request)?;
    let start_socket = if request.start_by_caller { None } else { Some(socket::listen(&entry.socket_path())?) };
    let hook_state = HookState {
        oci_version: crate::spec::VERSION.to_string(),
        id: request.options.id.clone(),
        bundle: request.options.bundle.clone(),
        annotations: decided.spec.annotations.clone(),
    };
    let spawn = Request {
        spawn: &decided.plan.spawn,
        steps: &decided.plan.steps,
        cgroup: cgroup.as_ref().and_then(Cgroup::unified_fd),
        container: None,
        lock: entry.dir.as_fd(),
        supervisor: super::supervisor(decided.filter.1.as_ref(), &hook_state, "creating", None),
        rootless: request.rootless,
    };
    let spawned = parent::spawn(&spawn, |channel| Child {
        channel,
        start_socket,
        console_socket,
        console_keeps_line_ends: terminal_ours.is_some(),
        seccomp: decided.filter.0.clone(),
        sends_listener: request.rootless,
        hook_state: hook_state.clone(),
        container: None,
        root,
    })?;
    let init = ProcessId::of(spawned.pid())?;
    // A scope of systemd's takes its first process in by itself.
    let to_join = cgroup.is_some();
    let cgroup = if to_join { cgroup } else { place.make_around(spawned.pid(), decided.spec, request, undo)? };
    let state = state_of(init, cgroup.as_ref().map(Cgroup::location));
    log::failpoint("spawned")?;
    give_devices(decided, spawned.pid(), undo)?;
    join_rdt(decided, spawned.pid(), undo)?;
    let entered = spawned.enter(decided.plan.spawn.maps.as_ref(), cgroup.as_ref().filter(|_| to_join), request.rootless)?;
    entry.save(&state, decided.text)?;
    let hooks = &decided.spec.hooks;
    let ready = entered.until_ready(&decided.plan.steps, |pid| {
        let told = hook_state.with("creating", pid);
        hooks::run_all("prestart", &hooks.prestart, &told, Some(&request.options.bundle))?;
        hooks::run_all("createRuntime", &hooks.create_runtime, &told, Some(&request.options.bundle))
    });
    let ready = ready.inspect_err(|_| run_poststop(&state))?;
    log::failpoint("ready")?;
    if let Some(path) = &request.pid_file {
        write_pid_file(path, ready.pid(), decided.umask)?;
    }
    if let Some(path) = &request.pidfd_socket {
        super::send_pidfd(path, "standard", ready.pidfd())?;
    }
    let master = terminal_ours.map(|ours| receive_master(&ours)).transpose()?;
    Ok((state, ready, master, relay))
}

/// Without a mount namespace the container's root is mounted on the host.
fn attach_root(root: Option<&HostRoot>, tree: Option<&OwnedFd>, undo: &mut Undo<'_>) -> Result<Option<OwnedFd>> {
    let (Some(root), Some(tree)) = (root, tree) else { return Ok(None) };
    let to_detach = root.clone();
    undo.push(move || to_detach.detach());
    let top = root.attach(tree)?;
    log::failpoint("root")?;
    Ok(Some(top))
}

/// The directory that the container gets is there from the start, the socket in it once somebody listens.
fn offer_notify(entry: &Entry, request: &CreateRequest) -> Result<Option<Relay>> {
    let Some(host) = &request.notify else { return Ok(None) };
    fs::mkdirat(&entry.dir, Path::new(crate::notify::DIRECTORY), 0o755)?;
    if request.start_by_caller { Relay::listen(entry, host.clone()) } else { Ok(None) }
}

pub(super) fn join_rdt(decided: &Decided<'_>, pid: i32, undo: &mut Undo<'_>) -> Result<()> {
    let (Some(group), Some(wanted)) = (&decided.rdt, &decided.plan.rdt) else { return Ok(()) };
    let to_remove = group.clone();
    undo.push(move || to_remove.remove());
    group.make(wanted)?;
    log::failpoint("rdt")?;
    group.enter(pid)
}

/// Into the namespace that config.json names, or the one that the new process is in.
pub(super) fn give_devices(decided: &Decided<'_>, pid: i32, undo: &mut Undo<'_>) -> Result<()> {
    if decided.plan.net_devices.is_empty() {
        return Ok(());
    }
    let joined = decided.spec.linux.namespace("network").map(|n| n.path.as_path()).filter(|p| !p.as_os_str().is_empty());
    let namespace = match joined {
        Some(path) => fs::openat(fs::CWD, path, OFlags::RDONLY, 0).doing(|| "the network namespace".to_string())?,
        None => ProcFs::open(Part::Processes)?.namespace(pid, "net")?,
    };
    let given = Given::new(&decided.plan.net_devices, namespace)?;
    undo.push(move || given.take_back());
    log::failpoint("netdevices")
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

pub(super) fn new_state(
    decided: &Decided<'_>,
    request: &CreateRequest,
    init: ProcessId,
    cgroup: Option<&rrun_cgroup::Location>,
    root: Option<&HostRoot>,
) -> State {
    State {
        written_by: State::FORMAT,
        min_reader: State::min_reader(root),
        id: request.options.id.clone(),
        oci_version: crate::spec::VERSION.to_string(),
        bundle: request.options.bundle.clone(),
        rootfs: crate::plan::rootfs_path(decided.spec, &request.options.bundle),
        created: rfc3339_now(),
        init,
        cgroup: cgroup.cloned(),
        rdt: decided.rdt.clone(),
        host_root: root.cloned(),
        annotations: decided.spec.annotations.clone(),
        hooks: decided.spec.hooks.clone(),
        shares_pid_namespace: !decided.spec.linux.makes("pid"),
        no_new_keyring: request.options.no_new_keyring,
        namespaces: decided.spec.linux.namespaces.iter().fold(0, |all, n| all | crate::plan::namespace_flag(&n.kind)),
    }
}

/// poststop hooks run after a failed create, too; what they fail with is told, not followed.
pub(super) fn run_poststop(state: &State) {
    let told = super::delete::hook_state(state).with("stopped", 0);
    if let Err(e) = hooks::run_all("poststop", &state.hooks.poststop, &told, Some(&state.bundle)) {
        log::warn(&e.to_string());
    }
}
